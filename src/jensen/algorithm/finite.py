"""Where a computation stopped being finite: the step, the term, the module."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

NEVER = 1 << 62


class FirstSteps:
    """The first step at which each of some values was not finite, kept on their device: nothing waits for it until `take`."""

    def __init__(self) -> None:
        self._steps: Tensor | None = None

    def watch(self, values: Tensor, step: int) -> None:
        """The `(T,)` values of a step."""
        here = torch.where(values.detach().isfinite(), NEVER, step)
        self._steps = here if self._steps is None else torch.minimum(self._steps, here)

    def take(self, least: Callable[[Tensor], Tensor]) -> tuple[int, list[int]] | None:
        """The first of these steps and which values it was; None if all were finite. Begins anew.

        least: over the ranks, elementwise.
        """
        steps, self._steps = self._steps, None
        firsts = [] if steps is None else least(steps).tolist()
        first = min(firsts, default=NEVER)
        return None if first == NEVER else (first, [place for place, step in enumerate(firsts) if step == first])


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of those that hold NaN or infinity."""
    return [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]


@torch.no_grad()
def first_module(root: nn.Module, compute: Callable[[], object]) -> str | None:
    """The first module inside `root`, by name, of which `compute` gets an output that is not finite; None if there is none."""
    found: list[str] = []

    def look_at(name: str) -> Callable[[nn.Module, object, object], None]:
        def look(module: nn.Module, inputs: object, output: object) -> None:
            if not all(bool(tensor.isfinite().all()) for tensor in _tensors(output)):
                found.append(name)

        return look

    hooks = [module.register_forward_hook(look_at(name)) for name, module in root.named_modules() if name]
    try:
        compute()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list)):
        for part in output:
            yield from _tensors(part)


def record(path: Path, facts: Mapping[str, object]) -> None:
    """Writes facts as JSON, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(facts) + "\n")
    partial.replace(path)
