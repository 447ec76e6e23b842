"""Held-out images above what the decoder makes of their codes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from jensen.base.errors import check_count
from jensen.diagnostics.picture import brightness, grid, is_image
from jensen.diagnostics.snapshot import Snapshot


def reconstructions(snapshot: Snapshot, count: int = 10) -> Mapping[str, Tensor]:
    """`count` images, their reconstructions from the mean of q(z|x), and the absolute difference.
    Empty for vectors.
    """
    check_count("count", count)
    images = snapshot.images[:count]
    if not is_image(images.shape[1:]):
        return {}
    light = brightness(snapshot.images)
    data = light(images)
    decoded = light(snapshot.decode(snapshot.encode(images).mean))
    rows = torch.stack([data, decoded, (data - decoded).abs()])
    return {"images": grid(rows, ("data", "decoded", "difference"))}
