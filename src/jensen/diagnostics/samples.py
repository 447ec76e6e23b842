"""Observations that the model makes of draws from its prior."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from matplotlib.axes import Axes
from torch import Tensor

from jensen.base.errors import InputError, check_count
from jensen.diagnostics.conditions import titles, values
from jensen.diagnostics.picture import brightness, chart, grid, is_image
from jensen.diagnostics.snapshot import Snapshot

ACROSS = 8
"""Draws in the row of a condition."""


def samples(
    snapshot: Snapshot,
    count: int = 64,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Mapping[str, Tensor]:
    """Decoded means of `count` draws z ~ p(z), the same draws every time: of images as many as fill a
    square, of vectors the first two coordinates.

    With a temperature, top_k or top_p (`model.choice.sharpened`), observations drawn from p(x|z),
    and so of the likelihood's own numbers.

    Of several modalities, those that are images, each by its name; of a model with conditions a row
    for each of their values, with the same draws in each.
    """
    check_count("count", count)
    decode = snapshot.decode
    if not (temperature is None and top_k is None and top_p is None):
        decode = _drawn(snapshot, 1.0 if temperature is None else temperature, top_k, top_p)
    if snapshot.senses is not None:
        return _of_senses(snapshot, count)
    decoded = decode(snapshot.draw(count))
    if is_image(decoded.shape[1:]):
        across = math.isqrt(count)
        rows = decoded[: across * across].unflatten(0, (across, across))
        return {"images": grid(brightness(snapshot.images)(rows))}

    def scatter(axes: Axes) -> None:
        for name, points in (("data", snapshot.images), ("decoded samples", decoded)):
            x = points.flatten(1).cpu()
            axes.scatter(x[:, 0], x[:, min(1, x.shape[1] - 1)], s=8, label=name)
        axes.legend()

    return {"points": chart(scatter, 5, 5)}


def _drawn(
    snapshot: Snapshot, temperature: float, top_k: int | None, top_p: float | None
) -> Callable[[Tensor], Tensor]:
    """Codes to observations drawn so; what the likelihood cannot draw by is refused at once."""
    observe = snapshot.observe
    if snapshot.senses is not None or observe is None:
        raise InputError(
            "diagnostics.samples has a temperature, top_k or top_p: expected a VAE of one sense,"
            " whose likelihood draws by them; leave them out"
        )
    none = snapshot.encode(snapshot.images[:1]).mean[:0]
    observe(none, temperature, top_k, top_p)
    return lambda z: observe(z, temperature, top_k, top_p)


def _of_senses(snapshot: Snapshot, count: int) -> Mapping[str, Tensor]:
    model = snapshot.senses
    parts = model.modalities
    given = values(snapshot)
    if not parts.given:
        decoded = snapshot.decode(snapshot.draw(count)).unsqueeze(1)
        across = math.isqrt(count)
    else:
        across = max(1, min(ACROSS, count // len(given)))
        draws = torch.zeros(len(given), dtype=torch.int64, device=given.device)
        decoded = model.generate(given, index=draws, samples=across)  # (across, V, P)
    titled = titles(snapshot, given)
    pictures = {}
    for name in parts.modelled:
        if not is_image(parts.shape_of[name]):
            continue
        made = parts.split(decoded.flatten(0, 1))[name].unflatten(0, decoded.shape[:2])
        rows = (
            made.transpose(0, 1)
            if parts.given
            else made[: across * across, 0].unflatten(0, (across, across))
        )
        light = brightness(parts.split(snapshot.images)[name])
        pictures[f"images_{name}"] = grid(light(rows), titled if parts.given else ())
    return pictures or {"points": chart(partial(_points, snapshot, decoded, titled), 5, 5)}


def _points(snapshot: Snapshot, decoded: Tensor, titled: list[str], axes: Axes) -> None:
    """The first two numbers that are modelled, of the data and of draws `(S, V, P)`."""
    parts = snapshot.senses.modalities
    sizes = dict(zip(parts.names, parts.sizes, strict=True))
    modelled = torch.cat(
        [torch.full((sizes[name],), name in parts.modelled) for name in parts.names]
    )
    places = modelled.nonzero().flatten()[:2].tolist()
    sets = [("data", snapshot.images)]
    sets += [(f"samples, {title}".rstrip(", "), decoded[:, at]) for at, title in enumerate(titled)]
    for name, points in sets:
        x = points.cpu()
        axes.scatter(x[:, places[0]], x[:, places[-1]], s=8, label=name)
    axes.legend()
