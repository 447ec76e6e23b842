"""The syllable that is perceived where one is seen and another heard."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from jensen.base.errors import InputError
from jensen.diagnostics.picture import pixels
from jensen.diagnostics.snapshot import Snapshot

DRAWS = 256


def ideal(x: Tensor, places: Tensor, sd: Tensor) -> Tensor:
    """p(phoneme | see, hear) of exact inference, `(N, 2)` to `(N, K)`: all are alike, the senses
    independent given which it is; NaN for an absent sense.
    """
    squares = ((x.unsqueeze(1) - places) / sd).square()
    return (-0.5 * squares.nan_to_num(0.0).sum(-1)).softmax(-1)


@torch.no_grad()
def mcgurk(
    snapshot: Snapshot,
    places: Mapping[str, Sequence[float]],
    see_sd: float = 0.5,
    hear_sd: float = 0.6,
) -> Mapping[str, Tensor]:
    """p(phoneme | see, hear) where each syllable's mouth is shown with each one's sound: a table of
    bars, the model's beside exact inference.

    `see_ga_hear_ba_da` is the illusion of McGurk & MacDonald 1976: that da is perceived; with
    `_ideal`, exact inference's. `error`: the root mean square difference over the table.

    Args:
        places: visual and auditory place of each syllable, in the order of the one-hot modality.
        see_sd, hear_sd: of `data=phonemes`.
    """
    model = snapshot.senses
    if model is None or model.modalities.names != ("see", "hear", "phoneme"):
        raise InputError(
            "diagnostics holds mcgurk and the data are others: expected data=phonemes"
            " model=multimodal; leave it out"
        )
    names = [*places]
    count = len(names)
    at = torch.tensor([list(each) for each in places.values()], dtype=torch.float64)
    seen, heard = (each.flatten() for each in torch.meshgrid(at[:, 0], at[:, 1], indexing="ij"))
    measured = torch.stack([seen, heard], 1)
    exact = ideal(measured, at, torch.tensor([see_sd, hear_sd]).double())
    missing = torch.full((len(measured), count), torch.nan)
    x = torch.cat([measured.float(), missing], 1).to(snapshot.images)
    found = model.generate(x, samples=DRAWS).mean(0)[:, 2:].double().cpu()
    square = (count, count, count)
    tables = [each.reshape(square) for each in (found, exact)]
    results = {
        "error": (found - exact).square().mean().sqrt(),
        "table": _picture(names, *tables),
    }
    if {"ba", "da", "ga"} <= {*names}:
        cell = (names.index("ga"), names.index("ba"), names.index("da"))
        results["see_ga_hear_ba_da"] = tables[0][cell]
        results["see_ga_hear_ba_da_ideal"] = tables[1][cell]
    return results


def _picture(names: Sequence[str], found: Tensor, exact: Tensor) -> Tensor:
    """Rows are what is seen, columns what is heard."""
    count = len(names)
    figure = Figure(figsize=(1.7 * count, 1.3 * count), dpi=100, layout="constrained")
    axes = figure.subplots(count, count, sharex=True, sharey=True)
    place = np.arange(count)
    bars = found.numpy(), exact.numpy()
    for (row, column), panel in np.ndenumerate(axes):
        panel.bar(place - 0.2, bars[0][row, column], 0.4, label="the model")
        panel.bar(place + 0.2, bars[1][row, column], 0.4, label="ideal observer")
        panel.set_xticks(place, names, fontsize=7)
        panel.set_ylim(0, 1)
        panel.tick_params(axis="y", labelsize=7)
        if row == 0:
            panel.set_title(f"hear {names[column]}", fontsize=9)
        if column == 0:
            panel.set_ylabel(f"see {names[row]}", fontsize=9)
    axes[0, 0].legend(fontsize=6)
    return pixels(figure)
