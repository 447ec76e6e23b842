"""Functions of somebody's own that torch calls in the midst of a step: of modules, of gradients, of
an optimiser, of all modules.

They are Python, so whatever repeats a step without it, or takes one step for several models, would
leave them out.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules import module as of_all
from torch.optim import Optimizer, optimizer

if TYPE_CHECKING:
    from jensen.algorithm.gradient import Gradient

_OF_MODULES = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def of_module(module: nn.Module) -> list[Any]:
    return _functions(*(getattr(module, kind) for kind in _OF_MODULES))


def of_gradient(tensor: Tensor) -> list[Any]:
    kinds = tensor._backward_hooks, getattr(tensor, "_post_accumulate_grad_hooks", None)
    return _functions(*filter(None, kinds))


def of_optimiser(own: Optimizer) -> list[Any]:
    """Those of all optimisers too."""
    of_every = optimizer._global_optimizer_pre_hooks, optimizer._global_optimizer_post_hooks
    return _functions(own._optimizer_step_pre_hooks, own._optimizer_step_post_hooks, *of_every)


def of_all_modules() -> list[Any]:
    return _functions(*(getattr(of_all, f"_global{kind}") for kind in _OF_MODULES))


def called(algorithm: "Gradient", torchs: bool = True) -> str:
    """Parts with a hook that is called in each step of an algorithm, in words; empty if nothing has.

    torchs: whether torch's own count, which compute a weight of others (`nn.utils.weight_norm`).
    """
    return next((who for who, hook in _all(algorithm) if torchs or not _is_torchs(hook)), "")


def called_in_forward(algorithm: "Gradient") -> str:
    """The same of modules alone, but torch's own hooks."""
    return next((who for who, hook in _of_modules(algorithm) if not _is_torchs(hook)), "")


def in_forward(algorithm: "Gradient") -> list[Any]:
    """All hooks of modules."""
    return [hook for _, hook in _of_modules(algorithm)]


def _of_modules(algorithm: "Gradient") -> Iterator[tuple[str, Any]]:
    yield from (("every module has a hook", hook) for hook in of_all_modules())
    for root in (algorithm.model, algorithm.objective):
        for module in root.modules():
            yield from (
                (f"a {type(module).__name__} has a hook", hook) for hook in of_module(module)
            )


def _all(algorithm: "Gradient") -> Iterator[tuple[str, Any]]:
    yield from _of_modules(algorithm)
    for root in (algorithm.model, algorithm.objective):
        for parameter in root.parameters():
            yield from (("a parameter has a hook", hook) for hook in of_gradient(parameter))
    own = algorithm.trainer.optimizers[0]
    yield from (("an optimiser has a hook", hook) for hook in of_optimiser(own))


def _functions(*kinds: Mapping[int, Any]) -> list[Any]:
    return [hook for kind in kinds for hook in kind.values()]


def _is_torchs(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).startswith("torch.")
