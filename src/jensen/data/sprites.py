"""Procedural sprites on the factor grid of dSprites (Matthey et al. 2017): 737,280 images, no
download.

The geometry was recovered from frames of the real data set. It is pixel-equal with 477 of 478 known
frames, and its count of white pixels is within 2 of the published 128,328,862; about one image in
10,000 probably differs in one pixel.

An image is 64 rows of 64 bits, packed little-endian into 512 bytes: bit c % 8 of byte 8 r + c // 8
is column c of row r.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from jensen.base.errors import InputError, check_choice, check_count, check_list, check_seed
from jensen.base.random import fold, permutation
from jensen.data.cache import Array, cached
from jensen.data.examples import Examples

NAMES = ("shape", "scale", "orientation", "posX", "posY")
SIZES = (3, 6, 40, 32, 32)
SIDE = 64

Packed = Callable[[npt.NDArray[np.uint8]], Array]
"""Latents `(N, 5)` to their packed images `(N, 512)`."""

Values = Mapping[str, Sequence[int] | str]
"""The values that factors take: a list, or "first..last"."""

_SPAN = re.compile(r"(\d+)\.\.(\d+)")
_UNIT = 256
"""Vertices are rounded to 1/256 of a pixel; from there on all arithmetic is on integers."""
_CHUNK = 4096


def _square() -> npt.NDArray[np.float64]:
    return 0.15 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)


def _ellipse() -> npt.NDArray[np.float64]:
    angle = 2 * np.pi * np.arange(100) / 100
    return 0.15 * np.stack([1.33 * np.cos(angle), np.sin(angle) / 1.33], 1)


def _heart() -> npt.NDArray[np.float64]:
    t = 2 * np.pi * np.arange(150) / 150
    up = (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 29 + 0.075
    return np.stack([0.15 * np.sin(t) ** 3, -0.3 * up], 1)


_OUTLINES = (_square(), _ellipse(), _heart())
"""`(V, 2)` vertices of each shape at scale 1, about its centre; the canvas is 1 wide, y points
down.
"""


def render(latents: npt.ArrayLike | Tensor) -> Array:
    """The images of integer `latents` `(N, 5)`, in the order of `NAMES`: uint8 0/1, `(N, 64, 64)`.

    Raises:
        InputError: latents of another shape, not integers, or outside `SIZES`.
    """
    checked = np.asarray(latents)
    if (
        checked.ndim != 2
        or checked.shape[1] != len(SIZES)
        or not np.issubdtype(checked.dtype, np.integer)
    ):
        raise InputError(
            f"latents are {checked.dtype} of shape {checked.shape}: expected integers of shape (N,"
            f" {len(SIZES)})"
        )
    if ((checked < 0) | (checked >= SIZES)).any():
        raise InputError(
            f"latents lie in {checked.min(0).tolist()}..{checked.max(0).tolist()}: expected 0 <="
            f" latent < {list(SIZES)}"
        )
    return np.unpackbits(pack(checked), axis=1, bitorder="little").reshape(-1, SIDE, SIDE)


def pack(latents: npt.NDArray[np.integer]) -> Array:
    """`render`, packed: `(N, 5)` to `(N, 512)` bytes."""
    packed = np.empty((len(latents), SIDE * SIDE // 8), np.uint8)
    for shape, outline in enumerate(_OUTLINES):
        (chosen,) = np.nonzero(latents[:, 0] == shape)
        for start in range(0, len(chosen), _CHUNK):
            rows = chosen[start : start + _CHUNK]
            packed[rows] = _fill(_vertices(outline, latents[rows]))
    return packed


def _vertices(
    outline: npt.NDArray[np.float64], latents: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """Vertices in 1/256 pixel, `(2, N, V)`: x, then y."""
    scale, angle, across, down = (latents[:, i, None] / (SIZES[i] - 1) for i in range(1, 5))
    scale = 0.5 + 0.5 * scale
    angle = 2 * np.pi * angle
    cos = scale * np.cos(angle)
    sin = scale * np.sin(angle)
    x = (
        0.25 + 0.5 * across + cos * outline[:, 0] + sin * outline[:, 1]
    )  # counter-clockwise on a screen whose y points down
    y = 0.25 + 0.5 * down - sin * outline[:, 0] + cos * outline[:, 1]
    return np.floor(np.stack([x, y]) * (SIDE * _UNIT) + 0.5).astype(np.int64)


def _fill(vertices: npt.NDArray[np.int64]) -> Array:
    """Even-odd fill of N closed polygons `(2, N, V)` to packed images `(N, 512)`.

    An edge that crosses the line through a row's pixel centres inverts all pixels from the crossing
    to the right. A row is a 64-bit word, so that is one exclusive-or. A centre on a left or bottom
    edge is inside, on a right or top edge outside.
    """
    (x0, y0) = vertices
    (x1, y1) = np.roll(vertices, -1, axis=2)
    centre = _UNIT // 2
    first = (np.minimum(y0, y1) - centre) // _UNIT + 1
    crossings = np.maximum((np.maximum(y0, y1) - centre) // _UNIT + 1 - first, 0).ravel()

    edge = np.repeat(np.arange(crossings.size), crossings)
    row = (
        first.ravel()[edge]
        + np.arange(edge.size)
        - np.repeat(np.cumsum(crossings) - crossings, crossings)
    )
    x0, y0, x1, y1 = (end.ravel()[edge] for end in (x0, y0, x1, y1))
    rise = y1 - y0
    # The first column whose centre is not left of the crossing: ceil((crossing - centre) / unit),
    # in integers.
    numerator = ((x0 - centre) * rise + (x1 - x0) * (row * _UNIT + centre - y0)) * np.sign(rise)
    column = np.clip(-(-numerator // (_UNIT * np.abs(rise))), 0, SIDE)

    suffix = np.array([(1 << SIDE) - (1 << c) for c in range(SIDE)] + [0], np.uint64)
    words = np.zeros(vertices.shape[1] * SIDE, np.uint64)
    image = edge // vertices.shape[2]
    inside = (row >= 0) & (row < SIDE)
    np.bitwise_xor.at(words, (image * SIDE + row)[inside], suffix[column[inside]])
    return words.astype("<u8", copy=False).view(np.uint8).reshape(-1, SIDE * SIDE // 8)


def unpack(stored: Tensor) -> Tensor:
    """Packed images `(B, 512)` to float32 0/1 `(B, 1, 64, 64)`, on their device."""
    bit = torch.arange(8, dtype=torch.uint8, device=stored.device)
    return ((stored[..., None] >> bit) & 1).reshape(-1, 1, SIDE, SIDE).float()


def grid(
    factors: Sequence[str] = NAMES,
    values: Mapping[str, Sequence[int]] | None = None,
    places: npt.NDArray[np.integer] | None = None,
) -> npt.NDArray[np.uint8]:
    """All combinations of the `values` of `factors`, by default all that there are, the last factor
    fastest, the others at 0 or at their one value: `(N, 5)`; or those at `places` among them.
    """
    axes = _axes(factors, values or {})
    lengths = [len(axis) for axis in axes]
    if places is None:
        places = np.arange(math.prod(lengths))
    latents = np.empty((len(places), len(axes)), np.uint8)
    for column, (axis, index) in enumerate(
        zip(axes, np.unravel_index(places, lengths), strict=True)
    ):
        latents[:, column] = axis[index]
    return latents


def _axes(
    factors: Sequence[str], values: Mapping[str, Sequence[int]]
) -> list[npt.NDArray[np.uint8]]:
    """The values that each factor takes."""
    return [
        np.array(values.get(name, range(size) if name in factors else (0,)), np.uint8)
        for name, size in zip(NAMES, SIZES, strict=True)
    ]


def sprites(
    factors: Sequence[str] | None = None,
    size: int | None = None,
    seed: int = 0,
    values: Values | None = None,
) -> Examples:
    """The sprites that vary in `factors` (all five by default), or `size` of them drawn with
    `seed`.

    The whole set is rendered once and kept in the cache; a subset is rendered in memory.

    Args:
        values: the values of some factors, in place of all: a list, or "first..last", as in
            `{"shape": [1], "posY": "8..23"}`. A factor of one value does not vary, and is none of
            the examples' factors; the labels of the others are the places of their values.

    Raises:
        InputError: an unknown factor or value, nothing that varies, or a size that the grid does
            not hold.

    >>> sprites(["scale", "posY"], values={"shape": [1], "posY": "8..23"}).sizes
    (6, 16)
    """

    def packed(latents: npt.NDArray[np.uint8]) -> Array:
        whole = len(latents) == np.prod(SIZES)
        return (
            cached("sprites-1", (len(latents), SIDE * SIDE // 8), lambda: _blocks(latents))
            if whole
            else pack(latents)
        )

    return subset(factors, size, seed, values, packed)


def subset(
    factors: Sequence[str] | None,
    size: int | None,
    seed: int,
    values: Values | None,
    packed: Packed,
) -> Examples:
    """The examples that `sprites` describes, their images from `packed`."""
    check_seed("seed", seed)
    chosen = _chosen(values)
    names = _varying(factors, chosen)
    places = None
    if size is not None:
        check_count("size", size)
        many = math.prod(len(axis) for axis in _axes(names, chosen))
        if size > many:
            raise InputError(
                f"size is {size}: expected at most {many}, the number of images that"
                f" {', '.join(names)} give"
            )
        places = permutation(fold(seed, "subset"), many)[:size].sort().values.numpy()
    latents = grid(names, chosen, places)
    kept = [NAMES.index(name) for name in names]
    return Examples(
        stored=torch.from_numpy(packed(latents)),
        decode=unpack,
        factors=torch.from_numpy(_labels(latents, names, chosen)),
        names=names,
        sizes=tuple(len(chosen.get(NAMES[i], range(SIZES[i]))) for i in kept),
        bytewise=True,
    )


def _labels(
    latents: npt.NDArray[np.uint8], names: Sequence[str], chosen: Mapping[str, Sequence[int]]
) -> npt.NDArray[np.uint8]:
    """The places of the values of `names` among those chosen, `(N, F)`."""
    labels = latents[:, [NAMES.index(name) for name in names]]
    for place, name in enumerate(names):
        if name in chosen:
            labels[:, place] = np.searchsorted(chosen[name], labels[:, place])
    return labels


def _varying(factors: Sequence[str] | None, chosen: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """The factors with more than one value, in the order of `NAMES`."""
    if factors is not None:
        check_list("factors", factors)
    for name in factors or ():
        check_choice("factors", name, NAMES)
    if factors is not None and not factors:
        raise InputError(f"factors is empty: expected some of {', '.join(NAMES)}")
    for name, kept in chosen.items():
        if factors is not None and (name in factors) == (len(kept) == 1):
            has = "names it" if name in factors else "leaves it out"
            raise InputError(
                f"values.{name} is {_short(kept)} and factors {has}: expected one value of a factor"
                " that does not vary, and several of one that does"
            )
    names = tuple(
        name
        for name in NAMES
        if (factors is None or name in factors) and len(chosen.get(name, "all")) > 1
    )
    if not names:
        raise InputError("values leaves one image: expected a factor with two values or more")
    return names


def _short(kept: Sequence[int]) -> str:
    return str([*kept]) if len(kept) < 5 else f"[{kept[0]}, ..., {kept[-1]}]"


def _chosen(values: Values | None) -> dict[str, list[int]]:
    """The values of each factor that `values` names, ascending."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InputError(
            f"values is {values!r}: expected factors with their values, such as {{posY: 8..23}}"
        )
    return {name: _list(name, given) for name, given in values.items() if given is not None}


def _list(name: str, given: Sequence[int] | str) -> list[int]:
    check_choice("values", name, NAMES)
    most = SIZES[NAMES.index(name)] - 1
    kept: object = given
    if isinstance(given, str) and (ends := _SPAN.fullmatch(given)):
        kept = range(int(ends[1]), int(ends[2]) + 1)
    if (
        isinstance(kept, str)
        or not isinstance(kept, Sequence)
        or not kept
        or not all(type(value) is int and 0 <= value <= most for value in kept)
        or len(set(kept)) < len(kept)
    ):
        raise InputError(
            f"values.{name} is {given!r}: expected different integers of 0 to {most}, as a list or"
            f" first..last, such as 0..{most}"
        )
    return sorted(kept)


def _blocks(latents: npt.NDArray[np.uint8]) -> Iterator[Array]:
    """The packed images, block after block, each by one of as many processes as there are cores."""
    from joblib import Parallel, cpu_count, delayed

    parts = np.split(latents, range(16384, len(latents), 16384))
    jobs = min(cpu_count(), len(parts))
    blocks = Parallel(jobs, return_as="generator")(delayed(pack)(part) for part in parts)
    with tqdm(
        total=len(latents), desc="Rendering sprites (once)", unit=" images", unit_scale=True
    ) as bar:
        for block in blocks:
            yield block
            bar.update(len(block))
