"""Images and factors from an npz or HDF5 file, such as 3D Shapes (Burgess & Kim 2018), under any
names.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from jensen.base.errors import InputError, check_choice, check_count, check_list, check_path
from jensen.data.arrays import Named, arrays, in_words, stream
from jensen.data.cache import Array, cached
from jensen.data.examples import Examples, identity, pixels
from jensen.data.factors import numbered

_FACTORS = 1 << 28
"""The most bytes of factors, which are read into memory."""
_CHUNK = 1 << 24


class _Layout(NamedTuple):
    """The place of an image in the file: `axes` bring `(n, *shape)` to `(n, channels, height,
    width)`.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]


def images(
    path: str | Path,
    channels: int = 3,
    height: int = 64,
    width: int = 64,
    images: str | None = None,
    factors: str | None = None,
    names: Sequence[str] | None = None,
) -> Examples:
    """The array `images` of the file `path`: `(N, height, width)`, `(N, height, width, channels)`
    or channels first.

    Bytes are grey levels of 0..255, or black and white if there are none but 0 and 1, as are
    booleans; floating-point numbers are taken as they are, in float32. They are read block by
    block, once, and kept in the cache until the file is modified.

    images: the name of the array; by default "images", else the only one of such a shape.
    factors: the name of an array `(N,)` or `(N, F)`; the values of a column, in their order, are
        the factor's 0, 1, ...
    names: of the F factors; by default the name of the array, with the column's number if there are
        several.

    Raises:
        InputError: the file is missing or damaged, or holds no such arrays, which are named; or it
            is far larger than what is stored in it.
    """
    check_path("path", path)
    for name, count in (("channels", channels), ("height", height), ("width", width)):
        check_count(name, count)
    top = Path(path).expanduser().absolute()
    found = arrays(top)
    layouts = _layouts(channels, height, width)
    name = _chosen(top, found, images, layouts)
    stored, decode = _stored(top, name, found[name], layouts)
    columns, labels, sizes = _factors(top, found, factors, names, len(stored))
    note = f"{len(stored):,} images {name} in {top}" + (
        ", of zeros and ones" if decode is zeros_and_ones else ""
    )
    return Examples(stored, decode, columns, labels, sizes, stored.dtype == torch.uint8, note)


def zeros_and_ones(stored: Tensor) -> Tensor:
    """uint8 0 and 1 to float32."""
    return stored.float()


def _layouts(channels: int, height: int, width: int) -> list[_Layout]:
    last = _Layout((height, width, channels), (0, 3, 1, 2))
    first = _Layout((channels, height, width), (0, 1, 2, 3))
    return [last, first] if channels > 1 else [_Layout((height, width), (0, 1, 2)), last, first]


def _chosen(path: Path, found: dict[str, Named], images: str | None, layouts: list[_Layout]) -> str:
    """The name of the array of images."""
    if images is not None and images not in found:
        raise InputError(
            f"images is {images!r} but {path} holds {in_words(found)}: expected the name of one of"
            " them"
        )
    fitting = [
        name
        for name, array in found.items()
        if array.shape[1:] in [layout.shape for layout in layouts]
    ]
    shape = " or ".join(f"(N, {', '.join(map(str, layout.shape))})" for layout in layouts)
    named = images or ("images" if "images" in found else fitting[0] if len(fitting) == 1 else None)
    if named is None:
        raise InputError(
            f"{path} holds {in_words(found)}: expected one array {shape}; set data.images to its"
            " name, or data.x_shape to [channels, height, width] of its images"
        )
    array = found[named]
    if named not in fitting:
        raise InputError(
            f"{path} has {in_words({named: array})}: expected {shape}; set data.x_shape to"
            " [channels, height, width] of its images, or data.images to another name"
        )
    if array.dtype.kind not in "bf" and array.dtype != np.uint8:
        raise InputError(
            f"{path} has {in_words({named: array})}: expected uint8, bool or floating-point"
            " numbers; convert them"
        )
    if not array.shape[0]:
        raise InputError(
            f"{path} has {in_words({named: array})}: expected at least one image; choose another"
            " array"
        )
    return named


def _stored(
    path: Path, name: str, array: Named, layouts: list[_Layout]
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The images `(N, channels, height, width)`, mapped from the cache, and how to decode them."""
    layout = next(layout for layout in layouts if layout.shape == array.shape[1:])
    kind = np.dtype(np.float32) if array.dtype.kind == "f" else np.dtype(np.uint8)
    shape = next(each.shape for each in layouts[::-1])  # channels first
    status = path.stat()
    key = (str(path), status.st_size, status.st_mtime_ns, name, layout)

    def blocks() -> Iterator[Array]:
        with tqdm(
            total=array.shape[0], desc=f"Reading {name} (once)", unit=" images", unit_scale=True
        ) as bar:
            for block in stream(path, name, array):
                with np.errstate(
                    over="ignore"
                ):  # what float32 does not hold becomes infinite, and the likelihood refuses it
                    turned = block.transpose(layout.axes).astype(kind)
                yield np.ascontiguousarray(turned).reshape(len(block), -1).view(np.uint8)
                bar.update(len(block))

    row = int(np.prod(shape)) * kind.itemsize
    packed = cached(
        f"images-1-{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}",
        (array.shape[0], row),
        blocks,
    )
    stored = torch.from_numpy(packed.view(kind)).reshape(-1, *shape)
    if kind == np.float32:
        return stored, identity
    return stored, zeros_and_ones if is_binary(stored) else pixels


def is_binary(stored: Tensor) -> bool:
    return all(int(part.max()) <= 1 for part in stored.flatten().split(_CHUNK))


def _factors(
    path: Path, found: dict[str, Named], key: str | None, names: Sequence[str] | None, count: int
) -> tuple[Tensor, tuple[str, ...], tuple[int, ...]]:
    """The factors `(N, F)`, their names and their numbers of values."""
    if names is not None:
        check_list("names", names)
    if key is None:
        return torch.empty(0), (), ()
    check_choice("factors", key, tuple(found))
    array = found[key]
    if len(array.shape) not in (1, 2) or array.shape[0] != count or array.dtype.kind not in "biuf":
        raise InputError(
            f"{path} has {in_words({key: array})}: expected factors ({count},) or ({count}, F),"
            " numbers; choose another array"
        )
    if array.row * count > _FACTORS:
        raise InputError(
            f"{path} has {in_words({key: array})}: expected factors of at most {_FACTORS >> 20}"
            " MB; leave some out"
        )
    columns = np.concatenate([*stream(path, key, array)]).reshape(count, -1)
    default = (
        [key]
        if columns.shape[1] == 1
        else [f"{key}_{column}" for column in range(columns.shape[1])]
    )
    labels = [*map(str, default if names is None else names)]
    if len(labels) != columns.shape[1] or len({*labels}) < len(labels):
        raise InputError(
            f"names is {labels} but {key} has {columns.shape[1]} columns: expected as many names,"
            " all different"
        )
    places = [
        numbered(path, label, column) for label, column in zip(labels, columns.T, strict=True)
    ]
    sizes = tuple(int(column.max()) + 1 for column in places)
    return torch.from_numpy(np.stack(places, 1)), tuple(labels), sizes
