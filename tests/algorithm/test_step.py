"""The training step is a function of tensors: traced at one step, the program is right at every
other.
"""

import pytest
import torch
from cases import some
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from jensen.algorithm.step import infer, learn, noise_of, outcome
from jensen.base.random import fold, key, normal
from jensen.base.schedule import Cyclic, Linear
from jensen.family.gaussian import Gaussian
from jensen.model.bayesian_prior import BayesianMixturePrior
from jensen.model.factorised_prior import FactorisedMixturePrior
from jensen.model.likelihood import Normal
from jensen.model.linear import LinearDecoder, LinearEncoder
from jensen.model.mixture_prior import MixturePrior
from jensen.model.prior import StandardNormal
from jensen.model.vae import VAE
from jensen.objective.beta import Beta
from jensen.objective.capacity import Capacity
from jensen.objective.control import Control
from jensen.objective.decomposed import Decomposed
from jensen.objective.dip import DIP
from jensen.objective.factor import Factor
from jensen.objective.free_bits import FreeBits
from jensen.objective.importance import Importance
from jensen.objective.mmd import MMD

B = 8
D = 5
LATENTS = 2
SEED = 3
X = torch.randn(B, D, generator=torch.Generator().manual_seed(0))
ROW = torch.arange(100, 100 + B)
OBJECTIVES = {
    "beta": lambda: Beta(Linear(0.0, 4.0, 10)),
    "capacity": lambda: Capacity(Cyclic(0.0, 5.0, 12)),
    "control": lambda: Control(1.0),
    "decomposed": lambda: Decomposed(tc=Linear(1.0, 6.0, 10)),
    "dip": lambda: DIP(),
    "factor": lambda: Factor(LATENTS, Linear(0.0, 9.0, 10), hidden=[4]),
    "free_bits": lambda: FreeBits(0.25),
    "importance": lambda: Importance(3),
    "mmd": lambda: MMD(),
}
PRIORS = {
    "standard": StandardNormal,
    "mixture": lambda: MixturePrior(3, LATENTS, warmup=2),
    "factorised": lambda: FactorisedMixturePrior(3, LATENTS, warmup=2),
    "bayesian_mixture": lambda: BayesianMixturePrior(3, LATENTS, warmup=2, settle=1),
}


def parts(objective="beta", prior="standard"):
    torch.manual_seed(0)
    model = VAE(
        LinearEncoder([D], LATENTS), LinearDecoder([D], LATENTS), Normal(), PRIORS[prior](), LATENTS
    )
    made = OBJECTIVES[objective]()
    made.dataset_size = 50
    return model, made


def step_of(model, objective):
    """A whole step but for the gradient, as a function of tensors alone: state in, loss and state
    out.
    """

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model
            self.objective = objective

        def forward(self, x, row, noise, step):
            drawn = noise_of(self.model, row, noise, self.objective.samples)
            loss, inference = outcome(self.model, self.objective, x, drawn, step)
            learn(self.model, inference, len(x), step)
            return loss

    both = Both()

    def step(state, x, row, noise, count):
        own = {name: value.clone() for name, value in state.items()}
        loss = functional_call(both, own, (x, row, noise, count))
        return loss, own

    return step, {
        name: value.detach() for name, value in [*both.named_parameters(), *both.named_buffers()]
    }


def given(count):
    return X + count, ROW + 7 * count, key(SEED, "noise", count), torch.tensor(count)


CASES = [(name, "standard") for name in OBJECTIVES] + [
    ("beta", name) for name in PRIORS if name != "standard"
]


@pytest.mark.filterwarnings("ignore")  # torch's, of its own tracing
@some(2, "objective, prior", CASES)
def test_a_step_traced_at_step_0_is_right_later(objective, prior):
    step, state = step_of(*parts(objective, prior))
    with torch.no_grad():
        program = make_fx(step)(state, *given(0))
        for count in (1, 5, 11):
            found, after = program(state, *given(count))
            expected, right = step(state, *given(count))
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
            for name in state:
                torch.testing.assert_close(after[name], right[name], rtol=1e-6, atol=1e-6, msg=name)
            state = right


@pytest.mark.filterwarnings("ignore")
@some(4, ("objective", "prior"), CASES)
def test_a_step_copies_nothing_from_the_host(objective, prior):
    """Such a copy, of `torch.tensor(2.0)` say, waits for the device, and no CUDA graph holds it."""
    step, state = step_of(*parts(objective, prior))
    with torch.no_grad():
        program = make_fx(step)(state, *given(0))
    called = {str(node.target) for node in program.graph.nodes}
    assert not {name for name in called if "lift_fresh" in name}


def test_a_number_of_the_host_in_the_step_would_be_seen():
    """The step above would be refused, or wrong later, if it asked for the value of a tensor."""
    model, objective = parts()

    def stale(noise, count):
        return infer(model, X, ROW, noise).bound.rate.mean() * objective.beta(count).item()

    with torch.no_grad(), pytest.raises(RuntimeError, match="value out of a tracing tensor"):
        make_fx(stale)(*given(0)[2:])


def test_the_noise_of_a_key_is_that_of_its_number():
    number = fold(SEED, "noise", 4)
    assert int(key(SEED, "noise", 4)) == number
    assert torch.equal(normal(key(SEED, "noise", 4), ROW, (3, 2)), normal(number, ROW, (3, 2)))


def test_several_draws_are_those_of_the_same_examples():
    model, _ = parts()
    several = infer(model, X, ROW, key(SEED, "noise", 0), samples=3)
    one = model.encode(X)
    assert several.z.shape == (3 * B, LATENTS)
    for draw in several.z.split(B):
        spread = (draw - one.mean) * (-0.5 * one.log_var).exp()
        assert spread.abs().max() < 5.8
    assert isinstance(several.posterior, Gaussian)
    torch.testing.assert_close(several.posterior.mean, one.mean.repeat(3, 1))
