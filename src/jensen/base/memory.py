"""The machine's memory, and sizes that do not fit in it, refused before they are made."""

import ctypes
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jensen.base.errors import InputError

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_MMAP_THRESHOLD = -3  # numbers of malloc.h
_TRIM_THRESHOLD = -1
_KEPT = 1 << 30
_MOST_BY_ITSELF = 1 << 25
"""The highest that glibc raises its threshold by itself, of mallopt(3); it trims at twice that."""

_state = {"kept": False}
_MADE_BY_SIZE = (
    "empty",
    "zeros",
    "ones",
    "full",
    "rand",
    "randn",
    "randint",
    "randperm",
    "arange",
    "eye",
)


def memory() -> int:
    """Bytes of this machine, or of the container that this process lives in."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for limit in filter(Path.is_file, map(Path, _LIMITS)):
        text = limit.read_text().strip()
        found += [int(text)] if text.isdigit() else []
    return min(found)


def keep_freed() -> None:
    """Have the C library keep freed memory up to `_KEPT` bytes for the next step, which takes as
    much again.

    As it is set up, glibc gives tensors of some megabytes back to the system after each use, and
    every page of the next one is a fault: 26,000 in a step of the default convolutions on 64
    images of 64 x 64, a third of its time. Without glibc nothing is done.
    """
    _tune(_KEPT // 8, _KEPT)
    _state["kept"] = True


@contextmanager
def freed_kept() -> Iterator[None]:
    """The same for as long as it is entered. After it glibc is as its own rule makes it in a process
    that has freed much.
    """
    before = _state["kept"]
    keep_freed()
    try:
        yield
    finally:
        if not before:
            _tune(_MOST_BY_ITSELF, 2 * _MOST_BY_ITSELF)
            _state["kept"] = False


def _tune(apart: int, trimmed: int) -> None:
    """Set from what size on glibc maps memory by itself, and how much at the end it keeps."""
    tune = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if tune is not None:
        tune(_MMAP_THRESHOLD, apart)
        tune(_TRIM_THRESHOLD, trimmed)


def check_fits(name: str, size: int) -> None:
    """Refuse `size` bytes that are more than half of the memory."""
    if size > memory() // 2:
        raise InputError(
            f"{name} takes {_gigabytes(size)}: expected at most half of the {_gigabytes(memory())}"
            " of memory there is; take a smaller one, or a machine with more"
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.0f} GB" if size >= 1e10 else f"{size / 1e9:.3g} GB"


class Fitting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which torch makes no tensor that does not fit, and none that exceeds `total`
    bytes with all before it.

    Args:
        name: of what is made, for the sentence.
        total: whether the tensors are to fit together, such as the parameters of a model.
    """

    def __init__(self, name: str, total: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name = name
        self.total = total
        self.made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func.overloadpacket.__name__ in _MADE_BY_SIZE:
            size = _count(args) * (options.get("dtype") or torch.get_default_dtype()).itemsize
            self.made = self.made + size if self.total else size
            check_fits(self.name, self.made)
        return func(*args, **options)


def _count(args: Any) -> int:
    """Numbers of a tensor that is made from a shape, or from an end and maybe a beginning."""
    shape = next((each for each in args if isinstance(each, list | tuple | torch.Size)), None)
    if shape is not None:
        return math.prod(shape)
    bounds = [each for each in args[:2] if isinstance(each, int | float)]
    return max(0, math.ceil(bounds[-1] - (bounds[0] if len(bounds) > 1 else 0))) if bounds else 0
