"""Refusals before the first step of EM: arguments, settings and data of which it is no EM."""

from numbers import Real
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Trainer
from torch import Tensor

from jensen.algorithm.checks import check_given, check_precision
from jensen.base.errors import InputError, check_count, check_number
from jensen.data.module import DataModule
from jensen.model.scored import Scored

if TYPE_CHECKING:
    from jensen.algorithm.em import EM


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
