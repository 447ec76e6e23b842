"""Mixtures of Gaussians under noise, exactly: what a diffusion has to learn, in closed form."""

import torch
from torch import Tensor

from jensen.family.family import gaussians
from jensen.family.full import FullGaussian, full
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture, log_joint


def diffuse(p: Mixture, alpha: Tensor, sigma: Tensor) -> Mixture:
    """The mixture of alpha x + sigma noise, for x ~ p and noise ~ N(0, I), of the same weights.

    Args:
        alpha, sigma: `()`, or `(T,)`, which makes T mixtures of one.

    >>> one = Mixture(torch.zeros(1), Gaussian(torch.ones(1, 2), torch.zeros(1, 2)))
    >>> diffuse(one, torch.tensor(0.5), torch.tensor(2.0)).components.log_var.exp()
    tensor([[4.2500, 4.2500]])
    """
    log_weight = p.log_weight.expand(*alpha.shape, *p.log_weight.shape)
    by = alpha[..., None, None]
    noise = sigma.square()[..., None, None]
    mean = by * p.components.mean
    if isinstance(p.components, Gaussian):
        variance = by.square() * p.components.log_var.exp() + noise
        return Mixture(log_weight, Gaussian(mean, variance.log().expand(mean.shape)))
    factor = by[..., None] * full(gaussians(p.components)).scale_tril
    covariance = factor @ factor.mT + noise[..., None] * torch.eye(mean.shape[-1]).to(mean)
    return Mixture(log_weight, FullGaussian(mean, torch.linalg.cholesky(covariance)))


def score(x: Tensor, p: Mixture) -> Tensor:
    """The gradient of log p(x) in x, `(..., N, D)` to `(..., N, D)`: the mean over components, by
    their responsibilities, of precision_k (mean_k - x).
    """
    r = log_joint(x, p).softmax(-1)
    components = p.components
    if isinstance(components, Gaussian):
        precision = (-components.log_var).exp().expand(components.mean.shape)
        return r @ (precision * components.mean) - (r @ precision) * x
    mean, factor = full(gaussians(components))
    away = mean.unsqueeze(-2) - x.unsqueeze(-3)  # (..., K, N, D)
    pull = torch.cholesky_solve(away.mT, factor).mT
    return (r.mT.unsqueeze(-1) * pull).sum(-3)
