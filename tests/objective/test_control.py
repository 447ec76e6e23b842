"""The PI controller by hand, on a plant whose answer is known, and across a restart."""

import math

import pytest
import torch
from cases import some

from jensen.base.errors import InputError
from jensen.base.schedule import Linear
from jensen.bound.bound import Bound, Inference
from jensen.family.gaussian import Gaussian
from jensen.objective.control import Control


def infer(rate, distortion=10.0):
    """Three examples whose mean rate is `rate`."""
    rates = rate * torch.tensor([0.5, 1.0, 1.5])
    nan = torch.full((3, 2), torch.nan)
    return Inference(Bound(torch.full((3,), distortion), rates), Gaussian(nan, nan), nan, nan[:, 0])


def drive(objective, steps, start=0, gain=20.0):
    """A model whose rate falls to gain / (1 + beta), slowly; the betas."""
    rate = gain
    betas = []
    for step in range(start, start + steps):
        objective(infer(rate), torch.tensor(step))
        betas.append(objective.beta.item())
        rate = 0.9 * rate + 0.1 * gain / (1 + betas[-1])
    return betas, rate


def test_the_first_steps_by_hand():
    objective = Control(5.0, kp=0.5, ki=0.01, beta_min=1.0, beta_max=3.0)
    integral = 0.0
    for step, rate in enumerate([20.0, 12.0, 6.0, 4.0, 1.0, 200.0, 200.0]):
        error = 5 - rate
        integral = min(max(integral - 0.01 * error, 0), 2)
        beta = min(1 + 0.5 / (1 + math.exp(error)) + integral, 3)
        assert objective(infer(rate), torch.tensor(step)).item() == pytest.approx(
            10 + beta * rate, rel=1e-5
        )
        assert objective.terms(infer(rate), torch.tensor(step))["beta"].item() == pytest.approx(
            beta, rel=1e-5
        )
    assert beta == 3


@some(1, "target", [2.0, 5.0, 9.0])
def test_it_settles_at_the_target(target):
    betas, rate = drive(Control(target, ki=0.02), 2000)
    assert rate == pytest.approx(target, abs=0.01)
    assert betas[-1] == pytest.approx(20 / target - 1, abs=0.01)


def test_it_follows_a_target_that_moves():
    objective = Control(Linear(2.0, 8.0, 1000), ki=0.01)
    assert drive(objective, 2000)[1] == pytest.approx(8, abs=0.01)


def test_it_does_not_wind_up():
    """After a thousand steps at a bound, beta leaves it at the first error of the other sign."""
    objective = Control(5.0, ki=0.1, beta_min=1.0, beta_max=4.0)
    for rate, bound in ((100.0, 4.0), (0.5, 1.0)):
        for step in range(1000):
            objective(infer(rate), torch.tensor(step))
        assert objective.beta.item() == pytest.approx(bound, abs=0.01)
    objective(infer(9.0), torch.tensor(0))
    assert objective.beta.item() > 1.3


def test_only_training_moves_it():
    objective = Control(5.0)
    drive(objective, 20)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    objective.eval()
    loss = objective(infer(100.0), torch.tensor(20))
    objective.terms(infer(100.0), torch.tensor(20))
    assert objective.state_dict() == before
    assert loss.item() == pytest.approx(10 + before["beta"].item() * 100)


def test_a_restart_goes_on_as_if_nothing_had_happened():
    whole = Control(5.0, ki=0.01)
    straight = drive(whole, 60)[0]
    first = Control(5.0, ki=0.01)
    second = Control(5.0, ki=0.01)
    rate = 20.0
    betas = []
    for step in range(60):
        if step == 25:
            second.load_state_dict(first.state_dict())
        objective = first if step < 25 else second
        objective(infer(rate), torch.tensor(step))
        betas.append(objective.beta.item())
        rate = 0.9 * rate + 0.1 * 20 / (1 + betas[-1])
    assert betas == straight
    assert set(whole.state_dict()) == {"integral", "beta"}


def test_no_gradient_passes_through_beta():
    rate = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    objective = Control(5.0, kp=1.0, ki=0.5)
    inference = infer(2.0)._replace(bound=Bound(torch.zeros(3), rate))
    loss = objective(inference, torch.tensor(0))
    (gradient,) = torch.autograd.grad(loss, rate)
    assert gradient.tolist() == pytest.approx([objective.beta.item() / 3] * 3)


@pytest.mark.parametrize("rate", [0.0, 1e6, 1e30])
def test_extreme_rates_leave_it_in_bounds(rate):
    objective = Control(5.0, beta_min=0.0, beta_max=2.0)
    for step in range(3):
        objective(infer(rate), torch.tensor(step))
    assert 0 <= objective.beta <= 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": -1}, "target is -1: expected a number of at least 0"),
        ({"target": 1, "ki": -1}, "ki is -1"),
        (
            {"target": 1, "beta_min": 2, "beta_max": 1},
            "beta_max is 1: expected at least beta_min, which is 2",
        ),
    ],
)
def test_bad_input_is_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Control(**options)
