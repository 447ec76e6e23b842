"""A minibatch, as a data set hands it to a model."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """A minibatch.

    x: `(B, *event)` float observations; images are `(B, C, H, W)` in [0, 1].
    factors: `(B, F)` int64 values of the known factors; F = 0 where there are none.
    row: `(B,)` int64 place of each example in its data set: its identity, whatever the batch, the
        epoch or the rank.
    """

    x: Tensor
    factors: Tensor
    row: Tensor
