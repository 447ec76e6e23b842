"""|rate - C| by hand in both conventions, and T18: a linear model ends with its rate at C."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from jensen.base.errors import InputError
from jensen.base.schedule import Linear
from jensen.bound.bound import Bound, Inference
from jensen.family.gaussian import Gaussian
from jensen.objective.capacity import Capacity

STEP = torch.tensor(0)


def inference(rate=(1.0, 2.0, 6.0)):
    bound = Bound(
        torch.tensor([10.0, 20.0, 60.0], requires_grad=True), torch.tensor(rate, requires_grad=True)
    )
    nan = torch.full((3, 2), torch.nan)  # nothing else enters the loss
    return Inference(bound, Gaussian(nan, nan), nan, nan[:, 0])


@pytest.mark.parametrize(
    ("convention", "capacity", "loss", "gradient"),
    [
        ("batch", 0.0, 30 + 10 * 3, [10 / 3] * 3),
        ("batch", 2.5, 30 + 10 * 0.5, [10 / 3] * 3),
        ("batch", 5.0, 30 + 10 * 2, [-10 / 3] * 3),
        ("example", 2.5, 30 + 10 * (1.5 + 0.5 + 3.5) / 3, [-10 / 3, -10 / 3, 10 / 3]),
        ("example", 7.0, 30 + 10 * 4, [-10 / 3] * 3),
    ],
)
def test_the_loss_by_hand(convention, capacity, loss, gradient):
    given = inference()
    found = Capacity(capacity, gamma=10, convention=convention)(given, STEP)
    assert found.item() == pytest.approx(loss)
    distortion, rate = torch.autograd.grad(found, list(given.bound))
    assert distortion.tolist() == pytest.approx([1 / 3] * 3)
    assert rate.tolist() == pytest.approx(gradient)


def test_per_example_is_never_less():
    rates = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) * 10
    for rate in rates.tolist():
        batch, example = (
            Capacity(5.0, 10.0, name)(inference(rate), STEP) for name in ("batch", "example")
        )
        assert example >= batch - 1e-5


def test_the_capacity_grows():
    objective = Capacity(Linear(0.0, 25.0, 100), gamma=1.0)
    found = [objective(inference(), torch.tensor(step)).item() for step in (0, 12, 50, 1000)]
    assert found == pytest.approx([33, 30, 39.5, 52])
    assert list(objective.schedules) == ["capacity", "gamma"]


@pytest.mark.parametrize("convention", ["batch", "example"])
def test_gradients_are_finite_differences(convention):
    bound = [
        torch.tensor(values, dtype=torch.float64, requires_grad=True)
        for values in ([1.0, 2.0, 3.0], [1.0, 2.0, 6.0])
    ]
    objective = Capacity(2.5, 10.0, convention).double()
    assert torch.autograd.gradcheck(
        lambda *parts: objective(inference()._replace(bound=Bound(*parts)), STEP), bound
    )


@pytest.fixture
def one_thread():
    """Threads cost more than they give to small matrices."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_trained_linear_model_ends_at_the_capacity():
    """T18: x of covariance diag(4, 2, 1, 0.5), a decoder of fixed variance 0.2; its free rate at C
    = 3 would be 5.8 nats.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 4, generator=generator) * torch.tensor([4.0, 2.0, 1.0, 0.5]).sqrt()
    encoder, decoder = (torch.nn.utils.skip_init(torch.nn.Linear, 4, 4) for _ in range(2))
    for layer in (encoder, decoder):
        torch.nn.init.normal_(layer.weight, 0, 0.3, generator=generator)
        torch.nn.init.zeros_(layer.bias)
    log_var = torch.zeros(4, requires_grad=True)
    objective = Capacity(Linear(0.0, 3.0, 600), gamma=20.0)
    parameters = [*encoder.parameters(), *decoder.parameters(), log_var]
    optimizer = torch.optim.Adam(parameters, lr=0.02, fused=True)
    steps = 1500
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
        mean = encoder(x)
        std = (log_var / 2).exp()
        z = mean + std * torch.randn(512, 4, generator=generator)
        distortion = -Normal(decoder(z), 0.2**0.5).log_prob(x).sum(1)
        rate = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum(1)
        inferred = Inference(
            Bound(distortion, rate), Gaussian(mean, log_var.expand_as(mean)), z, torch.zeros(512)
        )
        optimizer.zero_grad()
        objective(inferred, torch.tensor(step)).backward()
        optimizer.step()
    assert abs(rate.mean().item() - 3) < 0.05
    assert rate.std() > 0.1  # the mean is held, not every example


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"capacity": -1}, "capacity is -1: expected a number of at least 0"),
        ({"capacity": Linear(0.0, -5.0, 3)}, "capacity falls to -5"),
        ({"capacity": 1, "gamma": -1}, "gamma is -1"),
        (
            {"capacity": 1, "convention": "sample"},
            "convention is 'sample': expected one of batch, example",
        ),
    ],
)
def test_bad_input_is_one_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Capacity(**options)
