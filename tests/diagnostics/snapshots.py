"""Snapshots of small models, made without the callback."""

import torch
from priors import draws_of, latent_rate_of
from torch import Tensor

from jensen.diagnostics.snapshot import Snapshot
from jensen.family.gaussian import Gaussian
from jensen.model.likelihood import Bernoulli, LearnedNormal, Likelihood, Normal
from jensen.model.linear import LinearDecoder, LinearEncoder
from jensen.model.mlp import MLPDecoder, MLPEncoder
from jensen.model.prior import StandardNormal
from jensen.model.vae import VAE


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def snapshot_of(model: VAE, x: Tensor) -> Snapshot:
    model.eval().requires_grad_(False)
    inference = model(x, randn(len(x), model.latent_dim, seed=99))
    return Snapshot(
        bound=inference.bound,
        posterior=inference.posterior,
        z=inference.z,
        log_prior=inference.log_prior,
        latent_rate=latent_rate_of(model.prior, inference.posterior),
        factors=torch.zeros(len(x), 0, dtype=torch.int64),
        names=(),
        images=x[:40],
        encode=model.encoded,
        decode=model.decode,
        draw=lambda count: draws_of(model.prior, 7, torch.arange(count), model.latent_dim),
        infer=model,
        prior=model.prior.distribution(),
    )


def liven(model: VAE, scale: float = 3.0) -> VAE:
    """Random weights are so small that every code is much the same: larger ones."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter *= scale
    return model


def image_snapshot(channels: int = 1, latents: int = 4, count: int = 101) -> Snapshot:
    """An MLP VAE on random images of 16 x 16 pixels."""
    torch.manual_seed(0)
    shape = (channels, 16, 16)
    encoder = MLPEncoder(shape, latents, [12])
    decoder = MLPDecoder(shape, latents, [12])
    x = torch.rand(count, *shape, generator=generator(1))
    return snapshot_of(liven(VAE(encoder, decoder, Bernoulli(), StandardNormal(), latents)), x)


def vector_snapshot(dim: int = 5, latents: int = 3, count: int = 101) -> Snapshot:
    """An MLP VAE on random vectors."""
    torch.manual_seed(0)
    encoder = MLPEncoder([dim], latents, [12])
    decoder = MLPDecoder([dim], latents, [12])
    model = VAE(encoder, decoder, Normal(0.5), StandardNormal(), latents)
    return snapshot_of(liven(model), randn(count, dim, seed=1))


def linear_vae(
    encoder: Tensor,
    offset: Tensor,
    variance: Tensor,
    decoder: Tensor,
    start: Tensor,
    noise: float,
    learned: bool = False,
) -> VAE:
    """q(z|x) = N(A x + a, diag variance), p(x|z) = N(W z + m, noise I)."""
    latents, dim = encoder.shape
    likelihood: Likelihood = LearnedNormal(noise) if learned else Normal(noise)
    model = VAE(
        LinearEncoder([dim], latents),
        LinearDecoder([dim], latents),
        likelihood,
        StandardNormal(),
        latents,
    )
    with torch.no_grad():
        model.encoder.mean[1].weight.copy_(encoder)
        model.encoder.mean[1].bias.copy_(offset)
        model.encoder.log_var.copy_(
            20 * torch.atanh(variance.log() / 20)
        )  # model.encode bounds it by 20 tanh(. / 20)
        model.decoder[0].weight.copy_(decoder)
        model.decoder[0].bias.copy_(start)
    return model


def random_matrices(dim: int, latents: int, seed: int = 0) -> dict[str, Tensor]:
    """Arguments of `linear_vae`, less the noise."""
    return {
        "encoder": 0.5 * randn(latents, dim, seed=seed),
        "offset": 0.3 * randn(latents, seed=seed + 100),
        "variance": (0.7 * randn(latents, seed=seed + 200) - 1).exp(),
        "decoder": randn(dim, latents, seed=seed + 300),
        "start": 0.5 * randn(dim, seed=seed + 400),
    }


def exact_posterior(decoder: Tensor, start: Tensor, noise: float) -> dict[str, Tensor]:
    """Arguments of `linear_vae` whose encoder is Bayes' rule; `decoder` has orthogonal columns."""
    precision = decoder.T @ decoder / noise + torch.eye(decoder.shape[1])
    assert (precision - precision.diagonal().diag()).abs().max() < 1e-4
    gain = torch.linalg.solve(precision, decoder.T) / noise
    return {
        "encoder": gain,
        "offset": -gain @ start,
        "variance": 1 / precision.diagonal(),
        "decoder": decoder,
        "start": start,
    }


def with_posterior(snapshot: Snapshot, mean: Tensor, log_var: Tensor) -> Snapshot:
    """The snapshot with other codes."""
    q = Gaussian(mean, log_var)
    return snapshot._replace(posterior=q, latent_rate=latent_rate_of(StandardNormal(), q))
