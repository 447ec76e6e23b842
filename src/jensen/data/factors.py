"""Known factors from columns of numbers and from tables, such as CelebA's `list_attr_celeba.txt`
(Liu et al. 2015).
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from jensen.base.errors import InputError

_VALUES = 1000
"""The most values that a factor may have: a column of more is a measurement."""
_BYTES = 1 << 30
"""The most bytes of a table, which is read into memory."""


def numbered(path: Path, name: str, column: np.ndarray) -> np.ndarray:
    """The place of each value of `column` `(N,)` among its values in their order: int64 `(N,)`.

    Raises:
        InputError: it has too many values for a factor, or some that are not finite.
    """
    values, places = np.unique(column, return_inverse=True)
    if len(values) > _VALUES or (column.dtype.kind == "f" and not np.isfinite(values).all()):
        raise InputError(
            f"{path} has a factor {name} of {len(values)} values, {values[0]} to {values[-1]}:"
            f" expected at most {_VALUES}, all finite; leave it out, or round it"
        )
    return places.reshape(-1)


def table(path: Path, images: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The factors `(N, F)` of `images`, relative paths, and their names, from a text file.

    A line has the names of the columns, each other one an image, by its path or the last part of
    it, and its numbers; between them are commas or blanks. A first line that is a number alone, a
    count, is passed over, and so are rows of other images.

    Raises:
        InputError: the file cannot be read, has a line of other length or an image twice, or lacks
            an image.
    """
    header, rows = _lines(path)
    found: dict[str, list[str]] = {}
    for number, (image, *values) in rows:
        if len(values) != len(header):
            raise InputError(
                f"{path} has {len(values)} values in line {number}: expected {len(header)}, one"
                " for each name; mend the line"
            )
        if image in found:
            raise InputError(
                f"{path} has {image} in line {number} and before it: expected each image once;"
                " remove one"
            )
        found[image] = values
    chosen = [found.get(image) or found.get(PurePosixPath(image).name) for image in images]
    if missing := [image for image, values in zip(images, chosen, strict=True) if values is None]:
        raise InputError(
            f"{path} lacks {len(missing)} of the {len(images)} images, {missing[0]} first:"
            " expected a line for each; set data.root to the folder that the table is of"
        )
    try:
        columns = np.array(chosen, dtype=np.float64).T
    except ValueError as error:
        raise InputError(
            f"{path} has a value that is no number ({error}): expected numbers; number the values"
        ) from error
    factors = [numbered(path, name, column) for name, column in zip(header, columns, strict=True)]
    return np.stack(factors, 1), tuple(header)


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns of numbers, and the fields of each line that follows, with its
    number from 1.
    """
    try:
        # to open a pipe is to wait for ever
        if path.exists() and not path.is_file() and not path.is_dir():
            raise OSError("it is no file")
        if path.stat().st_size > _BYTES:
            raise OSError(f"it has more than {_BYTES >> 30} GB")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path} cannot be read ({why}): expected a table of images and numbers; choose another"
        ) from error
    separator = "," if "," in text else None
    lines = [[field.strip() for field in line.split(separator)] for line in text.splitlines()]
    kept = [(number, fields) for number, fields in enumerate(lines, 1) if any(fields)]
    if kept and len(kept[0][1]) == 1 and kept[0][1][0].isdigit():
        kept = kept[1:]
    if len(kept) < 2 or len(kept[1][1]) < 2:
        raise InputError(
            f"{path} has no names with rows below: expected a table of images and numbers; choose"
            " another file"
        )
    header = kept[0][1]
    names = header[1:] if len(header) == len(kept[1][1]) else header
    if len({*names}) < len(names):
        raise InputError(
            f"{path} names a column twice, in {', '.join(names[:10])}: expected different names;"
            " rename one"
        )
    return names, kept[1:]
