"""Folders of images that are none: one sentence that names the file, nothing in the cache."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jensen.base.errors import InputError
from jensen.data import cache
from jensen.data.folder import folder


def png(width, height, content=b""):
    """A png file with a header of any size."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(content))
        + chunk(b"IEND", b"")
    )


def whole(tmp_path):
    Image.fromarray(np.arange(12 * 12 * 3, dtype=np.uint8).reshape(12, 12, 3)).save(
        tmp_path / "whole.png"
    )
    return (tmp_path / "whole.png").read_bytes()


BAD = {
    "empty": lambda content: b"",
    "text": lambda content: b"no image at all",
    "cut short": lambda content: content[: len(content) // 2],
    "a bomb": lambda content: png(60000, 60000, bytes(1000)),
    "of no width": lambda content: png(0, 5),
    "of few pixels": lambda content: png(50, 50, bytes(10)),
    "a flipped byte": lambda content: content[:60] + bytes([content[60] ^ 255]) + content[61:],
    "a pickle": lambda content: b"\x80\x04cos\nsystem\n.",
}


@pytest.mark.parametrize("how", BAD)
def test_an_image_that_is_none(tmp_path, monkeypatch, how):
    monkeypatch.setenv("JENSEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "image.png"
    path.write_bytes(BAD[how](whole(tmp_path)))
    with pytest.raises(
        InputError, match=f"{path} cannot be read .*: expected a whole image; remove or repair it"
    ):
        folder(tmp_path / "images")
    assert not list(cache.folder().glob("*.npy"))
    assert not list(cache.folder().glob("*.partial"))


@pytest.mark.parametrize("inside", [(), ("notes.txt",), ("image.PNG/below.txt",)])
def test_a_folder_without_images(tmp_path, inside):
    for name in inside:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    with pytest.raises(InputError, match="holds no image: expected files named"):
        folder(tmp_path)


def test_a_link_to_nowhere(tmp_path):
    (tmp_path / "image.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(
        InputError, match=r"image\.png cannot be read \(No such file or directory\)"
    ):
        folder(tmp_path)


def test_a_file_for_a_folder(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        folder(str(tmp_path / "file"))
