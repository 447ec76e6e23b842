"""The beta-VAE's loss on an inference made by hand."""

import math

import pytest
import torch

from jensen.base.errors import InputError
from jensen.base.schedule import Constant, Cyclic, Linear, Schedule
from jensen.bound.bound import Bound, Inference
from jensen.family.gaussian import Gaussian
from jensen.objective.beta import Beta
from jensen.objective.objective import Objective

STEP = torch.tensor(0)


def inference(distortion=(10.0, 20.0, 60.0), rate=(1.0, 2.0, 6.0)):
    bound = Bound(
        torch.tensor(distortion, requires_grad=True), torch.tensor(rate, requires_grad=True)
    )
    nan = torch.full((3, 2), math.nan)  # nothing else enters the loss
    return Inference(bound, Gaussian(nan, nan), nan, nan[:, 0])


@pytest.mark.parametrize(("beta", "loss"), [(0, 30.0), (1, 33.0), (4.0, 42.0), (0.5, 31.5)])
def test_the_loss_is_the_mean_distortion_plus_beta_rates(beta, loss):
    given = inference()
    found = Beta(beta)(given, STEP)
    assert found.shape == ()
    assert found.item() == pytest.approx(loss)
    distortion, rate = torch.autograd.grad(found, list(given.bound))
    assert distortion.tolist() == pytest.approx([1 / 3] * 3)
    assert rate.tolist() == pytest.approx([beta / 3] * 3)


def test_at_beta_one_the_loss_is_minus_the_elbo():
    given = inference()
    assert Beta()(given, STEP).item() == pytest.approx(-given.bound.elbo.mean().item())


def test_beta_follows_its_schedule():
    objective = Beta(Linear(0.0, 4.0, 10))
    found = [objective(inference(), torch.tensor(step)).item() for step in (0, 5, 10, 99, 5)]
    assert found == pytest.approx([30, 36, 42, 42, 36])


def test_schedules_are_named_as_the_arguments():
    schedule = Cyclic(0.0, 1.0, 100)
    objective = Beta(schedule)
    assert objective.schedules == {"beta": schedule}
    assert objective.schedules["beta"] is schedule
    (constant,) = Beta(3).schedules.values()
    assert isinstance(constant, Constant)
    assert constant.bounds == (3, 3)


def test_an_objective_lists_only_its_own_schedules():
    class Two(Objective):
        def __init__(self):
            super().__init__()
            self.weight = Constant(1.0)
            self.other = Linear(0.0, 1.0, 3)
            self.layer = torch.nn.Linear(1, 1)
            self.nested = Beta(2.0)

        def forward(self, inference, step):
            return self.weight(step)

    assert list(Two().schedules) == ["weight", "other"]


def test_an_objective_has_no_state():
    assert Beta(Linear(0.0, 4.0, 10)).state_dict() == {}


@pytest.mark.parametrize("beta", [-1, -1e-6, math.nan, math.inf, True, "4", None])
def test_what_is_no_weight_is_refused(beta):
    with pytest.raises(InputError, match="beta is"):
        Beta(beta)


@pytest.mark.parametrize(
    "beta", [Constant(-1.0), Linear(-1.0, 4.0, 10), Linear(4.0, -1.0, 10), Cyclic(-1.0, 1.0, 10)]
)
def test_a_schedule_that_falls_below_zero_is_refused(beta):
    with pytest.raises(
        InputError, match="beta falls to -1 in its schedule: expected numbers of at least 0"
    ):
        Beta(beta)


@pytest.mark.parametrize("abstract", [Objective, Schedule])
def test_abstract_classes_cannot_be_made(abstract):
    with pytest.raises(TypeError, match="abstract"):
        abstract()
