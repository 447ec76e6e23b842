"""From one held-out image to another on the line, or the arc, between their codes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from jensen.base.errors import check_choice, check_count
from jensen.diagnostics.picture import brightness, grid, is_image
from jensen.diagnostics.snapshot import Snapshot, decoded_alike


def interpolation(
    snapshot: Snapshot, rows: int = 5, columns: int = 9, path: str = "line"
) -> Mapping[str, Tensor]:
    """In each row the means of two held-out images' posteriors, and equal steps between them,
    decoded; the images themselves stand at both ends. `path`: "line", or "spherical", which turns
    from one direction to the other and keeps the length between theirs, so that it does not leave
    the shell of N(0, I) (`shell`; Shoemake 1985, White 2016).

    Pictures are smooth also of a model that has learned little, so this shows what happens between
    examples, and no more. Empty for vectors, and for fewer than two images.
    """
    check_count("rows", rows)
    check_count("columns", columns, least=2)
    check_choice("path", path, ("line", "spherical"))
    if not is_image(snapshot.images.shape[1:]):
        return {}
    pairs = snapshot.images[: 2 * rows]
    pairs = pairs[: len(pairs) // 2 * 2]
    if not len(pairs):
        return {}
    first, last = snapshot.encode(pairs).mean.unflatten(0, (-1, 2)).unbind(1)
    share = torch.linspace(0, 1, columns, device=first.device, dtype=first.dtype)[:, None]
    between = torch.lerp if path == "line" else slerp
    z = between(first[:, None], last[:, None], share)  # (rows, columns, D)
    decoded = decoded_alike(snapshot, z.flatten(0, 1)).unflatten(0, z.shape[:2])
    ends = pairs.unflatten(0, (-1, 2))
    heads = ("data", *(f"{at:.2g}" for at in share[:, 0].tolist()), "data")
    shown = torch.cat([ends[:, :1], decoded, ends[:, 1:]], 1)
    return {"images": grid(brightness(snapshot.images)(shown), heads=heads)}


def slerp(first: Tensor, last: Tensor, share: Tensor) -> Tensor:
    """The code `share` of the way from `first` to `last`, `(..., D)`, on the arc between their
    directions, at a length between theirs; on the line where these are one, or opposite.
    """
    lengths = [each.norm(dim=-1, keepdim=True) for each in (first, last)]
    one, two = (
        each / length.clamp(min=1e-30) for each, length in zip((first, last), lengths, strict=True)
    )
    angle = 2 * torch.atan2((one - two).norm(dim=-1), (one + two).norm(dim=-1)).unsqueeze(-1)
    sine = angle.sin()
    flat = sine < 1e-6
    safe = torch.where(flat, 1.0, sine)
    turned = (((1 - share) * angle).sin() * one + (share * angle).sin() * two) / safe
    arc = turned * torch.lerp(lengths[0], lengths[1], share)
    return torch.where(flat, torch.lerp(first, last, share), arc)
