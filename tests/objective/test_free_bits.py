"""Free bits against distortion + sum of maxima, latent by latent."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from jensen.base.errors import InputError
from jensen.base.schedule import Linear
from jensen.bound.bound import Bound, Inference
from jensen.family.gaussian import Gaussian
from jensen.objective.beta import Beta
from jensen.objective.free_bits import FreeBits

STEP = torch.tensor(5)
# Latent 0 coded well, 1 hardly, 2 not at all.
MEAN = torch.tensor(
    [[1.5, 0.2, 0.0], [-1.0, -0.3, 0.0], [0.5, 0.1, 0.0], [-2.0, 0.0, 0.0]], dtype=torch.float64
)
LOG_VAR = torch.tensor([[-3.0, -0.1, 0.0]], dtype=torch.float64).expand(4, 3)


def latent_kl(mean, log_var):
    return kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0))


def infer(mean=MEAN, log_var=LOG_VAR):
    bound = Bound(mean.square().sum(1), latent_kl(mean, log_var).sum(1))
    return Inference(bound, Gaussian(mean, log_var), mean, mean[:, 0])


@pytest.mark.parametrize("free", [0.0, 0.01, 0.25, 1.0, 10.0])
def test_each_latent_pays_the_larger_of_its_kl_and_what_is_free(free):
    kl = latent_kl(MEAN, LOG_VAR).mean(0).tolist()
    expected = MEAN.square().sum(1).mean().item() + sum(max(each, free) for each in kl)
    assert FreeBits(free)(infer(), STEP).item() == pytest.approx(expected)


def test_without_free_nats_it_is_the_elbo():
    torch.testing.assert_close(FreeBits(0.0)(infer(), STEP), Beta(1.0)(infer(), STEP))


def test_a_latent_below_the_floor_has_no_gradient_of_the_rate():
    mean = MEAN.clone().requires_grad_()
    log_var = LOG_VAR.clone().requires_grad_()
    loss = FreeBits(0.25)(infer(mean, log_var), STEP) - infer(mean, log_var).bound.distortion.mean()
    by_mean, by_log_var = torch.autograd.grad(loss, (mean, log_var))
    assert by_mean[:, 1:].abs().max() < 1e-15
    assert by_log_var[:, 1:].abs().max() < 1e-15
    torch.testing.assert_close(by_mean[:, 0], MEAN[:, 0] / 4)  # of mean^2 / 2


def test_gradients_are_finite_differences():
    leaves = [part.clone().requires_grad_() for part in (MEAN, LOG_VAR)]
    objective = FreeBits(0.25).double()
    assert torch.autograd.gradcheck(lambda *parts: objective(infer(*parts), STEP), leaves)


def test_the_latents_on_the_floor_are_counted():
    found = [
        FreeBits(free).terms(infer(), STEP)["latents_at_floor"].item() for free in (0.0, 0.25, 10.0)
    ]
    assert found == [1, 2, 3]


def test_the_floor_may_be_a_schedule():
    objective = FreeBits(Linear(0.0, 2.0, 10))
    torch.testing.assert_close(objective(infer(), STEP), FreeBits(1.0)(infer(), STEP))
    with pytest.raises(InputError, match="free_nats is -1"):
        FreeBits(-1)
