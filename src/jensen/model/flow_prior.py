"""p(z) by a normalising flow: as flexible as a network, with an exact density."""

from collections.abc import Sequence

from torch import Tensor, nn

from jensen.family.family import Posterior
from jensen.family.flow import Flow
from jensen.model.flows import chain
from jensen.model.prior import check_trained


class FlowPrior(nn.Module):
    """A chain of autoregressive maps from z to N(0, I) (Huang et al. 2017, arXiv 1710.10723, is the
    first with such a prior). It is N(0, I) until it has learned.

    The rate is that of the sample, log q(z|x) - log p(z): right on average, and below 0 where the
    sample happens to be likelier under the prior. Its marginals are unknown, so the rate of a
    single latent is NaN, and pictures go by the variance of codes. A density is one pass; a draw
    is D of them for each map.

    Args:
        latent_dim: D.
        kind, transforms, hidden: see `flows.chain`.
        train: `joint`, with the VAE, or `after` it: all else is frozen, and is that of the run in
            the folder `path`.
    """

    rate_is_bound = False
    warmup = 0

    def __init__(
        self,
        latent_dim: int,
        kind: str = "nsf",
        transforms: int = 3,
        hidden: Sequence[int] = (64, 64),
        train: str = "joint",
        path: str | None = None,
    ) -> None:
        super().__init__()
        check_trained(train, path)
        self.trained = train
        self.path = path
        self.latent_dim = latent_dim
        self.chain = chain(kind, transforms, hidden, latent_dim)

    def update(self, posterior: Posterior, step: Tensor) -> None:
        pass

    def distribution(self) -> Flow:
        return Flow(self.chain(), self.latent_dim)
