"""Linear encoder and decoder: the models whose optimum is known in closed form."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jensen.base.errors import check_count, check_counts
from jensen.family.gaussian import Gaussian


class LinearEncoder(nn.Module):
    """q(z|x) = N(A x + b, diag exp(log_var)), one log_var for all x, as in probabilistic PCA.

    Tipping & Bishop 1999; Lucas et al. 2019 (arXiv 1911.02469), section 3. `(B, *event)` to `(B,
    D)`.
    """

    def __init__(self, x_shape: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        check_counts("x_shape", x_shape)
        check_count("latent_dim", latent_dim)
        self.x_shape = tuple(x_shape)
        self.latent_dim = latent_dim
        self.mean = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(x_shape), latent_dim))
        self.log_var = nn.Parameter(torch.zeros(latent_dim))

    def forward(self, x: Tensor) -> Gaussian:
        mean = self.mean(x)
        return Gaussian(mean, self.log_var.expand_as(mean))


class LinearDecoder(nn.Sequential):
    """W z + m, `(B, D)` to `(B, *event)`."""

    def __init__(self, x_shape: Sequence[int], latent_dim: int) -> None:
        check_counts("x_shape", x_shape)
        check_count("latent_dim", latent_dim)
        super().__init__(nn.Linear(latent_dim, math.prod(x_shape)), nn.Unflatten(1, tuple(x_shape)))
        self.x_shape = tuple(x_shape)
        self.latent_dim = latent_dim
