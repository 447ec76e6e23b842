"""Numbers that are known without this package, and what it makes of them on this machine."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from jensen.base.random import normal
from jensen.bound.aggregate import aggregate_log_density, draw
from jensen.bound.decomposition import decompose
from jensen.data.sprites import render
from jensen.diagnostics.decomposition import shared_out
from jensen.family.gaussian import Gaussian, kl, standard
from jensen.model.likelihood import log_normaliser


class Check(NamedTuple):
    """A number that is known, what came out, and how far apart they may be."""

    name: str
    expected: float
    got: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return abs(self.got - self.expected) <= self.tolerance


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _parts(q: Gaussian, samples: int) -> dict[str, float]:
    parts = decompose(q, samples=samples, generator=_generator(), log_density=shared_out)
    return {name: value.item() for name, value in parts._asdict().items() if value.dim() == 0}


def densities() -> Iterator[Check]:
    """Against torch.distributions and quadrature."""
    q = Gaussian(*normal(0, torch.arange(1000), (2, 5), torch.float64).unbind(1))
    reference = torch.distributions.Normal(q.mean, (0.5 * q.log_var).exp())
    truth = torch.distributions.kl_divergence(reference, torch.distributions.Normal(0.0, 1.0))
    yield Check(
        "Gaussian KL, largest error",
        0.0,
        (kl(q, standard(q.mean)) - truth).abs().max().item(),
        1e-12,
    )
    grid = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    for logit in (0.0, 0.3, -4.0):
        p = torch.tensor(logit, dtype=torch.float64)
        density = (grid * p - torch.nn.functional.softplus(p) + log_normaliser(p)).exp()
        yield Check(
            f"continuous Bernoulli integrates, logit {logit:g}",
            1.0,
            torch.trapezoid(density, grid).item(),
            1e-6,
        )


def two_points() -> Iterator[Check]:
    """Two posteriors of one latent at -1 and 1 (reference values by quadrature)."""
    for std, expected in ((0.1, 0.693147), (0.5, 0.632720), (1.0, 0.336831), (2.0, 0.111421)):
        q = Gaussian(torch.tensor([[-1.0], [1.0]]), torch.full((2, 1), 2 * math.log(std)))
        parts = _parts(q, 40_000)
        tolerance = 5 * parts["mutual_information_se"] + 1e-6
        yield Check(
            f"MI of two points, std {std:g}", expected, parts["mutual_information"], tolerance
        )


def linear_gaussian() -> Iterator[Check]:
    """A linear encoder on Gaussian data: the aggregate posterior is Gaussian, so every part is
    closed form.
    """
    size = 8000
    dim = 4
    x = normal(1, torch.arange(size), (dim,), torch.float64)
    x = x - x.mean(0)
    x = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T @ x / size), x.T, upper=False).T
    matrix = 0.6 * normal(2, torch.arange(dim), (dim,), torch.float64)
    variance = torch.tensor([0.3, 0.5, 0.8, 1.0], dtype=torch.float64)
    c = matrix @ matrix.T + variance.diag()
    parts = _parts(Gaussian(x @ matrix.T, variance.log().expand(size, dim)), 8000)
    log_det = torch.logdet(c)
    diagonal = c.diagonal()
    yield Check(
        "MI of a linear encoder",
        0.5 * (log_det - variance.log().sum()).item(),
        parts["mutual_information"],
        0.02,
    )
    yield Check(
        "TC of a linear encoder",
        0.5 * (diagonal.log().sum() - log_det).item(),
        parts["total_correlation"],
        0.02,
    )
    expected = 0.5 * (diagonal - 1 - diagonal.log()).sum().item()
    yield Check("dimension-wise KL of a linear encoder", expected, parts["dimension_wise_kl"], 0.02)
    total = sum(
        parts[name] for name in ("mutual_information", "total_correlation", "dimension_wise_kl")
    )
    yield Check("the parts add up to the rate", parts["rate"], total, 1e-9)


def bent() -> Iterator[Check]:
    """Latents z1 ~ N(0, 1), z2 = z1^2 + N(0, 1/4): they depend on each other, and no covariance says
    so (reference value by quadrature). The posteriors are a thin slice of z1 each.
    """
    size = 6000
    width = 0.01
    chance = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    first = math.sqrt(1 - width**2) * torch.special.ndtri(chance)
    mean = torch.stack([first, first.square()], 1)
    variance = torch.tensor([width**2, 0.25], dtype=torch.float64)
    q = Gaussian(mean, variance.log().expand(size, 2))
    covariance = (first * (first.square() - first.square().mean())).mean().item()
    yield Check("covariance of two bent latents", 0.0, covariance, 1e-9)
    total = _parts(q, 6000)["total_correlation"]
    yield Check("TC of two bent latents", 0.8027025593, total, 0.03)


def extremes() -> Iterator[Check]:
    """Posteriors that do not overlap, and posteriors that are the prior."""
    apart = Gaussian(100.0 * torch.arange(100)[:, None], torch.zeros(100, 1))
    yield Check(
        "MI of 100 points 100 std apart",
        math.log(100),
        _parts(apart, 1000)["mutual_information"],
        1e-6,
    )
    collapsed = Gaussian(torch.zeros(500, 3), torch.zeros(500, 3))
    for name in ("mutual_information", "total_correlation", "dimension_wise_kl"):
        yield Check(f"{name} of a collapsed encoder", 0.0, _parts(collapsed, 500)[name], 1e-9)
    q = Gaussian(
        3 * normal(3, torch.arange(300), (2,), torch.float64),
        torch.full((300, 2), -3.0, dtype=torch.float64),
    )
    draws = draw(q, 3000, _generator())
    own = torch.distributions.Normal(q.mean[draws.row], math.exp(-1.5)).log_prob(draws.z).sum(1)
    ratio = own - aggregate_log_density(draws, q, 300)
    yield Check(
        "log q(z|x) - log q(z) above log N, at most",
        0.0,
        max(0.0, (ratio - math.log(300)).max().item()),
        1e-9,
    )


def rendering() -> Iterator[Check]:
    """The sprites do not depend on the machine: white pixels of a thousand of them."""
    grid = torch.arange(1000)
    latents = torch.stack([grid % 3, grid % 6, grid * 7 % 40, grid * 5 % 32, grid * 11 % 32], 1)
    yield Check(
        "white pixels of 1,000 sprites", 166_690, float(np.sum(render(latents), dtype=np.int64)), 0
    )
