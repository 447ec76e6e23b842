"""The generators that whoever takes part in a training may draw from: torch's, Python's and numpy's."""

# ruff: noqa: NPY002  # numpy's old stream is the one that others draw from

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Streams:
    """Their states as they are now, of torch's for the host and for a device.

    Example:
        >>> before = Streams(torch.device("cpu"))
        >>> _ = random.random()
        >>> before.moved()
        "Python's random"
        >>> before.put_back()
        >>> before.moved()
        ''
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._torch = _of_torch(device)
        self._python = random.getstate()
        self._numpy = np.random.get_state()

    def moved(self) -> str:
        """Say which has been drawn from since; empty if none has."""
        if not all(map(torch.equal, self._torch, _of_torch(self.device))):
            return "torch's generator"
        if self._python != random.getstate():
            return "Python's random"
        return "" if _equal(self._numpy, np.random.get_state()) else "numpy's random"

    def put_back(self) -> None:
        host, *others = self._torch
        torch.set_rng_state(host)
        for state in others:
            torch.cuda.set_rng_state(state, self.device)
        random.setstate(self._python)
        np.random.set_state(self._numpy)


def _of_torch(device: torch.device) -> list[Tensor]:
    on_gpu = device.type == "cuda"
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if on_gpu else [])]


def _equal(one: Any, other: Any) -> bool:
    return all(np.array_equal(mine, its) for mine, its in zip(one, other, strict=True))
