"""Which files below a folder are images, and which are passed over and why."""

import os
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from jensen.core.errors import InputError

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".jpx", ".avif"),
)
"""Of files that are taken for images, in any case."""

_LITTER = ("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin")
"""What systems leave beside images, in lower case; so are names that begin with a dot."""
_NAMED = 3


class Listing(NamedTuple):
    """What lies below a folder, as sorted relative paths.

    images: files with an image's extension.
    hidden: files and folders that begin with a dot or that a system left there; nothing in them is looked at.
    others: how many files there are of each other extension.
    """

    images: list[str]
    hidden: list[str]
    others: Counter[str]

    @property
    def passed_over(self) -> str:
        """What is not read, in words; empty if that is nothing."""
        parts = []
        if self.hidden:
            parts.append(f"{len(self.hidden)} hidden ({_some(self.hidden)})")
        if self.others:
            kinds = (f"{kind or 'no extension'} {count}" for kind, count in self.others.most_common())
            parts.append(f"{self.others.total()} of other kinds ({_some([*kinds])})")
        return " and ".join(parts)


def listing(top: Path) -> Listing:
    """The files below `top`; links are followed, and a folder that is reached twice counts once.

    Raises:
        InputError: a folder that cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise InputError(
            f"{error.filename} cannot be listed ({error.strerror}): expected a readable folder; make it so"
        ) from error

    found = Listing([], [], Counter())
    seen = {os.path.realpath(top)}
    for here, below, files in os.walk(top, onerror=refuse, followlinks=True):
        unseen = {}
        for name in sorted(below, reverse=True):  # of two links to one folder the first name stays
            if _is_hidden(name):
                found.hidden.append(_relative(here, name, top))
            else:
                unseen[os.path.realpath(Path(here, name))] = name
        below[:] = [name for target, name in unseen.items() if target not in seen]
        seen.update(unseen)
        for name in files:
            _sort(found, Path(here, name), top)
    return Listing(sorted(found.images), sorted(found.hidden), found.others)


def _sort(found: Listing, path: Path, top: Path) -> None:
    kind = path.suffix.lower()
    if _is_hidden(path.name):
        found.hidden.append(_relative(path.parent, path.name, top))
    elif kind not in EXTENSIONS:
        found.others[kind] += 1
    elif _is_device(path):  # to open a pipe is to wait for ever
        found.others["no regular file"] += 1
    else:
        found.images.append(_relative(path.parent, path.name, top))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _is_device(path: Path) -> bool:
    """Whether there is something that is no file; what cannot be looked at is for the reader to refuse."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _relative(here: str | Path, name: str, top: Path) -> str:
    return Path(here, name).relative_to(top).as_posix()


def _some(names: Iterable[str]) -> str:
    first, *_ = parts = [*names]
    more = f" and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return ", ".join(parts[:_NAMED]) + more if first else more
