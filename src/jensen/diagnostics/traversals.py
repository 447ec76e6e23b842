"""Each latent's effect: one row of images a latent, the others held still."""

from collections.abc import Mapping

import torch
from torch import Tensor

from jensen.base.errors import check_count, check_number
from jensen.diagnostics import conditions
from jensen.diagnostics.factor_map import chance_information, normalised_information
from jensen.diagnostics.picture import brightness, grid, is_image
from jensen.diagnostics.snapshot import Snapshot, by_rate, decoded_alike


def traversals(
    snapshot: Snapshot, latents: int = 10, columns: int = 11, images: int = 2, tail: float = 0.01
) -> Mapping[str, Tensor]:
    """Grids for the first `images` held-out images: rows are the `latents` of largest rate, in
    falling order.

    In a row one latent goes in equal steps from the `tail` to the 1 - `tail` quantile of its codes
    on the held-out set; the others stay at the image's code. Each row is labelled with its latent,
    that latent's mean rate and, where factors are known and it tells a twentieth of one, beyond what
    chance does, for at least a twentieth of a nat, the factor it tells most of. Of a decoder that draws all images are by
    the chances of one draw: they are the same where it does not listen to z. Empty for vectors.

    Of several modalities there is a grid for each that is an image, `image_<number>_<name>`; of a
    model with conditions also `given_<name>`, the first latent's row for each of their values.
    """
    for name, count in (("latents", latents), ("columns", columns), ("images", images)):
        check_count(name, count)
    check_number("tail", tail, low=0, high=0.5)
    shown = _images(snapshot)
    if not shown:
        return {}
    order = by_rate(snapshot)[:latents]
    values = along(snapshot, order, columns, tail)
    labels = titles(snapshot, order)
    pictures = {}
    x = snapshot.images[:images]
    codes = snapshot.encode(x).mean
    for number, code in enumerate(codes):
        z = moved(code, order, values)
        decoded = _decoded(snapshot, z, x[number : number + 1])
        for name in shown:
            pictures[_key(f"image_{number}", name)] = grid(_part(snapshot, decoded, name), labels)
    if snapshot.senses is not None and snapshot.senses.modalities.given:
        given = conditions.values(snapshot)
        z = moved(codes[0], order[:1], values[:1]).expand(len(given), -1, -1)
        decoded = _decoded(snapshot, z, given)
        for name in shown:
            rows = _part(snapshot, decoded, name)
            pictures[_key("given", name)] = grid(rows, conditions.titles(snapshot, given))
    return pictures


def _images(snapshot: Snapshot) -> list[str]:
    """Names of the modalities that are images; of an image that is all of x, the empty one."""
    if snapshot.senses is None:
        return [""] if is_image(snapshot.images.shape[1:]) else []
    parts = snapshot.senses.modalities
    return [name for name in parts.modelled if is_image(parts.shape_of[name])]


def _key(word: str, name: str) -> str:
    return f"{word}_{name}" if name else word


def _decoded(snapshot: Snapshot, z: Tensor, x: Tensor) -> Tensor:
    """Codes `(R, T, D)` to `(R, T, *event)`; row r of them has what is given in row r of `x`, or in
    its only one.
    """
    if snapshot.senses is None:
        return decoded_alike(snapshot, z.flatten(0, 1)).unflatten(0, z.shape[:2])
    x = x.expand(len(z), -1)
    made = snapshot.senses.decode(z.transpose(0, 1).flatten(0, 1), x)
    return made.unflatten(0, (z.shape[1], len(z))).transpose(0, 1)


def _part(snapshot: Snapshot, decoded: Tensor, name: str) -> Tensor:
    """One modality of `(R, T, *event)`, as brightness."""
    if not name:
        return brightness(snapshot.images)(decoded)
    split = snapshot.senses.modalities.split
    part: Tensor = split(decoded.flatten(0, 1))[name]
    light = brightness(split(snapshot.images)[name])
    return light(part).unflatten(0, decoded.shape[:2])


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
    by_chance = chance_information(snapshot).amax(0)
    best = (normalised_information(snapshot) - by_chance).max(1)
    used = (~(snapshot.latent_rate.mean(0) <= 0.05)).tolist()  # NaN where it is unknown
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
