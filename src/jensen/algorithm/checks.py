"""Refusals before the first step of training by gradient, and what is said of settings that mean something else
than they seem to.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytorch_lightning.utilities import rank_zero_only
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parallel import DistributedDataParallel

from jensen.algorithm.batches import own_data
from jensen.algorithm.finite import CHOICES
from jensen.algorithm.fits import check_fit
from jensen.base.errors import InputError, check_choice, check_count, check_seed
from jensen.base.schedule import Schedule
from jensen.data.module import DataModule
from jensen.model.likelihood import OptimalNormal
from jensen.model.multimodal import MultimodalVAE
from jensen.model.vae import VAE
from jensen.objective.beta import Beta
from jensen.objective.control import Control
from jensen.objective.objective import Objective

if TYPE_CHECKING:
    from jensen.algorithm.gradient import Gradient

_NAMED = 3
"""Parameters that a sentence names."""
PRECISIONS = ("32-true", "64-true", "16-mixed", "bf16-mixed")
"""Precisions of networks; parameters and data are float32, or float64, and no density or divergence
is less.
"""


def check_precision(precision: object) -> None:
    """Refuse parameters of half precision."""
    check_choice("trainer.precision", precision, PRECISIONS)


def check_arguments(
    model: object,
    objective: object,
    optimizer: object,
    seed: object,
    non_finite: object,
    skip_limit: object,
) -> None:
    """Refuse arguments of `Gradient` that are of another kind."""
    check_choice("non_finite", non_finite, CHOICES)
    check_count("skip_limit", skip_limit)
    check_seed("seed", seed)
    if not isinstance(model, VAE):
        raise InputError(
            f"model is a {type(model).__name__}: expected a VAE, such as model=conv; algorithm=em"
            " takes a GMM"
        )
    if not isinstance(objective, Objective):
        raise InputError(
            f"objective is {objective!r}: expected an objective, such as objective=beta"
        )
    if not callable(optimizer):
        raise InputError(
            f"optimizer is {optimizer!r}: expected what makes one of parameters, such as"
            " optimizer=adam"
        )


def check_training(algorithm: "Gradient") -> None:
    """Refuse what could only fail, or mislead, later; of jensen's data every value is looked at."""
    trainer = algorithm.trainer
    model = algorithm.model
    data = own_data(trainer)
    dtype: Any = algorithm.dtype
    check_precision(trainer.precision)
    check_given(model, data)
    note_weight(model, algorithm.objective)
    note_ranks(model, trainer.world_size)
    check_accumulation(algorithm, trainer.accumulate_grad_batches, data)
    if data is not None and not data.shuffle:
        raise InputError(
            "data.shuffle is false: expected true, since training by gradient is continued amid an"
            " epoch"
        )
    schedules = {
        f"objective.{name}": schedule for name, schedule in algorithm.objective.schedules.items()
    }
    schedules["algorithm.lr_scale"] = algorithm.lr_scale
    steps = trainer.estimated_stepping_batches
    check_length(schedules, model.prior.warmup, steps)
    check_encoder_steps(algorithm.encoder_steps, model, steps)
    if data is not None:
        data.check_values(lambda x: model.likelihood.check(x.to(algorithm.device, dtype)))
        x = data.show(2).to(algorithm.device, dtype)
        algorithm.posterior_family = check_fit(model, algorithm.objective, x)
    # as `jensen.run.restored` gives it; parts that their owner has put in evaluation mode stay
    if not (algorithm.training and model.training):
        algorithm.train()


def check_gradients(algorithm: "Gradient") -> None:
    """Refuse parameters that the gradient of the first step has not reached, where ranks wait for the
    gradient of each.

    torch takes that step with the gradients of each rank alone, and fails at the next.
    """
    shared = algorithm.trainer.strategy.model
    if (
        not isinstance(shared, DistributedDataParallel)
        or shared.find_unused_parameters
        or shared.static_graph
    ):
        return
    named = algorithm.named_parameters()
    unused = [name for name, each in named if each.requires_grad and each.grad is None]
    if unused:
        more = f" and {len(unused) - _NAMED} more" if len(unused) > _NAMED else ""
        raise InputError(
            f"{', '.join(unused[:_NAMED])}{more} had no part in the loss of the first step: expected"
            " the gradient of every parameter, for which the ranks wait; leave the unused out of the"
            " model, or set trainer.strategy=ddp_find_unused_parameters_true"
        )


def check_given(model: nn.Module, data: DataModule | None) -> None:
    """Refuse a model of other modalities than the data's, or that would model their conditions."""
    asked = () if data is None else data.condition
    named = {} if data is None else data.modalities
    if named and isinstance(model, MultimodalVAE) and named != model.modalities.shape_of:
        raise InputError(
            f"model.modalities are {_shapes(model.modalities.shape_of)} and data.modalities"
            f" {_shapes(named)}: expected the same names and shapes in the same order; leave"
            " model.modalities out"
        )
    given = model.modalities.given if isinstance(model, MultimodalVAE) else ()
    if {*asked} != {*given}:
        raise InputError(
            f"data.condition is {[*asked]} and model is a {type(model).__name__} that is given"
            f" {[*given]}: expected one of these; choose model=multimodal, which is a conditional"
            " VAE where one modality is left, or leave the condition out"
        )


def note_weight(model: nn.Module, objective: Objective) -> None:
    """Say that the loss is no bound, of several modalities: it is what they are compared by."""
    if not isinstance(model, MultimodalVAE) or not isinstance(objective, Beta):
        return
    beta = max(objective.beta.bounds, key=lambda bound: abs(bound - 1))
    if beta != 1:
        _say(
            f"objective.beta is {beta:g}, for images of many pixels: of several modalities the loss"
            " bounds log p(x) at 1, and above that latents of few numbers collapse; val/elbo is a"
            " bound at any; set objective.beta=1"
        )


def check_accumulation(algorithm: "Gradient", batches: int, data: DataModule | None) -> None:
    """Refuse a controller of accumulated batches, which would move at each of them; and say what else
    is of each batch.
    """
    if batches == 1:
        return
    objective, likelihood = algorithm.objective, algorithm.model.likelihood
    size = data.batch_size if data is not None else None
    if isinstance(objective, Control):
        whole = f"; set data.batch_size={batches * size}" if size else ""
        raise InputError(
            f"objective is a Control and trainer.accumulate_grad_batches is {batches}: expected 1, since"
            f" the mean rate of a step sets the beta of its loss{whole}"
        )
    parts = []
    if objective.of_minibatch:
        parts.append(f"objective is a {type(objective).__name__}, whose loss")
    if isinstance(likelihood, OptimalNormal):
        parts.append("model.likelihood is an OptimalNormal, whose variance")
    for part in parts:
        _say(
            f"{part} is of a minibatch as a whole: with trainer.accumulate_grad_batches={batches} of each"
            f" batch{f' of {size}' if size else ''}"
        )


def note_ranks(model: nn.Module, ranks: int) -> None:
    """Say that the model computes otherwise on several ranks, where it looks at its own share of a
    minibatch or draws by itself.
    """
    if ranks == 1:
        return
    for name, module in model.named_modules():
        batch_norm = isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
        if batch_norm or isinstance(module, _DropoutNd):
            how = "normalises by" if batch_norm else "draws for"
            remedy = "; trainer.sync_batchnorm=true, on GPUs, has it see all" if batch_norm else ""
            _say(
                f"model.{name} {how} a rank's own share of each minibatch, so {ranks} ranks give other"
                f" numbers than one{remedy}"
            )
            return


@rank_zero_only
def _say(note: str) -> None:
    logging.getLogger(__name__).info(note)


def _shapes(shape_of: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {[*shape]}" for name, shape in shape_of.items())


def check_length(schedules: Mapping[str, Schedule], warmup: int, steps: float) -> None:
    """Refuse schedules, by the key of the configuration, and a prior's warm-up that end after the
    training's `steps`.
    """
    for name, schedule in schedules.items():
        if schedule.end_step > steps:
            raise InputError(
                f"{name} changes until step {schedule.end_step} but training ends at step {steps}:"
                f" lower {name}.steps or raise trainer.max_steps"
            )
    if warmup >= steps:
        raise InputError(
            f"model.prior.warmup is {warmup} but training ends at step {steps}: lower it or raise"
            " trainer.max_steps"
        )


def check_encoder_steps(count: int, model: VAE, steps: float) -> None:
    """Refuse steps of the encoder alone where it has none to take, or the decoder would take none."""
    if count == 1:
        return
    if not any(each.requires_grad for each in model.encoder.parameters()):
        raise InputError(
            f"algorithm.encoder_steps is {count} but model.encoder has no parameters to train: expected"
            " 1; leave it out"
        )
    if count > steps:
        raise InputError(
            f"algorithm.encoder_steps is {count} but training ends at step {steps:g}, before the decoder's"
            " first: lower it or raise trainer.max_steps"
        )
