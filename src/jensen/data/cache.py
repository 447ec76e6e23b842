"""Arrays that are costly to make, made once and memory-mapped ever after.

A cache file is a plain `.npy` followed by the SHA-256 of everything before it. It appears under its
name only when complete (written beside it, flushed, renamed), is opened read-only, and is made by
one process while the others wait.
"""

import errno
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from jensen.base.errors import InputError

Array = npt.NDArray[np.uint8]
Build = Callable[[], Iterator[Array]]
"""Yields the rows of the array, block after block."""

_DIGEST_SIZE = hashlib.sha256().digest_size
_log = logging.getLogger(__name__)


def folder() -> Path:
    """`$JENSEN_CACHE`, else `$XDG_CACHE_HOME/jensen`, else `~/.cache/jensen`."""
    named = os.environ.get("JENSEN_CACHE")
    return (
        Path(named)
        if named
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jensen"
    )


def cached(name: str, shape: tuple[int, ...], build: Build) -> Array:
    """The uint8 array `name` of `shape`: memory-mapped from the cache, or built and kept there
    first.

    A file that is torn or altered is made again. Where the folder cannot be written the array is
    built in memory.

    Raises:
        InputError: the disk has no room for the file.
    """
    path = folder() / f"{name}.npy"
    array = _load(path, shape)
    if array is not None:
        return array
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            array = _load(path, shape)  # another process may have made it while this one waited
            return _make(path, shape, build) if array is None else array
    except _SourceError as error:
        raise error.cause from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise InputError(
                f"{path} could not be written ({error.strerror}): expected"
                f" {np.prod(shape) / 1e6:.0f} MB of free disk; free"
                " some, or set JENSEN_CACHE to a folder that has room"
            ) from error
        _log.warning(
            "%s cannot be kept (%s): made in memory, for this process only", path, error.strerror
        )
        return np.concatenate(list(build()))


class _SourceError(Exception):
    """An OSError of what is being cached, which must not be taken for one of the cache's own
    folder.
    """

    def __init__(self, cause: OSError) -> None:
        self.cause = cause


def _unmistakable(blocks: Iterator[Array]) -> Iterator[Array]:
    try:
        yield from blocks
    except OSError as error:
        raise _SourceError(error) from error


def _load(path: Path, shape: tuple[int, ...]) -> Array | None:
    """The mapped array, or None where the file is absent or not exactly what `_make` wrote."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            left = size - _DIGEST_SIZE
            digest = hashlib.sha256()
            while left > 0 and (block := file.read(min(left, 1 << 22))):
                digest.update(block)
                left -= len(block)
            if left or file.read() != digest.digest():
                return None
        # "c" is copy-on-write: torch wants writable memory, and nothing that is written reaches the
        # file.
        array: Array = np.load(path, mmap_mode="c", allow_pickle=False)
        whole = size - _DIGEST_SIZE == array.offset + array.nbytes  # type: ignore[attr-defined]
    except Exception:  # numpy raises almost anything on a header that others wrote
        return None
    return array if whole and array.shape == shape and array.dtype == np.uint8 else None


def _make(path: Path, shape: tuple[int, ...], build: Build) -> Array:
    for leftover in path.parent.glob(
        f"{path.stem}.*.partial"
    ):  # of a process that was killed: we hold the lock
        leftover.unlink(missing_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f"{path.stem}.", suffix=".partial", delete=False
    ) as file:
        partial = Path(file.name)
        try:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.seek(0)
            digest = hashlib.sha256(file.read())
            for block in _unmistakable(build()):
                digest.update(np.ascontiguousarray(block).data)
                file.write(np.ascontiguousarray(block).data)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
            partial.chmod(0o644)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    made = _load(path, shape)
    if made is None:
        raise InputError(
            f"{path} does not read back as it was written: expected a sound disk; set JENSEN_CACHE"
            " to a folder on one"
        )
    return made
