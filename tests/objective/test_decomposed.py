"""The weighted parts of the rate on an inference made by hand; minibatch sums written out, finite
differences, T17.
"""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from jensen.base.errors import InputError
from jensen.base.schedule import Linear
from jensen.bound.bound import Bound, Inference
from jensen.family.gaussian import Gaussian
from jensen.objective.beta import Beta
from jensen.objective.decomposed import Decomposed

STEP = torch.tensor(3)
B = 7
D = 3
N = 100


def leaves(count=B, seed=0):
    mean, log_var, noise = torch.randn(
        3, count, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return mean.requires_grad_(), log_var.requires_grad_(), noise


def infer(mean, log_var, noise):
    """Distortion that depends on z; densities by torch.distributions."""
    q = Normal(mean, (log_var / 2).exp())
    z = mean + (log_var / 2).exp() * noise
    rate = kl_divergence(q, Normal(0.0, 1.0)).sum(1)
    return Inference(
        Bound(z.cos().sum(1), rate), Gaussian(mean, log_var), z, Normal(0.0, 1.0).log_prob(z).sum(1)
    )


def parts(inference, size=N):
    """MI, TC and DWKL by the stratified estimator, term by term."""
    (mean, log_var) = inference.posterior
    z = inference.z
    density = Normal(mean[None], (log_var / 2).exp()[None]).log_prob(z[:, None]).exp()  # (B, B, D)
    count = len(z)
    weight = torch.full((count, count), (size - 1) / (size * (count - 1)), dtype=torch.float64)
    weight.fill_diagonal_(1 / size)
    joint = (weight * density.prod(2)).sum(1).log()
    product = (weight[..., None] * density).sum(1).log().sum(1)
    prior = Normal(0.0, 1.0).log_prob(z).sum(1)
    tc = (joint - product).mean()
    dwkl = (product - prior).mean()
    return inference.bound.rate.mean() - tc - dwkl, tc, dwkl


def objective(*weights, size=N, **options):
    made = Decomposed(*weights, **options)
    made.dataset_size = size
    return made


@pytest.mark.parametrize("weights", [(1, 6, 1), (0, 1, 0), (2.0, 0.5, 3.0), (0, 0, 1)])
def test_the_loss_is_the_weighted_parts(weights):
    inference = infer(*leaves())
    expected = inference.bound.distortion.mean() + sum(
        w * part for w, part in zip(weights, parts(inference), strict=True)
    )
    torch.testing.assert_close(objective(*weights)(inference, STEP), expected)


def test_the_terms_are_unweighted_and_add_up_to_the_rate():
    inference = infer(*leaves())
    terms = objective(1, 6, 2).terms(inference, STEP)
    assert list(terms) == ["mutual_information", "total_correlation", "dimension_wise_kl"]
    torch.testing.assert_close(torch.stack(list(terms.values())), torch.stack(parts(inference)))
    assert sum(terms.values()).item() == pytest.approx(
        inference.bound.rate.mean().item(), abs=1e-12
    )


@pytest.mark.parametrize("beta", [0.5, 1, 4])
def test_equal_weights_are_the_closed_form(beta):
    inference = infer(*leaves())
    untouched = Decomposed(
        beta, beta, beta
    )  # without a data set's size: the pairwise work is not done
    assert torch.equal(untouched(inference, STEP), Beta(beta)(inference, STEP))
    scheduled = objective(*(Linear(0.0, 2 * beta, 6) for _ in range(3)))
    torch.testing.assert_close(scheduled(inference, STEP), Beta(beta)(inference, STEP))


@pytest.mark.slow
def test_the_parts_together_have_the_gradient_of_the_rate_on_average():
    """T17: the gradient of b (MI + TC + DWKL) with a sampled log q(z|x), as peers write it, against
    b * closed-form KL.
    """
    mean, log_var, _ = leaves(4)
    inference = infer(mean, log_var, torch.zeros(4, D, dtype=torch.float64))
    closed = torch.autograd.grad(inference.bound.rate.mean(), (mean, log_var))
    made = objective(1, 1, 1)
    generator = torch.Generator().manual_seed(1)
    draws = []
    for _ in range(800):
        inference = infer(
            mean, log_var, torch.randn(4, D, generator=generator, dtype=torch.float64)
        )
        terms = made.terms(inference, STEP)
        own = Normal(mean, (log_var / 2).exp()).log_prob(inference.z).sum(1).mean()
        # The terms use the closed-form rate; put the sampled one in its place.
        sampled = (
            sum(terms.values()) - inference.bound.rate.mean() + own - inference.log_prior.mean()
        )
        draws.append(torch.stack(torch.autograd.grad(sampled, (mean, log_var))))
    draws = torch.stack(draws)
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - torch.stack(closed)).abs() < 5 * error).all()
    assert error.max() < 0.05


@pytest.mark.parametrize("estimator", ["stratified", "mss", "mws", "plain"])
def test_gradients_are_finite_differences(estimator):
    mean, log_var, noise = leaves()
    made = objective(1, 6, 2, estimator=estimator).double()
    assert torch.autograd.gradcheck(
        lambda mean, log_var: made(infer(mean, log_var, noise), STEP), (mean, log_var)
    )


def test_mws_has_the_gradient_of_plain():
    mean, log_var, noise = leaves()
    grads = [
        torch.autograd.grad(
            objective(1, 6, 2, estimator=name)(infer(mean, log_var, noise), STEP), (mean, log_var)
        )
        for name in ("mws", "plain")
    ]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_permuting_latents_or_rows_changes_nothing():
    """I7."""
    inference = infer(*leaves())
    before = objective(1, 6, 2)(inference, STEP)
    for index in ((slice(None), [2, 0, 1]), ([4, 2, 6, 0, 1, 5, 3], slice(None))):
        moved = infer(*(leaf[index] for leaf in leaves()))
        torch.testing.assert_close(objective(1, 6, 2)(moved, STEP), before)


def test_a_batch_of_one_is_finite():
    assert objective(1, 6, 2)(infer(*leaves(1)), STEP).isfinite()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"mi": 0, "tc": 0, "dwkl": 0},
            "mi is 0, and so are tc and dwkl: expected at least one weight above 0",
        ),
        ({"tc": -1}, "tc is -1: expected a number of at least 0"),
        ({"dwkl": Linear(1.0, -1.0, 5)}, "dwkl falls to -1 in its schedule"),
        ({"mi": math.nan}, "mi is nan"),
        ({"estimator": "exact"}, "estimator is 'exact': expected one of stratified"),
    ],
)
def test_bad_input_is_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Decomposed(**options)


def test_a_data_set_smaller_than_the_batch_is_refused():
    with pytest.raises(InputError, match="dataset_size is 5: expected at least 7"):
        objective(1, 6, 1, size=5)(infer(*leaves()), STEP)
