"""Codes of a run as data: read back as written, everything else refused in a sentence."""

import numpy as np
import pytest
import torch

from jensen.base.errors import InputError
from jensen.data.codes import codes
from jensen.diagnostics.from_codes import read_codes

CODES = np.arange(12, dtype=np.float32).reshape(4, 3)
FACTORS = np.array([[0, 2], [1, 0], [1, 1], [0, 0]])


def test_what_is_read_is_what_was_written(tmp_path):
    np.savez(
        tmp_path / "codes.npz",
        codes=CODES,
        log_var=CODES,
        factors=FACTORS,
        names=np.array(["shape", "scale"]),
    )
    found = codes(str(tmp_path / "codes.npz"))
    batch = found[torch.tensor([2, 0])]
    assert batch.stored.tolist() == CODES[[2, 0]].tolist()
    assert batch.factors.tolist() == FACTORS[[2, 0]].tolist()
    assert (found.names, found.sizes) == (("shape", "scale"), (2, 3))


def test_factors_are_not_needed(tmp_path):
    np.savez(tmp_path / "codes.npz", codes=CODES)
    assert codes(str(tmp_path / "codes.npz"))[torch.tensor([0])].factors.shape == (1, 0)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"other": CODES}, "expected floating-point codes"),
        ({"codes": CODES[0]}, "expected floating-point codes"),
        ({"codes": CODES.astype(int)}, "expected floating-point codes"),
        ({"codes": np.array([["a"]], dtype=object)}, "cannot be read"),
        (
            {"codes": CODES, "factors": FACTORS[:3], "names": np.array(["a", "b"])},
            "expected factors",
        ),
        ({"codes": CODES, "factors": FACTORS, "names": np.array(["a"])}, "expected factors"),
        ({"codes": CODES, "factors": -FACTORS, "names": np.array(["a", "b"])}, "expected factors"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, arrays, sentence):
    np.savez(tmp_path / "codes.npz", **arrays)
    with pytest.raises(InputError, match=sentence):
        codes(str(tmp_path / "codes.npz"))


def test_no_file_and_half_a_file(tmp_path):
    np.savez(tmp_path / "codes.npz", codes=CODES)
    whole = (tmp_path / "codes.npz").read_bytes()
    for size in (0, 1, 50, len(whole) // 2, len(whole) - 1):
        (tmp_path / "half.npz").write_bytes(whole[:size])
        with pytest.raises(InputError, match="cannot be read"):
            codes(str(tmp_path / "half.npz"))
    with pytest.raises(InputError, match="cannot be read"):
        codes(str(tmp_path / "none.npz"))


def test_arrays_under_other_names_are_named(tmp_path):
    np.savez(tmp_path / "codes.npz", z=CODES, labels=FACTORS)
    expected = r"holds z float32 \(4, 3\), labels int64 \(4, 2\): expected"
    with pytest.raises(InputError, match=expected):
        codes(str(tmp_path / "codes.npz"))
    with pytest.raises(InputError, match=expected):
        read_codes(tmp_path / "codes.npz")
