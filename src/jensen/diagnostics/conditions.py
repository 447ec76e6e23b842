"""The values of conditions that held-out examples have, a row of a picture each."""

import torch
from torch import Tensor

from jensen.diagnostics.snapshot import Snapshot

MOST = 10
"""Values that are shown."""


def values(snapshot: Snapshot) -> Tensor:
    """Observations that have a condition and nothing else, `(V, P)`: of each value among the
    `images`, up to `MOST`, in the order of their numbers; of a model that is given nothing, one
    that has nothing.
    """
    parts = snapshot.senses.modalities
    none = torch.zeros_like(snapshot.images[:, : len(parts.modelled)], dtype=torch.bool)
    alone = snapshot.images.masked_fill(~parts.columns(none), torch.nan)
    conditions = parts.conditions(alone)
    if conditions is None:
        return alone[:1]
    # of one-hot ones that of the first class comes first
    _, place = torch.unique(-conditions, dim=0, return_inverse=True)
    first = [int((place == each).nonzero()[0]) for each in range(int(place.max()) + 1)]
    return alone[first[:MOST]]


def titles(snapshot: Snapshot, x: Tensor) -> list[str]:
    """Words for the conditions of each row of `x` `(V, P)`: the class where it is one-hot, else its
    first numbers.
    """
    parts = snapshot.senses.modalities
    split = parts.split(x)

    def said(name: str, row: Tensor) -> str:
        flat = row.flatten()
        if len(flat) > 1 and flat.sum() == 1 and flat.amax() == 1:
            return f"{name} {int(flat.argmax())}"
        return f"{name} {', '.join(f'{value:.2g}' for value in flat[:3].tolist())}"

    return [
        "\n".join(said(name, split[name][place]) for name in parts.given) for place in range(len(x))
    ]
