"""The numbers of a step and of a validation, on their way to the loggers."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from jensen.bound.bound import Bound, Inference
from jensen.model.prior import Prior
from jensen.objective.objective import Objective

TERMS = ("loss", "elbo", "distortion", "rate")
Reduce = Callable[..., Any]
"""Lightning's `strategy.reduce(tensor, reduce_op=...)`."""


def bound_terms(loss: Tensor, bound: Bound) -> dict[str, Tensor]:
    """The terms of every model, `()` each, means over the batch in nats per example, in the order
    of `TERMS`.
    """
    distortion = bound.distortion.mean()
    rate = bound.rate.mean()
    return dict(zip(TERMS, (loss, -(distortion + rate), distortion, rate), strict=True))


@torch.no_grad()
def step_terms(
    loss: Tensor, inference: Inference, objective: Objective, prior: Prior, step: Tensor
) -> dict[str, Tensor]:
    """All that a training step logs of a batch, `()` each."""
    with torch.autocast(inference.z.device.type, enabled=False):
        terms = bound_terms(loss, inference.bound) | objective.terms(inference, step)
    if prior.rate_is_bound:
        terms["rate_monte_carlo"] = rate_monte_carlo(inference).mean()
    return terms | {name: schedule(step) for name, schedule in objective.schedules.items()}


def rate_monte_carlo(inference: Inference) -> Tensor:
    """log q(z|x) - log p(z) at the sample, `(B,)`, nats: on average the KL, which a rate that is a
    bound may exceed.
    """
    return inference.log_posterior - inference.log_prior


def derived(
    terms: Mapping[str, float], x_shape: tuple[int, ...], symbols: int = 0
) -> dict[str, float]:
    """Terms, and what follows from them where there is a loss.

    beta_effective: the beta for which distortion + beta * rate would be this loss.
        bits_per_dimension: of images.
        perplexity: exp of the distortion of a symbol, where an observation has so many `symbols`.
    """
    found = dict(terms)
    if "loss" not in found:
        return found
    if found["rate"]:
        found["beta_effective"] = (found["loss"] - found["distortion"]) / found["rate"]
    if len(x_shape) == 3:
        found["bits_per_dimension"] = -found["elbo"] / (math.prod(x_shape) * math.log(2))
    if symbols:
        found["perplexity"] = math.exp(min(found["distortion"] / symbols, 700.0))
    return found


def write(loggers: Iterable[Any], tag: str, terms: Mapping[str, float], step: int) -> None:
    """Hand terms to the loggers as `tag/name`.

    Not by `LightningModule.log`, which costs more than a small model's step, and whose own count of
    steps shifts when a run is continued.
    """
    for logger in loggers:
        logger.log_metrics({f"{tag}/{name}": value for name, value in terms.items()}, step)


class StepTerms:
    """The terms of one optimiser step: of each of its batches, on the device until all are
    there.
    """

    def __init__(self) -> None:
        self._batches: list[dict[str, Tensor]] = []

    def log(self, trainer: Trainer, terms: dict[str, Tensor], x_shape: tuple[int, ...]) -> None:
        """Keep the terms of a batch, `()` each; at the last of its step, write their means over
        batches and ranks.
        """
        self._batches.append(terms)
        if not trainer.fit_loop._should_accumulate():
            means = derived(self._take(trainer.strategy.reduce), x_shape)
            cast(Any, trainer.lightning_module).latest = means
            write(trainer.loggers, "train", means, trainer.global_step)

    def _take(self, reduce: Reduce) -> dict[str, float]:
        """The means, in one transfer. Begins anew."""
        batches = self._batches
        self._batches = []
        mean = torch.stack([torch.stack([*terms.values()]) for terms in batches]).mean(0)
        return dict(zip(batches[0], reduce(mean, reduce_op="mean").tolist(), strict=True))


class Means:
    """Means over the examples of all batches and ranks.

    batches: `(T + 1,)` each, this rank's sums of T terms, and the count of examples.
    """

    def __init__(self) -> None:
        self.batches: list[Tensor] = []
        self._names: list[str] = []

    def add(self, sums: Mapping[str, Tensor], count: int) -> None:
        """Count in the sums, `()` each, over a batch of so many examples."""
        self._names = [*sums]
        values = [*sums.values()]
        self.batches.append(torch.stack([*values, torch.full_like(values[0], count)]))

    def totals(self, reduce: Reduce) -> Tensor:
        """Sums over all ranks, `(T + 1,)`."""
        totals: Tensor = reduce(torch.stack(self.batches).sum(0), reduce_op="sum")
        return totals

    def take(self, totals: Tensor) -> dict[str, Tensor]:
        """The means of `totals` by name, `()` each, with the elbo where only its parts were summed.
        Begins anew.
        """
        self.batches.clear()
        *sums, count = totals
        means = {name: total / count for name, total in zip(self._names, sums, strict=True)}
        return {"elbo": -(means["distortion"] + means["rate"])} | means
