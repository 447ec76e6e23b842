"""Sprites, against real frames, published totals and a fill rule in exact integer arithmetic."""

import math

import numpy as np
import pytest
import torch

from jensen.base.errors import InputError
from jensen.data import sprites as module
from jensen.data.sprites import NAMES, SIDE, SIZES, grid, pack, render, sprites, subset, unpack


def latents(count):
    rng = np.random.default_rng(count)
    return np.stack([rng.integers(0, size, count) for size in SIZES], 1)


def outline(shape, scale, orientation, across, down):
    """A sprite's vertices in 1/256 pixel, x right and y down, vertex by vertex."""
    size = 0.5 + scale / 10
    angle = 2 * math.pi * orientation / 39
    points = [(-0.15, 0.15), (-0.15, -0.15), (0.15, -0.15), (0.15, 0.15)]
    if shape == 1:
        turns = [2 * math.pi * n / 100 for n in range(100)]
        points = [(0.15 * 1.33 * math.cos(t), 0.15 / 1.33 * math.sin(t)) for t in turns]
    if shape == 2:
        turns = [2 * math.pi * n / 150 for n in range(150)]
        waves = [
            13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
            for t in turns
        ]
        points = [
            (0.15 * math.sin(t) ** 3, 0.3 * (wave / 29 + 0.075))
            for t, wave in zip(turns, waves, strict=True)
        ]
    placed = []
    for x, up in points:
        turned = (
            complex(x, up) * complex(math.cos(angle), math.sin(angle)) * size
        )  # counter-clockwise, y up
        placed.append((0.25 + across / 62 + turned.real, 0.25 + down / 62 - turned.imag))
    return [(math.floor(256 * 64 * x + 0.5), math.floor(256 * 64 * y + 0.5)) for x, y in placed]


def inside(vertices):
    """Whether each pixel's centre is in a polygon, `(64, 64)`, exactly.

    A centre on an edge belongs to the right of a left edge and above a bottom edge: so it is moved
    by (e, -e^2) for an e below any distance there is, and then lies on no edge. Parity of the edges
    that a ray to the right meets.
    """
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.int64) * 256 + 128
    odd = np.zeros((SIDE, SIDE), bool)
    for (x0, y0), (x1, y1) in zip(vertices, [*vertices[1:], vertices[0]], strict=True):
        spans = (y0 < y) != (y1 < y)  # y - e^2 is above a vertex at y, on the screen
        side = (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)
        side = np.where(side == 0, -(y1 - y0), side)  # moved to the right by e
        odd ^= spans & ((side > 0) == (y1 > y0))
    return odd


@pytest.fixture(scope="session")
def whole(cache):
    """All 737,280 images, packed: rendered by the worker that asks first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JENSEN_CACHE", str(cache))
        return sprites().stored.numpy()


def test_real_frames_are_equal_but_for_one(shared_data):
    path = shared_data / "real_dsprites_frames.npz"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    with np.load(path, allow_pickle=False) as real:
        differing = (render(real["latents"]) != real["images"]).sum((1, 2))
    assert len(differing) == 478
    assert (differing == 0).sum() >= 477
    assert differing.max() <= 2


def test_sprites_are_those_of_the_geometry_and_the_fill_rule():
    chosen = latents(60)
    for row, image in zip(chosen, render(chosen), strict=True):
        assert np.array_equal(image, inside(outline(*row.tolist()))), row


@pytest.mark.parametrize("unit", [64, 128, 256, 77])
def test_polygons_are_filled_by_the_rule_even_where_edges_meet_centres(unit):
    """On a coarse grid of vertices many centres lie on edges and corners; some polygons cross
    themselves or the border.
    """
    touched = 0
    rng = np.random.default_rng(unit)
    for corners in (3, 4, 5, 9):
        polygons = rng.integers(-8, SIDE * 256 // unit + 8, (12, corners, 2)) * unit
        images = np.unpackbits(
            module._fill(polygons.transpose(2, 0, 1)), axis=1, bitorder="little"
        ).reshape(-1, SIDE, SIDE)
        for polygon, image in zip(polygons.tolist(), images, strict=True):
            expected = inside(polygon)
            assert np.array_equal(image, expected), polygon
            touched += expected.sum()
    assert touched > 10_000


@pytest.mark.parametrize("reverse", [1, -1])
def test_a_square_on_pixel_centres_keeps_its_left_and_bottom_edges(reverse):
    left, top, right, bottom = (256 * place + 128 for place in (10, 20, 13, 22))
    square = [(left, top), (right, top), (right, bottom), (left, bottom)][::reverse]
    packed = module._fill(np.array(square).T[:, None])
    image = np.unpackbits(packed, bitorder="little").reshape(SIDE, SIDE)
    rows, columns = np.nonzero(image)
    assert sorted(set(rows.tolist())) == [21, 22]
    assert sorted(set(columns.tolist())) == [10, 11, 12]
    assert image.sum() == 6


def test_an_image_depends_on_its_latents_alone():
    chosen = latents(50)
    together = render(chosen)
    for row in (0, 17, 49):
        assert np.array_equal(render(chosen[row : row + 1])[0], together[row])
    assert np.array_equal(render(chosen[::-1]), together[::-1])
    assert np.array_equal(render(torch.from_numpy(chosen)), together)
    assert np.array_equal(render(chosen.tolist()), together)


def test_images_are_zeros_and_ones():
    images = render(latents(20))
    assert images.dtype == np.uint8
    assert images.shape == (20, 64, 64)
    assert set(np.unique(images)) == {0, 1}


def test_no_latents_give_no_images():
    assert render(np.zeros((0, 5), int)).shape == (0, 64, 64)
    assert unpack(torch.from_numpy(pack(np.zeros((0, 5), int)))).shape == (0, 1, 64, 64)


def test_orientation_39_is_orientation_0():
    chosen = latents(200)
    first = chosen.copy()
    last = chosen.copy()
    first[:, 2] = 0
    last[:, 2] = 39
    assert np.array_equal(render(first), render(last))


def test_a_square_looks_the_same_after_about_a_quarter_turn_and_a_heart_does_not():
    turned = render(
        [[0, 5, 0, 16, 16], [0, 5, 10, 16, 16], [2, 5, 0, 16, 16], [2, 5, 10, 16, 16]]
    ).astype(int)
    square = np.abs(turned[0] - turned[1]).sum()
    heart = np.abs(turned[2] - turned[3]).sum()
    assert square < heart / 3


def test_hearts_point_down_and_turn_counter_clockwise():
    upright, quarter = render([[2, 5, 0, 16, 16], [2, 5, 10, 16, 16]])
    widths = upright.sum(1)[upright.any(1)]
    assert widths[:5].mean() > 2 * widths[-5:].mean()
    heights = quarter.sum(0)[quarter.any(0)]  # the tip, turned counter-clockwise, is on the right
    assert heights[:5].mean() > 2 * heights[-5:].mean()


def centre_of_mass(images):
    mass = images.sum((1, 2))
    return (images.sum(1) @ np.arange(SIDE)) / mass, (images.sum(2) @ np.arange(SIDE)) / mass


@pytest.mark.parametrize(("position", "axis"), [(3, 0), (4, 1)])
@pytest.mark.parametrize("shape", [0, 1, 2])
def test_the_centre_of_mass_moves_with_the_position(shape, position, axis):
    chosen = np.repeat([[shape, 3, 7, 11, 20]], 32, 0)
    chosen[:, position] = np.arange(32)
    moved, still = (centre_of_mass(render(chosen))[part] for part in (axis, 1 - axis))
    assert (np.diff(moved) > 0.5).all()
    assert moved[-1] - moved[0] == pytest.approx(32, abs=0.3)
    assert np.ptp(still) < 0.3


@pytest.mark.parametrize("shape", [0, 1])
def test_squares_and_ellipses_are_centred_at_their_position(shape):
    chosen = latents(100)
    chosen[:, 0] = shape
    across, down = centre_of_mass(render(chosen))
    assert across == pytest.approx(64 * (0.25 + chosen[:, 3] / 62) - 0.5, abs=0.4)
    assert down == pytest.approx(64 * (0.25 + chosen[:, 4] / 62) - 0.5, abs=0.4)


@pytest.mark.parametrize(("shape", "area"), [(0, 0.09), (1, math.pi * 0.0225), (2, None)])
def test_the_area_grows_with_the_scale(shape, area):
    chosen = np.array(
        [[shape, scale, orientation, 16, 16] for scale in range(6) for orientation in range(39)]
    )
    areas = render(chosen).sum((1, 2)).reshape(6, 39).mean(1)
    assert (np.diff(areas) > 0).all()
    expected = (0.5 + np.arange(6) / 10) ** 2 * (areas[-1] if area is None else 64**2 * area)
    assert areas == pytest.approx(expected, rel=0.02)


def test_the_packed_layout_is_the_one_documented():
    chosen = latents(5)
    packed = pack(chosen)
    images = render(chosen)
    assert packed.shape == (5, 512)
    for r, c in np.random.default_rng(0).integers(0, 64, (300, 2)):
        assert np.array_equal(packed[:, 8 * r + c // 8] >> (c % 8) & 1, images[:, r, c])


def test_unpack_gives_what_render_gives():
    chosen = latents(40)
    x = unpack(torch.from_numpy(pack(chosen)))
    assert x.dtype == torch.float32
    assert x.shape == (40, 1, 64, 64)
    assert np.array_equal(x[:, 0].numpy(), render(chosen))


@pytest.mark.parametrize(
    "bad",
    [
        [[0, 0, 0, 0]],
        [0, 0, 0, 0, 0],
        [[0.0] * 5],
        [[True] * 5],
        [["a"] * 5],
        [[3, 0, 0, 0, 0]],
        [[0, 6, 0, 0, 0]],
        [[0, 0, 40, 0, 0]],
        [[0, 0, 0, 32, 0]],
        [[0, 0, 0, 0, 32]],
        [[0, 0, 0, 0, 0], [0, 0, -1, 0, 0]],
    ],
)
def test_what_is_no_latent_is_refused(bad):
    with pytest.raises(InputError, match=r"latents (are|lie in) .*: expected"):
        render(bad)


def test_the_row_index_is_the_published_formula():
    table = grid()
    assert table.shape == (737_280, 5)
    assert table.dtype == np.uint8
    index = np.zeros(len(table), int)
    for column, size in zip(table.T, SIZES, strict=True):
        index = index * size + column
    assert np.array_equal(index, np.arange(len(table)))


@pytest.mark.parametrize(
    ("factors", "count"),
    [(("shape",), 3), (("posY", "scale"), 192), (("orientation", "posX"), 1280)],
)
def test_a_part_of_the_grid_leaves_the_other_factors_at_zero(factors, count):
    table = grid(factors)
    assert len(table) == len(np.unique(table, axis=0)) == count
    for name, column, size in zip(NAMES, table.T, SIZES, strict=True):
        assert column.max() == (size - 1 if name in factors else 0)
    assert np.array_equal(table, sorted(table.tolist()))


@pytest.mark.slow
def test_the_whole_set_has_its_known_totals(whole):
    white = np.bitwise_count(whole.view(np.uint64)).sum(1, dtype=np.int64)
    assert white.sum() == 128_328_864
    assert abs(white.sum() - 128_328_862) <= 2  # published
    share = white / SIDE**2
    pixels = SIDE**2
    assert np.sqrt(share * (1 - share) * pixels / (pixels - 1)).mean() == pytest.approx(
        0.195166454510, abs=1e-12
    )


@pytest.mark.slow
def test_the_whole_set_has_as_many_different_images_as_known(whole):
    by_turn = whole.reshape(3, 6, 40, 32, 32, 512)
    assert np.array_equal(by_turn[:, :, 0], by_turn[:, :, 39])
    assert len({hash(row.tobytes()) for row in whole}) == 715_706


@pytest.mark.slow
def test_rows_of_the_whole_set_are_renders_of_their_latents(whole):
    rows = np.random.default_rng(0).integers(0, len(whole), 64)
    assert np.array_equal(
        np.unpackbits(whole[rows], axis=1, bitorder="little").reshape(-1, 64, 64),
        render(grid()[rows]),
    )


@pytest.mark.parametrize(
    "factors", [("posX",), ("posY", "shape"), ["orientation", "scale", "shape"]]
)
def test_a_subset_holds_the_renders_of_its_factors(factors):
    examples = sprites(factors)
    names = tuple(name for name in NAMES if name in factors)
    assert examples.names == names
    assert examples.sizes == tuple(SIZES[NAMES.index(name)] for name in names)
    assert len(examples) == math.prod(examples.sizes) == len(examples.factors)
    full = np.zeros((len(examples), 5), int)
    full[:, [NAMES.index(name) for name in names]] = examples.factors
    assert np.array_equal(examples.decode(examples.stored)[:, 0].numpy(), render(full))


def test_a_drawn_subset_holds_different_rows_in_grid_order():
    examples = sprites(size=300, seed=1)
    assert examples.factors.shape == (300, 5)
    rows = examples.factors.tolist()
    assert rows == sorted(rows)
    assert len({tuple(row) for row in rows}) == 300
    assert np.array_equal(examples.decode(examples.stored)[:, 0].numpy(), render(examples.factors))
    assert torch.equal(examples.factors, sprites(size=300, seed=1).factors)
    assert not torch.equal(examples.factors, sprites(size=300, seed=2).factors)
    for column, size in zip(examples.factors.T, SIZES, strict=True):  # drawn from all of the grid
        assert len(column.unique()) > 0.7 * size


def test_a_drawn_subset_of_some_factors_leaves_the_others_at_zero():
    examples = sprites(["posX", "posY"], size=50)
    assert examples.names == ("posX", "posY")
    full = torch.cat([torch.zeros(50, 3, dtype=torch.uint8), examples.factors], 1)
    assert np.array_equal(examples.decode(examples.stored)[:, 0].numpy(), render(full))


def test_a_subset_as_large_as_the_grid_is_the_grid():
    assert torch.equal(
        sprites(["shape", "scale"], size=18).stored, sprites(["shape", "scale"]).stored
    )


SQUARES = {"shape": [0], "orientation": [7], "posX": [31, 2, 30], "posY": "8..23"}


@pytest.mark.parametrize("factors", [None, ["scale", "posX", "posY"]])
def test_chosen_values_leave_their_images_and_a_factor_of_one_value_is_none(factors):
    examples = sprites(factors, values=SQUARES)
    assert examples.names == ("scale", "posX", "posY")
    assert examples.sizes == (6, 3, 16)
    expected = [
        (0, scale, 7, across, down)
        for scale in range(6)
        for across in (2, 30, 31)
        for down in range(8, 24)
    ]
    assert np.array_equal(examples.decode(examples.stored)[:, 0].numpy(), render(expected))


def test_labels_are_the_places_of_the_chosen_values():
    examples = sprites(values=SQUARES)
    places = [(a, b, c) for a in range(6) for b in range(3) for c in range(16)]
    assert examples.factors.tolist() == [list(each) for each in places]


def test_a_draw_of_chosen_values_is_a_part_of_them():
    whole = sprites(values=SQUARES)
    drawn = sprites(values=SQUARES, size=40, seed=3)
    rows = [whole.factors.tolist().index(row) for row in drawn.factors.tolist()]
    assert rows == sorted(rows)
    assert torch.equal(drawn.stored, whole.stored[rows])


def test_all_values_of_all_factors_are_the_grid():
    assert np.array_equal(grid(values={"posY": range(32), "shape": [0, 1, 2]}), grid())


def test_only_the_images_asked_for_are_rendered():
    asked = []

    def packed(chosen):
        asked.append(chosen)
        return pack(chosen)

    subset(None, 7, 0, None, packed)
    assert [len(chosen) for chosen in asked] == [7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"factors": ["colour"]},
            "factors is 'colour': expected one of shape, scale, orientation, posX, posY",
        ),
        ({"factors": ["shape", "Shape"]}, "factors is 'Shape'"),
        ({"factors": "shape"}, "factors is"),
        ({"factors": []}, "factors is empty: expected some of shape, scale"),
        ({"size": 0}, "size is 0: expected an integer of at least 1"),
        ({"size": 1.0}, r"size is 1\.0"),
        ({"size": True}, "size is True"),
        ({"size": 737_281}, "size is 737281: expected at most 737280"),
        (
            {"factors": ["shape"], "size": 4},
            "size is 4: expected at most 3, the number of images that shape give",
        ),
        ({"values": {"colour": [1]}}, "values is 'colour': expected one of shape"),
        ({"values": [1]}, r"values is \[1\]: expected factors with their values, such as {posY: 8"),
        *(
            (
                {"values": {"posY": wrong}},
                r"values.posY is .*: expected different integers of 0 to 31, as a list or first\.\.last",
            )
            for wrong in (
                [32],
                [-1],
                [],
                [1, 1],
                [True],
                [1.0],
                "8",
                "8..32",
                "9..8",
                "a",
                8,
                [[8]],
            )
        ),
        (
            {"values": dict(zip(NAMES, [[0]] * 5, strict=True))},
            "values leaves one image: expected a factor with two values or more",
        ),
        (
            {"factors": ["scale"], "values": {"posY": "8..23"}},
            r"values.posY is \[8, ..., 23\] and factors leaves it out: expected one value of a",
        ),
        (
            {"factors": ["scale", "posY"], "values": {"posY": [8]}},
            r"values.posY is \[8\] and factors names it: .* several of one that does",
        ),
        (
            {
                "size": 769,
                "values": {"shape": [0], "orientation": [0], "posX": "0..3", "posY": "0..31"},
            },
            "at most 768",
        ),
    ],
)
def test_other_subsets_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        sprites(**options)


def test_the_whole_set_is_rendered_once_and_then_mapped(tmp_path, monkeypatch):
    monkeypatch.setenv("JENSEN_CACHE", str(tmp_path))
    monkeypatch.setattr(
        module, "SIZES", (3, 2, 3, 4, 2)
    )  # a grid of 144 images in place of the 737,280
    first = sprites()
    assert np.array_equal(first.decode(first.stored)[:, 0].numpy(), render(grid()))
    assert (tmp_path / "sprites-1.npy").exists()
    monkeypatch.setattr(module, "pack", None)
    assert torch.equal(sprites().stored, first.stored)
    assert torch.equal(sprites().factors, torch.from_numpy(grid()))
