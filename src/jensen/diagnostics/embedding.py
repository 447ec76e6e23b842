"""The codes themselves, for TensorBoard's PROJECTOR."""

from collections.abc import Mapping

import torch
from torch.nn.functional import adaptive_avg_pool2d

from jensen.base.errors import check_count
from jensen.base.random import fold, permutation
from jensen.diagnostics.picture import brightness, is_image
from jensen.diagnostics.snapshot import Embedding, Snapshot


def embedding(snapshot: Snapshot, points: int = 2000, side: int = 32) -> Mapping[str, Embedding]:
    """The means of `points` held-out examples, the same ones every time, labelled by their factors,
    distortion and rate.

    A point's thumbnail is what the decoder makes of it, in at most `side` pixels each way; vectors
    have none.
    """
    check_count("points", points)
    check_count("side", side)
    rows = permutation(fold(0, "embedding"), len(snapshot.z))[:points].to(snapshot.z.device)
    codes = snapshot.posterior.mean[rows]
    numbers = torch.stack([part[rows] for part in snapshot.bound], 1).cpu().tolist()
    labels = [
        [*map(str, factors), *(f"{number:.2f}" for number in bound)]
        for factors, bound in zip(snapshot.factors[rows].cpu().tolist(), numbers, strict=True)
    ]
    thumbnails = None
    if is_image(snapshot.images.shape[1:]):
        decoded = brightness(snapshot.images)(snapshot.decode(codes))
        height, width = (min(side, size) for size in decoded.shape[2:])
        small = adaptive_avg_pool2d(decoded.detach().float(), (height, width)).clamp(0, 1)
        small = small if small.shape[1] == 3 else small.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        thumbnails = (255 * small).round().to(torch.uint8).cpu()
    return {
        "codes": Embedding(codes.cpu(), (*snapshot.names, "distortion", "rate"), labels, thumbnails)
    }
