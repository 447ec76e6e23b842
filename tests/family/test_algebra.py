"""Multivariate normals, against torch.distributions, scipy and dense linear algebra."""

import pytest
import torch
from mixtures import close, normal, slope
from scipy import stats
from torch import distributions

from jensen.family.algebra import condition, covariance, entropy, kl, marginal, mle, product
from jensen.family.full import FullGaussian


def random(*lead, d=4, seed=0):
    a = normal(*lead, d, d, seed=seed)
    return FullGaussian(
        2 * normal(*lead, d, seed=seed + 1),
        torch.linalg.cholesky(a @ a.mT + torch.eye(d, dtype=torch.float64)),
    )


def reference(p):
    return distributions.MultivariateNormal(p.mean, scale_tril=p.scale_tril)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_every_function_agrees_with_torch_distributions(lead):
    q = random(*lead)
    p = random(*lead, seed=5)
    x = normal(*lead, 4, seed=9)
    close(q.log_prob(x), reference(q).log_prob(x))
    close(entropy(q), reference(q).entropy())
    close(kl(q, p), distributions.kl_divergence(reference(q), reference(p)))
    close(covariance(q), reference(q).covariance_matrix)
    close(kl(q, q), torch.zeros(lead, dtype=torch.float64), 1e-12)


def test_samples_have_the_moments():
    p = random()
    x = p.rsample(normal(100_000, 4, seed=2))
    close(x.mean(0), p.mean, 0.05)
    close(torch.cov(x.T), covariance(p), 0.2)


def test_conditionals_times_marginals_are_the_joint():
    p = random(5)
    x = normal(5, 4, seed=3)
    given = [2, 0]
    rest = [1, 3]
    found = condition(p, given, x[..., given]).log_prob(x[..., rest]) + marginal(p, given).log_prob(
        x[..., given]
    )
    close(found, p.log_prob(x))


def test_a_conditional_is_the_schur_complement():
    p = random()
    values = normal(7, 2, seed=3)
    cov = covariance(p)
    g = [1, 3]
    r = [0, 2]
    gain = cov[r][:, g] @ torch.linalg.inv(cov[g][:, g])
    found = condition(p, [1, -1], values)  # negative dims count from the end
    close(found.mean, p.mean[r] + (values - p.mean[g]) @ gain.T)
    close(covariance(found), cov[r][:, r] - gain @ cov[g][:, r])


def test_a_product_of_experts_is_the_product_of_densities():
    experts = random(3, d=2)
    x = normal(50, 2, seed=3)
    fused, log_scale = product(experts)
    pointwise = experts.log_prob(x.unsqueeze(1)).sum(-1)
    close(fused.log_prob(x) + log_scale, pointwise)
    pair, scale = product(random(2, d=2))
    a, b = (reference(FullGaussian(*(part[i] for part in random(2, d=2)))) for i in (0, 1))
    total = a.covariance_matrix + b.covariance_matrix
    assert scale.item() == pytest.approx(
        stats.multivariate_normal(b.mean.numpy(), total.numpy()).logpdf(a.mean.numpy())
    )
    assert pair.mean.shape == (2,)


def test_mle_is_the_maximum():
    x = normal(60, 3, seed=3)
    weights = normal(60, seed=4).exp()
    found = mle(x, weights)
    leaves = [part.clone().requires_grad_() for part in found]
    value = (weights * FullGaussian(*leaves).log_prob(x)).sum()
    assert slope(value, leaves) < 1e-9
    close(mle(x).mean, x.mean(0))
    close(covariance(mle(x + 1e6)), torch.cov(x.T, correction=0), 1e-8)


def test_gradients_are_those_of_finite_differences():
    q = random(2, d=3)
    p = random(2, d=3, seed=5)
    x = normal(2, 3, seed=9)

    def value(m, a, n, b, x):
        q = FullGaussian(m, a.tril())
        p = FullGaussian(n, b.tril())
        return (
            q.log_prob(x),
            kl(q, p),
            entropy(q),
            *condition(q, [1], x[..., [1]]),
            *product(q)[0],
            product(q)[1],
        )

    assert torch.autograd.gradcheck(value, [part.clone().requires_grad_() for part in (*q, *p, x)])
