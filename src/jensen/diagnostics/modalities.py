"""Each modality as the model makes it from the others, and the nats that each tells it."""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_count
from jensen.diagnostics.picture import brightness, grid, is_image
from jensen.diagnostics.snapshot import Snapshot

Classifiers = Mapping[str, Mapping[str, Callable[[Tensor], Tensor]]]
"""Readers of a label from a modality, by their names: `(B, *shape)` to a score
of each class, `(B, C)`."""

DRAWS = 16
"""Draws of z that a label is read from."""

MOST = 4
"""Modalities up to which every subset has its rate, and not only those of one and of all but one."""


@torch.no_grad()
def modalities(
    snapshot: Snapshot,
    samples: int = 64,
    count: int = 64,
    columns: int = 8,
    classifiers: Classifiers | None = None,
) -> Mapping[str, Tensor | str]:
    """Measure `count` held-out examples, always the same, in nats per example where no unit is said:

    - `cross_<name>`: log p(x_name | the others), from `samples` draws of each of both evidences.
    - `rate_<names>`: of q(z | x_names), over the examples that have them; `adds_<name>`, what the
      rate of all has more than that of the others.
    - `agrees_<label>`: of a modality with one number above the others, as a label is one-hot, the
      share of examples whose label is the likeliest of those generated from the others.
    - `coherent_<label>_<name>`: the share of examples of which what is generated of `name`, from
      the label alone, is of that label: as a classifier says, or the model itself, given it alone.
    - `table`: the same as Markdown. `given_<name>`: for each modality that is a picture, what is
      generated from each subset of the others, below the picture itself.

    Args:
        classifiers: by modality and label; of those that are not given, the model's own word counts.

    Raises:
        InputError: the model is of one modality; classifiers of what there is not.
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
    names = model.modalities.modelled
    classifiers = _checked(classifiers or {}, names)
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
        for label in names:
            if not is_label(model.modalities.split(complete)[label]):
                continue
            found[f"agrees_{label}"] = agreement(snapshot, complete, label)
            for name in names:
                if name != label:
                    reads = classifiers.get(name, {}).get(label)
                    coherent = coherence(snapshot, complete, label, name, reads)
                    found[f"coherent_{label}_{name}"] = coherent
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
    kept = torch.tensor([name not in gone for name in parts.modelled], device=x.device)
    return x.masked_fill(~parts.columns(kept.expand(len(x), -1)), torch.nan)


def is_label(x: Tensor) -> bool:
    """Tell whether each example of a modality `(B, *shape)` is one-hot, of two numbers or more."""
    flat = x.flatten(1)
    return flat.shape[1] > 1 and bool(((flat == 1).sum(1) == 1).all() and (flat.sum(1) == 1).all())


def agreement(snapshot: Snapshot, x: Tensor, label: str) -> Tensor:
    """The share of examples whose likeliest label, generated from the others, is theirs, `()`."""
    truth = snapshot.senses.modalities.split(x)[label].flatten(1)
    return _same(_label_of(snapshot, without(snapshot, x, {label}), label), truth)


def coherence(
    snapshot: Snapshot,
    x: Tensor,
    label: str,
    name: str,
    classifier: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The share of examples of which `name`, as it is generated from their label alone, has that
    label, `()`; without a classifier, as the model says of it.
    """
    model = snapshot.senses
    parts = model.modalities
    others = {*parts.modelled} - {label}
    made = parts.split(model.generate(without(snapshot, x, others))[0])
    if classifier is None:
        whole = parts.join(made)
        said = _label_of(snapshot, without(snapshot, whole, {*parts.modelled} - {name}), label)
    else:
        said = classifier(made[name])
    return _same(said, parts.split(x)[label].flatten(1))


def _label_of(snapshot: Snapshot, x: Tensor, label: str) -> Tensor:
    """p(label | what `x` has), `(B, C)`: the mean over draws of z."""
    made = snapshot.senses.generate(x, samples=DRAWS).mean(0)
    return snapshot.senses.modalities.split(made)[label].flatten(1)


def _same(scores: Tensor, truth: Tensor) -> Tensor:
    """The share of rows whose largest numbers are in one place."""
    return (scores.argmax(1) == truth.argmax(1)).to(truth.dtype).mean()


def _checked(classifiers: Classifiers, names: tuple[str, ...]) -> Classifiers:
    """Refuse classifiers of modalities or labels that there are not, or that are none."""
    known = ", ".join(names)
    for key, table in (("classifiers", classifiers), *_tables(classifiers)):
        if not isinstance(table, Mapping):
            raise InputError(
                f"{key} is {table!r}: expected classifiers by modality and label, such as {{image:"
                " {label: ...}}"
            )
        for name in table:
            if name not in names:
                raise InputError(f"{key} has {name!r}: expected one of {known}; rename it")
        for label, reads in table.items() if "." in key else ():
            if not callable(reads):
                raise InputError(
                    f"{key}.{label} is {reads!r}: expected a function of that modality; give its"
                    " _target_"
                )
    return classifiers


def _tables(classifiers: Classifiers) -> list[tuple[str, Any]]:
    if not isinstance(classifiers, Mapping):
        return []
    return [(f"classifiers.{name}", table) for name, table in classifiers.items()]


def _picture(snapshot: Snapshot, x: Tensor, name: str, columns: int) -> Tensor | None:
    """Rows: the data, and what is generated from each subset of the others; None of a vector."""
    parts = snapshot.senses.modalities
    shape = parts.shape_of[name]
    has = x[~parts.split(x)[name].flatten(1).isnan().any(1)][:columns]
    if not is_image(shape) or not len(has):
        return None
    given = subsets(tuple(other for other in parts.modelled if other != name))
    rows = [parts.split(has)[name]]
    for subset in given:
        masked = without(snapshot, has, {*parts.modelled} - {*subset})
        rows.append(parts.split(snapshot.senses.generate(masked)[0])[name])
    labels = ("data", *("given\n" + "\n".join(subset) for subset in given))
    light = brightness(parts.split(snapshot.images)[name])
    return grid(light(torch.stack(rows)), labels)
