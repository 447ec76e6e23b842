"""Arrays by their names in an npz or HDF5 file, read block by block: neither is ever in memory as a
whole.

Nothing is unpickled, and of an HDF5 file nothing is followed that leads to another file.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from jensen.base.errors import InputError

_BLOCK = 1 << 24
"""Bytes that are read in one go; of one row, if a row has more."""
_RATIO = 250
"""The most times what is stored that an array may be: dSprites, which is mostly zeros, has 117."""
_SMALL = 4096
"""Bytes that are always taken for stored: what little there is may be packed as it likes."""
_NAMED = 10

_OTHERS = {
    b"\x93NUMPY": "one array without a name: expected an npz file of arrays; save it with numpy.savez(path, images=...)",
    b"\x1f\x8b": "packed by gzip: expected the npz or HDF5 file itself; unpack it with gunzip",
}
"""Files that people have instead, by how they begin."""


class Named(NamedTuple):
    """An array of a file: its shape, its type, and the bytes that it takes there, packed."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stored: int

    @property
    def row(self) -> int:
        """Bytes of a row, unpacked."""
        return int(np.prod(self.shape[1:], dtype=object)) * self.dtype.itemsize


def arrays(path: Path) -> dict[str, Named]:
    """Contents by name of `path`, an npz or HDF5 file, told by its content.

    Raises:
        InputError: it cannot be read, or is neither.
    """
    with _read(path):
        return _of_hdf5(path) if _is_hdf5(path) else _of_npz(path)


def in_words(found: dict[str, Named]) -> str:
    """The names with their shapes and types, as a sentence has them."""
    words = [f"{name} {each.dtype} {each.shape}" for name, each in found.items()]
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return (", ".join(words[:_NAMED]) or "no array") + more


def stream(path: Path, name: str, array: Named) -> Iterator[np.ndarray]:
    """The rows of `array`, the one under `name`, block after block.

    Raises:
        InputError: it cannot be read, ends early, or is so much larger than what is stored that it
            would be a trap.
    """
    _check_size(path, name, array, array.row * array.shape[0])
    rows = max(1, _BLOCK // max(1, array.row))
    with _read(path):
        yield from (_rows_of_hdf5 if _is_hdf5(path) else _rows_of_npz)(path, name, array, rows)


def _check_size(path: Path, name: str, array: Named, size: int) -> None:
    if size > _RATIO * max(array.stored, _SMALL):
        raise InputError(
            f"{path} has a {name} of {size / 1e6:,.0f} MB packed in {array.stored:,} bytes:"
            f" expected at most {_RATIO} times as much as is stored; save it without compression"
        )


@contextmanager
def _read(path: Path) -> Iterator[None]:
    try:
        yield
    except (InputError, GeneratorExit):
        raise
    except Exception as error:  # numpy, zipfile and h5py raise almost anything on a damaged file
        why = (
            getattr(error, "strerror", None)
            or str(error).partition("\n")[0]
            or type(error).__name__
        )
        raise InputError(
            f"{path} cannot be read ({why}): expected a whole npz or HDF5 file of plain arrays;"
            " download or save it again"
        ) from error


def _is_hdf5(path: Path) -> bool:
    # to open a pipe is to wait for ever
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError("it is no file")
    with path.open("rb") as file:
        mark = file.read(8)
    for other, remedy in _OTHERS.items():
        if mark.startswith(other):
            raise InputError(f"{path} is {remedy}")
    return mark == b"\x89HDF\r\n\x1a\n"


# ---- npz ----------------------------------------------------------------------------------------


def _of_npz(path: Path) -> dict[str, Named]:
    found = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                with archive.open(member) as file:
                    shape, _, dtype = header(file)
                found[member.filename.removesuffix(".npy")] = Named(
                    shape, dtype, min(member.compress_size, path.stat().st_size)
                )
    return found


def header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and type of the npy file that begins here.

    Raises:
        ValueError, tokenize.TokenError: it has no such header.
    """
    old = np.lib.format.read_magic(file) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def _rows_of_npz(path: Path, name: str, array: Named, rows: int) -> Iterator[np.ndarray]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        if header(file)[1] and len(array.shape) > 1:
            raise InputError(
                f"{path} has a {name} in Fortran order: expected C order; save it with"
                " numpy.ascontiguousarray"
            )
        for start in range(0, array.shape[0], rows):
            count = min(rows, array.shape[0] - start)
            content = file.read(count * array.row)
            if len(content) < count * array.row:
                raise InputError(
                    f"{path} has a {name} that ends after row"
                    f" {start + len(content) // max(1, array.row)}: expected"
                    f" {array.shape[0]}; download or save it again"
                )
            yield np.frombuffer(content, array.dtype).reshape(count, *array.shape[1:])
        if file.read(1):  # and zipfile compares its checksum
            raise InputError(
                f"{path} has bytes behind its {name}: expected {array.shape[0]} rows; download or"
                " save it again"
            )


# ---- HDF5 ---------------------------------------------------------------------------------------


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            f"path is {path}, which needs h5py, and that is not installed: expected it; pip install"
            " 'jensen[hdf5]'"
        ) from error
    return h5py


def _of_hdf5(path: Path) -> dict[str, Named]:
    h5py = _h5py(path)
    found = {}

    def look(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.shape:
            found[name] = Named(node.shape, node.dtype, node.id.get_storage_size())

    with h5py.File(path, "r") as file:
        file.visititems(look)  # it follows no link
    return found


def _rows_of_hdf5(path: Path, name: str, array: Named, rows: int) -> Iterator[np.ndarray]:
    with _h5py(path).File(path, "r") as file:
        data = file[name]
        if data.external or data.is_virtual:
            raise InputError(
                f"{path} has a {name} that lies in other files: expected one file; save it as one"
            )
        if data.chunks:  # a chunk that is cut is unpacked twice
            _check_size(
                path, name, array, int(np.prod(data.chunks, dtype=object)) * array.dtype.itemsize
            )
            rows = (
                -(-rows // data.chunks[0]) * data.chunks[0] if data.chunks[0] < 8 * rows else rows
            )
        for start in range(0, array.shape[0], rows):
            yield data[start : start + rows]
