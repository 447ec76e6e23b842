"""Any folder of images, brought to one size."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import functional
from tqdm import tqdm

from jensen.core.errors import InputError, check_choice, check_count, check_path
from jensen.data.cache import Array, cached
from jensen.data.examples import Examples, pixels

_MODES = {1: "L", 3: "RGB"}
_BLOCK = 128


def folder(root: str | Path, height: int = 64, width: int = 64, channels: int = 3) -> Examples:
    """All images below `root`, in the order of their relative paths: uint8 `(N, channels, height, width)`, no factors.

    Each is scaled until it just covers height x width and cropped to its centre. Grey if `channels` is 1, colour if it is 3.
    Transparent ones lie on black. Links are followed, and a folder that is reached twice counts once. They are decoded once
    and kept in the cache until a file is added, removed or modified.

    Raises:
        InputError: a height or width below 1, channels other than 1 or 3, a folder that is missing or holds no image, or an
            image that cannot be read.
    """
    check_path("root", root)
    check_count("height", height)
    check_count("width", width)
    check_choice("channels", channels, tuple(_MODES))
    top = Path(root).expanduser().absolute()
    if not top.is_dir():
        raise InputError(
            f"{top} is not a folder: expected one of images; set data.root to it, or data=sprites, which needs none"
        )
    names = _names(top)
    if not names:
        raise InputError(
            f"{top} holds no image: expected files named *{', *'.join(IMG_EXTENSIONS)}; set data.root to their folder"
        )
    key = (str(top), height, width, channels, [(name, *_stamp(top / name)) for name in names])
    digest = hashlib.sha256(repr(key).encode()).hexdigest()
    decode = partial(_decode, height=height, width=width, channels=channels)
    stored = cached(
        f"folder-1-{digest[:32]}",
        (len(names), channels, height, width),
        lambda: _blocks([top / name for name in names], decode),
    )
    return Examples(stored=torch.from_numpy(stored), decode=pixels, bytewise=True)


def _names(top: Path) -> list[str]:
    """The relative paths of the images below `top`, sorted."""

    def refuse(error: OSError) -> None:
        raise InputError(
            f"{error.filename} cannot be listed ({error.strerror}): expected a readable folder; make it so"
        ) from error

    names, seen = [], {os.path.realpath(top)}
    for here, below, files in os.walk(top, onerror=refuse, followlinks=True):
        unseen = {}
        for name in sorted(below, reverse=True):  # of two links to one folder the first name stays
            unseen[os.path.realpath(Path(here, name))] = name
        below[:] = [name for target, name in unseen.items() if target not in seen]
        seen.update(unseen)
        names += [Path(here, name).relative_to(top).as_posix() for name in files if name.lower().endswith(IMG_EXTENSIONS)]
    return sorted(names)


def _stamp(path: Path) -> tuple[int, int]:
    """What changes when the file does."""
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return status.st_size, status.st_mtime_ns


def _unreadable(path: Path, error: Exception) -> InputError:
    found = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InputError(f"{path} cannot be read ({found}): expected a whole image; remove or repair it")


def _decode(path: Path, height: int, width: int, channels: int) -> Array:
    """The image `path`, `(channels, height, width)`."""
    try:
        with Image.open(path) as image:
            image.load()
            flat = _flatten(image).convert(_MODES[channels])
        across, down = flat.size
        # Integers, so that the image covers the crop however it is rounded.
        size = [height, height * across // down] if height * across >= width * down else [width * down // across, width]
        fitted = functional.center_crop(functional.resize(flat, size, antialias=True), [height, width])
    except Exception as error:  # PIL's decoders raise almost anything on a damaged file
        raise _unreadable(path, error) from error
    return np.asarray(fitted).reshape(height, width, channels).transpose(2, 0, 1)


def _flatten(image: Image.Image) -> Image.Image:
    """An opaque image of 8 bits a channel, transparency laid on black and 16-bit greys scaled (PIL would clip them)."""
    if image.mode == "F":
        raise ValueError("it has floating-point levels, whose range is not known")
    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("it has levels outside 0..65535")
        return Image.fromarray(((levels.astype(np.int64) + 128) // 257).astype(np.uint8))
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, (0, 0, 0, 255)), opaque)
    return image


def _blocks(paths: list[Path], decode: partial[Array]) -> Iterator[Array]:
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(paths), desc="Decoding images (once)", unit=" images") as bar,
    ):
        for start in range(0, len(paths), _BLOCK):
            block = []
            for image in pool.map(decode, paths[start : start + _BLOCK]):
                block.append(image)
                bar.update()
            yield np.stack(block)
