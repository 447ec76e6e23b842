"""The product of Gaussian experts, by quadrature and by torch's distributions."""

import torch
from torch import distributions

from jensen.family.experts import beside, product
from jensen.family.gaussian import STANDARD, Gaussian

EXPERTS = Gaussian(
    torch.tensor([[0.5, -1.0], [2.0, 0.3], [-0.7, 1.1]], dtype=torch.float64),
    torch.tensor([[0.2, -1.5], [-0.4, 0.9], [1.0, 0.0]], dtype=torch.float64),
)
MASK = torch.tensor([True, False, True]).unsqueeze(1)


def by_quadrature(experts):
    """log of the integral of the product, and its mean and variance, of each coordinate."""
    grid = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    found = []
    for mean, log_var in zip(experts.mean.T, experts.log_var.T, strict=True):
        each = distributions.Normal(mean, (log_var / 2).exp())
        density = each.log_prob(grid.unsqueeze(1)).sum(1).exp()
        whole = torch.trapezoid(density, grid)
        centre = torch.trapezoid(density * grid, grid) / whole
        spread = torch.trapezoid(density * (grid - centre).square(), grid) / whole
        found.append(torch.stack([whole.log(), centre, spread]))
    return torch.stack(found).T


def test_a_product_and_its_normaliser_are_those_of_quadrature():
    for mask in (None, MASK):
        chosen = EXPERTS if mask is None else Gaussian(*(part[mask[:, 0]] for part in EXPERTS))
        log_whole, mean, variance = by_quadrature(chosen)
        found, log_normaliser = product(EXPERTS, mask)
        torch.testing.assert_close(found.mean, mean)
        torch.testing.assert_close(found.log_var.exp(), variance)
        torch.testing.assert_close(log_normaliser, log_whole.sum())


def test_one_expert_is_given_back_bit_for_bit_also_beside_masked_ones():
    alone = Gaussian(*(part[:1] for part in EXPERTS))
    only = torch.tensor([True, False, False]).unsqueeze(1)
    for found, log_normaliser in (product(alone), product(EXPERTS, only)):
        assert found.mean.equal(alone.mean[0])
        assert found.log_var.equal(alone.log_var[0])
        assert log_normaliser == 0


def test_experts_of_extreme_variances_neither_overflow_nor_lose_their_gradient():
    mean = torch.zeros(4, 2, 1, requires_grad=True)
    raw = torch.tensor([[-200.0, 200.0], [200.0, 200.0], [-200.0, -200.0], [0.0, 300.0]])
    log_var = raw.unsqueeze(-1).requires_grad_()
    found, _ = product(Gaussian(mean, log_var))
    assert found.log_var.isfinite().all()
    (found.mean.sum() + found.log_var.sum()).backward()
    assert mean.grad.isfinite().all()
    assert log_var.grad.isfinite().all()
    half = torch.log(torch.tensor(2.0))
    torch.testing.assert_close(found.log_var[1, 0], 200 - half)


def test_a_masked_expert_has_no_gradient():
    mean = EXPERTS.mean.clone().requires_grad_()
    log_var = EXPERTS.log_var.clone().requires_grad_()
    found, log_normaliser = product(Gaussian(mean, log_var), MASK)
    (found.mean.sum() + found.log_var.sum() + log_normaliser).backward()
    for part in (mean, log_var):
        assert part.grad[1].eq(0).all()
        assert part.grad[[0, 2]].ne(0).all()


def test_a_product_beside_a_prior_is_that_of_quadrature_and_of_silence_the_prior():
    experts = Gaussian(*(part[:2] for part in EXPERTS))
    for prior in (STANDARD, Gaussian(*(part[2] for part in EXPERTS))):
        own = (part.double().expand(1, 2) for part in prior)
        both = Gaussian(*(torch.cat(pair) for pair in zip(experts, own, strict=True)))
        _, mean, variance = by_quadrature(both)
        found = beside(prior, experts, torch.ones(2, 1, dtype=torch.bool))
        torch.testing.assert_close(found.mean, mean)
        torch.testing.assert_close(found.log_var.exp(), variance)
        silent = beside(prior, experts, torch.zeros(2, 1, dtype=torch.bool))
        assert silent.mean.equal(prior.mean.double().expand(2))
        assert silent.log_var.equal(prior.log_var.double().expand(2))


def test_a_prior_of_each_example_is_multiplied_with_the_experts_of_that_example():
    torch.manual_seed(0)
    prior = Gaussian(torch.randn(5, 2).double(), torch.randn(5, 2).double())
    experts = Gaussian(torch.randn(5, 3, 2).double(), 10 * torch.randn(5, 3, 2).double())
    mask = torch.rand(5, 3, 1) < 0.5
    found = beside(prior, experts, mask)
    for row in range(5):
        only = mask[row, :, 0]
        whole, _ = product(
            Gaussian(
                *(
                    torch.cat([p[row, None], e[row][only]])
                    for p, e in zip(prior, experts, strict=True)
                )
            )
        )
        torch.testing.assert_close(found.mean[row], whole.mean)
        torch.testing.assert_close(found.log_var[row], whole.log_var)
