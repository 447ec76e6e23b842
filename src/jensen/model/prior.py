"""p(z): what the latents are coded against."""

from typing import Protocol

from torch import Tensor, nn

from jensen.base.errors import InputError, check_choice, check_path
from jensen.family import gaussian
from jensen.family.family import Family, Posterior
from jensen.family.gaussian import Gaussian

TRAINED = ("joint", "after")


class Prior(Protocol):
    """A distribution over latents, `(D,)` each.

    A prior whose `trained` is `after` is learned alone: the VAE around it is frozen, and is that of
    the run at its `path`. One that needs the encoder also has `bind(encode)`, which the VAE calls once with its own.
    """

    rate_is_bound: bool
    """The rate may be an upper bound of the KL (`bound.rate.divergence`), rather than the value
    of the sample, log q(z|x) - log p(z), which is then logged beside it."""

    warmup: int
    """Steps for which the prior stays N(0, I) before it is learned; 0 if there are none."""

    def update(self, posterior: Posterior, step: Tensor) -> None:
        """Learn from a training step's posteriors, detached, `(B, D)`: this rank's equal share of
        the minibatch.

        Called after the loss of each step, on every rank, with the `()` integer step; afterwards
        all ranks hold one state.
        """
        ...

    def distribution(self) -> Family:
        """p as a value: a `Gaussian`, `Mixture` or `Product`, whose parts are exact, or anything
        that has a density.
        """
        ...


class StandardNormal(nn.Module):
    """N(0, I); its rate is closed form (Kingma & Welling 2014, appendix B)."""

    rate_is_bound = False
    warmup = 0

    def update(self, posterior: Posterior, step: Tensor) -> None:
        pass

    def distribution(self) -> Gaussian:
        return gaussian.STANDARD


def check_trained(train: object, path: object) -> None:
    """Refuse what says neither that a prior is learned with its VAE, nor after which run.

    Raises:
        InputError: another word, a path beside `joint`, or none beside `after`.
    """
    check_choice("train", train, TRAINED)
    if train == "joint":
        if path is not None:
            raise InputError(
                f"path is {path!r} and train is joint: expected train=after, which keeps the VAE of"
                " that run as it is; set model.prior.train=after, or leave the path out"
            )
        return
    if path is None:
        raise InputError(
            "train is after and path is null: expected the folder of the run whose VAE is kept; set"
            " model.prior.path=RUN"
        )
    check_path("path", path)
