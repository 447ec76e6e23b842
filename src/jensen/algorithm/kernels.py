"""Making kernels by `torch.compile`: of a function as one whole, without a word of torch's at the console, and
the reason in a line where there are none.
"""

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch._dynamo.exc import Unsupported

from jensen.base.replay import first_said

made = partial(torch.compile, fullgraph=True, options={"fallback_random": True})
"""Draws are torch's own, of the generator that is seeded at each step."""

ROUGH = {"32-true": 1e-3, "64-true": 1e-9}
"""How far a loss may be from the step's own, as a part of its size, by the precision, and slopes ten times as
far; of others 1e-2.
"""


@contextmanager
def unheard() -> Iterator[None]:
    """Keep from the console what torch says at making kernels: it is for developers, and what is raised
    is told in a line. Who sets TORCH_LOGS hears it all the same.
    """
    torchs = logging.getLogger("torch")
    level = torchs.level
    if level == logging.WARNING:
        torchs.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        torchs.setLevel(level)


def said(error: Exception) -> str:
    """The reason why no kernels are made, in one line: with the place where a step is no one graph, and the
    folder that cannot be written.
    """
    places = re.findall(r'File "(.*)", line (\d+)', str(error))
    if isinstance(error, Unsupported) and places:
        path, line = places[-1]
        said = str(error).splitlines()[0]
        return f"torch makes no one graph of them: {said}, at {Path(path).name}:{line}"
    first: BaseException = error
    while first.__context__ is not None:
        first = first.__context__
    folder = os.environ.get("TORCHINDUCTOR_CACHE_DIR", "")  # torch sets it
    if isinstance(first, OSError) and str(first.filename or folder).startswith(folder):
        return (
            f"TORCHINDUCTOR_CACHE_DIR is {folder}, where nothing can be written: {first.strerror}"
        )
    return first_said(error)
