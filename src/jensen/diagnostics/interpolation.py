"""From one held-out image to another on the straight line between their codes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from jensen.base.errors import check_count
from jensen.diagnostics.picture import grid, is_image
from jensen.diagnostics.snapshot import Snapshot


def interpolation(snapshot: Snapshot, rows: int = 5, columns: int = 9) -> Mapping[str, Tensor]:
    """In each row the means of two held-out images' posteriors, and equal steps between them,
    decoded; the images themselves stand at both ends.

    Pictures are smooth also of a model that has learned little, so this shows what happens between
    examples, and no more. Empty for vectors, and for fewer than two images.
    """
    check_count("rows", rows)
    check_count("columns", columns, least=2)
    if not is_image(snapshot.images.shape[1:]):
        return {}
    pairs = snapshot.images[: 2 * rows]
    pairs = pairs[: len(pairs) // 2 * 2]
    if not len(pairs):
        return {}
    first, last = snapshot.encode(pairs).mean.unflatten(0, (-1, 2)).unbind(1)
    share = torch.linspace(0, 1, columns, device=first.device, dtype=first.dtype)[:, None]
    z = torch.lerp(first[:, None], last[:, None], share)  # (rows, columns, D)
    decoded = snapshot.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2])
    ends = pairs.unflatten(0, (-1, 2))
    heads = ("data", *(f"{at:.2g}" for at in share[:, 0].tolist()), "data")
    return {"images": grid(torch.cat([ends[:, :1], decoded, ends[:, 1:]], 1), heads=heads)}
