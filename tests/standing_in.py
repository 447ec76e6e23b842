"""A stand-in for an algorithm and its trainer, with what a `Stack` asks of them."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from torch import nn, optim


class Forgiving:
    """An algorithm's watch over what is not finite, which never stops a step."""

    def terms(self) -> dict[str, Any]:
        return {}

    def remember_in(self, place: Any) -> None:
        self.place = place


def standing_in(
    model: nn.Module,
    objective: nn.Module,
    optimiser: optim.Optimizer,
    clip: float | None = None,
    by: str | None = None,
    steps: int = 1,
) -> SimpleNamespace:
    """An algorithm that trains `model`, of which a call takes `steps`."""
    trainer = SimpleNamespace(
        optimizers=[optimiser],
        gradient_clip_val=clip,
        gradient_clip_algorithm=by,
        lr_scheduler_configs=[],
        precision="32-true",
        precision_plugin=SimpleNamespace(forward_context=nullcontext),
    )
    return SimpleNamespace(
        model=model,
        objective=objective,
        trainer=trainer,
        finite=Forgiving(),
        device=next(model.parameters()).device,
        calls=SimpleNamespace(steps=steps, engine="auto"),
        encoder_steps=1,
    )
