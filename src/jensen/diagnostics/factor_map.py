"""The factor that each latent knows: a heatmap in the order of the traversals."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from torch import Tensor

from jensen.base.errors import check_count, check_flag
from jensen.base.random import fold, permutation
from jensen.diagnostics.picture import chart
from jensen.diagnostics.snapshot import Snapshot, by_rate, told
from jensen.scores import dci_boost20
from jensen.scores.activity import KL_THRESHOLD
from jensen.scores.constant import Floats, constant
from jensen.scores.information import binned_informations, divide, entropies

FAINT = 0.05
"""The colours reach at least this far, so that noise alone is not painted as if it were
something.
"""


def normalised_information(snapshot: Snapshot, bins: int = 20, points: int = 10_000) -> Tensor:
    """I(z_d; v_f) / H(v_f), `(D, F)`, of samples of the posterior in `bins` bins of equal width; 0
    for a factor of one value.

    Not of its means: those of a collapsed latent fill all bins over their own tiny range, where no
    decoder sees them.
    """
    rows = permutation(fold(0, "factor map"), len(snapshot.z))[:points]
    factors = snapshot.factors[rows].cpu().numpy()
    informations = binned_informations(snapshot.z[rows].double().cpu().numpy(), factors, bins)
    return torch.from_numpy(divide(informations, entropies(factors)))


def chance_information(snapshot: Snapshot) -> Tensor:
    """`normalised_information` of factors in the order of other examples, `(shuffles, D, F)`: what it
    is of latents that know nothing, which of few points and many values is much.
    """
    count = len(snapshot.factors)
    shuffles = 5 if count < _MANY else 1  # of many points one says as much
    rows = [permutation(fold(0, "chance", time), count) for time in range(shuffles)]
    factors = [snapshot.factors[row.to(snapshot.factors.device)] for row in rows]
    shuffled = [snapshot._replace(factors=each) for each in factors]
    return torch.stack([normalised_information(each) for each in shuffled])


_MANY = 4000
"""Points whose shuffles differ by less than .01 from one another."""
_ROWS = 100
"""Of more, as the pixels of a mixture are, no picture can be read."""


def dead_latents(snapshot: Snapshot) -> Tensor:
    """Mark the latents that tell nothing of x, `(D,)`: constant ones, and those of at most 0.01
    nats (`told`).

    Codes without noise, such as points that are their own codes, have no rate: of them only
    constant ones are dead.
    """
    still = torch.from_numpy(constant(snapshot.posterior.mean.double().cpu().numpy()))
    noisy = (snapshot.z != snapshot.posterior.mean).any(0)
    return still | (noisy & (told(snapshot) <= KL_THRESHOLD)).cpu()


def factor_map(
    snapshot: Snapshot, importances: bool = False, train: int = 1000
) -> Mapping[str, Tensor]:
    """Heatmaps latent x factor, latents by falling rate, the first 100 of them, dead ones in grey;
    nothing for data without factors.

    information: I(z; v) / H(v) of samples of the posterior, with 20 bins. Below each factor stands
        what it is by chance, of its values in the order of other examples and the latent of which
        that is most.
    importances: if asked for, of each latent to a predictor of the factor, boosted trees on `train`
        points and the means (`scores.dci_boost20`); a column sums to 1.
    """
    check_flag("importances", importances)
    check_count("train", train, least=2)
    if not snapshot.factors.shape[1]:
        return {}
    order = by_rate(snapshot).cpu()[:_ROWS]
    maps = {"information": ("I(z; v) / H(v)", normalised_information(snapshot))}
    by_chance = chance_information(snapshot).mean(0).amax(0).tolist()
    columns = {
        "information": [
            f"{name}\nchance {share:.2f}"
            for name, share in zip(snapshot.names, by_chance, strict=True)
        ],
        "importances": snapshot.names,
    }
    if importances:
        codes = snapshot.posterior.mean.double().cpu().numpy()
        found = dci_boost20(codes, snapshot.factors.cpu().numpy(), train=train, test=train // 2)
        maps["importances"] = ("importance (boosted trees)", torch.from_numpy(found["importances"]))
    dead = dead_latents(snapshot)[order].numpy()
    labels = [
        f"z{latent}{' (dead)' * gone}"
        for latent, gone in zip(order.tolist(), dead.tolist(), strict=True)
    ]
    size = 3.0 + 1.1 * len(snapshot.names), 1.2 + 0.3 * len(labels)
    return {
        name: chart(
            partial(_heatmap, title, values[order].numpy(), dead, labels, columns[name]), *size
        )
        for name, (title, values) in maps.items()
    }


def _heatmap(
    title: str,
    values: Floats,
    dead: npt.NDArray[np.bool_],
    rows: Sequence[str],
    columns: Sequence[str],
    axes: Axes,
) -> None:
    largest = max(values[~dead].max(initial=0.0), FAINT)
    shown = np.ma.masked_array(values, np.broadcast_to(dead[:, None], values.shape))
    axes.set_facecolor("lightgrey")  # seen where a value is masked
    image = axes.imshow(shown, vmin=0, vmax=largest, cmap="viridis", aspect="auto")
    axes.figure.colorbar(image, ax=axes)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_title(title)
    for row, column in np.ndindex(*values.shape):
        value = values[row, column].item()
        colour = "grey" if dead[row] else "black" if value > 0.6 * largest else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    for label, gone in zip(axes.get_yticklabels(), dead, strict=True):
        label.set_color("grey" if gone else "black")
