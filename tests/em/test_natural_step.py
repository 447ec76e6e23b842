"""An M-step is a step of length 1 along the natural gradient of the expected log-joint, for every
family of components.

A mixture is an exponential family of points and the components they are of: log p(x, k) = a_k + eta_k
. T(x) - A(eta), so that the natural gradient, in mean parameters E [1 of k, 1 of k T(x)], of Q / N is
Q's gradient in natural ones (Amari 1998; Hoffman et al. 2013). Here both are autograd's, on densities
of torch.distributions: jensen gives the M-step alone.
"""

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, MultivariateNormal, Normal, Poisson

from jensen.em import steps
from jensen.family.bernoulli_columns import BernoulliColumns
from jensen.family.categorical_column import CategoricalColumn
from jensen.family.columns import Columns
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture
from jensen.family.normal_columns import NormalColumns
from jensen.family.poisson_columns import PoissonColumns
from jensen.family.spherical import SphericalGaussian
from jensen.family.tied import TiedGaussian

K = 3
N = 60


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


REAL = randn(N, 2) @ torch.tensor([[1.0, 0.7], [0.0, 0.5]]).double() + 0.3
BITS = (rand(N, 2, seed=1) < 0.4).double()
COUNTS = (6 * rand(N, 2, seed=2)).floor()
CODES = (4 * rand(N, 1, seed=3)).floor()
FACTOR = torch.linalg.cholesky(torch.tensor([[1.5, -0.4], [-0.4, 0.8]]).double())
EMPTY = torch.zeros(K, 0).double()


def columns(normal=0, bits=0, counts=0, sizes=()):
    groups = [
        NormalColumns(randn(K, normal, seed=4), 0.3 * randn(K, normal, seed=5)),
        BernoulliColumns(randn(K, bits, seed=6)),
        PoissonColumns(randn(K, counts, seed=7)),
        *(CategoricalColumn(randn(K, size, seed=8).log_softmax(-1)) for size in sizes),
    ]
    return Columns(tuple(groups), EMPTY)


COMPONENTS = {
    "full": (
        FullGaussian(randn(K, 2, seed=4), FACTOR * (1 + rand(K, seed=5))[:, None, None]),
        REAL,
    ),
    "tied": (TiedGaussian(randn(K, 2, seed=4), FACTOR), REAL),
    "diag": (Gaussian(randn(K, 2, seed=4), 0.3 * randn(K, 2, seed=5)), REAL),
    "spherical": (SphericalGaussian(randn(K, 2, seed=4), 0.3 * randn(K, seed=5)), REAL),
    "bernoulli": (columns(bits=2), BITS),
    "poisson": (columns(counts=2), COUNTS),
    "categorical": (columns(sizes=[4]), CODES),
    "columns": (columns(2, 2, 2, [4]), torch.cat([REAL, BITS, COUNTS, CODES], 1)),
}


def naturals(p):
    """Natural parameters of points and components, each a leaf: of Gaussians precision * mean and the
    precision, in the shape that the structure has it.
    """
    c = p.components
    if isinstance(c, FullGaussian | TiedGaussian):
        precision = torch.linalg.inv(c.scale_tril @ c.scale_tril.mT)
        eta = {"linear": (precision @ c.mean.unsqueeze(-1)).squeeze(-1), "matrix": precision}
    elif isinstance(c, SphericalGaussian):
        precision = (-c.log_var).exp()
        eta = {"linear": precision[:, None] * c.mean, "number": precision}
    else:
        normal = c if isinstance(c, Gaussian) else c.groups[0]
        precision = (-normal.log_var).exp()
        eta = {"linear": precision * normal.mean, "vector": precision}
    if isinstance(c, Columns):
        _, ones, counts, *categories = c.groups
        eta |= {"logit": ones.logit, "log_rate": counts.log_rate}
        eta |= {
            f"code {i}": each.log_share - each.log_share[:, -1:]
            for i, each in enumerate(categories)
        }
    own = normaliser(parts(eta))
    eta["weight"] = p.log_weight - own
    return {name: part.detach().clone().requires_grad_() for name, part in eta.items()}


def parts(eta):
    """The distributions of torch of each group of columns, `(K, ...)`, with how many they are and the
    point whose statistics are 0."""
    linear = eta["linear"]
    found = []
    if "matrix" in eta:
        matrix = eta["matrix"].expand(K, 2, 2)
        mean = torch.linalg.solve(matrix, linear.unsqueeze(-1)).squeeze(-1)
        found.append((MultivariateNormal(mean, precision_matrix=matrix), 2, 0.0, False))
    else:
        precision = eta["vector"] if "vector" in eta else eta["number"][:, None].expand(K, 2)
        width = linear.shape[1]
        found.append((Normal(linear / precision, precision.rsqrt()), width, 0.0, True))
    for name, kind in (("logit", Bernoulli), ("log_rate", Poisson)):
        if name in eta:
            own = kind(logits=eta[name]) if kind is Bernoulli else kind(eta[name].exp())
            found.append((own, eta[name].shape[1], 0.0, True))
    for name in eta:
        if name.startswith("code"):
            own = Categorical(logits=eta[name].unsqueeze(1))
            found.append((own, 1, eta[name].shape[1] - 1.0, True))
    return found


def log_density(groups, x):
    """`(N, D)` to `(N, K)`."""
    found = 0.0
    start = 0
    for own, width, _, each in groups:
        some = own.log_prob(x[:, None, start : start + width])
        found = found + (some.sum(-1) if each else some)
        start += width
    return found


def normaliser(groups):
    """Of each component, `(K,)`: -log p(x) where statistics are 0 and so is log h."""
    zeros = torch.cat([torch.full((1, width), at).double() for _, width, at, _ in groups], 1)
    return -log_density(groups, zeros).squeeze(0)


def log_joint(eta, x):
    groups = parts(eta)
    log_weight = (eta["weight"] + normaliser(groups)).log_softmax(-1)
    return log_weight + log_density(groups, x)


def means(eta):
    """The expected statistics: the gradient of the log-normaliser."""
    total = (eta["weight"] + normaliser(parts(eta))).logsumexp(-1)
    return gradients(total, eta)


def gradients(value, eta):
    """Of symmetric matrices the symmetric ones: only their inner products with x x' are asked."""
    found = torch.autograd.grad(value, [*eta.values()], allow_unused=True)
    slopes = {
        name: torch.zeros_like(part) if each is None else each
        for (name, part), each in zip(eta.items(), found, strict=True)
    }
    if "matrix" in slopes:
        slopes["matrix"] = 0.5 * (slopes["matrix"] + slopes["matrix"].mT)
    return slopes


@pytest.mark.parametrize("name", COMPONENTS)
def test_an_m_step_is_a_natural_gradient_step_of_length_one(name):
    components, x = COMPONENTS[name]
    p = Mixture(randn(K, seed=9).log_softmax(-1), components)
    torch.testing.assert_close(
        p.log_weight + components.log_density(x), log_joint(naturals(p), x), rtol=1e-9, atol=1e-9
    )
    r = rand(N, K, seed=10)
    r = r / r.sum(1, keepdim=True)
    new = steps.m_step(p, components.moments(x, r))
    eta = naturals(p)
    step = gradients((r * log_joint(eta, x)).sum() / N, eta)
    before, after = means(eta), means(naturals(new))
    moved = {name: before[name] + step[name] for name in eta}
    assert max(part.abs().max() for part in step.values() if part.numel()) > 0.05
    for each in eta:
        torch.testing.assert_close(moved[each], after[each], rtol=1e-12, atol=1e-12)
