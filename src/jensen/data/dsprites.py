"""The original dSprites (Matthey et al. 2017) from its npz file, packed as `jensen.data.sprites`
packs its own.

Only the member `imgs` of the file is read, as bytes. Its `metadata` is a pickle, which could run
any code, and is never opened.
"""

import errno
import hashlib
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from jensen.base.errors import InputError, check_path
from jensen.data import sprites
from jensen.data.arrays import header
from jensen.data.cache import Array, cached
from jensen.data.examples import Examples

_REMEDY = "download dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz again, or set data=sprites, which needs no file"
_PIXELS = sprites.SIDE**2
_BLOCK = 4096


def dsprites(
    path: str | Path,
    factors: Sequence[str] | None = None,
    size: int | None = None,
    seed: int = 0,
    values: sprites.Values | None = None,
) -> Examples:
    """The images of the npz file `path` that vary in `factors` (all five by default), or `size` of
    them drawn with `seed`.

    Rows, factors and draws are those of `sprites` with the same arguments. The file is unpacked
    once and kept in the cache, 377 MB, under its SHA-256: a copy or a touched file is the same set,
    an altered one is another.

    Raises:
        InputError: an unknown factor or value, none at all, a size that the grid does not hold; or the file
            is missing, is not an npz file, is damaged, or holds no `imgs` or others than the
            737,280 of 64 x 64 zeros and ones.
    """
    check_path("path", path)
    return sprites.subset(
        factors, size, seed, values, lambda latents: _packed(Path(path).expanduser(), latents)
    )


def _packed(path: Path, latents: npt.NDArray[np.uint8]) -> Array:
    """The packed images `(N, 512)` of `latents` `(N, 5)`."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise OSError(errno.EINVAL, "it is no file")  # a device may have no end
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): expected the npz file of dSprites;"
            f" {_REMEDY}"
        ) from error
    count = math.prod(sprites.SIZES)
    packed = cached(
        f"dsprites-1-{digest[:32]}", (count, _PIXELS // 8), lambda: _blocks(path, count)
    )
    if len(latents) == count:
        return packed  # still a memory map
    return np.asarray(
        packed[np.ravel_multi_index(tuple(latents.T.astype(np.int64)), sprites.SIZES)]
    )


def _blocks(path: Path, count: int) -> Iterator[Array]:
    """The `count` images of `path`, packed: the member is inflated block by block, 3 GB in all."""
    try:
        with zipfile.ZipFile(path) as archive:
            if "imgs.npy" not in archive.namelist():
                raise InputError(
                    f"{path} holds {', '.join(archive.namelist()) or 'nothing'}: expected"
                    f" imgs.npy; {_REMEDY}"
                )
            with archive.open("imgs.npy") as member:
                _check_header(path, member, (count, sprites.SIDE, sprites.SIDE))
                yield from _pack(path, member, count)
    except (
        OSError,
        EOFError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:  # RuntimeError: encrypted
        raise InputError(
            f"{path} cannot be read ({error}): expected the npz file of dSprites; {_REMEDY}"
        ) from error


def _check_header(path: Path, member: IO[bytes], expected: tuple[int, ...]) -> None:
    """Read the npy header of `member` and refuse other than C-ordered uint8 of the `expected`
    shape.
    """
    try:
        shape, fortran, dtype = header(member)
    except (ValueError, tokenize.TokenError) as error:
        raise InputError(
            f"{path} has an imgs without a readable header ({error}): expected uint8 {expected};"
            f" {_REMEDY}"
        ) from error
    if shape != expected or dtype != np.uint8 or fortran:
        order = " in Fortran order" if fortran else ""
        raise InputError(
            f"{path} has imgs of {dtype} {shape}{order}: expected uint8 {expected} in C order;"
            f" {_REMEDY}"
        )


def _pack(path: Path, member: IO[bytes], count: int) -> Iterator[Array]:
    with tqdm(
        total=count, desc="Unpacking dSprites (once)", unit=" images", unit_scale=True
    ) as bar:
        for start in range(0, count, _BLOCK):
            rows = min(_BLOCK, count - start)
            images = np.frombuffer(member.read(rows * _PIXELS), np.uint8)
            if images.size < rows * _PIXELS:
                raise InputError(
                    f"{path} has imgs that end after image {start + images.size // _PIXELS}:"
                    f" expected {count}; {_REMEDY}"
                )
            if images.max() > 1:
                raise InputError(
                    f"{path} has imgs with the value {images.max()}: expected zeros and ones;"
                    f" {_REMEDY}"
                )
            yield np.packbits(images.reshape(rows, _PIXELS), axis=1, bitorder="little")
            bar.update(rows)
    if member.read(1):
        raise InputError(
            f"{path} has bytes behind its imgs: expected {count} images and no more; {_REMEDY}"
        )
