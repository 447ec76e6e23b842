"""The number of flashes that are seen beside so many beeps: a trained model's reports and the ideal
observer's.
"""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from jensen.base.errors import InputError
from jensen.base.random import fold, normal
from jensen.diagnostics.picture import pixels
from jensen.diagnostics.snapshot import Snapshot
from jensen.family.cues import CountCues

TRIALS = 200
DRAWS = 32


@torch.no_grad()
def double_flash(
    snapshot: Snapshot,
    counts: int = 5,
    flash_sd: float = 0.8,
    beep_sd: float = 0.3,
    common: float = 0.5,
) -> Mapping[str, Tensor]:
    """The mean report of 0..C - 1 flashes beside 0..C - 1 beeps, as heat maps of the model and of
    exact inference (`family.cues.CountCues`) and the best single Gaussian, which cannot doubt that
    there is one cause, in the same trials of the same noise; and of beeps beside flashes.

    A report is the posterior mean of p(flashes | flash, beep). `fission`: the mean report of one
    flash with two beeps; `fusion`: of two flashes with one beep. `fission_beeps`, `fusion_beeps`:
    of one beep with two flashes, and of two beeps with one flash, which a quiet sound changes. Each
    with that of the ideal observer, `_ideal`, and of that Gaussian, `_gaussian`. `error`: the root
    mean square difference of p(flashes | flash, beep) over trials.

    Args:
        counts, flash_sd, beep_sd, common: of `data=flashes`.
    """
    model = snapshot.senses
    if model is None or model.modalities.names != ("flash", "beep", "flashes", "beeps"):
        raise InputError(
            "diagnostics holds double_flash and the data are others: expected data=flashes"
            " model=multimodal; leave it out"
        )
    observer = CountCues.of(common, [flash_sd, beep_sd], counts)
    shown = torch.cartesian_prod(torch.arange(counts), torch.arange(counts)).double()
    trials = shown.repeat_interleave(TRIALS, 0)
    noise = normal(fold(0, "trials"), torch.arange(len(trials)), (2,), torch.float64)
    measured = trials + noise * observer.noise_sd
    exact = observer.infer(measured).source  # (N, 2, C)
    found = reported(snapshot, measured, counts)
    grid = torch.arange(counts, dtype=torch.float64)
    reports = (found @ grid, exact @ grid, observer.one_gaussian(measured).mean)
    maps = [each.unflatten(0, (counts, counts, TRIALS)).mean(2) for each in reports]
    results = {
        "error": (found - exact).square().mean().sqrt(),
        "picture": _picture(maps),
    }
    for suffix, each in zip(("", "_ideal", "_gaussian"), maps, strict=True):
        results[f"fission{suffix}"] = each[1, 2, 0]
        results[f"fusion{suffix}"] = each[2, 1, 0]
        results[f"fission_beeps{suffix}"] = each[2, 1, 1]
        results[f"fusion_beeps{suffix}"] = each[1, 2, 1]
    return results


def reported(snapshot: Snapshot, measured: Tensor, counts: int) -> Tensor:
    """p(flashes | x) and p(beeps | x) of the model, `(N, 2)` to `(N, 2, C)`, float64: the mean over
    draws of z.
    """
    model = snapshot.senses
    like = snapshot.images
    missing = torch.full((len(measured), 2 * counts), torch.nan)
    x = torch.cat([measured.float(), missing], 1).to(like)
    made = model.generate(x, samples=DRAWS).mean(0)[:, 2:]
    return made.double().cpu().unflatten(1, (2, counts))


def _picture(maps: list[Tensor]) -> Tensor:
    figure = Figure(figsize=(13, 8), dpi=100, layout="constrained")
    axes = figure.subplots(2, 3)
    words = (("flashes", "beeps"), ("beeps", "flashes"))
    observers = ("the model", "ideal observer", "best single Gaussian")
    for column, (each, who) in enumerate(zip(maps, observers, strict=True)):
        for row, (what, other) in enumerate(words):
            table = each[..., row].numpy()
            table = table if row == 0 else table.T
            panel = axes[row, column]
            panel.imshow(table, origin="lower", cmap="viridis", vmin=0, vmax=len(table) - 1)
            for place, value in np.ndenumerate(table):
                colour = "white" if value < 0.6 * len(table) else "black"
                panel.text(*place[::-1], f"{value:.2f}", ha="center", va="center", color=colour)
            panel.set_xlabel(f"{other} presented")
            panel.set_ylabel(f"{what} presented")
            panel.set_title(f"mean {what} reported: {who}")
    return pixels(figure)
