"""Tables of factors beside a folder of images: CelebA's attributes, and a comma-separated file."""

import gzip
import os

import numpy as np
import pytest
from PIL import Image

from jensen.base.errors import InputError
from jensen.data.folder import folder

CELEBA = """4
Bald Big_Nose Young
000001.jpg -1  1  1
000002.jpg -1 -1 -1
000003.jpg  1 -1  1
000004.jpg -1 -1  1
"""
KAGGLE = "image_id,Bald,Big_Nose,Young\n000002.jpg,-1,-1,-1\n000001.jpg,-1,1,1\n\n000003.jpg,1,-1,1\n000004.jpg,-1,-1,1\n"


@pytest.fixture
def top(tmp_path, monkeypatch):
    monkeypatch.setenv("JENSEN_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "images" / "img_align_celeba"
    place.mkdir(parents=True)
    for number in (1, 2, 3):  # the fourth is in the table only
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(place / f"00000{number}.jpg")
    return place.parent


def read(top, text):
    path = top.parent / "table.txt"
    path.write_text(text)
    return folder(top, 8, 8, 1, factors=path)


@pytest.mark.parametrize(
    "text",
    [
        CELEBA,
        KAGGLE,
        "\ufeff" + KAGGLE.replace("\n", "\r\n"),
        KAGGLE.replace(",", ";"),
        KAGGLE.replace(",", "\t"),
        KAGGLE.replace("000001.jpg", '"000001.jpg"').replace("image_id,Bald", '"image_id", "Bald"'),
    ],
    ids=["celeba", "csv", "windows", "semicolons", "tabs", "quotes"],
)
@pytest.mark.parametrize("prefix", ["", "img_align_celeba/"])
def test_attributes_belong_to_their_images(top, text, prefix):
    examples = read(top, text.replace("0000", f"{prefix}0000"))
    assert examples.stored[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert examples.names == ("Bald", "Big_Nose", "Young")
    assert examples.factors.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 1]]
    assert examples.sizes == (2, 2, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            CELEBA.replace("000002.jpg", "000009.jpg"),
            r"lacks 1 of the 3 images, img_align_celeba/000002.jpg first",
        ),
        (
            CELEBA.replace(" -1  1  1\n", " -1  1\n", 1).replace("4\n", "", 1),
            r"has 3 values in line 3: expected 2, one for each",
        ),
        (
            CELEBA.replace("1 -1  1\n", "1 -1\n", 1),
            r"has 2 values in line 5: expected 3, one for each name",
        ),
        (CELEBA.replace("000004", "000001"), "has 000001.jpg in line 6 and before it"),
        (CELEBA.replace(" 1 -1 ", " x -1 "), "has 'x' as Bald of .*000003.jpg, which is no number"),
        (KAGGLE.replace(",1,-1,", ",,-1,"), "has '' as Bald of .*000003.jpg, which is no number"),
        (KAGGLE.replace(",1,-1,", ",1_0,-1,"), "has '1_0' as Bald of .*000003.jpg"),
        (
            KAGGLE.replace(",", ";").replace(";1;-1;", ";1,5;-1;"),
            "has '1,5' as Bald of .*000003.jpg, which is no number: expected one, with a point",
        ),
        (
            "image,size\n000001.jpg,1,5\n000002.jpg,2,5\n000003.jpg,3,5\n",
            "has 2 names in line 1 and 3 values in line 2: expected as many",
        ),
        (KAGGLE.partition("\n")[2], "has the image 000002.jpg in line 1: expected the names of"),
        (
            "image,id\n"
            + "".join(f"00000{number}.jpg,{2**53 + number - 1}\n" for number in (1, 2, 3)),
            "has numbers as id that float64 cannot tell apart",
        ),
        (
            "n,image,size\n0,000001.jpg,1\n1,000002.jpg,2\n",
            "lacks 3 of the 3 images, .*000001.jpg first: .* its own first is '0'",
        ),
        (KAGGLE + '"' + 200_000 * "x", r"cannot be read \(field larger than"),
        (CELEBA.replace(" 1 -1 ", " nan -1 "), "has a factor Bald of 2 values, -1.0 to nan"),
        (CELEBA.replace("Young", "Bald"), "names a column twice"),
        ("", "has no names with rows below"),
        ("4\n", "has no names with rows below"),
        ("a\nb\n", "has no names with rows below"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(top, text, message):
    with pytest.raises(InputError, match=message):
        read(top, text)


def test_a_line_of_two_images_is_refused(top):
    """Of another folder: by its last part alone it would be both."""
    other = top / "other"
    other.mkdir()
    Image.fromarray(np.full((8, 8), 9, np.uint8)).save(other / "000002.jpg")
    with pytest.raises(InputError, match=r"one line, 000002.jpg, for img_.*jpg and other/000002"):
        read(top, CELEBA)
    paths = CELEBA.replace("000002.jpg -1", "./other/000002.jpg 1  1  1\n000002.jpg -1")
    examples = read(top, paths)
    assert examples.factors.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (gzip.compress(KAGGLE.encode(), mtime=0), "packed by gzip; unpack it"),
        (KAGGLE.encode("utf-16"), "in UTF-16; save it as UTF-8"),
    ],
    ids=["gzip", "utf-16"],
)
def test_what_else_a_table_may_be_is_said(top, tmp_path, content, why):
    (tmp_path / "table").write_bytes(content)
    with pytest.raises(InputError, match=rf"cannot be read \(it is {why}"):
        folder(top, 8, 8, 1, factors=tmp_path / "table")


def test_what_is_no_table_is_refused(top, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name in ("absent", "pipe", "bytes", "."):
        with pytest.raises(InputError, match=r"cannot be read \(.*: expected a table"):
            folder(top, 8, 8, 1, factors=tmp_path / name)
    with pytest.raises(InputError, match="factors is 7: expected a path"):
        folder(top, 8, 8, 1, factors=7)
