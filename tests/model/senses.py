"""Two senses of one cause, z ~ N(0, 1) and x_m = z + N(0, sigma_m^2), with the exact experts: all
that a multimodal VAE says of them is known in closed form.
"""

import math

import torch
from torch import distributions, nn

from jensen.family.gaussian import LOG_VAR_BOUND, Gaussian
from jensen.model.likelihood import Normal
from jensen.model.multimodal import MultimodalVAE
from jensen.model.prior import StandardNormal

SEE, HEAR = 0.5, 1.0
"""Standard deviations: the digits of the issue are those of these two."""


class Exact(nn.Module):
    """The expert N(z; x, sigma^2)."""

    def __init__(self, sigma):
        super().__init__()
        raw = LOG_VAR_BOUND * math.atanh(2 * math.log(sigma) / LOG_VAR_BOUND)
        self.register_buffer("raw", torch.tensor(raw, dtype=torch.float64))

    def forward(self, x):
        return Gaussian(x, self.raw.to(x).expand_as(x))


def exact(fusion="product", see=SEE, hear=HEAR, **more):
    parts = {"see": see, "hear": hear}
    model = MultimodalVAE(
        {"see": [1], "hear": [1]},
        {name: Exact(sigma) for name, sigma in parts.items()},
        {name: nn.Identity() for name in parts},
        {name: Normal(sigma**2) for name, sigma in parts.items()},
        StandardNormal(),
        1,
        fusion,
        **more,
    ).double()
    for name, sigma in parts.items():  # which float32 had rounded
        model.likelihood.each[name].log_var.fill_(2 * math.log(sigma))
    return model


def evidence(x, see=SEE, hear=HEAR):
    """log p(x) of what an example has, by the joint Gaussian of torch."""
    noise = torch.diag(torch.tensor([see, hear], dtype=torch.float64).square())
    covariance = torch.ones(2, 2, dtype=torch.float64) + noise
    found = []
    for row in x.double():
        has = ~row.isnan()
        own = covariance[has][:, has]
        zero = torch.zeros(len(own), dtype=torch.float64)
        found.append(
            distributions.MultivariateNormal(zero, own).log_prob(row[has])
            if len(own)
            else torch.zeros((), dtype=torch.float64)
        )
    return torch.stack(found)


NODE = 3**0.5
"""Gauss and Hermite's three nodes of N(0, 1) have weights 1/6, 2/3, 1/6."""
X_NODES = torch.tensor([-NODE, 0.0, NODE], dtype=torch.float64)
X_WEIGHTS = torch.tensor([1, 4, 1], dtype=torch.float64) / 6


def population():
    """Points `(27, 2)` and their weights, under which the mean of any quadratic of x is exact."""
    grid = torch.cartesian_prod(X_NODES, X_NODES, X_NODES)
    weight = torch.cartesian_prod(X_WEIGHTS, X_WEIGHTS, X_WEIGHTS).prod(1)
    z, see, hear = grid.T
    return torch.stack([z + SEE * see, z + HEAR * hear], 1), weight
