"""The optimiser of a model and its objective, and its learning rate as a function of the step."""

import inspect
import os
import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from jensen.base.errors import InputError
from jensen.base.schedule import Schedule
from jensen.objective.objective import Objective

MakeOptimizer = Callable[[Iterable[dict[str, Any]]], Optimizer]

_REFUSED = re.compile(r"(?:Invalid )?(.+?)(?: value| should be >= 0 but is)?: (\S+)")
"""torch's words for a number of a setting that it refuses."""
_NOT_BELOW_0 = "a number of at least 0"
_EXPECTED = {
    "lr": _NOT_BELOW_0,
    "eps": _NOT_BELOW_0,
    "weight_decay": _NOT_BELOW_0,
    "momentum": _NOT_BELOW_0,
    "momentum_decay": _NOT_BELOW_0,
    "lr_decay": _NOT_BELOW_0,
    "alpha": _NOT_BELOW_0,
    "initial_accumulator_value": _NOT_BELOW_0,
    "rho": "a number in [0, 1]",
    "betas[0]": "a number of at least 0 and below 1",
    "betas[1]": "a number of at least 0 and below 1",
}
_CALLED = {
    "learning rate": "lr",
    "epsilon": "eps",
    "weight decay": "weight_decay",
    "beta parameter at index 0": "betas[0]",
    "beta parameter at index 1": "betas[1]",
}
"""Settings that torch calls otherwise."""


def make(optimizer: MakeOptimizer, model: nn.Module, objective: Objective) -> Optimizer:
    """An optimiser of the model's parameters and, as a group with options of its own, the
    objective's.

    Raises:
        InputError: it takes other settings.
    """
    _ask_for_no_gpu()
    trained = [each for each in model.parameters() if each.requires_grad]
    groups: list[dict[str, Any]] = [{"params": trained}]
    if own := [*objective.parameters()]:
        groups.append({"params": own, **objective.optimizer_options})
    try:
        made = optimizer(groups)
    except (TypeError, ValueError) as error:
        raise InputError(_sentence(str(error))) from error
    made.register_load_state_dict_post_hook(lay_state)
    return made


def _sentence(words: str) -> str:
    """The sentence for a person whose settings torch refuses with these words.

    >>> _sentence("Invalid learning rate: -1")
    'optimizer.lr is -1: expected a number of at least 0'
    """
    if found := _REFUSED.fullmatch(words):
        called = found[1].lower()
        key = _CALLED.get(called, called)
        if key in _EXPECTED:
            return f"optimizer.{key} is {found[2]}: expected {_EXPECTED[key]}"
    return f"optimizer cannot be made ({words}): expected settings that it takes; change that one"


def asks_for_the_loss(optimizer: MakeOptimizer) -> bool:
    """Tell whether a step of what is made evaluates the loss itself, as L-BFGS does.

    >>> asks_for_the_loss(torch.optim.LBFGS), asks_for_the_loss(torch.optim.Adam)
    (True, False)
    """
    step = getattr(getattr(optimizer, "func", optimizer), "step", None)
    if step is None:  # a function of somebody's own
        return False
    closure = inspect.signature(step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def lay_state(optimizer: Optimizer) -> None:
    """Lay what an optimiser keeps of each parameter as that is laid in memory.

    A checkpoint may hold it in another order (of a run whose convolutions had torch's own), and
    torch's fused optimisers pair elements by their place in memory, whatever the strides are.
    """
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = laid_as(value, parameter)


def laid_as(value: Tensor, parameter: Tensor) -> Tensor:
    """The same values in the parameter's order in memory: itself, if it is in that."""
    apart = any(
        size > 1 and mine != its
        for size, mine, its in zip(parameter.shape, value.stride(), parameter.stride(), strict=True)
    )
    if not apart:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


def _ask_for_no_gpu() -> None:
    """Have torch remember that there is no GPU, where there is none.

    Its optimisers ask at every step, and Lightning has them ask NVML, which is loaded anew each
    time: longer than a small model's step takes.
    """
    if not torch.cuda.is_available():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


def scaled(optimizer: Optimizer, scale: Schedule) -> OptimizerLRScheduler:
    """The optimiser with its lr times `scale` of the step.

    The lr is a Python number, as eager optimisers take it: of a tensor, torch's Adam on a GPU would
    go parameter by parameter.
    """
    if scale.bounds == (1, 1):
        return optimizer
    host = deepcopy(scale).cpu()  # asked for a number at every step: not from the device
    scheduler = LambdaLR(optimizer, lambda step: host(torch.tensor(step)).item())
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
