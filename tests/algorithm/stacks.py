"""Models to be stacked, their steps alone, and what is to be equal of both."""

import torch
from standing_in import standing_in

from jensen.algorithm.chunk import Chunk
from jensen.algorithm.step import learn, loss_of
from jensen.base.schedule import Linear
from jensen.model.bayesian_prior import BayesianMixturePrior
from jensen.model.factorised_prior import FactorisedMixturePrior
from jensen.model.likelihood import (
    Bernoulli,
    ContinuousBernoulli,
    CrossEntropy,
    LearnedNormal,
    Normal,
    OptimalNormal,
)
from jensen.model.linear import LinearDecoder, LinearEncoder
from jensen.model.mixture_prior import MixturePrior
from jensen.model.mlp import MLPDecoder, MLPEncoder
from jensen.model.prior import StandardNormal
from jensen.model.vae import VAE
from jensen.model.vamp import VampPrior
from jensen.objective.beta import Beta
from jensen.objective.capacity import Capacity
from jensen.objective.control import Control
from jensen.objective.decomposed import Decomposed
from jensen.objective.dip import DIP
from jensen.objective.factor import Factor
from jensen.objective.free_bits import FreeBits
from jensen.objective.importance import Importance
from jensen.objective.mmd import MMD

SHAPE = [1, 2, 3]
LATENTS = 2
BATCH = 6
STEPS = 4
MEMBERS = 3

OBJECTIVES = {
    "beta": lambda at: Beta(Linear(0.0, 4.0 + at, 10)),
    "capacity": lambda at: Capacity(1.0 + at, gamma=3.0 - at),
    "capacity_by_example": lambda at: Capacity(1.0 + at, 2.0, convention="example"),
    "control": lambda at: Control(1.0 + at, kp=0.1 * (1 + at), ki=0.05),
    "decomposed": lambda at: Decomposed(tc=Linear(1.0, 6.0 + at, 10)),
    "dip": lambda at: DIP(off_diagonal=1.0 + at),
    "dip_ii": lambda at: DIP("II", diagonal=2.0 + at),
    "factor": lambda at: Factor(LATENTS, 3.0 + at, hidden=[4], lr=1e-3 * (1 + at), seed=at),
    "free_bits": lambda at: FreeBits(0.1 + 0.1 * at),
    "importance": lambda at: Importance(3),
    "mmd": lambda at: MMD(marginal=10.0 + at),
}
LIKELIHOODS = {
    "bernoulli": lambda at: Bernoulli(),
    "cross_entropy": lambda at: CrossEntropy(),
    "continuous_bernoulli": lambda at: ContinuousBernoulli(),
    "normal": lambda at: Normal(0.5 + at),
    "learned_normal": lambda at: LearnedNormal(0.5 + at),
    "optimal_normal": lambda at: OptimalNormal(),
}
PRIORS = {
    "standard_normal": lambda at: StandardNormal(),
    "mixture": lambda at: MixturePrior(3, LATENTS, warmup=1 + at, power=0.5 + 0.1 * at),
    "mixture_by_gradient": lambda at: MixturePrior(3, LATENTS, fit="both", warmup=1, dead=0.1 * at),
    "factorised": lambda at: FactorisedMixturePrior(3, LATENTS, warmup=1, floor=1e-3 * (1 + at)),
    "bayesian_mixture": lambda at: BayesianMixturePrior(
        3, LATENTS, points=50.0 + at, concentration=0.1 + at, warmup=1, settle=at
    ),
    "vamp": lambda at: VampPrior(4, SHAPE),
}
NETWORKS = {
    "mlp": lambda: (
        MLPEncoder(SHAPE, LATENTS, [4], "tanh"),
        MLPDecoder(SHAPE, LATENTS, [4], "tanh"),
    ),
    "linear": lambda: (LinearEncoder(SHAPE, LATENTS), LinearDecoder(SHAPE, LATENTS)),
}
CASES = [
    *((name, "bernoulli", "standard_normal", "mlp") for name in OBJECTIVES),
    *(("beta", name, "standard_normal", "mlp") for name in LIKELIHOODS if name != "bernoulli"),
    *(("beta", "bernoulli", name, "mlp") for name in PRIORS if name != "standard_normal"),
    ("beta", "normal", "standard_normal", "linear"),
    ("factor", "learned_normal", "mixture", "linear"),
]
ADAM = tuple({"lr": 1e-2, "fused": True} for _ in range(MEMBERS))


def member(model, objective, lr=1e-2, make=torch.optim.Adam, clip=None, by=None, **options):
    objective.dataset_size = 50
    groups = [{"params": [*model.parameters()]}]
    if own := [*objective.parameters()]:
        groups.append({"params": own, **objective.optimizer_options})
    return standing_in(model, objective, make(groups, lr=lr, **options), clip, by, STEPS)


def members(case=CASES[0], numbers=ADAM, **settings):
    objective, likelihood, prior, network = case
    found = []
    for at, own in enumerate(numbers):
        torch.manual_seed(at)
        encoder, decoder = NETWORKS[network]()
        model = VAE(encoder, decoder, LIKELIHOODS[likelihood](at), PRIORS[prior](at), LATENTS)
        found.append(member(model, OBJECTIVES[objective](at), **own, **settings))
    return found


def chunk(algorithm, at, first=0, steps=STEPS, shape=SHAPE):
    draw = torch.Generator().manual_seed(100 * at + first)
    samples = algorithm.objective.samples
    return Chunk(
        (torch.rand(steps, BATCH, *shape, generator=draw) > 0.5).float(),
        torch.arange(steps * BATCH).reshape(steps, BATCH),
        torch.randn(steps, samples * BATCH, LATENTS, generator=draw),
        torch.arange(first, first + steps),
        first,
    )


def alone(algorithm, given):
    """The losses of the steps of one model, as one would write them; torch's own clipping."""
    trainer = algorithm.trainer
    optimiser = trainer.optimizers[0]
    losses = []
    for x, _, noise, step in given.minibatches():
        inference = algorithm.model(x, noise)
        loss = loss_of(algorithm.objective, inference, step)
        losses.append(loss.detach())
        learn(algorithm.model, inference, len(x), step)
        optimiser.zero_grad()
        loss.backward()
        if trainer.gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(algorithm.model.parameters(), trainer.gradient_clip_val)
        elif trainer.gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(algorithm.model.parameters(), trainer.gradient_clip_val)
        optimiser.step()
    return losses


def state(algorithm):
    return algorithm.model.state_dict() | algorithm.objective.state_dict()


def assert_equal(found, expected, **tolerance):
    for one, other in zip(found, expected, strict=True):
        for name, value in state(other).items():
            torch.testing.assert_close(
                state(one)[name], value, equal_nan=True, msg=name, **tolerance
            )


def trained(stack, rounds=3, by=None):
    """The first loss of each round, of each member."""
    found = []
    for turn in range(rounds):
        given = [chunk(each, at, STEPS * turn) for at, each in enumerate(stack.members)]
        found.append((by or stack).take(given, [True] * len(stack.members)))
    return [[word.taken.loss.item() for word in words] for words in found]


def trained_alone(algorithms, rounds=3):
    return [
        [alone(each, chunk(each, at, STEPS * turn))[0].item() for at, each in enumerate(algorithms)]
        for turn in range(rounds)
    ]
