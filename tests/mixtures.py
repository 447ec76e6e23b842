"""Components and mixtures of every structure, and how near two results are."""

import pytest
import torch

from jensen.family import structures
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture
from jensen.family.spherical import SphericalGaussian

STRUCTURES = list(structures.STRUCTURES.values())
every_structure = pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: s.__name__)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random(structure, lead=(), k=3, d=4, seed=0):
    """Components with unlike covariances."""
    mean = 2 * normal(*lead, k, d, seed=seed)
    if structure in (Gaussian, SphericalGaussian):
        return structure(
            mean, normal(*lead, *((k, d) if structure is Gaussian else (k,)), seed=seed + 1)
        )
    shape = (*lead, k, d, d) if structure is FullGaussian else (*lead, d, d)
    a = normal(*shape, seed=seed + 1)
    return structure(mean, torch.linalg.cholesky(a @ a.mT + torch.eye(d, dtype=torch.float64)))


def covariance(c):
    """`(..., K, D, D)` by the definition of each structure."""
    dim = c.mean.shape[-1]
    if isinstance(c, Gaussian):
        return c.log_var.exp().diag_embed()
    if isinstance(c, SphericalGaussian):
        return c.log_var.exp()[..., None, None] * torch.eye(dim, dtype=c.log_var.dtype)
    cov = c.scale_tril @ c.scale_tril.mT
    return cov if isinstance(c, FullGaussian) else cov.unsqueeze(-3).expand(*c.mean.shape, dim)


def weights(n=50, k=3, seed=5):
    return normal(n, k, seed=seed).softmax(-1)


def slope(value, leaves):
    """The largest derivative in any of the parameters, of which Cholesky factors have a lower
    triangle only.
    """
    slopes = torch.autograd.grad(value, tuple(leaves), allow_unused=True)
    triangular = [
        s.tril() if s.shape[-1:] == s.shape[-2:-1] and leaf.triu(1).eq(0).all() else s
        for s, leaf in zip(slopes, leaves, strict=True)
    ]
    return max(s.abs().max().item() for s in triangular)


def close(found, expected, tolerance=1e-10):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def mixed(structure, k=3, d=4, seed=0):
    return Mixture(normal(k, seed=seed + 9).log_softmax(-1), random(structure, k=k, d=d, seed=seed))
