"""A distribution that is not known, in the place of one that is."""

from typing import NamedTuple

from torch import Tensor

from jensen.base.errors import InputError


class Unknown(NamedTuple):
    """The prior of codes that do not say theirs, or one that is known given a condition alone;
    `sentence` tells so whoever asks for its density or a draw.
    """

    sentence: str

    def log_prob(self, x: Tensor) -> Tensor:
        raise InputError(self.sentence)

    def rsample(self, noise: Tensor) -> Tensor:
        raise InputError(self.sentence)

    def marginal(self, latent: int) -> None:
        return None
