"""A step of an optimiser; of fused Adam, on a CPU and in a CUDA graph, without all that torch looks
at around it.

Torch's `step` of Adam asks for hooks, opens a range of its profiler, looks up the state of each
parameter, and sorts tensors by device and dtype, before it calls one kernel. For a small model on a
CPU that takes longer than the kernel, and in a step's own loop nothing of it changes.

On a GPU the kernel has a block for each 65,536 numbers of a tensor: of a small model ten of them,
which take longer than all its products while the rest of the device is idle. So a graph gives it
pieces (`scripts/bench/gpu`, section `kernels`: 28 us for 71 on an H200, whatever the piece).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from jensen.algorithm.hooks import of_optimiser

_NUMBERS = ("weight_decay", "eps", "maximize", "amsgrad")
_ELSEWHERE = ("amsgrad", "differentiable")
"""Options that are left to torch."""

_ONE = torch.tensor(1.0)
"""On a CPU torch makes a tensor of a plain 1 for each count: 13 us for 4, of eight."""

PIECE = 8192
"""Numbers of a piece; 36 pieces are one kernel, and 2,048 numbers take as long as a kernel's start."""

_SMALL = 1 << 20
"""Numbers of all parameters above which whole tensors have blocks enough."""


class _Group(NamedTuple):
    """Lists that the kernel takes: parameters, gradients, and both averages and counts of each."""

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
            if options["capturable"]:
                torch._foreach_add_(group.steps, 1)
            else:
                torch._foreach_add_(group.steps, _ONE, alpha=1)
            if _is_captured(options) and sum(each.numel() for each in group.parameters) <= _SMALL:
                group = _in_pieces(group)
            decoupled = options["decoupled_weight_decay"]
            kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
            numbers: dict[str, Any] = {name: options[name] for name in _NUMBERS}
            beta1, beta2 = options["betas"]
            kernel(
                *group[:4], [], group.steps, lr=options["lr"], beta1=beta1, beta2=beta2, **numbers
            )


def _groups(own: Optimizer) -> list[_Group] | None:
    """The parts of each group; None where the step is torch's to take: of another optimiser, the
    first, one on a device that is not captured, one with hooks or with another `step`, or of a
    parameter without a gradient.
    """
    if type(own) not in (Adam, AdamW) or of_optimiser(own) or is_replaced(own):
        return None
    groups = []
    for options in own.param_groups:
        found = _group(options, own.state)
        if found is None:
            return None
        groups.append(found)
    return groups


def reads_gradients_alone(own: Optimizer) -> bool:
    """Tell whether a step is torch's and nothing more. Any other is given the closure that makes the
    gradients, as Lightning gives it: a hook is called before that, and a step of somebody's own may
    call it when, and as often as, it wants.
    """
    is_torchs = type(own).step.__module__.startswith("torch.optim.")
    return is_torchs and not is_replaced(own) and not of_optimiser(own)


def is_replaced(own: Optimizer) -> bool:
    """Tell whether somebody has put a `step` of theirs in the place of torch's; a scheduler's counts
    calls alone.
    """
    step = vars(own).get("step")
    return step is not None and not hasattr(step, "_wrapped_by_lr_sched")


def _group(options: dict[str, Any], state: dict[Tensor, dict[str, Any]]) -> _Group | None:
    if not options["fused"] or any(options[name] for name in _ELSEWHERE):
        return None
    on_device = options["capturable"]  # counts, and a learning rate that is a tensor
    numbers = options["betas"] if on_device else (options["lr"], *options["betas"])
    if any(isinstance(number, Tensor) for number in numbers):
        return None
    found = _Group([], [], [], [], [])
    for parameter in options["params"]:
        gradient = parameter.grad
        own = state.get(parameter)
        if gradient is None or gradient.is_sparse or not own or parameter.is_cpu == on_device:
            return None
        found.parameters.append(parameter)
        found.gradients.append(gradient)
        found.first.append(own["exp_avg"])
        found.second.append(own["exp_avg_sq"])
        found.steps.append(own["step"])
    return found


def _is_captured(options: dict[str, Any]) -> bool:
    return options["capturable"] and torch.cuda.is_current_stream_capturing()


def _in_pieces(group: _Group) -> _Group:
    """The same numbers as parts of at most `PIECE`, of tensors that lie in memory alike."""
    found = _Group([], [], [], [], [])
    for *tensors, count in zip(*group, strict=True):
        parts = (
            [_pieces(each) for each in tensors] if _are_alike(tensors) else [[t] for t in tensors]
        )
        for place, part in enumerate(parts):
            found[place].extend(part)
        found.steps.extend([count] * len(parts[0]))
    return found


def _are_alike(tensors: list[Tensor]) -> bool:
    """Tell whether tensors fill their memory without a gap, all in one order."""
    first = tensors[0]
    expected = 1
    for stride, size in sorted(zip(first.stride(), first.shape, strict=True)):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return all(each.stride() == first.stride() for each in tensors)


def _pieces(tensor: Tensor) -> list[Tensor]:
    """The numbers of a tensor in the order of its memory."""
    return [*tensor.detach().as_strided((tensor.numel(),), (1,)).split(PIECE)]
