"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017) from their idx files, raw or gzipped."""

import gzip
import hashlib
import logging
import math
import struct
import tempfile
import zlib
from http.client import HTTPException
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor
from torch.nn.functional import pad as pad_sides
from torchvision.datasets import MNIST, FashionMNIST
from torchvision.datasets.utils import download_url

from jensen.core.errors import InputError, check_choice, check_count, check_flag, check_path
from jensen.data.examples import Examples, pixels

CLASSES = 10
SIDE = 28

_PREFIXES = {"train": "train", "test": "t10k"}
_IMAGES, _LABELS = "-images-idx3-ubyte", "-labels-idx1-ubyte"
_BLOCK = 1 << 20
_log = logging.getLogger(__name__)


def read(path: Path) -> Tensor:
    """The uint8 idx file `path` of 1 or 3 dimensions, `(N,)` or `(N, H, W)`; gunzipped on the way if it is named `.gz`.

    Raises:
        InputError: the file cannot be read, is damaged, has another type or number of dimensions, holds nothing, or holds
            fewer or more bytes than its header promises.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic = file.read(4)
            if magic not in (b"\0\0\x08\x01", b"\0\0\x08\x03"):
                raise InputError(
                    f"{path} begins with {f'bytes {magic.hex()}' if magic else 'nothing'}: expected 00000801 or 00000803, an"
                    " idx file of bytes in 1 or 3 dimensions; download it again"
                )
            header = file.read(4 * magic[3])
            if len(header) < 4 * magic[3]:
                raise InputError(f"{path} ends within its header: expected {magic[3]} sizes of 4 bytes; download it again")
            shape = struct.unpack(f">{magic[3]}I", header)
            size = math.prod(shape)
            content = bytearray()
            # Block by block: one `read(size)` would allocate whatever an unchecked header claims. The one byte more than
            # `size` finds trailing bytes, and takes gzip to the end of the file, where it checks its checksum.
            while len(content) <= size and (block := file.read(min(_BLOCK, size + 1 - len(content)))):
                content += block
    except (OSError, EOFError, zlib.error) as error:
        found = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({found}): expected a whole idx file; download it again") from error
    if not size or len(content) != size:
        found = f"{len(content)} follow" if len(content) <= size else "more follow"
        raise InputError(
            f"{path} has a header for {size} bytes of shape {shape} but {found}: expected one byte or more, and just as many as"
            " the header says; download it again"
        )
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)


def mnist(root: str | Path, split: str = "train", download: bool = False, pad: int = 0) -> Examples:
    """The handwritten digits of `split`, "train" or "test", with `pad` rows and columns of zeros on each side.

    Stored as uint8 `(N, 1, 28 + 2 pad, 28 + 2 pad)`, with the factor "class". Read from `root`, else `root/MNIST/raw`; where
    neither holds the split, it is first downloaded to the latter if `download`.

    Raises:
        InputError: an unknown split, a negative pad, or files that are missing, damaged, of another data set, or do not
            belong together; or they cannot be downloaded.
    """
    return _examples(MNIST, root, split, download, pad)


def fashion_mnist(root: str | Path, split: str = "train", download: bool = False, pad: int = 0) -> Examples:
    """The pieces of clothing of `split`: as `mnist`, from `root`, else `root/FashionMNIST/raw`."""
    return _examples(FashionMNIST, root, split, download, pad)


def _examples(dataset: type[MNIST], root: str | Path, split: str, download: bool, pad: int) -> Examples:
    check_path("root", root)
    check_choice("split", split, tuple(_PREFIXES))
    check_flag("download", download)
    check_count("pad", pad, 0)
    prefix = _PREFIXES[split]
    images_path, labels_path = _find(dataset, Path(root).expanduser(), prefix, download)
    for path in (images_path, labels_path):
        _verify(dataset, path)
    images, labels = read(images_path), read(labels_path)
    if images.shape[1:] != (SIDE, SIDE):
        raise InputError(
            f"{images_path} is of shape {tuple(images.shape)}: expected images of {SIDE} x {SIDE}; download it again"
        )
    if labels.shape != images.shape[:1]:
        raise InputError(
            f"{labels_path} is of shape {tuple(labels.shape)}: expected ({len(images)},), a label for each image of"
            f" {images_path.name}; put files that belong together there"
        )
    if labels.max() >= CLASSES:
        raise InputError(f"{labels_path} has the label {labels.max()}: expected labels in 0..{CLASSES - 1}; download it again")
    if _stem(images_path) != prefix + _IMAGES:
        _log.warning(
            "%s is used for want of %s: %d images, of which it is not checked that they are %s's",
            images_path,
            prefix + _IMAGES,
            len(images),
            dataset.__name__,
        )
    return Examples(
        stored=pad_sides(images, (pad,) * 4)[:, None] if pad else images[:, None],
        decode=pixels,
        factors=labels[:, None],
        names=("class",),
        sizes=(CLASSES,),
        bytewise=True,
    )


def _find(dataset: type[MNIST], root: Path, prefix: str, download: bool) -> tuple[Path, Path]:
    """The files of the images and of the labels, both in the same folder."""
    folders = (root, root / dataset.__name__ / "raw")
    stem = prefix + _IMAGES
    for folder in folders:
        if pair := _pair(folder, stem):
            return pair
    if download:
        _download(dataset, folders[1], prefix)
        if pair := _pair(folders[1], stem):
            return pair
    others = []
    if not any(_present(folder, stem) for folder in folders):  # a complete set without its labels is for the user to mend
        found = {(folder, _stem(path)) for folder in folders for path in folder.glob(f"{prefix}*{_IMAGES}*")}
        others = [pair for folder, other in sorted(found) if other.endswith(_IMAGES) and (pair := _pair(folder, other))]
    if len(others) > 1:
        raise InputError(
            f"{root} has no {stem} but {', '.join(str(images.relative_to(root)) for images, _ in others)}: expected one of"
            f" them; name the one to use {stem}, or move the others away"
        )
    if not others:
        raise InputError(
            f"{root} lacks {stem} or {prefix + _LABELS}, raw or .gz, and so does {folders[1]}: expected both in one folder; set"
            " data.download=true to fetch them, or data=sprites, which needs no file"
        )
    return others[0]


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz")


def _present(folder: Path, stem: str) -> Path | None:
    """The file `stem` of `folder`; gzipped first, since that one is checked by its md5."""
    return next((path for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()), None)


def _pair(folder: Path, stem: str) -> tuple[Path, Path] | None:
    """The images `stem` of `folder` and their labels, if it has both."""
    images, labels = _present(folder, stem), _present(folder, stem.removesuffix(_IMAGES) + _LABELS)
    return (images, labels) if images and labels else None


def _verify(dataset: type[MNIST], path: Path) -> None:
    """Refuse a file with the name, but not the content, of one that is published gzipped."""
    expected = dict(dataset.resources).get(path.name)
    if expected is None:
        return
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): expected a whole idx file; download it again") from error
    if found != expected:
        raise InputError(
            f"{path} has the md5 {found}, expected {expected} for {dataset.__name__}: it is damaged, re-compressed or of"
            " another data set; remove it and download it again, or gunzip it: raw files are checked by size only"
        )


def _download(dataset: type[MNIST], folder: Path, prefix: str) -> None:
    """Fetch the files of a split that `folder` lacks, by torchvision, from its mirrors and against its md5 table."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One process fetches while the others wait, and a file takes its name only when it is whole.
        with FileLock(folder / ".lock"), tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as partial:
            for name, md5 in dataset.resources:
                if name.startswith(prefix) and not _present(folder, name.removesuffix(".gz")):
                    _fetch(dataset, name, md5, Path(partial))
                    Path(partial, name).replace(folder / name)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror or error}): expected a place for {dataset.__name__}; set data.root to"
            " a folder that you can write, or data=sprites, which needs no file"
        ) from error


def _fetch(dataset: type[MNIST], name: str, md5: str, into: Path) -> None:
    failures = []
    for mirror in dataset.mirrors:
        try:
            download_url(mirror + name, into, name, md5)
            return
        except (OSError, RuntimeError, HTTPException) as error:  # RuntimeError: another md5, or too many redirections
            failures.append(f"{mirror}: {error}")
    raise InputError(
        f"{name} could not be downloaded ({'; '.join(failures)}): expected a mirror that answers; try again, put the file into"
        " data.root by other means, or set data=sprites, which needs no file"
    )
