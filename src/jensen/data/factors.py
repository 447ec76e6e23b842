"""Known factors from columns of numbers and from tables, such as CelebA's `list_attr_celeba.txt`
(Liu et al. 2015).
"""

import csv
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path, PurePosixPath

import numpy as np

from jensen.base.errors import InputError
from jensen.data.listing import EXTENSIONS

_VALUES = 1000
"""The most values that a factor may have: a column of more is a measurement."""
_BYTES = 1 << 30
"""The most bytes of a table, which is read into memory."""
_SEPARATORS = ("\t", ";", ",")
"""What stands between fields, where the names have it; else blanks do."""
_EXACT = 1 << 53
"""Integers beyond it may be one number in float64."""
_OTHERS = {
    b"\x1f\x8b": "it is packed by gzip; unpack it with gunzip",
    b"\xff\xfe": "it is in UTF-16; save it as UTF-8",
    b"\xfe\xff": "it is in UTF-16; save it as UTF-8",
}
"""Files that people have instead, by how they begin."""


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

    The first line has the names of the columns, each other one an image, by its path or the last part
    of it, and its numbers. Between them are commas, semicolons, tabs or blanks, and of the first three
    fields may be quoted. Where they are blanks the column of the images need have no name. A first line
    that is a number alone, a count, is passed over, and so are rows of other images.

    Raises:
        InputError: the file cannot be read, has no names, a line of other length, an image twice or a
            value that is no number, or lacks an image.
    """
    header, rows = _lines(path)
    found: dict[str, list[str]] = {}
    for number, (image, *values) in rows:
        if len(values) != len(header):
            raise InputError(
                f"{path} has {len(values)} values in line {number}: expected {len(header)}, one"
                " for each name; mend the line"
            )
        name = PurePosixPath(image).as_posix()
        if name in found:
            raise InputError(
                f"{path} has {image} in line {number} and before it: expected each image once;"
                " remove one"
            )
        found[name] = values
    chosen = [found[name] for name in _names(path, found, images)]
    columns = _numbers(path, header, images, chosen)
    factors = [numbered(path, name, column) for name, column in zip(header, columns, strict=True)]
    return np.stack(factors, 1), tuple(header)


def _names(path: Path, found: dict[str, list[str]], images: Sequence[str]) -> list[str]:
    """The name in the table of each of `images`, another one of each."""
    names = [image if image in found else PurePosixPath(image).name for image in images]
    if missing := [image for image, name in zip(images, names, strict=True) if name not in found]:
        raise InputError(
            f"{path} lacks {len(missing)} of the {len(images)} images, {missing[0]} first:"
            f" expected a line for each, and its own first is {next(iter(found))!r}; set data.root"
            " to the folder that the table is of"
        )
    owners: dict[str, str] = {}
    for image, name in zip(images, names, strict=True):
        if name in owners:
            raise InputError(
                f"{path} has one line, {name}, for {owners[name]} and {image}: expected one for"
                " each; write their paths there"
            )
        owners[name] = image
    return names


def _numbers(
    path: Path, header: Sequence[str], images: Sequence[str], chosen: list[list[str]]
) -> np.ndarray:
    """The fields of each of `images` as numbers, `(F, N)`."""
    try:
        if "_" in "".join(chain.from_iterable(chosen)):
            raise ValueError("to Python 1_0 is 10")
        columns = np.array(chosen, dtype=np.float64).T
    except ValueError as error:
        image, name, value = next(
            (image, name, value)
            for image, values in zip(images, chosen, strict=True)
            for name, value in zip(header, values, strict=True)
            if not _is_number(value)
        )
        raise InputError(
            f"{path} has {value!r} as {name} of {image}, which is no number: expected one, with a"
            " point before decimals; number the values"
        ) from error
    for place in (np.abs(columns).max(1) >= _EXACT).nonzero()[0].tolist():
        texts = {values[place] for values in chosen}
        if len(texts) > len({float(text) for text in texts}):
            raise InputError(
                f"{path} has numbers as {header[place]} that float64 cannot tell apart: expected"
                f" at most {_EXACT}; number the values"
            )
    return columns


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return "_" not in value


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns of numbers, and the fields of each line that follows, with its
    number from 1.
    """
    lines = _text(path).splitlines()
    separator = _separator(lines)
    try:
        kept = [each for each in _fields(lines, separator) if any(each[1])]
    except csv.Error as error:  # a quote that is opened and never closed
        raise InputError(
            f"{path} cannot be read ({error}): expected lines of fields, each quote closed; mend it"
        ) from error
    if kept and len(kept[0][1]) == 1 and kept[0][1][0].isdigit():
        kept = kept[1:]
    if len(kept) < 2 or len(kept[1][1]) < 2:
        raise InputError(
            f"{path} has no names with rows below: expected a table of images and numbers; choose"
            " another file"
        )
    (number, header), (below, first), *_ = kept
    if header[0].lower().endswith(EXTENSIONS):
        raise InputError(
            f"{path} has the image {header[0]} in line {number}: expected the names of the columns;"
            " put a line of them before it"
        )
    if separator and len(header) + 1 == len(first):
        raise InputError(
            f"{path} has {len(header)} names in line {number} and {len(first)} values in line"
            f" {below}: expected as many; name each column, also that of the images, and write"
            " decimals with a point"
        )
    names = header[1:] if len(header) == len(first) else header
    if len({*names}) < len(names):
        raise InputError(
            f"{path} names a column twice, in {', '.join(names[:10])}: expected different names;"
            " rename one"
        )
    return names, kept[1:]


def _text(path: Path) -> str:
    try:
        # to open a pipe is to wait for ever
        if path.exists() and not path.is_file() and not path.is_dir():
            raise OSError("it is no file")
        if path.stat().st_size > _BYTES:
            raise OSError(f"it has more than {_BYTES >> 30} GB")
        with path.open("rb") as file:
            mark = file.read(2)
        if mark in _OTHERS:
            raise OSError(_OTHERS[mark])
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path} cannot be read ({why}): expected a table of images and numbers; choose another"
        ) from error


def _separator(lines: Sequence[str]) -> str | None:
    """The separator of the names, or where there is one name, between the fields below it; None
    for blanks.
    """
    heads = (line for line in lines if line.strip() and not line.strip().isdigit())
    for head in islice(heads, 2):
        for separator in _SEPARATORS:
            if separator in head:
                return separator
        if len(head.split()) > 1:
            return None
    return None


def _fields(lines: Sequence[str], separator: str | None) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line, with its number from 1."""
    if separator is None:
        yield from ((number, line.split()) for number, line in enumerate(lines, 1))
        return
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    for fields in reader:
        yield reader.line_num, [field.strip() for field in fields]
