"""A step of an optimiser; of fused Adam on a CPU without all that torch looks at around it.

Torch's `step` of Adam asks for hooks, opens a range of its profiler, looks up the state of each
parameter, and sorts tensors by device and dtype, before it calls one kernel. For a small model that
takes longer than the kernel, and in a step's own loop nothing of it changes.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer, optimizer

_NUMBERS = ("weight_decay", "eps", "maximize", "amsgrad")
_ELSEWHERE = ("amsgrad", "capturable", "differentiable")
"""Options that are left to torch."""


class _Group(NamedTuple):
    """What the kernel takes: parameters, gradients, and both averages and counts of each."""

    parameters: list[Tensor]
    gradients: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    steps: list[Tensor]


def advance(own: Optimizer) -> None:
    """`own.step()`, bit for bit."""
    groups = _groups(own)
    if groups is None:
        own.step()
        return
    with torch.no_grad():
        for options, group in zip(own.param_groups, groups, strict=True):
            if not group.parameters:  # of which torch's kernels would make an error
                continue
            torch._foreach_add_(group.steps, 1)
            decoupled = options["decoupled_weight_decay"]
            kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
            numbers: dict[str, Any] = {name: options[name] for name in _NUMBERS}
            beta1, beta2 = options["betas"]
            kernel(
                *group[:4], [], group.steps, lr=options["lr"], beta1=beta1, beta2=beta2, **numbers
            )


def _groups(own: Optimizer) -> list[_Group] | None:
    """The parts of each group; None where the step is torch's to take: of another optimiser or
    device, the first, one with hooks or with another `step`, or of a parameter without a gradient.
    """
    if type(own) not in (Adam, AdamW) or _has_hooks(own) or _is_replaced(own):
        return None
    groups = []
    for options in own.param_groups:
        found = _group(options, own.state)
        if found is None:
            return None
        groups.append(found)
    return groups


def _has_hooks(own: Optimizer) -> bool:
    of_all = optimizer._global_optimizer_pre_hooks or optimizer._global_optimizer_post_hooks
    return bool(of_all or own._optimizer_step_pre_hooks or own._optimizer_step_post_hooks)


def _is_replaced(own: Optimizer) -> bool:
    """Tell whether somebody has put a `step` of theirs in the place of torch's; a scheduler's counts
    calls alone.
    """
    step = vars(own).get("step")
    return step is not None and not hasattr(step, "_wrapped_by_lr_sched")


def _group(options: dict[str, Any], state: dict[Tensor, dict[str, Any]]) -> _Group | None:
    if not options["fused"] or any(options[name] for name in _ELSEWHERE):
        return None
    numbers = (options["lr"], *options["betas"])
    if any(isinstance(number, Tensor) for number in numbers):
        return None
    found = _Group([], [], [], [], [])
    for parameter in options["params"]:
        gradient = parameter.grad
        own = state.get(parameter)
        if gradient is None or gradient.is_sparse or not own or not parameter.is_cpu:
            return None
        found.parameters.append(parameter)
        found.gradients.append(gradient)
        found.first.append(own["exp_avg"])
        found.second.append(own["exp_avg_sq"])
        found.steps.append(own["step"])
    return found
