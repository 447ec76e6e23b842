"""MNIST with the class of each digit as a modality of its own."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_flag
from jensen.data.captioned import captioned
from jensen.data.examples import Examples
from jensen.data.idx import mnist


def mnist_label(
    root: str | Path,
    split: str = "train",
    download: bool = False,
    pad: int = 0,
    binary: bool = True,
) -> Examples:
    """The digits of `split` and their classes, `(N, 784 + 10)`: the image flattened, the label
    one-hot.

    Args:
        binary: whether a pixel is 1 above grey 127, else 0; false leaves grey levels in [0, 1].
        root, download, pad: see `data.idx.mnist`.

    Raises:
        InputError: what `mnist` raises, or images without labels.
    """
    check_flag("binary", binary)
    examples = mnist(root, split, download, pad)
    if not examples.names:
        raise InputError(
            f"root is {str(root)!r}, which has no labels of the {split} split: expected images and"
            " labels; add the file, or choose data=mnist"
        )
    if binary:
        examples = replace(examples, decode=above_half)
    return captioned(examples, [0])


def above_half(stored: Tensor) -> Tensor:
    """uint8 grey levels to 1 above 127, else 0, float32."""
    return (stored > 127).to(torch.float32)
