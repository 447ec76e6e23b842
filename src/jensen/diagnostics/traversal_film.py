"""Each latent's effect as an animated image: a column a latent, which goes there and back."""

from collections.abc import Mapping

import torch

from jensen.base.errors import check_count, check_number
from jensen.diagnostics.factor_map import dead_latents
from jensen.diagnostics.picture import brightness, grid, is_image
from jensen.diagnostics.snapshot import Film, Snapshot, by_rate, decoded_alike
from jensen.diagnostics.traversals import along, moved, titles


def traversal_film(
    snapshot: Snapshot,
    latents: int = 10,
    steps: int = 12,
    images: int = 3,
    tail: float = 0.01,
    seconds: float = 0.1,
) -> Mapping[str, Film]:
    """An animated image of the traversals: columns are the `latents` of largest rate, in falling
    order, rows the first `images` held-out images.

    In a column one latent goes in `steps` equal steps from the `tail` to the 1 - `tail` quantile of
    its codes, and back; the others stay at the image's code. Latents that tell nothing are left
    out, unless all are such. `diagnostics.picture.gif` makes a file of it. Empty for vectors.
    """
    for name, count in (("latents", latents), ("steps", steps), ("images", images)):
        check_count(name, count, least=2 if name == "steps" else 1)
    check_number("tail", tail, low=0, high=0.5)
    check_number("seconds", seconds, low=0.02, high=60)
    if not is_image(snapshot.images.shape[1:]):
        return {}
    order = by_rate(snapshot)
    alive = order[~dead_latents(snapshot).to(order.device)[order]]
    order = (alive if len(alive) else order)[:latents]
    values = along(snapshot, order, steps, tail)
    codes = snapshot.encode(snapshot.images[:images]).mean
    z = torch.stack([moved(code, order, values) for code in codes])  # (images, latents, steps, D)
    decoded = decoded_alike(snapshot, z.flatten(0, 2)).unflatten(0, z.shape[:3])
    decoded = brightness(snapshot.images)(decoded)
    heads = titles(snapshot, order)
    there = [grid(decoded[:, :, step], heads=heads) for step in range(steps)]
    return {"film": Film(torch.stack([*there, *there[-2:0:-1]]), seconds)}
