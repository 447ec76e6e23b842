"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017) from their idx files, raw or
gzipped.

The files may bear the names that archivers give them: `train-images.idx3-ubyte`, or within a folder
of the same name.
"""

import gzip
import hashlib
import logging
import math
import struct
import tempfile
import zlib
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import IO

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.nn.functional import pad as pad_sides
from torchvision.datasets import MNIST, FashionMNIST
from torchvision.datasets.utils import download_url

from jensen.base.errors import InputError, check_choice, check_count, check_flag, check_path
from jensen.data.downloads import check_download
from jensen.data.examples import Examples, pixels

CLASSES = 10
SIDE = 28

_PREFIXES = {"train": "train", "test": "t10k"}
_IMAGES = "-images-idx3-ubyte"
_LABELS = "-labels-idx1-ubyte"
_BLOCK = 1 << 20
_KINDS = {
    b"\0\0\x08\x01": "u1",
    b"\0\0\x08\x03": "u1",
    b"\0\0\x0c\x01": ">i4",
    b"\0\0\x0c\x02": ">i4",
}
"""numpy's name for the numbers behind the first four bytes: of labels, of images, and of QMNIST's
labels.
"""

_INSIDE = {
    "MNIST": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
"""The md5 of the published files without gzip, so that an archive that was packed again is known
too.
"""
_log = logging.getLogger(__name__)


def read(path: Path) -> Tensor:
    """The idx file `path`: uint8 `(N,)` or `(N, H, W)`, or int32 `(N,)` or `(N, M)`; gunzipped on
    the way if it is gzipped.

    Raises:
        InputError: the file cannot be read, is damaged, has another type or number of dimensions,
            holds nothing, or holds fewer or more bytes than its header promises.
    """
    try:
        with _opened(path) as file:
            magic = file.read(4)
            if magic not in _KINDS:
                raise InputError(
                    f"{path} begins with {f'bytes {magic.hex()}' if magic else 'nothing'}:"
                    " expected 00000801 or 00000803, an idx file of bytes in 1 or 3 dimensions,"
                    " or 00000c02 of integers in 2; download it again"
                )
            header = file.read(4 * magic[3])
            if len(header) < 4 * magic[3]:
                raise InputError(
                    f"{path} ends within its header: expected {magic[3]} sizes of 4 bytes;"
                    " download it again"
                )
            shape = struct.unpack(f">{magic[3]}I", header)
            dtype = np.dtype(_KINDS[magic])
            size = math.prod(shape) * dtype.itemsize
            content = bytearray()
            # Block by block: one `read(size)` would allocate whatever an unchecked header claims.
            # The one byte more than `size` finds trailing bytes, and takes gzip to the end of the
            # file, where it checks its checksum.
            while len(content) <= size and (
                block := file.read(min(_BLOCK, size + 1 - len(content)))
            ):
                content += block
    except (OSError, EOFError, zlib.error) as error:
        found = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path} cannot be read ({found}): expected a whole idx file; download it again"
        ) from error
    if not size or len(content) != size:
        found = f"{len(content)} follow" if len(content) <= size else "more follow"
        raise InputError(
            f"{path} has a header for {size} bytes of shape {shape} but {found}: expected one byte"
            " or more, and just as many as the header says; download it again"
        )
    array = np.frombuffer(content, dtype).reshape(shape)
    return torch.from_numpy(array.astype(dtype.newbyteorder("="), copy=False))


def _opened(path: Path) -> IO[bytes]:
    """`path` without its gzip, whichever way its name ends: browsers unpack files and leave the
    name.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    if zipped and path.suffix != ".gz":
        try:
            with gzip.open(path) as file:
                zipped = bool(file.read(4))
        except (OSError, EOFError, zlib.error):
            zipped = False
    return gzip.open(path) if zipped else path.open("rb")  # type: ignore[return-value]


def mnist(root: str | Path, split: str = "train", download: bool = False, pad: int = 0) -> Examples:
    """The handwritten digits of `split`, "train" or "test", with `pad` rows and columns of zeros on
    each side.

    Stored as uint8 `(N, 1, 28 + 2 pad, 28 + 2 pad)`, with the factor "class". Read from `root`,
    else `root/MNIST/raw`; where neither holds the split, it is first downloaded to the latter if
    `download`.

    Raises:
        InputError: an unknown split, a negative pad, or files that are missing, damaged, of another
            data set, or do not belong together; or they cannot be downloaded.
    """
    return _examples(MNIST, root, split, download, pad)


def fashion_mnist(
    root: str | Path, split: str = "train", download: bool = False, pad: int = 0
) -> Examples:
    """The pieces of clothing of `split`: as `mnist`, from `root`, else `root/FashionMNIST/raw`."""
    return _examples(FashionMNIST, root, split, download, pad)


def _examples(
    dataset: type[MNIST], root: str | Path, split: str, download: bool, pad: int
) -> Examples:
    check_path("root", root)
    check_choice("split", split, tuple(_PREFIXES))
    check_flag("download", download)
    check_count("pad", pad, 0)
    prefix = _PREFIXES[split]
    images, labels = _find(dataset, Path(root).expanduser(), prefix, download)
    for path in filter(None, (images, labels)):
        _verify(dataset, path)
    examples = labelled(images, labels, CLASSES, pad)
    if _stem(images) != prefix + _IMAGES:
        _log.warning(
            "%s is used for want of %s: %d images, of which it is not checked that they are %s's",
            images,
            prefix + _IMAGES,
            len(examples),
            dataset.__name__,
        )
    return examples


def labelled(
    images_path: Path,
    labels_path: Path | None,
    classes: int,
    pad: int,
    first: int = 0,
    transposed: bool = False,
) -> Examples:
    """The images of an idx file, with the factor "class" if there are labels: uint8 `(N, 1, 28 + 2
    pad, 28 + 2 pad)`.

    first: the label of class 0; of several columns of labels the first is it.
    transposed: whether the file holds each image column after column.

    Raises:
        InputError: a file is damaged, or of other content, or they do not belong together.
    """
    images = read(images_path)
    if images.shape[1:] != (SIDE, SIDE):
        raise InputError(
            f"{images_path} is of shape {tuple(images.shape)}: expected images of {SIDE} x {SIDE};"
            " download it again"
        )
    if transposed:
        images = images.mT.contiguous()
    stored = pad_sides(images, (pad,) * 4)[:, None] if pad else images[:, None]
    if labels_path is None:
        note = f"{len(images):,} images in {images_path}, without labels: none are beside it"
        return Examples(stored, pixels, bytewise=True, note=note)
    labels = _labels(labels_path, images_path, len(images), range(first, first + classes))
    return Examples(stored, pixels, labels[:, None], ("class",), (classes,), bytewise=True)


def _labels(path: Path, images: Path, count: int, expected: range) -> Tensor:
    """Classes from 0, uint8 `(N,)`."""
    labels = read(path)
    if labels.dim() == 2:
        labels = labels[:, 0]
    if labels.shape != (count,):
        raise InputError(
            f"{path} is of shape {tuple(labels.shape)}: expected ({count},), a label for each"
            f" image of {images.name}; put files that belong together there"
        )
    for label in (int(labels.min()), int(labels.max())):
        if label not in expected:
            raise InputError(
                f"{path} has the label {label}: expected labels in {expected[0]}..{expected[-1]};"
                " it is of another data set: set data=emnist or data=qmnist if it is theirs, and"
                " give it the name it is published under"
            )
    return (labels - expected[0]).byte()


def _find(
    dataset: type[MNIST], root: Path, prefix: str, download: bool
) -> tuple[Path, Path | None]:
    """The files of the images and of the labels, both in the same folder; None where there are no
    labels anywhere.
    """
    folders = (root, root / dataset.__name__ / "raw")
    pair = find(folders, prefix + _IMAGES, [prefix + _LABELS])
    if pair and (pair[1] or not download):
        return pair
    if download:
        check_download(f"{prefix + _IMAGES} of {folders[1]}")
        _download(dataset, folders[1], prefix)
        if pair := find(folders[1:], prefix + _IMAGES, [prefix + _LABELS]):
            return pair
    return _stand_in(dataset, root, folders, prefix)


def find(
    folders: Sequence[Path], images: str, labels: Sequence[str]
) -> tuple[Path, Path | None] | None:
    """The file `images` of the first folder that has it with its labels under one of their names,
    else without them.

    None if there are no images, or if the labels are in another folder than they are.
    """
    for folder in folders:
        pair = (
            _present(folder, images),
            next(filter(None, (_present(folder, name) for name in labels)), None),
        )
        if pair[0] and pair[1]:
            return pair[0], pair[1]
    alone = next(filter(None, (_present(folder, images) for folder in folders)), None)
    parted = any(_present(folder, name) for folder in folders for name in labels)
    return (alone, None) if alone and not parted else None


def _stand_in(
    dataset: type[MNIST], root: Path, folders: tuple[Path, ...], prefix: str
) -> tuple[Path, Path]:
    """The one other set of the split that there is."""
    stem = prefix + _IMAGES
    others = []
    if not any(
        _present(folder, stem) for folder in folders
    ):  # a complete set without its labels is for the user to mend
        found = {
            (folder, _stem(path))
            for folder in folders
            for path in folder.glob(f"{prefix}*{_IMAGES}*")
        }
        others = [
            pair
            for folder, other in sorted(found)
            if other.endswith(_IMAGES) and (pair := _pair(folder, other))
        ]
    if len(others) > 1:
        raise InputError(
            f"{root} has no {stem} but"
            f" {', '.join(str(images.relative_to(root)) for images, _ in others)}: expected one of"
            f" them; name the one to use {stem}, or move the others away"
        )
    if not others:
        named = (
            path.name
            for folder in folders
            for kind in ("emnist", "qmnist")
            for path in folder.glob(f"{kind}-*images*")
        )
        there = next(named, None)
        own = f"; {there} is there, which data={there.split('-')[0]} reads" if there else ""
        raise InputError(
            f"{root} lacks {stem} or {prefix + _LABELS}, raw or .gz, and so does {folders[1]}:"
            " expected both in one folder; set"
            f" data.download=true to fetch them, or data=sprites, which needs no file{own}"
        )
    return others[0]


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").replace(".idx", "-idx")


def _present(folder: Path, stem: str) -> Path | None:
    """The file `stem` of `folder`; gzipped first, since that one is checked by its md5."""
    for name in (stem, stem.replace("-idx", ".idx")):
        for path in (folder / f"{name}.gz", folder / name, folder / name / name):
            if path.is_file():
                return path
    return None


def _pair(folder: Path, stem: str) -> tuple[Path, Path] | None:
    """The images `stem` of `folder` and their labels, if it has both."""
    images = _present(folder, stem)
    labels = _present(folder, stem.removesuffix(_IMAGES) + _LABELS)
    return (images, labels) if images and labels else None


def _verify(dataset: type[MNIST], path: Path) -> None:
    """Refuse a file with the name, but not the content, of one that is published gzipped."""
    expected = dict(dataset.resources).get(f"{_stem(path)}.gz") if path.suffix == ".gz" else None
    if expected is None:
        return
    try:
        with path.open("rb") as file:
            found = _md5(file)
        if found == expected:
            return
        with _opened(path) as file:
            if _md5(file) == _INSIDE[dataset.__name__][_stem(path)]:
                return
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path} cannot be read ({why}): expected a whole idx file; download it again"
        ) from error
    raise InputError(
        f"{path} has the md5 {found}, expected {expected} for {dataset.__name__}: it is damaged,"
        " or of another data set, and so is what is packed in it; remove it and download it"
        " again, or gunzip it: raw files are checked by size only"
    )


def _md5(file: IO[bytes]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _download(dataset: type[MNIST], folder: Path, prefix: str) -> None:
    """Fetch the files of a split that `folder` lacks, by torchvision, from its mirrors and against
    its md5 table.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One process fetches while the others wait, and a file takes its name only when it is
        # whole.
        with (
            FileLock(folder / ".lock"),
            tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as partial,
        ):
            for name, md5 in dataset.resources:
                if name.startswith(prefix) and not _present(folder, name.removesuffix(".gz")):
                    _fetch(dataset, name, md5, Path(partial))
                    Path(partial, name).replace(folder / name)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror or error}): expected a place for"
            f" {dataset.__name__}; set data.root to"
            " a folder that you can write, or data=sprites, which needs no file"
        ) from error


def _fetch(dataset: type[MNIST], name: str, md5: str, into: Path) -> None:
    failures = []
    for mirror in dataset.mirrors:
        try:
            download_url(mirror + name, into, name, md5)
            return
        except (
            OSError,
            RuntimeError,
            HTTPException,
        ) as error:  # RuntimeError: another md5, or too many redirections
            failures.append(f"{mirror}: {error}")
    raise InputError(
        f"{name} could not be downloaded ({'; '.join(failures)}): expected a mirror that answers;"
        " try again, put the file into"
        " data.root by other means, or set data=sprites, which needs no file"
    )
