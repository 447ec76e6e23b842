"""A folder of images: order, geometry, modes, the cache, and what is refused."""

import os
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from jensen.core.errors import InputError
from jensen.data import folder as reader
from jensen.data.folder import folder

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
    assert reader._names(top) == ["one/a.png"]


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
    expected = transforms.Compose([transforms.Resize(24, antialias=True), transforms.CenterCrop(24), transforms.PILToTensor()])
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
    levels[:4, :, 3], levels[4:, :, 3] = 0, 51
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
    decode = reader._decode
    monkeypatch.setattr(reader, "_decode", lambda path, **options: decoded.append(path.name) or decode(path, **options))

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


@pytest.mark.parametrize("options", [{"channels": 2}, {"channels": "3"}, {"height": 0}, {"width": -1}, {"width": 8.0}])
def test_other_options_are_refused(top, options):
    put(top / "a.png")
    with pytest.raises(InputError, match=f"{next(iter(options))} is .*: expected"):
        folder(top, **options)


def test_what_is_no_folder_of_images_is_refused(top):
    with pytest.raises(InputError, match=r"images holds no image: expected files named \*.jpg, .*set data.root"):
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
        with pytest.raises(InputError, match=f"below/{name} cannot be read .*: expected a whole image; remove or repair it"):
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
    [(np.zeros((8, 8), np.float32), "floating-point"), (np.full((8, 8), 1 << 20, np.int32), "outside 0..65535")],
)
def test_levels_without_a_range_are_refused(top, levels, message):
    put(top / "a.tif", levels)
    with pytest.raises(InputError, match=f"a.tif .*{message}"):
        folder(top)
