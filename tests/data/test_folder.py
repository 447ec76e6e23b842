"""A folder of images: order, geometry, modes, the cache, and what is refused."""

import functools
import logging
import os
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from jensen.base.errors import InputError
from jensen.data import folder as reader
from jensen.data.folder import folder
from jensen.data.listing import listing
from jensen.data.module import DataModule

LEVELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    place = tmp_path / "cache"
    monkeypatch.setenv("JENSEN_CACHE", str(place))
    return place


@pytest.fixture
def top(tmp_path):
    place = tmp_path / "images"
    place.mkdir()
    return place


def put(path, image=LEVELS, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(path, **options)
    return path


def flat(level, size=(8, 8)):
    return np.full((*size, 3), level, np.uint8)


def test_images_are_found_at_any_depth_in_the_order_of_their_paths(top):
    names = ["b.png", "a/c/z.PNG", "a/y.bmp", "c.tiff", "a.webp", "a-b/x.ppm"]
    for level, name in enumerate(sorted(names)):
        put(top / name, flat(10 * level), **({"lossless": True} if name.endswith("webp") else {}))
    (top / "notes.txt").write_text("no image")
    (top / "folder.png").mkdir()
    examples = folder(str(top), height=8, width=8)
    assert examples.stored.shape == (6, 3, 8, 8)
    assert examples.stored.dtype == torch.uint8
    assert examples.stored[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50]
    assert examples.decode(examples.stored).max() == pytest.approx(50 / 255)
    assert examples.names == examples.sizes == ()
    assert examples.factors.shape == (6, 0)


def test_linked_folders_are_followed_once(top, tmp_path):
    put(tmp_path / "elsewhere" / "a.png")
    for name in ("one", "two"):
        (top / name).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "loop").symlink_to(top, target_is_directory=True)
    assert listing(top).images == ["one/a.png"]
    assert listing(top).back == ["one/loop", "two"]


def test_links_that_lead_out_are_counted_and_may_be_passed_over(top, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    put(top / "own" / "a.png", flat(0))
    for level in (1, 2):
        put(elsewhere / "deep" / f"{level}.png", flat(level))
    put(tmp_path / "blob", flat(3), format="PNG")
    (top / "inside").symlink_to(top / "own")
    (top / "linked").symlink_to(elsewhere)
    (top / "z.png").symlink_to(tmp_path / "blob")
    examples = folder(top, 8, 8, 1)
    assert examples.stored[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    links = f"2 links that lead out of it (linked -> {elsewhere}, z.png -> {tmp_path / 'blob'}"
    back = "1 folders that are read by another way or contain this one (own)"
    assert examples.note == (
        f"4 images in {top}, 3 of them reached by {links}; +data.links=false passes over them);"
        f" passed over {back}"
    )
    examples = folder(top, 8, 8, 1, links=False)
    assert examples.stored[:, 0, 0, 0].tolist() == [0]
    assert examples.note == f"1 images in {top}; passed over {links}) and {back}"
    with pytest.raises(InputError, match="links is 'false': expected true or false"):
        folder(top, links="false")


def test_a_link_to_a_folder_that_contains_it_is_never_followed(top):
    """Else one link to / would read all images of the machine."""
    put(top / "a.png")
    put(top.parent / "private.png")
    for name, target in (("b", "/"), ("c", top.parent), ("d", top)):
        (top / name).symlink_to(target)
    examples = folder(top)
    assert len(examples.stored) == 1
    assert examples.note == (
        f"1 images in {top}; passed over 3 folders that are read by another way or contain this"
        " one (b, c, d)"
    )


@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000", "AVIF"]
)
def test_a_picture_without_an_extension_is_told_by_its_content(top, kind):
    put(top / "picture", flat(200), format=kind)
    put(top / "picture.old", flat(100), format=kind)
    texts = {
        "README": b"P6 is a format",
        "LICENSE": b"Python",
        "empty": b"",
        "number": bytes([40, 0, 0, 0]) * 20,
    }
    for name, content in texts.items():
        (top / name).write_bytes(content)
    os.mkfifo(top / "pipe")
    examples = folder(top, 8, 8)
    assert len(examples.stored) == 1
    assert (examples.stored.int() - 200).abs().max() <= 4
    assert examples.note == (
        f"1 images in {top}; passed over 6 of other kinds (no extension 4, no regular file 1, .old"
        " 1),"
        " 1 of which hold pictures (picture.old): rename them to be read"
    )


def test_a_damaged_picture_without_an_extension_is_refused_by_name(top):
    path = put(top / "picture", LEVELS, format="PNG")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"images/picture cannot be read .*remove or repair it"):
        folder(top)


def test_more_images_than_a_block_holds(top, monkeypatch):
    monkeypatch.setattr(reader, "_BLOCK", 3)
    for level in range(7):
        put(top / f"{level}.png", flat(level))
    assert folder(top, 4, 4, 1).stored[:, 0, 0, 0].tolist() == list(range(7))


@pytest.mark.parametrize("size", [(40, 60), (61, 37), (5, 7), (24, 24), (1, 9)])
@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_square_is_what_torchvision_makes(top, size, channels, mode):
    levels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    path = put(top / "image.png", levels)
    expected = transforms.Compose(
        [transforms.Resize(24, antialias=True), transforms.CenterCrop(24), transforms.PILToTensor()]
    )
    with Image.open(path) as image:
        assert torch.equal(folder(top, 24, 24, channels).stored[0], expected(image.convert(mode)))


@pytest.mark.parametrize("size", [(40, 60), (61, 37), (7, 5), (1, 9)])
@pytest.mark.parametrize("target", [(16, 48), (33, 8), (64, 63)])
def test_an_image_covers_whatever_is_asked_for(top, size, target):
    put(top / "image.png", flat(200, size))
    stored = folder(top, *target).stored
    assert stored.shape == (1, 3, *target)
    assert (stored == 200).all()  # no padding


def test_the_crop_is_central(top):
    levels = flat(0, (10, 30))
    levels[:, 10:20] = 255
    put(top / "image.png", levels)
    assert (folder(top, 10, 10).stored == 255).all()


def test_transparent_images_lie_on_black(top):
    levels = np.full((8, 8, 4), 200, np.uint8)
    levels[:4, :, 3] = 0
    levels[4:, :, 3] = 51
    put(top / "a.png", levels)
    put(top / "b.png", Image.fromarray(levels).convert("LA"))
    palette = Image.fromarray(flat(204)).convert("P")
    put(top / "c.png", palette, transparency=palette.getpixel((0, 0)))
    put(top / "d.png", palette, transparency=bytes([51] * 256))
    stored = folder(top, 8, 8).stored
    assert (stored[:2, :, :4] == 0).all()
    assert (stored[:2, :, 4:] == 40).all()
    assert (stored[2] == 0).all()
    assert ((stored[3] == 40) | (stored[3] == 41)).all()


def test_other_modes(top):
    grey = np.full((8, 8), 200, np.uint8)
    put(top / "1.png", Image.fromarray(grey).convert("1", dither=Image.Dither.NONE))
    put(top / "2.png", grey)
    put(top / "3.png", grey.astype(np.uint16) * 257)  # 16 bits
    put(top / "4.tif", grey.astype(np.int32) * 257)
    put(top / "5.tif", Image.fromarray(flat(200)).convert("CMYK"))
    for channels in (1, 3):
        assert folder(top, 8, 8, channels).stored[:, 0, 0, 0].tolist() == [255, 200, 200, 200, 200]


def test_a_second_run_maps_the_cache_until_something_changes(top, cache, monkeypatch):
    for name in ("a", "b"):
        put(top / f"{name}.png")
    decoded = []
    decode = reader.decode
    monkeypatch.setattr(
        reader,
        "decode",
        lambda path, **options: decoded.append(path.name) or decode(path, **options),
    )

    def count(*options):
        decoded.clear()
        folder(top, *options)
        return len(decoded)

    assert [count(), count()] == [2, 0]
    os.utime(top / "a.png", ns=(0, 1))
    assert [count(), count()] == [2, 0]
    put(top / "c.png")
    assert [count(), count()] == [3, 0]
    (top / "c.png").rename(top / "d.png")
    assert [count(), count()] == [3, 0]
    (top / "notes.txt").write_text("no image")
    assert count() == 0
    for options in ((32, 64), (64, 32), (64, 64, 1)):
        assert [count(*options), count(*options)] == [3, 0]
    assert len(list(cache.glob("folder-*.npy"))) == 7


@pytest.mark.parametrize(
    "options", [{"channels": 2}, {"channels": "3"}, {"height": 0}, {"width": -1}, {"width": 8.0}]
)
def test_other_options_are_refused(top, options):
    put(top / "a.png")
    with pytest.raises(InputError, match=f"{next(iter(options))} is .*: expected"):
        folder(top, **options)


def test_what_is_no_folder_of_images_is_refused(top):
    with pytest.raises(
        InputError, match=r"images holds no image: expected files named \*.jpg, .*set data.root"
    ):
        folder(top)
    path = put(top / "a.png")
    for root in (top / "absent", path):
        with pytest.raises(InputError, match=f"{root} is not a folder.*set data.root"):
            folder(root)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.ppm", "a.tif", "a.webp", "a.jpg"])
def test_a_cut_image_is_refused_by_name(top, cache, name):
    put(top / "0.png")
    path = put(top / "below" / name)
    content = path.read_bytes()
    for cut in [0, 1, 10, *random.Random(0).sample(range(len(content) * 3 // 4), 6)]:
        path.write_bytes(content[:cut])
        with pytest.raises(
            InputError,
            match=f"below/{name} cannot be read .*: expected a whole image; remove or repair it",
        ):
            folder(top)
    assert not list(cache.glob("*.npy"))


def test_what_is_no_image_is_refused_by_name(top):
    (top / "a.png").write_text("text")
    with pytest.raises(InputError, match=r"a.png cannot be read .*remove or repair it"):
        folder(top)
    (top / "a.png").unlink()
    (top / "b.png").symlink_to(top / "absent")
    with pytest.raises(InputError, match=r"b.png cannot be read \(No such file"):
        folder(top)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (np.zeros((8, 8), np.float32), "floating-point"),
        (np.full((8, 8), 1 << 20, np.int32), "outside 0..65535"),
    ],
)
def test_levels_without_a_range_are_refused(top, levels, message):
    put(top / "a.tif", levels)
    with pytest.raises(InputError, match=f"a.tif .*{message}"):
        folder(top)


SCENE = np.zeros((48, 64), np.uint8)
SCENE[:24, :32] = 200  # no two of its turns are alike
SCENE[:24, 32:] = 100
STORED_AS = {  # what EXIF 2.32 says of each orientation: where the 0th row and the 0th column of the scene are
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
def test_images_are_turned_upright_by_their_exif_orientation(top, ending):
    for orientation, turn in STORED_AS.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"png": {}, "tif": {}, "jpg": {"quality": 100}, "webp": {"lossless": True}}[
            ending
        ]
        image = Image.fromarray(np.ascontiguousarray(turn(SCENE))).convert("RGB")
        put(top / f"{orientation}.{ending}", image, exif=exif, **options)
    stored = folder(top, 48, 64, 1).stored[:, 0].int()
    assert (stored - torch.from_numpy(SCENE).int()).abs().amax() <= 2


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0nothing at all", b"Exif\0\0"]
)
def test_exif_data_that_are_damaged_turn_nothing(top, exif):
    put(top / "a.jpg", SCENE, exif=exif, quality=100)
    assert (
        folder(top, 48, 64, 1).stored[0, 0].int() - torch.from_numpy(SCENE).int()
    ).abs().amax() <= 2


def test_what_is_hidden_or_of_other_kinds_is_passed_over_and_said(top, caplog):
    for level in range(3):
        put(top / f"{level}.png", flat(level))
    for name in (
        ".ipynb_checkpoints/0-checkpoint.png",
        ".thumbnails/0.png",
        "__MACOSX/0.png",
        "@eaDir/0.png",
        ".hidden.png",
    ):
        put(top / name)
    for name in (
        "._0.png",
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "notes.txt",
        "raw.HEIC",
        "b.heic",
        "LICENSE",
    ):
        (top / name).write_bytes(b"\0\5\x16\7" + bytes(100))
    os.mkfifo(top / "pipe.png")
    examples = folder(top, 8, 8, 1)
    assert examples.stored[:, 0, 0, 0].tolist() == [0, 1, 2]
    expected = f"3 images in {top}; passed over 9 hidden (.DS_Store, ._0.png, .hidden.png and 6 more) and 5 of other kinds (.heic 2, "
    assert examples.note.startswith(expected)
    assert (
        all(f"{kind} 1" in examples.note for kind in (".txt", "no extension"))
        or "and 1 more" in examples.note
    )
    data = DataModule(functools.partial(folder, top, 8, 8), (3, 8, 8), 1, seed=0, validation=1)
    with caplog.at_level(logging.INFO, logger="jensen"):
        data.examples("train"), data.examples("train")
    assert [record.message for record in caplog.records if "images in" in record.message] == [
        examples.note
    ]


def test_nothing_more_is_said_of_a_folder_of_images_only(top):
    put(top / "a.png")
    assert folder(top).note == f"1 images in {top}"


def test_a_folder_with_nothing_but_hidden_images_says_so(top):
    put(top / ".thumbnails" / "a.png")
    (top / "b.heic").write_bytes(b"")
    with pytest.raises(
        InputError,
        match=r"holds no image: .*there are 1 hidden \(.thumbnails\) and 1 of other kinds \(.heic 1\)",
    ):
        folder(top)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(
            (f"a.{ending}", {})
            for ending in ("gif", "tga", "TGA", "jp2", "j2k", "apng", "dib", "JPE", "pnm")
        ),
        ("a.jfif", {"format": "JPEG"}),
        ("a.avif", {"quality": 100}),
    ],
)
def test_every_kind_of_image_is_read(top, name, options):
    if name.endswith("apng"):
        options = {"format": "PNG"}
    put(top / name, SCENE, **options)
    assert (
        folder(top, 48, 64, 1).stored[0, 0].int() - torch.from_numpy(SCENE).int()
    ).abs().amax() <= 8


def test_an_image_is_told_by_its_content_and_postscript_is_never_run(top):
    put(top / "a.png", flat(200), format="JPEG")
    assert (folder(top, 8, 8).stored == 200).all()
    (top / "b.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(InputError, match=r"b.png cannot be read \(cannot identify"):
        folder(top)


@pytest.mark.parametrize("ending", ["gif", "webp", "apng", "tif"])
def test_of_several_frames_the_first_is_used_and_said(top, caplog, ending):
    frames = [Image.fromarray(flat(level)) for level in (50, 150, 250)]
    kind = {"apng": "PNG", "tif": "TIFF"}.get(ending, ending)
    options = {"lossless": True} if ending == "webp" else {}
    frames[0].save(
        top / f"a.{ending}", format=kind, save_all=True, append_images=frames[1:], **options
    )
    with caplog.at_level(logging.INFO, logger="jensen"):
        assert (folder(top, 8, 8).stored.int() - 50).abs().max() <= 1
    assert "1 of the images in" in caplog.text
    assert "several frames, of which the first is used" in caplog.text


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_greys_in_16_bits_have_as_many_bits_as_are_in_use(top, caplog, bits, ending):
    levels = np.linspace(0, 2**bits - 1, 48 * 64).round().astype(np.uint16).reshape(48, 64)
    put(top / f"a.{ending}", levels)
    put(top / f"b.{ending}", levels // 8)  # a darker one stays darker
    put(top / "c.png", SCENE)
    with caplog.at_level(logging.INFO, logger="jensen"):
        stored = folder(top, 48, 64, 1).stored[:, 0].int()
    assert (
        f"2 of the images in {top} have 16 bits a channel, levels up to {2**bits - 1}"
        in caplog.text
    )
    for found, expected in zip(stored, (levels, levels // 8), strict=False):
        exact = np.round(expected.astype(np.float64) * 255 / (2**bits - 1))
        assert np.abs(found.numpy() - exact).max() <= (0 if bits > 8 else 1)
    assert torch.equal(stored[2], torch.from_numpy(SCENE).int())
    assert len(stored[0].unique()) == 256


def test_the_bits_in_use_can_be_set(top):
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 16
    put(top / "a.png", levels)
    assert folder(top, 8, 8, 1).stored.max() == 251  # 1008 of 1023
    assert folder(top, 8, 8, 1, bits=12).stored.max() == 63
    with pytest.raises(
        InputError, match=r"a.png cannot be read \(it has the level 1008, more than 8 bits hold"
    ):
        folder(top, 8, 8, 1, bits=8)
    with pytest.raises(InputError, match="bits is 9: expected one of"):
        folder(top, 8, 8, 1, bits=9)


def deep_colour(levels):
    """A png file of three channels of 16 bits, which PIL does not write: (height, width, 3)."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_colour_of_16_bits_is_read_where_all_are_in_use_and_refused_where_few_levels_would_be_left(
    top,
):
    levels = np.linspace(0, 65535, 8 * 8 * 3).astype(np.uint16).reshape(8, 8, 3)
    (top / "a.png").write_bytes(deep_colour(levels))
    assert np.array_equal(folder(top, 8, 8).stored[0].numpy(), (levels >> 8).transpose(2, 0, 1))
    (top / "a.png").write_bytes(deep_colour(levels >> 4))
    with pytest.raises(
        InputError,
        match=r"a.png has channels of 16 bits, of which 12 are in use: expected 8, or all 16",
    ):
        folder(top, 8, 8)
    assert folder(top, 8, 8, bits=16).stored.max() == 15


def test_a_name_that_is_no_text_is_read_and_said(top):
    put(top / "a.png", flat(7))
    (top / os.fsdecode(b"\xff.png")).write_bytes((top / "a.png").read_bytes())
    (top / os.fsdecode(b".\xff")).write_bytes(b"")
    examples = folder(top, 8, 8, 1)
    assert examples.stored[:, 0, 0, 0].tolist() == [7, 7]
    assert examples.note.encode().endswith(rb"1 hidden (.\udcff)")
