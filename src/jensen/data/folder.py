"""Any folder of images, brought to one size."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from jensen.base.errors import InputError, check_choice, check_count, check_flag, check_path
from jensen.data.cache import Array, cached
from jensen.data.examples import Examples, pixels
from jensen.data.factors import table
from jensen.data.listing import EXTENSIONS, Listing, listing
from jensen.data.picture import DEPTHS, MODES, Depth, decode, depth, unreadable

T = TypeVar("T")
_BLOCK = 128
_log = logging.getLogger(__name__)


def folder(
    root: str | Path,
    height: int = 64,
    width: int = 64,
    channels: int = 3,
    bits: int | None = None,
    factors: str | Path | None = None,
    links: bool = True,
) -> Examples:
    """All images below `root`, in the order of their relative paths: uint8 `(N, channels, height,
    width)`.

    Each is turned upright by its EXIF data, scaled until it just covers height x width and cropped
    to its centre. Grey if `channels` is 1, colour if it is 3. Transparent ones lie on black, and of
    animations it is the first frame. A file without an extension is told by its content. A folder
    that is reached twice counts once; what is hidden is passed over. The images are decoded once
    and kept in the cache until a file is added, removed or modified.

    bits: how many of a grey level's 16 bits are in use, in images that have so many: 2^bits - 1 is
        white. By default the fewest of 8, 10, 12, 14 and 16 that hold every such image of the
        folder.
    factors: a table of the images' factors, such as CelebA's list_attr_celeba.txt
        (`factors.table`); by default there are none.
    links: follow links that lead out of `root`, and say how many images lie there; otherwise they
        are passed over.

    Raises:
        InputError: a height or width below 1, channels other than 1 or 3, a folder that is missing
            or holds no image, or an image that cannot be read or has more levels than `bits` say;
            or the table does not fit the images.
    """
    check_path("root", root)
    check_count("height", height)
    check_count("width", width)
    check_choice("channels", channels, tuple(MODES))
    check_choice("bits", bits, (None, *DEPTHS))
    check_flag("links", links)
    top = Path(root).expanduser().absolute()
    if not top.is_dir():
        raise InputError(
            f"{top} is not a folder: expected one of images; set data.root to it, or data=sprites,"
            " which needs none"
        )
    found = listing(top, links)
    if not found.images:
        over = found.passed_over(links)
        there = f"; there are {over}" if over else ""
        raise InputError(
            f"{top} holds no image: expected files named *{', *'.join(EXTENSIONS)}; set data.root"
            f" to their folder{there}"
        )
    columns, names, sizes = _factors(factors, found.images)
    stored = torch.from_numpy(_stored(top, found, height, width, channels, bits))
    return Examples(
        stored, pixels, columns, names, sizes, bytewise=True, note=_note(top, found, links)
    )


def _factors(
    path: str | Path | None, images: list[str]
) -> tuple[torch.Tensor, tuple[str, ...], tuple[int, ...]]:
    if path is None:
        return torch.empty(0), (), ()
    check_path("factors", path)
    factors, names = table(Path(path).expanduser(), images)
    return torch.from_numpy(factors), names, tuple(int(column.max()) + 1 for column in factors.T)


def _note(top: Path, found: Listing, links: bool) -> str:
    parts = [f"{len(found.images):,} images in {top}"]
    if found.followed:
        parts.append(found.followed)
    over = found.passed_over(links)
    note = ", ".join(parts) + (f"; passed over {over}" if over else "")
    return note.encode(
        errors="backslashreplace"
    ).decode()  # names need not be text, and what is said must be


def _stored(
    top: Path, found: Listing, height: int, width: int, channels: int, bits: int | None
) -> Array:
    """The images as the cache has them, or as they are decoded now."""
    key = (
        str(top),
        height,
        width,
        channels,
        bits,
        [(name, *_stamp(top / name)) for name in found.images],
    )
    digest = hashlib.sha256(repr(key).encode()).hexdigest()
    paths = [top / name for name in found.images]

    def blocks() -> Iterator[Array]:
        used = _bits(top, paths, bits)
        make = partial(decode, height=height, width=width, channels=channels, bits=used)
        for block in _over(paths, make, "Decoding images (once)"):
            yield np.stack(block)

    return cached(f"folder-2-{digest[:32]}", (len(paths), channels, height, width), blocks)


def _bits(top: Path, paths: list[Path], bits: int | None) -> int:
    """Number of bits in use, by all images of 16 together; says what it finds.

    Raises:
        InputError: they are fewer than 16, and an image has several channels, of which PIL reads
            the upper 8 bits only.
    """
    depths = [each for block in _over(paths, depth, "Looking at images (once)") for each in block]
    if several := sum(each.frames > 1 for each in depths):
        _log.info(
            "%d of the images in %s have several frames, of which the first is used", several, top
        )
    brightest = max(each.brightest for each in depths)
    used = bits or next(depth for depth in DEPTHS if brightest < 2**depth)
    _refuse_shallow_colour(paths, depths, used)
    if deep := sum(each.brightest > 0 for each in depths):
        _log.info(
            "%d of the images in %s have 16 bits a channel, levels up to %d: %d is white"
            " (+data.bits=%d)",
            *(deep, top, brightest, 2**used - 1, used),
        )
    return used


def _refuse_shallow_colour(paths: Sequence[Path], depths: Sequence[Depth], bits: int) -> None:
    for path, each in zip(paths, depths, strict=True):
        if each.colour and bits < 16:
            raise InputError(
                f"{path} has channels of 16 bits, of which {bits} are in use: expected 8, or all"
                " 16 in use, since no more than"
                " the upper 8 can be read; convert it, or set +data.bits=16 to take it as it is"
            )


def _stamp(path: Path) -> tuple[int, int]:
    """A mark that changes when the file does."""
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return status.st_size, status.st_mtime_ns


def _over(paths: list[Path], look: Callable[[Path], T], words: str) -> Iterator[list[T]]:
    """`look` at each path, by a thread a core, in blocks."""
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(paths), desc=words, unit=" images") as bar,
    ):
        for start in range(0, len(paths), _BLOCK):
            block = [*pool.map(look, paths[start : start + _BLOCK])]
            bar.update(len(block))
            yield block
