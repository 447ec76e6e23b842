"""Sizes that do not fit, and those that do."""

import platform
import resource

import pytest
import torch
from torch import nn

from jensen.base import memory
from jensen.base.errors import InputError
from jensen.base.memory import Fitting, check_fits

SIDE = 1000  # of a matrix of a million numbers
MAKERS = {
    "empty": (lambda: torch.empty(SIDE, SIDE), 4_000_000),
    "zeros, a tuple": (lambda: torch.zeros((SIDE, SIDE)), 4_000_000),
    "ones": (lambda: torch.ones(SIDE * SIDE, dtype=torch.uint8), 1_000_000),
    "full": (lambda: torch.full((SIDE, SIDE), 2.0, dtype=torch.float64), 8_000_000),
    "randn": (lambda: torch.randn(SIDE, SIDE), 4_000_000),
    "arange": (lambda: torch.arange(SIDE * SIDE, dtype=torch.int64), 8_000_000),
    "arange from": (lambda: torch.arange(SIDE, SIDE * SIDE + SIDE, dtype=torch.int64), 8_000_000),
    "linear": (lambda: nn.Linear(SIDE, SIDE, bias=False), 4_000_000),
}


@pytest.mark.parametrize("how", MAKERS)
def test_a_tensor_is_refused_from_its_first_byte_too_many(monkeypatch, how):
    make, size = MAKERS[how]
    monkeypatch.setattr(memory, "memory", lambda: 2 * size)
    with Fitting("it"):
        make()
    monkeypatch.setattr(memory, "memory", lambda: 2 * size - 2)
    with (
        Fitting("it"),
        pytest.raises(
            InputError, match=r"it takes 0\.0\d+ GB: expected at most half of the .* GB of memory"
        ),
    ):
        make()


def test_parameters_fit_together_or_not_at_all(monkeypatch):
    monkeypatch.setattr(memory, "memory", lambda: 2 * 4_000_000 * 3)
    with Fitting("the model", total=True):
        kept = [nn.Linear(SIDE, SIDE, bias=False) for _ in range(3)]
        with pytest.raises(InputError, match="the model takes"):
            nn.Linear(SIDE, SIDE, bias=False)
    assert len(kept) == 3


def test_what_no_machine_has_is_refused_at_once():
    with Fitting("it"), pytest.raises(InputError, match="it takes 4,000 GB"):
        torch.zeros(1_000_000, 1_000_000)
    with pytest.raises(InputError, match="x takes"):
        check_fits("x", memory.memory() // 2 + 1)
    check_fits("x", memory.memory() // 2)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no mallopt")
def test_freed_memory_is_kept_for_the_next_step():
    memory.keep_freed()

    def step():
        return [torch.zeros(4 << 20) for _ in range(8)]

    for _ in range(5):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 1_000  # of 5 x 32,768 pages
