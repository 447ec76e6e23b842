"""The variational autoencoder: an encoder, a decoder, a likelihood and a prior, and the bound they give."""

from torch import Tensor, nn

from jensen.core.bound import Bound, Inference
from jensen.core.errors import check_count
from jensen.core.gaussian import Gaussian, bounded, sample
from jensen.model.likelihood import Likelihood
from jensen.model.prior import Prior


class VAE(nn.Module):
    """Kingma & Welling 2014 (arXiv 1312.6114).

    Args:
        encoder: `(B, *event)` to the unbounded mean and log_var of q(z|x), a `Gaussian` of `(B, D)`.
        decoder: `(B, D)` to one unbounded number for each element of the observation, `(B, *event)`.
        likelihood: what those numbers mean.
        prior: p(z).
        latent_dim: D.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, likelihood: Likelihood, prior: Prior, latent_dim: int) -> None:
        super().__init__()
        check_count("latent_dim", latent_dim)
        self.encoder, self.decoder = encoder, decoder
        self.likelihood, self.prior = likelihood, prior
        self.latent_dim = latent_dim
        if hasattr(prior, "bind"):
            prior.bind(self.encode)

    def encode(self, x: Tensor) -> Gaussian:
        """q(z|x), `(B, *event)` to `(B, D)`, finite for any encoder output (`core.gaussian.bounded`)."""
        return bounded(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        """E[x|z], `(B, D)` to `(B, *event)`."""
        return self.likelihood.mean(self.decoder(z))

    def forward(self, x: Tensor, noise: Tensor) -> Inference:
        """The bound at a sample of q(z|x) for each row of standard normal `noise`, `(B, *event)` and `(S B, D)`.

        With S > 1 samples an example, rows i, i + B, i + 2 B, ... of the inference are those of example i.
        """
        posterior = self.encode(x)
        if len(noise) > len(x):
            times = len(noise) // len(x)
            posterior = Gaussian(posterior.mean.repeat(times, 1), posterior.log_var.repeat(times, 1))
            x = x.repeat(times, *[1] * (x.dim() - 1))
        z = sample(posterior, noise)
        distortion = self.likelihood.distortion(self.decoder(z), x)
        log_prior = self.prior.log_prob(z)
        return Inference(Bound(distortion, self.prior.rate(posterior, z, log_prior)), posterior, z, log_prior)
