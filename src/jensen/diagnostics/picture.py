"""Tensors to pictures: grids of images with labels, and charts."""

import io
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import pad

from jensen.diagnostics.snapshot import Film

_GAP = 2
_LINE = 16
"""Pixels from a line of a label to the next, at least."""
_ROOM_FOR_LABEL = 50
"""Rows lower than this are enlarged, so that three lines of text fit beside each."""


def is_image(event: Sequence[int]) -> bool:
    """Tell whether observations of this shape can be shown as pictures."""
    return len(event) == 3


def brightness(data: Tensor) -> Callable[[Tensor], Tensor]:
    """The function that brings numbers like those of `data` to [0, 1]: none where the data lie there,
    else their lowest number is black and their highest white.
    """
    if not data.numel():
        return lambda x: x
    low, high = (float(end) for end in data.aminmax())
    if not math.isfinite(high - low):  # only then a copy of all images
        known = data[data.isfinite()]
        low, high = (float(end) for end in known.aminmax()) if len(known) else (0.0, 1.0)
    if low >= 0 and high <= 1:
        return lambda x: x
    return lambda x: (x - low) / max(high - low, 1e-12)


def grid(rows: Tensor, labels: Sequence[str] = (), heads: Sequence[str] = ()) -> Tensor:
    """Images `(R, C, channels, H, W)` in [0, 1] as one picture `(3, height, width)`, uint8, with a
    label before each row and a head above each column.

    One channel is shown as grey, three as colour; of any other number, their mean. A missing number,
    NaN, is half grey.
    """
    count, across, channels, height, width = rows.shape
    rows = rows.detach().float().cpu().clamp(0, 1).nan_to_num(0.5)
    rows = rows if channels == 3 else rows.mean(2, keepdim=True).expand(-1, -1, 3, -1, -1)
    times = -(-_ROOM_FOR_LABEL // height) if labels else 1
    if heads:
        times = max(times, -(-(max(map(_width, heads)) + _GAP) // width))
    rows = rows.repeat_interleave(times, 3).repeat_interleave(times, 4)
    cells = pad(rows, (0, _GAP, 0, _GAP), value=1.0)
    picture = cells.permute(2, 0, 3, 1, 4).reshape(
        3, count * cells.shape[3], across * cells.shape[4]
    )
    picture = (picture * 255).round().to(torch.uint8)
    if heads:
        picture = torch.cat([_head_row(heads, cells.shape[4]), picture], 1)
    if not labels:
        return picture
    column = _label_column(labels, cells.shape[3])
    above = picture.shape[1] - column.shape[1]
    return torch.cat([pad(column, (0, 0, above, 0), value=255), picture], 2)


def _label_column(labels: Sequence[str], height: int) -> Tensor:
    width = 10 + max(map(_width, labels))
    places = [(4.0, (row + 0.5) * height) for row in range(len(labels))]
    return _written(labels, places, "lm", width, height * len(labels))


def _head_row(heads: Sequence[str], width: int) -> Tensor:
    height = 6 + _LINE * max(head.count("\n") + 1 for head in heads)
    places = [(column * width, 2.0) for column in range(len(heads))]
    return _written(heads, places, "la", width * len(heads), height)


def _written(
    texts: Sequence[str],
    places: Sequence[tuple[float, float]],
    anchor: str,
    width: int,
    height: int,
) -> Tensor:
    """Black on white, `(3, height, width)`, uint8; the anchors are Pillow's."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for text, place in zip(texts, places, strict=True):
        draw.multiline_text(place, text, fill="black", font=_font(), anchor=anchor)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _width(text: str) -> int:
    """Pixels, rounded down."""
    blank = ImageDraw.Draw(Image.new("L", (1, 1)))
    return int(blank.multiline_textbbox((0, 0), text, font=_font())[2])


@cache
def _font() -> Any:
    return ImageFont.load_default(size=12)


def gif(film: Film) -> bytes:
    """An animated GIF that begins again at its end."""
    first, *rest = (Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in film.frames.cpu())
    file = io.BytesIO()
    first.save(
        file,
        format="GIF",
        save_all=True,
        append_images=rest,
        duration=round(1000 * film.seconds),
        loop=0,
    )
    return file.getvalue()


def chart(draw: Callable[[Axes], None], width: float = 7.0, height: float = 4.0) -> Tensor:
    """A picture of what `draw` puts on a matplotlib axes, `(3, 100 height, 100 width)`, uint8."""
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    draw(figure.add_subplot())
    return pixels(figure)


def pixels(figure: Figure) -> Tensor:
    """A matplotlib figure as a picture `(3, height, width)`, uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3]).permute(2, 0, 1)
