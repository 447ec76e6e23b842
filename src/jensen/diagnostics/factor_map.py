"""Which latent knows which factor: a heatmap in the order of the traversals."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from jensen.core.random import fold, permutation
from jensen.diagnostics.picture import chart
from jensen.diagnostics.snapshot import Snapshot, by_rate
from jensen.scores import dci_boost20
from jensen.scores.information import discretise, entropies, informations


def normalised_information(snapshot: Snapshot, bins: int = 20, points: int = 10_000) -> Tensor:
    """I(z_d; v_f) / H(v_f), `(D, F)`, of the posterior's means in `bins` bins of equal width; 0 for a factor of one value."""
    rows = permutation(fold(0, "factor map"), len(snapshot.z))[:points]
    codes = discretise(snapshot.posterior.mean[rows].double().cpu().numpy(), bins)
    factors = snapshot.factors[rows].cpu().numpy()
    entropy = entropies(factors)
    share = np.divide(informations(codes, factors), entropy, where=entropy > 0, out=np.zeros((codes.shape[1], len(entropy))))
    return torch.from_numpy(share)


def factor_map(snapshot: Snapshot, importances: bool = False, train: int = 1000) -> Mapping[str, Tensor]:
    """Heatmaps latent x factor, latents by falling rate; nothing for data without factors.

    information: I(z; v) / H(v) with 20 bins. importances, if asked for: of each latent to a predictor of the factor, boosted
    trees on `train` points (`scores.dci_boost20`); a column sums to 1.
    """
    if not snapshot.factors.shape[1]:
        return {}
    order = by_rate(snapshot).cpu()
    maps = {"information": ("I(z; v) / H(v)", normalised_information(snapshot))}
    if importances:
        codes = snapshot.posterior.mean.double().cpu().numpy()
        found = dci_boost20(codes, snapshot.factors.cpu().numpy(), train=train, test=train // 2)
        maps["importances"] = ("importance (boosted trees)", torch.from_numpy(found["importances"]))
    labels = [f"z{latent}" for latent in order.tolist()]
    size = 1.5 + 1.1 * len(snapshot.names), 1.2 + 0.3 * len(labels)
    return {
        name: chart(partial(_heatmap, title, values[order], labels, snapshot.names), *size)
        for name, (title, values) in maps.items()
    }


def _heatmap(title: str, values: Tensor, rows: Sequence[str], columns: Sequence[str], axes: Axes) -> None:
    axes.imshow(values.numpy(), vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_title(title)
    for row, column in np.ndindex(*values.shape):
        value = values[row, column].item()
        colour = "black" if value > 0.6 else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
