"""An image file as bytes of one size: upright, opaque, of 8 bits a channel."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torchvision.transforms import functional

from jensen.base.errors import InputError
from jensen.data.cache import Array

MODES = {1: "L", 3: "RGB"}
"""PIL's mode of a number of channels."""
DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras and scanners put into numbers of 16."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF")
_MARKED = tuple(name for name in _FORMATS if name != "DIB")
"""Formats that begin with a mark; a dib file begins with a number, which any other file may do."""
_ANIMATED = ("PNG", "WEBP", "GIF", "TIFF", "AVIF")
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The turn that sets an image of an EXIF orientation upright (EXIF 2.32, 4.6.4)."""


class Depth(NamedTuple):
    """The depth of an image's levels.

    brightest: the highest level of an image of 16 bits a channel, 0 of any other.
    colour: whether it is one of several channels, of which only the upper 8 bits can be read.
    frames: of an animation or a file of several pages; 1 of any other.
    """

    brightest: int
    colour: bool
    frames: int


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The image file `path`, told by its content; what is no format of ours, PostScript for one, is
    not even tried.

    Raises:
        InputError: it is not read without an error by what uses it.
    """
    # A tga file has no mark by which it could be told, so only its name will do.
    formats = (*_FORMATS, "TGA") if path.suffix.lower() == ".tga" else _FORMATS
    try:
        with Image.open(path, formats=_known(formats)) as image:
            yield image
    except Exception as error:  # PIL's decoders raise almost anything on a damaged file
        raise unreadable(path, error) from error


def _known(formats: Iterable[str]) -> list[str]:
    """Those that this build of PIL reads."""
    Image.init()
    return [name for name in formats if name in Image.OPEN]


def is_picture(path: Path) -> bool:
    """Tell whether the content of the regular file `path` begins as a picture does, whatever its
    name is.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=_known(_MARKED)):
            return True
    except Image.DecompressionBombError:  # it is one, and for the reader to refuse
        return True
    except Exception:  # PIL's decoders raise almost anything on what is none
        return False


def unreadable(path: Path, error: Exception) -> InputError:
    found = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InputError(
        f"{path} cannot be read ({found}): expected a whole image; remove or repair it"
    )


def depth(path: Path) -> Depth:
    """A look at the header, and at the levels only where they have 16 bits.

    Raises:
        InputError: it cannot be read, or has levels outside 0..65535.
    """
    with opened(path) as image:
        frames = getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
        if image.mode.startswith("I"):
            return Depth(int(_levels(image).max()), False, frames)
        if any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
            return Depth(257 * max(high for _, high in _bands(image.convert("RGB"))), True, frames)
        return Depth(0, False, frames)


def _bands(image: Image.Image) -> tuple[tuple[int, int], ...]:
    return image.getextrema()  # type: ignore[return-value]


def decode(path: Path, height: int, width: int, channels: int, bits: int) -> Array:
    """The image `path`, `(channels, height, width)`, scaled until it just covers that and cropped
    to its centre.

    Transparent parts lie on black; of several frames it is the first; 2^bits - 1 is white in greys
    of 16 bits.

    Raises:
        InputError: it cannot be read.
    """
    with opened(path) as image:
        image.load()
        flat = _upright(image, _flatten(image, bits)).convert(MODES[channels])
        across, down = flat.size
        # Integers, so that the image covers the crop however it is rounded.
        size = (
            [height, height * across // down]
            if height * across >= width * down
            else [width * down // across, width]
        )
        fitted = functional.center_crop(
            functional.resize(flat, size, antialias=True), [height, width]
        )
    return np.asarray(fitted).reshape(height, width, channels).transpose(2, 0, 1)


def _upright(image: Image.Image, flat: Image.Image) -> Image.Image:
    """`flat` turned as the EXIF data of `image` say."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # EXIF data that are damaged say nothing, and the image itself is whole
        turn = None
    return flat if turn is None else flat.transpose(turn)


def _flatten(image: Image.Image, bits: int) -> Image.Image:
    """An opaque image of 8 bits a channel, transparency laid on black and 16-bit greys scaled (PIL
    would clip them).
    """
    if image.mode == "F":
        raise ValueError("it has floating-point levels, whose range is not known")
    if image.mode.startswith("I"):
        white = 2**bits - 1
        levels = _levels(image)
        if levels.max() > white:
            raise ValueError(f"it has the level {levels.max()}, more than {bits} bits hold")
        return Image.fromarray(((levels * 255 + white // 2) // white).astype(np.uint8))
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, (0, 0, 0, 255)), opaque)
    return image


def _levels(image: Image.Image) -> np.ndarray:
    """`(height, width)` int64 of an image of one integer channel."""
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise ValueError("it has levels outside 0..65535")
    return levels
