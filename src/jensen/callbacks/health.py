"""The ills of a trained VAE, a sentence each, with what usually helps."""

from collections.abc import Iterator
from typing import Any, cast

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn

from jensen.base.schedule import Schedule
from jensen.data.module import DataModule
from jensen.family.gaussian import LOG_VAR_BOUND
from jensen.family.mixture import Mixture, responsibilities
from jensen.model.likelihood import LearnedNormal, OptimalNormal
from jensen.model.vae import VAE
from jensen.objective.capacity import Capacity
from jensen.objective.control import Control
from jensen.objective.free_bits import FreeBits

LEAST_RATE = 0.1
"""Nats per example below which a model is taken to have collapsed; also what a decoder must gain
from z.
"""
DEAD = 0.05
"""Part of its equal share of the codes below which a component is dead."""
_EACH = 20
"""Codes a component, from which on it can be seen that it has none."""
_LOOKED_AT = 64
_STRENGTHS = ("tc", "beta", "gamma", "off_diagonal")
"""Numbers of objectives that press the rate down, or a part of it."""

Ills = dict[str, str]
"""Sentences by a short name."""


@torch.no_grad()
def ills(trainer: Trainer, module: LightningModule, codes: Tensor | None, ended: bool) -> Ills:
    """The ills of a VAE after a validation, whose `codes` are draws of q(z) `(N, D)`.

    ended: whether this is the last step, by which schedules must have come to their end.
    """
    model = getattr(module, "model", None)
    if not isinstance(model, VAE):
        return {}
    objective = getattr(module, "objective", None)
    found = dict(_of_rate(trainer, objective))
    if not found and isinstance(trainer.datamodule, DataModule):
        found |= _of_decoder(model, trainer.datamodule, module, _remedies(objective))
    found |= _of_likelihood(model.likelihood)
    if codes is not None:
        found |= _of_prior(model, codes)
    if ended and isinstance(objective, nn.Module):
        found |= _of_schedules(objective, trainer.global_step)
    return found


def _of_rate(trainer: Trainer, objective: object) -> Iterator[tuple[str, str]]:
    metrics = trainer.callback_metrics
    rate = float(metrics.get("val/rate", torch.tensor(torch.nan)))
    active = metrics.get("rate/active_units")
    if rate < LEAST_RATE and not _asked(objective, trainer.global_step) < LEAST_RATE:
        why = f"its rate is {rate:.3f} nats"
    elif active is not None and float(active) == 0 and _varies(trainer):
        why = f"no latent is active, at a rate of {rate:.2f} nats"
    else:
        return
    yield (
        "collapsed",
        f"the model has collapsed: {why}, so z says nothing of x; {_remedies(objective)} helps",
    )


def _varies(trainer: Trainer) -> bool:
    """Tell whether codes can vary over what is held out: one example's cannot."""
    data: Any = trainer.datamodule
    return not isinstance(data, DataModule) or len(data.held_out()[1]) > 1


def _remedies(objective: object) -> str:
    if isinstance(objective, Capacity):
        return "a lower objective.gamma, or a capacity that rises over more steps,"
    if isinstance(objective, Control):
        return "a higher objective.target, or a lower objective.beta_max,"
    if isinstance(objective, FreeBits):
        return "a higher objective.free_nats, or a lower optimizer.lr,"
    strengths = (
        name for name in _STRENGTHS if isinstance(getattr(objective, name, None), Schedule)
    )
    if (name := next(strengths, None)) is None:
        return "a lower optimizer.lr, or objective=free_bits,"
    key = f"objective.{name}"
    return f"a warm-up by +schedule@{key}=linear, a lower {key}, or objective=free_bits"


def _asked(objective: object, step: int) -> float:
    """The rate that an objective asks for at a step, nats; infinite where it asks for none."""
    targets = [getattr(objective, name, None) for name in ("capacity", "target")]
    asked = [
        float(each(torch.tensor(step, device=next(each.buffers()).device)))
        for each in targets
        if isinstance(each, Schedule)
    ]
    return min(asked, default=float("inf"))


def _of_decoder(model: VAE, data: DataModule, module: LightningModule, helps: str) -> Ills:
    """Tell whether an observation is told no better from its own code than from another's."""
    x = data.show(_LOOKED_AT).to(module.device, cast(torch.dtype, module.dtype))
    code = model.encoded(x).mean
    own = model.likelihood.distortion(model.decoded(code, x), x).mean()
    other = model.likelihood.distortion(model.decoded(code.roll(1, 0), x), x).mean()
    more = float(other - own)
    if len(x) < 2 or not more < LEAST_RATE:
        return {}
    costs = f"costs {more:.3f} nats more than" if more >= 0.0005 else "costs no more than"
    return {
        "ignored": (
            f"the decoder ignores z: another example's code {costs} its own; {helps}, or a decoder"
            " of less capacity helps"
        )
    }


def _of_likelihood(likelihood: object) -> Ills:
    if isinstance(likelihood, LearnedNormal):
        log_var = float(likelihood.log_var)
        bounds = "least" if log_var < 0 else "greatest"
        at_bound = abs(log_var) > 0.95 * LOG_VAR_BOUND
    elif isinstance(likelihood, OptimalNormal):
        log_var = float(likelihood.variance.log())
        bounds = "least"
        at_bound = float(likelihood.variance) <= likelihood.MINIMUM
    else:
        return {}
    if not at_bound:
        return {}
    return {
        "scale": (
            f"the likelihood's variance is exp({log_var:.1f}), the {bounds} that it may be, so the"
            " elbo has no maximum there: constant pixels are the usual reason; leave them out, add"
            " noise, or take model/likelihood=normal"
        )
    }


def _of_prior(model: VAE, codes: Tensor) -> Ills:
    """Components of a mixture prior that hardly any code `(N, D)` is of."""
    p = model.prior.distribution()
    count = p.log_weight.shape[-1] if isinstance(p, Mixture) else 0
    if not isinstance(p, Mixture) or p.log_weight.dim() != 1 or len(codes) < _EACH * count:
        return {}
    share = responsibilities(codes.to(p.components.mean), p).mean(0)
    dead = (share < DEAD / count).nonzero().flatten().tolist()
    if not dead:
        return {}
    named = ", ".join(map(str, dead[:5])) + (", ..." if len(dead) > 5 else "")
    return {
        "dead": (
            f"{len(dead)} of the prior's {count} components are dead (component {named}): hardly"
            " any held-out code is of them; take fewer, or a longer model.prior.warmup"
        )
    }


def _of_schedules(objective: nn.Module, step: int) -> Ills:
    found = {}
    for name, each in objective.named_children():
        if isinstance(each, Schedule) and each.end_step > step:
            found[f"schedule of {name}"] = (
                f"objective.{name} never came to its end: it changes until step {each.end_step:,}"
                f" and training ended at step {step:,}; train longer, or shorten"
                f" objective.{name}.steps"
            )
    if isinstance(objective, Control):
        most = float(objective.beta_max.bounds[1])
        if float(objective.beta) >= most:
            found["controller"] = (
                f"objective.beta ended at objective.beta_max, {most:g}: the rate is still above"
                " objective.target; raise either"
            )
    return found
