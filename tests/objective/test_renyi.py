"""The variational Renyi bound on a model whose every bound is known: z ~ N(0, 1), x | z ~ N(z,
1).
"""

import math

import pytest
import torch
from scipy import stats
from torch.distributions import Normal, kl_divergence

from jensen.base.errors import InputError
from jensen.base.schedule import Linear
from jensen.bound.bound import Bound, Inference
from jensen.bound.divergence import renyi
from jensen.family.gaussian import Gaussian
from jensen.objective.beta import Beta
from jensen.objective.importance import Importance
from jensen.objective.renyi import Renyi

STEP = torch.tensor(0)
X = 1.5
Q = Normal(*torch.tensor([0.5, 0.6], dtype=torch.float64))
EVIDENCE = -1.82801212348


def infer(noise):
    z = (Q.loc + Q.scale * noise).unsqueeze(1)
    rate = kl_divergence(Q, Normal(0.0, 1.0)).expand(len(z))
    mean = Q.loc.expand(len(z), 1)
    posterior = Gaussian(mean, (2 * Q.scale.log()).expand(len(z), 1))
    distortion = -Normal(z[:, 0], 1.0).log_prob(torch.tensor(X))
    return Inference(Bound(distortion, rate), posterior, z, Normal(0.0, 1.0).log_prob(z[:, 0]))


def grid(count=200_000):
    """Draws at even quantiles: means over them are integrals, but for what lies beyond the last."""
    return torch.tensor(stats.norm.ppf((torch.arange(count).numpy() + 0.5) / count))


def noise(count, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (0.0, EVIDENCE),
        (0.5, -1.87777847654),
        (0.9, -1.90813715473),
        (1.0, -1.91476415697),
        (2.0, -1.966490368),
    ],
)
def test_the_reference_s_digits(alpha, expected):
    """By the divergence of q and the posterior, N(3/4, 1/2), to all of them; by the objective as
    far as 200,000 even quantiles show tails.
    """
    posterior = Gaussian(*torch.tensor([[0.75], [math.log(0.5)]], dtype=torch.float64))
    q = Gaussian(Q.loc[None], 2 * Q.scale.log()[None])
    exact = EVIDENCE - renyi(q, posterior, alpha).item()
    assert exact == pytest.approx(expected, abs=2e-9)
    errors = []
    for count in (50_000, 200_000):
        inference = infer(grid(count))
        errors.append(-Renyi(alpha, samples=count)(inference, STEP).item() - expected)
    assert abs(errors[1]) < (1e-5 if alpha else 6e-5)  # at 0 the weights of tails are largest
    assert abs(errors[1]) < 0.45 * abs(errors[0]) + 1e-9  # so they are the quantiles' own


def test_it_falls_with_alpha():
    inference = infer(grid(10_000))
    values = [
        -Renyi(alpha, samples=10_000)(inference, STEP).item()
        for alpha in (0.0, 0.3, 0.6, 0.9, 0.99, 1.0, 1.01, 1.5, 3.0)
    ]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("alpha", [1.0, 1 - 1e-8, 1 + 1e-8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_alpha_one_it_is_beta_at_one(alpha, dtype):
    inference = infer(noise(15).to(dtype))
    found = Renyi(alpha, samples=5).to(dtype)(inference, STEP).item()
    assert found == pytest.approx(Beta()(inference, STEP).item(), abs=1e-6)


def test_at_alpha_nought_it_is_importance():
    inference = infer(noise(15))
    assert Renyi(0.0, samples=5)(inference, STEP).item() == pytest.approx(
        Importance(5)(inference, STEP).item(), rel=1e-14
    )


def test_the_loss_by_hand_and_the_samples_that_count():
    inference = infer(noise(6))
    objective = Renyi(0.25, samples=3)
    log_w = (inference.log_prior - inference.log_posterior - inference.bound.distortion).view(3, 2)
    bound = (log_w.exp() ** 0.75).mean(0).log() / 0.75
    sampled = inference.log_posterior - inference.log_prior
    expected = -bound.mean() + 0.25 * (inference.bound.rate - sampled).mean()
    torch.testing.assert_close(objective(inference, STEP), expected)
    share = (log_w.exp() ** 0.75) / (log_w.exp() ** 0.75).sum(0)
    torch.testing.assert_close(
        objective.terms(inference, STEP)["effective_samples"], (1 / share.square().sum(0)).mean()
    )


def test_log_weights_of_any_size_are_no_trouble():
    inference = infer(noise(6).float())
    far = inference._replace(
        bound=Bound(
            inference.bound.distortion + torch.tensor([0, 0, 2000, 0, 5000, 0.0]),
            inference.bound.rate,
        )
    )
    for alpha in (0.0, 0.5, 1.0, 2.0):
        assert Renyi(alpha, samples=3)(far, STEP).isfinite()


def test_an_order_may_follow_a_schedule():
    objective = Renyi(Linear(0.0, 1.0, 10), samples=5)
    inference = infer(noise(15))
    assert objective(inference, torch.tensor(10)).item() == pytest.approx(
        Beta()(inference, STEP).item()
    )
    assert math.isclose(
        objective(inference, STEP).item(), Importance(5)(inference, STEP).item(), rel_tol=1e-12
    )


def test_gradients_are_finite_differences():
    draws = noise(8)

    def loss(shift, scale):
        z = (Q.loc + shift + scale * draws).unsqueeze(1)
        posterior = Gaussian((Q.loc + shift).expand(8, 1), (2 * scale.log()).expand(8, 1))
        own = Normal(Q.loc + shift, scale)
        rate = kl_divergence(own, Normal(0.0, 1.0)).expand(8)
        distortion = -Normal(z[:, 0], 1.0).log_prob(torch.tensor(X))
        log_prior = Normal(0.0, 1.0).log_prob(z[:, 0])
        return Renyi(0.5, samples=4)(
            Inference(Bound(distortion, rate), posterior, z, log_prior), STEP
        )

    leaves = [torch.tensor(value).double().requires_grad_() for value in (0.2, 0.7)]
    assert torch.autograd.gradcheck(loss, leaves)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alpha": -0.5}, "alpha is -0.5: expected a number of at least 0"),
        ({"samples": 1}, "samples is 1: expected an integer of at least 2"),
    ],
)
def test_what_is_no_renyi_bound_is_refused_in_a_sentence(options, said):
    with pytest.raises(InputError, match=said):
        Renyi(**options)
