"""The files below a folder that are images, and those passed over and why."""

import os
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from jensen.base.errors import InputError
from jensen.data.picture import is_picture

EXTENSIONS = (
    *(
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".webp",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
    ),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".jpx", ".avif"),
)
"""Endings of files that are taken for images, in any case; so are pictures whose names have no
extension.
"""

_LITTER = ("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin")
"""Names that systems leave beside images, in lower case; so are names that begin with a dot."""
_NAMED = 3


class Listing(NamedTuple):
    """The files below a folder, as sorted relative paths.

    images: files with an image's extension, and pictures without any extension.
    hidden: files and folders that begin with a dot or that a system left there; nothing in them is
        looked at.
    others: how many files there are of each other extension, and `disguised`: those of them that
        hold a picture.
    outside: links that lead out of the folder, with where they lead; `led`: how many of the images
        are reached by them.
    back: folders that are read by another way, or contain the folder itself: a link leads there.
    """

    images: list[str]
    hidden: list[str]
    others: Counter[str]
    disguised: list[str]
    outside: list[str]
    led: int
    back: list[str]

    @property
    def followed(self) -> str:
        """The number of images that lie elsewhere, in words; empty if none do."""
        where = f"{self.led:,} of them reached by {len(self.outside)} links that lead out of it"
        return (
            f"{where} ({_some(self.outside)}; +data.links=false passes over them)"
            if self.led
            else ""
        )

    def passed_over(self, links: bool = True) -> str:
        """The files that are not read, in words; empty if there are none."""
        parts = []
        if self.hidden:
            parts.append(f"{len(self.hidden)} hidden ({_some(self.hidden)})")
        if self.others:
            kinds = (
                f"{kind or 'no extension'} {count}" for kind, count in self.others.most_common()
            )
            parts.append(f"{self.others.total()} of other kinds ({_some([*kinds])})")
        if self.disguised:
            parts[-1] += (
                f", {len(self.disguised)} of which hold pictures ({_some(self.disguised)}): rename"
                " them to be read"
            )
        if self.outside and not links:
            parts.append(f"{len(self.outside)} links that lead out of it ({_some(self.outside)})")
        if self.back:
            parts.append(
                f"{len(self.back)} folders that are read by another way or contain this one"
                f" ({_some(self.back)})"
            )
        return " and ".join(parts)


def listing(top: Path, links: bool = True) -> Listing:
    """The files below `top`; a folder that is reached twice counts once, and links out of it are
    followed if `links`.

    A link to a folder that contains `top` is never followed: it would lead back, by way of
    everything beside it.

    Raises:
        InputError: a folder that cannot be listed.
    """
    walk = _Walk(top, links)
    walk.walk()
    return walk.found


class _Walk:
    """The one pass over the folder `top`."""

    def __init__(self, top: Path, links: bool) -> None:
        self._top = top
        self._links = links
        self._root = Path(os.path.realpath(top))
        self._seen = {str(self._root)}
        self._led: set[str] = set()  # folders that a link out of `top` leads to
        self._images: list[str] = []
        self._foreign = 0
        self._others: Counter[str] = Counter()
        self._lists: dict[str, list[str]] = {
            name: [] for name in ("hidden", "disguised", "outside", "back")
        }

    @property
    def found(self) -> Listing:
        lists = {name: sorted(each) for name, each in self._lists.items()}
        return Listing(images=sorted(self._images), others=self._others, led=self._foreign, **lists)

    def walk(self) -> None:
        for here, below, files in os.walk(self._top, onerror=_refuse, followlinks=True):
            below[:] = self._entered(
                here, sorted(below, reverse=True)
            )  # of two links to one folder the first name stays
            for name in files:
                self._sort(Path(here, name), here in self._led)

    def _entered(self, here: str, names: list[str]) -> list[str]:
        """The folders of `names` to go into."""
        unseen: dict[str, str] = {}
        for name in names:
            path = Path(here, name)
            target = os.path.realpath(Path(here, name))
            if _is_hidden(name):
                self._add("hidden", path)
            elif target in self._seen or self._root.is_relative_to(target):
                self._add("back", path)
            elif self._is_entered(path, here in self._led, target):
                if target in unseen:
                    self._add("back", Path(here, unseen[target]))
                unseen[target] = name
        self._seen.update(unseen)
        return [*unseen.values()]

    def _is_entered(self, path: Path, led: bool, target: str) -> bool:
        """Tell whether to go into the folder `path`; remembers those that are elsewhere."""
        out = not led and self._leads_out(path, target)
        if led or out:
            self._led.add(str(path))
        return self._links or not out

    def _leads_out(self, path: Path, target: str) -> bool:
        if not path.is_symlink() or Path(target).is_relative_to(self._root):
            return False
        self._lists["outside"].append(f"{_relative(path, self._top)} -> {target}")
        return True

    def _add(self, kind: str, path: Path) -> None:
        self._lists[kind].append(_relative(path, self._top))

    def _sort(self, path: Path, led: bool) -> None:
        kind = path.suffix.lower()
        if _is_hidden(path.name):
            self._add("hidden", path)
        elif _is_device(path):  # to open a pipe is to wait for ever
            self._others["no regular file"] += 1
        elif kind in EXTENSIONS or is_picture(path):
            self._sort_picture(path, led)
        else:
            self._others[kind] += 1

    def _sort_picture(self, path: Path, led: bool) -> None:
        kind = path.suffix.lower()
        if kind and kind not in EXTENSIONS:
            self._others[kind] += 1
            self._add("disguised", path)
            return
        out = not led and self._leads_out(path, os.path.realpath(path))
        if out and not self._links:
            return
        self._images.append(_relative(path, self._top))
        self._foreign += led or out


def _refuse(error: OSError) -> None:
    raise InputError(
        f"{error.filename} cannot be listed ({error.strerror}): expected a readable folder; make"
        " it so"
    ) from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _is_device(path: Path) -> bool:
    """Tell whether there is something that is no file; what cannot be looked at is for the reader
    to refuse.
    """
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _relative(path: Path, top: Path) -> str:
    return path.relative_to(top).as_posix()


def _some(names: Iterable[str]) -> str:
    first, *_ = parts = [*names]
    more = f" and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return ", ".join(parts[:_NAMED]) + more if first else more
