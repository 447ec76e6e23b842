"""The variational autoencoder: an encoder, a decoder, a likelihood and a prior, and the bound they
give.
"""

from torch import Tensor, nn

from jensen.base.errors import InputError, check_count
from jensen.base.tree import tree_map
from jensen.bound.bound import Bound, Inference
from jensen.bound.divergence import rate
from jensen.family.family import Posterior
from jensen.family.gaussian import Gaussian, bounded
from jensen.model.likelihood import Likelihood
from jensen.model.prior import Prior


class VAE(nn.Module):
    """Kingma & Welling 2014 (arXiv 1312.6114).

    Args:
        encoder: `(B, *event)` to the unbounded mean and log_var of q(z|x), a `Gaussian` of `(B,
            D)`; or to another `family.family.Posterior`, which is taken as it is.
        decoder: `(B, D)` to one unbounded number for each element of the observation, `(B,
            *event)`.
        likelihood: what those numbers mean.
        prior: p(z).
        latent_dim: D.

    Raises:
        InputError: a prior without a part of the protocol `model.prior.Prior`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        prior: Prior,
        latent_dim: int,
    ) -> None:
        super().__init__()
        check_count("latent_dim", latent_dim)
        _check_prior(prior)
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.prior = prior
        self.latent_dim = latent_dim
        if hasattr(prior, "bind"):
            prior.bind(self.encode)

    def encode(self, x: Tensor) -> Posterior:
        """q(z|x), `(B, *event)` to `(B, D)`; a Gaussian is finite for any encoder output
        (`family.gaussian.bounded`).

        Raises:
            InputError: the encoder gives no distribution.
        """
        raw = self.encoder(x)
        if isinstance(raw, Gaussian):
            return bounded(raw)
        if isinstance(raw, tuple) and isinstance(raw, Posterior):
            return raw
        raise InputError(
            f"model.encoder gives a {type(raw).__name__}: expected a distribution, such as"
            " jensen.family.gaussian.Gaussian(mean, log_var); name the family, since a pair of"
            " tensors could be any"
        )

    def decode(self, z: Tensor) -> Tensor:
        """E[x|z], `(B, D)` to `(B, *event)`."""
        return self.likelihood.mean(self.decoder(z))

    def forward(self, x: Tensor, noise: Tensor) -> Inference:
        """The bound at a sample of q(z|x) for each row of standard normal `noise`, `(B, *event)`
        and `(S B, D)`.

        With S > 1 samples an example, rows i, i + B, i + 2 B, ... of the inference are those of
        example i.
        """
        posterior = self.encode(x)
        if len(noise) > len(x):
            times = len(noise) // len(x)
            posterior, x = tree_map(
                lambda part: part.repeat(times, *[1] * (part.dim() - 1)), (posterior, x)
            )
        z = posterior.rsample(noise)
        distortion = self.likelihood.distortion(self.decoder(z), x)
        p = self.prior.distribution()
        log_prior = p.log_prob(z).to(z.dtype)
        rated = rate(posterior, p, z, log_prior, bounded=self.prior.rate_is_bound)
        return Inference(Bound(distortion, rated), posterior, z, log_prior)


def _check_prior(prior: object) -> None:
    """Refuse a prior that the bound, or its learning, would ask for something it has not."""
    parts = ("distribution", "update", "rate_is_bound", "warmup")
    missing = [name for name in parts if not hasattr(prior, name)]
    if missing:
        raise InputError(
            f"model.prior is a {type(prior).__name__} without {', '.join(missing)}, which a VAE asks"
            " of it: expected the parts of jensen.model.prior.Prior; add them"
        )
