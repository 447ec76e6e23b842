"""q(z|x) by a normalising flow behind the encoder's Gaussian."""

from collections.abc import Sequence

from torch import nn

from jensen.family.flowed import FlowedGaussian
from jensen.family.gaussian import Gaussian
from jensen.model.flows import chain


class FlowPosterior(nn.Module):
    """An inverse autoregressive flow (Kingma et al. 2016, arXiv 1606.04934): the encoder's diagonal
    Gaussian of each example, moved by a chain of maps that are told its mean and log-variance. It
    is that Gaussian until it has learned.

    The rate is that of the sample, log q(z|x) - log p(z), whatever the prior: right on average. A
    code is where the flow takes the Gaussian's mean. What needs a Gaussian q is refused before
    training: `objective=decomposed`, `dip`, `free_bits`; the priors that are learned from the
    encoder's distributions in closed form, and `vamp`; diagnostics of marginals.

    Args:
        latent_dim: D.
        kind, transforms, hidden: see `flows.chain`.
    """

    def __init__(
        self,
        latent_dim: int,
        kind: str = "maf",
        transforms: int = 2,
        hidden: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.chain = chain(kind, transforms, hidden, latent_dim, context=2 * latent_dim)

    def forward(self, base: Gaussian) -> FlowedGaussian:
        """The distribution that the flow makes of each Gaussian, `(B, D)`."""
        return FlowedGaussian(base, self.chain)
