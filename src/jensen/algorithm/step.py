"""One step of training by gradient, as a function of tensors.

    x, row, key, step  ->  noise  ->  inference  ->  loss  ->  what the prior learns of it

All that differs from one step to the next is a tensor: the rows, the key of the noise, the count of
steps, and with it the schedules. Nothing here waits for the device, draws from a generator or keeps
a Python number of the step, so a program that was traced at one step is right at every other
(`tests/algorithm/test_step.py`).

`Gradient` drives it eagerly. Backward, clipping and the optimiser are Lightning's, between the loss
and the next step; the learning rate is the number that torch's optimisers take
(`algorithm.optimiser`). What torch draws by itself, as dropout does, is seeded before a step
(`seed_networks`).
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jensen.base.random import normal
from jensen.base.tree import tree_map
from jensen.bound.bound import Inference
from jensen.family.family import Posterior
from jensen.model.prior import StandardNormal
from jensen.model.vae import VAE
from jensen.objective.objective import Objective


class Outcome(NamedTuple):
    """The `()` loss of a minibatch, with its graph, and the inference that it is of."""

    loss: Tensor
    inference: Inference


def infer(model: VAE, x: Tensor, row: Tensor, key: Tensor, samples: int = 1) -> Inference:
    """Infer each example of `x` `(B, *event)` at `samples` draws of its latents, `(S B, ...)`.

    The noise of an example is a function of the `()` int64 `key` and of its place in the data set,
    `row` `(B,)`.
    """
    return model(x, noise_of(model, row, key, samples))


def noise_of(model: VAE, row: Tensor, key: Tensor, samples: int = 1) -> Tensor:
    """The noise of `infer`, `(S B, noise_dim)`."""
    noise = normal(key, row, (samples, model.noise_dim))
    return noise.transpose(0, 1).flatten(0, 1)


def loss_of(objective: Objective, inference: Inference, step: Tensor) -> Tensor:
    """`()`, in the precision of the inference: half precision is for networks."""
    device = inference.z.device.type
    if not torch.is_autocast_enabled(device):
        return objective(inference, step)
    with torch.autocast(device, enabled=False):
        return objective(inference, step)


def outcome(model: VAE, objective: Objective, x: Tensor, noise: Tensor, step: Tensor) -> Outcome:
    """The first half of a step, to the loss, of `noise_of`'s noise `(S B, noise_dim)`. `step`: `()` int64,
    the optimiser's steps so far.
    """
    inference = model(x, noise)
    return Outcome(loss_of(objective, inference, step), inference)


def learn(model: VAE, inference: Inference, examples: int, step: Tensor) -> None:
    """The second half of a step: the prior learns from the posteriors of its `examples`, in closed
    form.
    """
    if learns(model):
        model.prior.update(posterior_of(inference, examples), step)


def learns(model: VAE) -> bool:
    """Tell whether the prior may learn in closed form."""
    return type(model.prior) is not StandardNormal


def posterior_of(inference: Inference, examples: int) -> Posterior:
    """The posterior of each example once, without its graph."""
    return tree_map(lambda part: part[:examples].detach(), inference.posterior)


def hold(parameters: Iterable[nn.Parameter]) -> None:
    """Have the optimiser leave these as they are: torch's pass over what has no gradient."""
    for each in parameters:
        each.grad = None


def first_draws(inference: Inference, examples: int) -> Inference:
    """The first draw of each example, `(S B, ...)` to `(B, ...)`."""
    return tree_map(lambda part: part[:examples], inference)


def seed_networks(key: int, device: torch.device) -> None:
    """Set torch's own generators, which dropout and the like draw from. Not by torch.manual_seed,
    which takes 90 us.
    """
    torch.default_generator.manual_seed(key)
    if device.type == "cuda":
        torch.cuda.manual_seed(key)
