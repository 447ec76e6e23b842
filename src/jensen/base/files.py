"""Files that are whole or not there, and names of files that a command may write.

Nothing here takes time to import.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from jensen.base.errors import InputError, check_path


def write(path: Path, content: Callable[[Any], object]) -> None:
    """Has `content` write an open file, whole or not at all.

    Raises:
        InputError: the file cannot be written; what was there is there still.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(_created(partial), "wb") as file:
            content(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync(path.parent)
    except (
        BaseException
    ) as error:  # of torch.save a full disk is a RuntimeError; Ctrl-C is none of Exception
        with suppress(OSError):  # it may not be removed from where it could not be made
            partial.unlink()
        if not isinstance(error, OSError):
            raise
        raise InputError(
            f"{path} cannot be written ({error.strerror}): expected room in a folder of yours;"
            " what was there is kept, so make room and run the same command again"
        ) from error


def _created(path: Path) -> int:
    """A descriptor of an empty file; of no link, which would lead out of a folder that someone else
    has made.
    """
    return os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666
    )


def target(name: str, value: object, suffix: str) -> Path:
    """The file that the key `name` of a command says is to be written, in the format of `suffix`.

    Raises:
        InputError: no path, a folder, or a name that promises another format.
    """
    check_path(name, value)
    path = Path(str(value)).expanduser()
    if path.is_dir():
        raise InputError(
            f"{name}={value} cannot be written (Is a directory): expected a file; name one in it,"
            f" such as {name}={path / f'NAME{suffix}'}"
        )
    if path.suffix.lower() != suffix:
        raise InputError(
            f"{name}={value} does not end with {suffix}: expected a name of the format that is"
            f" written; take {name}={path.with_suffix(suffix)}"
        )
    return path


def target_folder(name: str, value: object) -> Path:
    """The folder that the key `name` of a command says is to be written.

    Raises:
        InputError: no path, a file, or the name of one.
    """
    check_path(name, value)
    path = Path(str(value)).expanduser()
    if path.suffix in _REPORTED or (path.exists() and not path.is_dir()):
        raise InputError(
            f"{name}={value} is a file: expected a folder, for several; take {name}={path.parent}"
        )
    return path


_REPORTED = (".md", ".csv", ".html", ".png", ".pdf", ".svg")


def within(folder: Path, path: Path) -> None:
    """Raises: InputError: `path` is a link that leads out of `folder`."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"{path} leads to {path.resolve()}, out of {folder}: expected a folder in it, or a"
            " file, since none but its own are read and written; remove the link"
        )


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
