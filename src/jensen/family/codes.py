"""Codes whose noise nobody knows, in the place of posteriors."""

from typing import NamedTuple, NoReturn

from torch import Tensor

from jensen.base.errors import InputError


class Codes(NamedTuple):
    """Codes `mean` `(..., D)` alone: points of a mixture, each of which is its own, or those of a file
    without log_var. They have no density and no rate; what needs either refuses them by their type.
    """

    mean: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        return _absent()

    def rsample(self, noise: Tensor) -> Tensor:
        return _absent()


def _absent() -> NoReturn:
    raise InputError(
        "codes alone have no posterior: expected those of a VAE, or a file of codes with log_var"
    )
