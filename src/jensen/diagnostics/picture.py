"""Tensors to pictures: grids of images with labels, and charts."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import pad

_GAP = 2
_ROOM_FOR_LABEL = 50
"""Rows lower than this are enlarged, so that three lines of text fit beside each."""


def is_image(event: Sequence[int]) -> bool:
    """Tell whether observations of this shape can be shown as pictures."""
    return len(event) == 3


def grid(rows: Tensor, labels: Sequence[str] = ()) -> Tensor:
    """Images `(R, C, channels, H, W)` in [0, 1] as one picture `(3, height, width)`, uint8, with a
    label before each row.

    One channel is shown as grey, three as colour; of any other number, their mean.
    """
    count, across, channels, height = rows.shape[:4]
    rows = rows.detach().float().cpu().clamp(0, 1)
    rows = rows if channels == 3 else rows.mean(2, keepdim=True).expand(-1, -1, 3, -1, -1)
    times = -(-_ROOM_FOR_LABEL // height) if labels else 1
    rows = rows.repeat_interleave(times, 3).repeat_interleave(times, 4)
    cells = pad(rows, (0, _GAP, 0, _GAP), value=1.0)
    picture = cells.permute(2, 0, 3, 1, 4).reshape(
        3, count * cells.shape[3], across * cells.shape[4]
    )
    picture = (picture * 255).round().to(torch.uint8)
    return torch.cat([_label_column(labels, cells.shape[3]), picture], 2) if labels else picture


def _label_column(labels: Sequence[str], height: int) -> Tensor:
    font = ImageFont.load_default(size=12)
    blank = ImageDraw.Draw(Image.new("L", (1, 1)))
    width = 10 + int(max(blank.multiline_textbbox((0, 0), label, font=font)[2] for label in labels))
    column = Image.new("RGB", (width, height * len(labels)), "white")
    draw = ImageDraw.Draw(column)
    for row, label in enumerate(labels):
        draw.multiline_text((4, (row + 0.5) * height), label, fill="black", font=font, anchor="lm")
    return torch.from_numpy(np.array(column)).permute(2, 0, 1)


def chart(draw: Callable[[Axes], None], width: float = 7.0, height: float = 4.0) -> Tensor:
    """A picture of what `draw` puts on a matplotlib axes, `(3, 100 height, 100 width)`, uint8."""
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    draw(figure.add_subplot())
    canvas.draw()
    return torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3]).permute(2, 0, 1)
