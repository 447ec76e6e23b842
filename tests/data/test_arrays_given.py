"""Arrays that a person has, whatever holds them: read as what they say, or refused in a sentence."""

import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from jensen.api.data import examples
from jensen.base.errors import InputError
from jensen.data.torch_dataset import given
from jensen.scores.inputs import check
from jensen.scores.udr import udr

X = np.random.default_rng(0).random((30, 2, 3)).astype(np.float32)


class Rows:
    """A data set of arrays."""

    def __init__(self, x, factors):
        self.x = x
        self.factors = factors

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        return self.x[row], self.factors[row]


def masked(array):
    return np.ma.masked_array(array, mask=np.arange(array.size).reshape(array.shape) % 30 == 29)


@pytest.mark.parametrize(
    ("what", "read"),
    {
        "x of data": lambda: examples(masked(X)),
        "factors of data": lambda: examples((X, masked(np.zeros(30, int)))),
        "x of item 0 of .*Rows": lambda: given(Rows(masked(X[:, :1, :1].repeat(30, 1)), X), True),
        "factors of item 0 of .*Rows": lambda: given(
            Rows(X, masked(np.zeros((30, 30), int))), True
        ),
        "codes": lambda: check(masked(X[..., 0]), np.zeros((30, 1), int)),
        r"mean_kls\[0\]": lambda: udr(
            [X[..., 0]] * 2, [np.ma.masked_array([1.0, 2.0], [0, 1])] * 2
        ),
        "factors": lambda: check(X[..., 0], masked(np.zeros((30, 1), int))),
    }.items(),
)
def test_what_lies_below_a_mask_is_not_read_as_a_number(what, read):
    with pytest.raises(InputError, match=rf"^{what} has \d+ masked values, the first at \["):
        read()


def test_a_mask_of_nothing_is_no_mask():
    assert examples(np.ma.masked_array(X, mask=X > 1)).stored.equal(torch.tensor(X))


@pytest.mark.parametrize("order", ["<", ">"])
def test_either_order_of_bytes_is_the_same_numbers(order):
    labels = np.arange(30).astype(f"{order}i4")
    found = examples((X.astype(f"{order}f4"), labels))
    assert found.stored.equal(torch.tensor(X))
    assert found.factors[:, 0].tolist() == [*range(30)]
    rows = given(Rows(X.astype(f"{order}f4"), labels), False)
    assert rows[torch.tensor([7])].stored[0].equal(torch.tensor(X[7]))


@pytest.mark.filterwarnings(
    "ignore:.*(beta state|prototype stage)"
)  # torch says it of its own kinds
@pytest.mark.parametrize(
    "convert",
    [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, lambda x: torch.nested.nested_tensor([x])],
)
def test_a_tensor_that_is_not_plain_is_one_sentence(convert):
    x = torch.tensor(X[:, 0])
    for read in (lambda: examples(convert(x)), lambda: given([convert(x)] * 3, True)):
        with pytest.raises(InputError, match=r"^x of .*: expected (a plain one|rows of as many)"):
            read()


def test_a_file_that_is_mapped_for_reading_is_read_without_noise_nor_copied_nor_written_to(
    tmp_path,
):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = examples((mapped, mapped[:, 0, 0] > 0.5))
    assert found.stored.data_ptr() == mapped.ctypes.data
    assert found.stored.equal(torch.tensor(X))


def test_a_refusal_of_factors_says_the_shape_that_they_have():
    for factors, found in (
        (X[:, 0, :2], r"torch.float32 \[30, 2\]"),
        (X.astype(int), r"\[30, 2, 3\]"),
    ):
        with pytest.raises(
            InputError, match=rf"^factors of data are .*{found}: .* \(N,\) or \(N, F\)"
        ):
            examples((X, factors))
    item = TensorDataset(torch.tensor(X), torch.tensor(X))
    with pytest.raises(InputError, match=r"^factors of item 0 .* \[2, 3\]: .* at least 0, \(F,\);"):
        given(item, True)
