"""Each latent's effect: one row of images a latent, the others held still."""

from collections.abc import Mapping

import torch
from torch import Tensor

from jensen.base.errors import check_count, check_number
from jensen.diagnostics.factor_map import normalised_information
from jensen.diagnostics.picture import grid, is_image
from jensen.diagnostics.snapshot import Snapshot, by_rate


def traversals(
    snapshot: Snapshot, latents: int = 10, columns: int = 11, images: int = 2, tail: float = 0.01
) -> Mapping[str, Tensor]:
    """Grids for the first `images` held-out images: rows are the `latents` of largest rate, in
    falling order.

    In a row one latent goes in equal steps from the `tail` to the 1 - `tail` quantile of its codes
    on the held-out set; the others stay at the image's code. Each row is labelled with its latent,
    that latent's mean rate and, where factors are known and it tells a twentieth of one for at
    least a twentieth of a nat, the factor it tells most of. Empty for vectors.
    """
    for name, count in (("latents", latents), ("columns", columns), ("images", images)):
        check_count(name, count)
    check_number("tail", tail, low=0, high=0.5)
    if not is_image(snapshot.images.shape[1:]):
        return {}
    order = by_rate(snapshot)[:latents]
    values = along(snapshot, order, columns, tail)
    labels = titles(snapshot, order)
    pictures = {}
    for number, code in enumerate(snapshot.encode(snapshot.images[:images]).mean):
        z = moved(code, order, values)
        decoded = snapshot.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        pictures[f"image_{number}"] = grid(decoded, labels)
    return pictures


def along(snapshot: Snapshot, order: Tensor, steps: int, tail: float) -> Tensor:
    """Values `(len(order), steps)` of the latents in `order`: equal steps from the `tail` to the 1 -
    `tail` quantile of each one's codes on the held-out set.
    """
    codes = snapshot.posterior.mean
    low, high = (_quantile(codes, at)[order] for at in (tail, 1 - tail))
    return low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, steps, device=codes.device)


def moved(code: Tensor, order: Tensor, values: Tensor) -> Tensor:
    """The code `(D,)` of an image as `(L, T, D)`: in each row one latent of `order` `(L,)` takes its
    `values` `(L, T)`, and the others stay.
    """
    across = values.shape[1]
    z = code.repeat(len(order), across, 1)
    return z.scatter_(2, order[:, None, None].expand(-1, across, 1), values[..., None])


def titles(snapshot: Snapshot, order: Tensor) -> list[str]:
    """The name of each latent of `order`, its mean rate and the factor it tells most of, on up to
    three lines.
    """
    known = _best_factors(snapshot)
    rates = snapshot.latent_rate.mean(0)
    told = ["" if rate.isnan() else f"\n{rate:.2f} nats" for rate in rates]
    return [f"z{latent}{told[latent]}{known[latent]}" for latent in order.tolist()]


def _best_factors(snapshot: Snapshot) -> list[str]:
    """The end of each latent's label."""
    if not snapshot.factors.shape[1]:
        return [""] * snapshot.posterior.mean.shape[1]
    best = normalised_information(snapshot).max(1)
    used = (snapshot.latent_rate.mean(0) > 0.05).tolist()
    return [
        f"\n{snapshot.names[factor]}" if share > 0.05 and tells else ""
        for share, factor, tells in zip(
            best.values.tolist(), best.indices.tolist(), used, strict=True
        )
    ]


def _quantile(x: Tensor, at: float) -> Tensor:
    """Quantile of each column of `(N, D)`, `(D,)`. (torch.quantile refuses more than 16 million
    numbers.)
    """
    return x.sort(0).values[round(at * (len(x) - 1))]
