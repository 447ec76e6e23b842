"""EMNIST (Cohen et al. 2017) and QMNIST (Yadav & Bottou 2019) from the idx files that they are
published as.
"""

from pathlib import Path

from jensen.base.errors import InputError, check_choice, check_count, check_path
from jensen.data.examples import Examples
from jensen.data.idx import CLASSES, find, labelled

SPLITS = ("train", "test")
SUBSETS = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10, "mnist": 10}
"""Number of classes of each part of EMNIST."""
_FIRST = {"letters": 1}
"""The label of the first class, where that is not 0: EMNIST's letters are 1..26."""


def emnist(
    root: str | Path, split: str = "train", subset: str = "balanced", pad: int = 0
) -> Examples:
    """The characters of a `subset` of EMNIST, as `idx.mnist`: upright, where its files hold each
    image transposed.

    Read from `emnist-<subset>-<split>-images-idx3-ubyte` and its labels, raw or .gz, in `root`,
    `root/gzip` (as its archive unpacks) or `root/EMNIST/raw`. Classes count from 0, the letters
    too, whose labels are 1..26.

    Raises:
        InputError: an unknown split or subset, a negative pad, or files that are missing, damaged
            or of other content.
    """
    check_choice("subset", subset, tuple(SUBSETS))
    stem = f"emnist-{subset}-{split}"
    images, labels = _files(
        root, split, pad, stem, [f"{stem}-labels-idx1-ubyte"], ("gzip", "EMNIST/raw")
    )
    return labelled(images, labels, SUBSETS[subset], pad, _FIRST.get(subset, 0), transposed=True)


def qmnist(root: str | Path, split: str = "train", pad: int = 0) -> Examples:
    """The digits of QMNIST, as `idx.mnist`; of the eight columns of its labels, the first, the
    class.

    Read from `qmnist-<split>-images-idx3-ubyte` and `qmnist-<split>-labels-idx2-int`, raw or .gz,
    in `root` or `root/QMNIST/raw`.

    Raises:
        InputError: an unknown split, a negative pad, or files that are missing, damaged or of other
            content.
    """
    stem = f"qmnist-{split}"
    endings = ("-labels-idx2-int", "-labels-idx1-ubyte")
    images, labels = _files(
        root, split, pad, stem, [stem + ending for ending in endings], ("QMNIST/raw",)
    )
    return labelled(images, labels, CLASSES, pad)


def _files(
    root: str | Path, split: str, pad: int, stem: str, labels: list[str], below: tuple[str, ...]
) -> tuple[Path, Path | None]:
    check_path("root", root)
    check_choice("split", split, SPLITS)
    check_count("pad", pad, 0)
    top = Path(root).expanduser()
    images = f"{stem}-images-idx3-ubyte"
    if found := find([top, *(top / name for name in below)], images, labels):
        return found
    others = " and ".join(str(top / name) for name in below)
    raise InputError(
        f"{top} lacks {images} or {labels[0]}, raw or .gz, and so does {others}: expected"
        " both in one folder; put them there, or set data=sprites, which needs no file"
    )
