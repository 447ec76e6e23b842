"""Grids pixel by pixel, and the size of charts."""

import numpy as np
import pytest
import torch
from snapshots import generator

from jensen.diagnostics.picture import chart, grid, is_image

GAP = 2


def rows_of(count, across, channels, height, width):
    return torch.rand(count, across, channels, height, width, generator=generator())


def placed(rows, times=1):
    """By loops over pixels: `(3, R (H + 2), C (W + 2))`, white where there is no image."""
    rows = np.clip(rows.numpy(), 0, 1)
    count, across, channels, height, width = rows.shape
    picture = np.ones(
        (3, count * (height * times + GAP), across * (width * times + GAP)), dtype=np.float32
    )
    for r in range(count):
        for c in range(across):
            for y in range(height * times):
                for x in range(width * times):
                    pixel = rows[r, c, :, y // times, x // times]
                    place = (
                        slice(None),
                        r * (height * times + GAP) + y,
                        c * (width * times + GAP) + x,
                    )
                    picture[place] = pixel if channels == 3 else pixel.mean()
    return np.rint(picture * 255).astype(np.uint8)


@pytest.mark.parametrize(
    "shape", [(2, 3, 1, 4, 5), (1, 1, 3, 4, 4), (3, 2, 3, 2, 7), (2, 2, 2, 3, 3), (2, 1, 6, 3, 2)]
)
def test_every_pixel_is_where_it_belongs(shape):
    rows = rows_of(*shape)
    picture = grid(rows)
    assert picture.dtype == torch.uint8
    assert np.abs(picture.numpy().astype(int) - placed(rows).astype(int)).max() <= (
        0 if shape[2] in (1, 3) else 1
    )


def test_out_of_range_is_clamped_and_not_wrapped():
    rows = torch.tensor([-5.0, -0.01, 0.0, 0.5, 1.0, 1.01, 80.0]).reshape(1, 1, 1, 1, 7)
    assert grid(rows)[0, 0, :7].tolist() == [0, 0, 0, 128, 255, 255, 255]


def test_one_channel_is_grey_and_three_are_themselves():
    grey = grid(torch.full((1, 1, 1, 2, 2), 0.2))
    assert grey[:, 0, 0].tolist() == [51, 51, 51]
    colour = torch.tensor([0.2, 0.4, 0.6])[None, None, :, None, None].expand(1, 1, 3, 2, 2)
    assert grid(colour)[:, 0, 0].tolist() == [51, 102, 153]
    assert grid(torch.tensor([0.2, 0.4])[None, None, :, None, None])[
        :, 0, 0
    ].tolist() == pytest.approx([76.5] * 3, abs=0.6)


def test_half_precision_and_gradients_are_no_matter():
    rows = torch.full((1, 1, 1, 2, 2), 0.2, dtype=torch.bfloat16, requires_grad=True)
    assert grid(rows)[0, 0, 0] == 51


@pytest.mark.parametrize("height", [1, 16, 28, 44, 64, 100])
def test_labels_stand_beside_the_images_and_hide_none(height):
    """Low images are enlarged by a whole number; high ones are not."""
    rows = rows_of(2, 3, 3, height, height)
    picture = grid(rows, ("one", "two words\n12.34 nats")).numpy()
    times, rest = divmod(picture.shape[1] // 2 - GAP, height)
    assert rest == 0
    assert times == 1 if height >= 64 else 40 <= times * height < 110
    images = placed(rows, times)
    across = images.shape[2]
    assert picture.shape[1] == images.shape[1]
    assert (picture[:, :, -across:] == images).all()
    column = picture[:, :, :-across]
    cell = column.shape[1] // 2
    for row in range(2):
        band = column[:, row * cell : (row + 1) * cell]
        assert band.min() < 60  # ink
    assert (column[:, :, -2:] == 255).all()  # the text ends before the images start
    assert (column[0] == column[1]).all()
    assert (column[0] == column[2]).all()


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("height", [1, 16, 28, 49, 50, 64])
@pytest.mark.parametrize(
    "label", ["data", "z12\n10.25 nats", "z12\n10.25 nats\ngap (y)"], ids=["one", "two", "three"]
)
def test_a_label_stays_in_its_row(row, height, label):
    labels = ["" if other != row else label for other in range(3)]
    picture = grid(torch.ones(3, 1, 1, height, height), labels)
    bands = picture.unflatten(1, (3, -1))
    dark = [(bands[:, other] < 128).any().item() for other in range(3)]
    assert dark == [other == row for other in range(3)]
    inked = (bands[0, row] < 128).any(1).nonzero()  # centred, nothing cut off
    above = inked.min().item()
    below = bands.shape[2] - 1 - inked.max().item()
    assert min(above, below) >= 1
    assert abs(above - below) <= 12


@pytest.mark.parametrize(("width", "height"), [(7.0, 4.0), (5, 5), (3, 2)])
def test_a_chart_is_a_hundred_pixels_an_inch(width, height):
    picture = chart(lambda axes: axes.plot([0, 1], [0, 1], "k-", linewidth=5), width, height)
    assert picture.shape == (3, round(100 * height), round(100 * width))
    assert picture.dtype == torch.uint8
    assert picture.min() < 60
    assert picture.max() == 255


def test_a_charts_colours_are_in_order():
    picture = chart(lambda axes: axes.set_facecolor((1.0, 0.0, 0.0)))
    assert picture[:, 200, 400].tolist() == [255, 0, 0]


def test_images_have_three_axes():
    assert [is_image(event) for event in ([5], [16, 16], (1, 16, 16), torch.Size([3, 8, 8]))] == [
        False,
        False,
        True,
        True,
    ]
