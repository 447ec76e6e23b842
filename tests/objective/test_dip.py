"""DIP-VAE against numpy's covariance."""

import numpy as np
import pytest
import torch

from jensen.base.errors import InputError
from jensen.base.schedule import Linear
from jensen.bound.bound import Bound, Inference
from jensen.family.gaussian import Gaussian
from jensen.objective.dip import DIP

STEP = torch.tensor(5)


def leaves(count=9, dim=4):
    mean, log_var = torch.randn(
        2, count, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    return mean @ torch.randn(
        dim, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    ) + 2, log_var


def infer(mean, log_var):
    bound = Bound(
        torch.linspace(1, 2, len(mean), dtype=mean.dtype),
        torch.linspace(3, 7, len(mean), dtype=mean.dtype),
    )
    return Inference(bound, Gaussian(mean, log_var), mean, mean[:, 0])


@pytest.mark.parametrize("variant", ["I", "II"])
def test_the_loss_is_that_of_numpys_covariance(variant):
    mean, log_var = leaves()
    covariance = np.cov(mean.numpy().T, bias=True)
    if variant == "II":
        covariance += np.diag(np.exp(log_var.numpy()).mean(0))
    off = sum(covariance[i, j] ** 2 for i in range(4) for j in range(4) if i != j)
    on = sum((covariance[i, i] - 1) ** 2 for i in range(4))
    objective = DIP(variant, off_diagonal=3.0, diagonal=7.0).double()
    assert objective(infer(mean, log_var), STEP).item() == pytest.approx(1.5 + 5 + 3 * off + 7 * on)
    terms = objective.terms(infer(mean, log_var), STEP)
    assert [
        terms["covariance_off_diagonal"].item(),
        terms["covariance_diagonal"].item(),
    ] == pytest.approx([off, on])


def test_an_aggregate_with_the_priors_moments_costs_nothing():
    corners = torch.tensor(
        [[sign_a, sign_b] for sign_a in (-1, 1) for sign_b in (-1, 1)], dtype=torch.float64
    )
    whitened = infer(0.6 * corners, torch.full((4, 2), 2 * np.log(0.8), dtype=torch.float64))
    assert DIP("II").double()(whitened, STEP).item() == pytest.approx(1.5 + 5)
    assert DIP("I").double()(
        infer(corners, torch.zeros_like(corners)), STEP
    ).item() == pytest.approx(1.5 + 5)


@pytest.mark.parametrize("variant", ["I", "II"])
def test_gradients_are_finite_differences(variant):
    objective = DIP(variant).double()
    inputs = [part.requires_grad_() for part in leaves(5, 3)]

    def loss(mean, log_var):
        return objective(infer(mean, log_var), STEP)

    assert torch.autograd.gradcheck(lambda *parts: loss(*parts) + 0 * parts[1].sum(), inputs)


def test_far_from_the_origin_nothing_changes():
    mean, log_var = (part.float() for part in leaves())
    near, far = (DIP()(infer(mean + shift, log_var), STEP).item() for shift in (0, 100))
    assert far == pytest.approx(near, rel=1e-4)


def test_a_batch_of_one_is_finite():
    assert DIP()(infer(*leaves(1)), STEP).isfinite()


def test_weights_may_be_schedules():
    inference = infer(*leaves())
    scheduled = DIP("I", Linear(0.0, 20.0, 10), Linear(0.0, 200.0, 10))
    torch.testing.assert_close(scheduled(inference, STEP), DIP("I", 10.0, 100.0)(inference, STEP))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"variant": "III"}, "variant is 'III': expected one of I, II"),
        ({"off_diagonal": -1}, "off_diagonal is -1"),
        ({"diagonal": -1}, "diagonal is -1"),
    ],
)
def test_bad_input_is_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        DIP(**options)
