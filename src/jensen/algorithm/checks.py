"""Refusals before the first step: parts that do not fit each other, the data or the length of the
training.

Sizes that differ need not fail. A single latent beside two would be broadcast: one draw, used
twice, trains without a word.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parallel import DistributedDataParallel

from jensen.algorithm.batches import own_data
from jensen.algorithm.finite import CHOICES
from jensen.algorithm.step import infer, loss_of
from jensen.base.errors import InputError, check_choice, check_count, check_number, check_seed
from jensen.base.random import key
from jensen.base.schedule import Schedule
from jensen.bound.bound import Inference
from jensen.bound.rate import BoundedBelow, log_density, rate
from jensen.data.module import DataModule
from jensen.family.family import is_standard
from jensen.family.gaussian import Gaussian
from jensen.model.likelihood import OptimalNormal
from jensen.model.multimodal import MultimodalVAE
from jensen.model.scored import Scored
from jensen.model.vae import VAE
from jensen.objective.beta import Beta
from jensen.objective.control import Control
from jensen.objective.objective import Objective

if TYPE_CHECKING:
    from jensen.algorithm.em import EM
    from jensen.algorithm.gradient import Gradient

T = TypeVar("T")
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


def check_em_arguments(model: object, decay: Any, tolerance: object, weights_first: object) -> None:
    """Refuse arguments of `EM` that are of another kind."""
    if not isinstance(model, Scored):
        raise InputError(
            f"model is a {type(model).__name__}: expected a mixture, such as model=gmm; algorithm=gradient"
            " takes a VAE"
        )
    number = isinstance(decay, Real) and not isinstance(decay, bool)
    if decay is not None and not (number and 0.5 < decay <= 1):
        raise InputError(
            f"decay is {decay!r}: expected a number above 0.5 and at most 1, or null for EM on all"
            " data"
        )
    check_number("tolerance", tolerance, low=0)
    check_count("weights_first", weights_first, least=0)


def check_em_training(algorithm: "EM") -> None:
    """Refuse what could only fail, or mislead, later; every value of the data is looked at."""
    trainer = algorithm.trainer
    missing = algorithm.model.recipe.missing
    check_precision(trainer.precision)
    check_given(algorithm.model, trainer.datamodule)

    def check(x: Tensor) -> None:
        check_points(x, missing)
        algorithm.model.check_values(x.flatten(1))

    trainer.datamodule.check_values(check)
    if algorithm.rule.decay is None:
        check_whole_epochs(trainer, trainer.datamodule)
    if algorithm.beta.end_step > trainer.max_steps > 0:
        raise InputError(
            f"algorithm.beta changes until step {algorithm.beta.end_step} but training ends at"
            f" step {trainer.max_steps}: lower algorithm.beta.steps or raise trainer.max_steps"
        )


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


def check_whole_epochs(trainer: Trainer, data: DataModule) -> None:
    """Refuse what cuts an epoch, or looks at an example twice in one, by EM on all data."""
    interval = trainer.val_check_interval
    epochs = trainer.check_val_every_n_epoch
    settings = {
        "data.shuffle": (data.shuffle, False, not data.shuffle),
        "trainer.check_val_every_n_epoch": (epochs, "a number", epochs is not None),
        "trainer.val_check_interval": (interval, 1.0, interval == 1.0),
    }
    for name, (found, expected, fits) in settings.items():
        if not fits:
            raise InputError(
                f"{name} is {found}: expected {expected}, since EM on all data counts every"
                " example once an epoch and is validated between epochs; set"
                " trainer.check_val_every_n_epoch, of M-steps, to validate more often or less"
            )


def check_points(x: Tensor, missing: bool) -> None:
    """Refuse points that no mixture is a density of: infinite ones, and NaN unless it stands for
    what is `missing`.
    """
    bad = x.isinf() if missing else ~x.isfinite()
    if bool(bad.any()):
        raise InputError(
            f"the data hold {x[bad][0]:g}: expected finite numbers; remove those examples, or set"
            " model.missing=true to marginalise NaN"
        )


def check_fit(model: VAE, objective: Objective, x: Tensor) -> type:
    """Refuse parts that do not fit each other or the examples `x` `(B, *event)`; else the family of
    the posterior.

    Nothing is left of the trial in running statistics.

    Raises:
        InputError: sizes that differ, or an objective whose formula does not hold here.
    """
    parts = {f"model.{name}": part for name, part in model.named_children()} | {
        "objective": objective
    }
    if hasattr(model.likelihood, "output_shape"):
        del parts["model.decoder"]  # whose shape may be another, and is looked at below
    check_stated(parts, model.latent_dim, tuple(x.shape[1:]))
    model.check_samples(objective.samples)
    row = torch.zeros(1, dtype=torch.int64, device=x.device)
    with _evaluating(model, objective), torch.no_grad():
        check_shapes(model, x)
        inference = infer(model, x[:1], row, key(0, "checks", device=x.device), objective.samples)
        check_objective(objective, model, inference, torch.zeros_like(row[0]))
    return type(inference.posterior)


@contextmanager
def _evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards that in which each module was."""
    training = [part for module in modules for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def check_stated(parts: dict[str, nn.Module], latent_dim: int, x_shape: tuple[int, ...]) -> None:
    """Refuse a part whose own `latent_dim` or `x_shape` is not that of the model and the data.

    Args:
        parts: by the key of the configuration that makes them.
    """
    for name, part in parts.items():
        stated = getattr(part, "latent_dim", latent_dim)
        if stated != latent_dim:
            raise InputError(
                f"{name}.latent_dim is {stated} but model.latent_dim is {latent_dim}: expected one"
                " number of latents in all parts; set latent_dim alone, which all of them take"
            )
        shape = getattr(part, "x_shape", x_shape)
        if [*shape] != [*x_shape]:  # a conf file's is a list
            raise InputError(
                f"{name}.x_shape is {list(shape)} but examples have shape {list(x_shape)}:"
                " expected one shape in all parts; set data.x_shape alone, which all of them take"
            )


@torch.no_grad()
def check_shapes(model: VAE, x: Tensor) -> None:
    """Refuse a model whose parts, ours or a user's, give other shapes for `x` `(B, *event)` than
    its bound is made of.
    """
    examples = f"{len(x)} examples of shape {list(x.shape[1:])}"
    codes = f"{len(x)} codes of {model.latent_dim} latents"
    latents = (len(x), model.latent_dim)

    posterior = _tried("model.encoder", examples, lambda: model.encoded(x))
    for part in posterior if isinstance(posterior, Gaussian) else (posterior.mean,):
        _check_shape("model.encoder", examples, part, latents)
    z = posterior.mean
    output = _tried("model.decoder", codes, lambda: model.decoded(z, x))
    event = tuple(x.shape[1:])
    expected = getattr(model.likelihood, "output_shape", lambda event: event)(event)
    _check_shape("model.decoder", codes, output, (len(x), *expected))
    p = model.prior_of(x)
    bounds = {
        "model.likelihood.distortion": lambda: model.likelihood.distortion(output, x),
        "model.prior's log_prob": lambda: log_density(p, z, z),
        "model.prior's rate": lambda: rate(
            posterior, p, z, log_density(p, z, z), bounded=model.prior.rate_is_bound
        ),
    }
    for name, bound in bounds.items():
        _check_shape(name, codes, _tried(name, codes, bound), (len(x),))


@torch.no_grad()
def check_objective(objective: Objective, model: VAE, inference: Inference, step: Tensor) -> None:
    """Refuse an objective whose formula does not hold for the model's posterior or prior; nothing
    is kept of the trial.

    Raises:
        InputError: what the objective refuses (`family.family.diagonal`), a prior that it would
            take for N(0, I), or a size of the data that it needs and nobody has told it.
    """
    if objective.needs_dataset_size and not objective.dataset_size:
        raise InputError(
            f"objective is {type(objective).__name__} and its dataset_size is 0: expected at least"
            " 1, the number of training examples, which is not known of a stream or of loaders of"
            " your own; set objective.dataset_size, or train on map-style data of a"
            " jensen.data.module.DataModule, which tells it"
        )
    prior = model.prior.distribution()
    if objective.for_standard_normal and not is_standard(prior):
        raise InputError(
            f"objective is {type(objective).__name__} and model.prior a"
            f" {type(model.prior).__name__}: expected model/prior=standard_normal, which its"
            " formula is of; choose that, or another objective"
        )
    if objective.needs_density and isinstance(prior, BoundedBelow):
        raise InputError(
            f"objective is {type(objective).__name__} and model.prior a"
            f" {type(model.prior).__name__}, of whose density a bound is known: expected a prior"
            " with an exact one, such as model/prior=flow; choose that, or another objective"
        )
    loss_of(objective, inference, step)
    objective.terms(inference, step)


def _tried(name: str, told: str, part: Callable[[], T]) -> T:
    """Call a part; torch's own words are the reason where it fails."""
    try:
        return part()
    except (RuntimeError, IndexError, TypeError) as error:
        why = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{name} cannot take {told} ({why}): expected parts of one size; change its sizes"
        ) from error


def _check_shape(name: str, told: str, found: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(found.shape) != expected:
        raise InputError(
            f"{name} gives shape {list(found.shape)} for {told}: expected {list(expected)}; change"
            " its sizes"
        )
