"""What a model of several modalities makes of one from the others, and what each tells it."""

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_count
from jensen.diagnostics.picture import grid, is_image
from jensen.diagnostics.snapshot import Snapshot

MOST = 4
"""Modalities up to which every subset has its rate, and not only those of one and of all but one."""


@torch.no_grad()
def modalities(
    snapshot: Snapshot, samples: int = 64, count: int = 64, columns: int = 8
) -> Mapping[str, Tensor | str]:
    """Of the first `count` held-out examples, nats per example where no unit is said:

    - `cross_<name>`: log p(x_name | the others), from `samples` draws of each of both evidences.
    - `rate_<names>`: of q(z | x_names), over the examples that have them; `adds_<name>`, what the
      rate of all has more than that of the others.
    - `agrees_<name>`: of a modality with one number above the others, as a label is one-hot, the
      share of examples whose label is the likeliest of those generated from the others.
    - `table`: the same as Markdown. `given_<name>`: for each modality that is a picture, what is
      generated from each other modality, and from all others, below the picture itself.

    Raises:
        InputError: the model is of one modality.
    """
    check_count("samples", samples, least=2)
    check_count("count", count)
    check_count("columns", columns)
    model = snapshot.senses
    if model is None:
        raise InputError(
            "diagnostics holds modalities and model has one alone: expected model=multimodal; leave"
            " it out"
        )
    names = model.modalities.names
    x = snapshot.images[:count]
    complete = x[~x.isnan().any(1)]
    found: dict[str, Tensor] = {}
    if len(complete) and len(names) > 1:
        whole = model.evidence(complete, samples).log_p
        for name in names:
            others = without(snapshot, complete, {name})
            found[f"cross_{name}"] = (whole - model.evidence(others, samples).log_p).mean()
        rates = {}
        for subset in subsets(names):
            own = without(snapshot, complete, {*names} - {*subset})
            rates[subset] = model(own).bound.rate.mean()
            found[f"rate_{'_'.join(subset)}"] = rates[subset]
        for name in names:
            rest = tuple(other for other in names if other != name)
            found[f"adds_{name}"] = rates[names] - rates[rest]
        for name in names:
            agreed = agreement(snapshot, complete, name)
            if agreed is not None:
                found[f"agrees_{name}"] = agreed
    rows = "\n".join(f"| {name} | {value.item():.3f} |" for name, value in found.items())
    pictures = {
        f"given_{name}": picture
        for name in names
        if (picture := _picture(snapshot, x, name, columns)) is not None
    }
    return {**found, "table": f"| | |\n|---|---|\n{rows}", **pictures}


def subsets(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Those that are shown: all of a few modalities, else one alone, all but one, and all."""
    few = len(names) <= MOST
    sizes = range(1, len(names) + 1) if few else sorted({1, len(names) - 1, len(names)})
    return [subset for size in sizes for subset in combinations(names, size)]


def without(snapshot: Snapshot, x: Tensor, gone: set[str]) -> Tensor:
    """`x` with some modalities missing."""
    parts = snapshot.senses.modalities
    kept = torch.tensor([name not in gone for name in parts.names], device=x.device)
    return x.masked_fill(~parts.columns(kept.expand(len(x), -1)), torch.nan)


def agreement(snapshot: Snapshot, x: Tensor, name: str) -> Tensor | None:
    """The share of examples whose likeliest label, generated from the others, is theirs, `()`; None
    of a modality that is not one-hot.
    """
    parts = snapshot.senses.modalities
    truth = parts.split(x)[name].flatten(1)
    hot = (truth == truth.amax(1, keepdim=True)).sum(1) == 1
    if truth.shape[1] < 2 or not bool(hot.all() and (truth.sum(1) == 1).all()):
        return None
    made = snapshot.senses.generate(without(snapshot, x, {name}), 16).mean(0)
    label = parts.split(made)[name].flatten(1).argmax(1)
    return (label == truth.argmax(1)).to(truth.dtype).mean()


def _picture(snapshot: Snapshot, x: Tensor, name: str, columns: int) -> Tensor | None:
    """Rows: the data, and what is generated from each subset of the others; None of a vector."""
    parts = snapshot.senses.modalities
    shape = parts.shapes[parts.names.index(name)]
    has = x[~parts.split(x)[name].flatten(1).isnan().any(1)][:columns]
    if not is_image(shape) or not len(has):
        return None
    others = [other for other in parts.names if other != name]
    given = [(other,) for other in others] + ([tuple(others)] if len(others) > 1 else [])
    rows = [parts.split(has)[name]]
    for subset in given:
        masked = without(snapshot, has, {*parts.names} - {*subset})
        rows.append(parts.split(snapshot.senses.generate(masked)[0])[name])
    labels = ("data", *("given\n" + "\n".join(subset) for subset in given))
    return grid(torch.stack(rows), labels)
