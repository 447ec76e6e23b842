"""Callbacks that a run cannot have, or not beside each other, as sentences before training."""

from collections.abc import Mapping

import pytorch_lightning.callbacks as lightnings
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.utilities.model_helpers import is_overridden

from jensen.base.errors import InputError, check_count

REFUSED = {
    "StochasticWeightAveraging": "changes the weights after the last validation and checkpoint;"
    " +callbacks=swa averages them for both",
    "WeightAveraging": "averages the objective and what a prior counts too;"
    " +callbacks=ema averages the model's weights",
    "BatchSizeFinder": "trains to find a size, which the noise of this run would depend on;"
    " set data.batch_size",
    "LearningRateFinder": "trains to find a rate and not from the seed's weights on;"
    " sweep over optimizer.lr",
    "GradientAccumulationScheduler": "changes the size of a step between epochs, which no"
    " checkpoint knows; set trainer.accumulate_grad_batches",
    "ModelPruning": "puts other parameters in the place of the model's, which no command could load"
    "; leave it out",
    "BaseFinetuning": "changes the optimiser's groups, which no checkpoint here holds; leave it out",
}
"""Callbacks of Lightning's, and why a run here cannot have them."""


def check(callbacks: Mapping[str, Callback]) -> None:
    """Refuse `callbacks`, by the key below `callbacks`, that would not do what they say.

    Raises:
        InputError: a sentence on the first.
    """
    for name, each in callbacks.items():
        for kind, why in REFUSED.items():
            if isinstance(each, getattr(lightnings, kind, ())):
                reason, _, instead = why.rpartition("; ")
                raise InputError(
                    f"callbacks.{name} is a {type(each).__name__}, which {reason}: expected none;"
                    f" {instead}"
                )
        if isinstance(each, ModelCheckpoint) and _writes_ours(each):
            raise InputError(
                f"callbacks.{name} writes last.ckpt or best.ckpt, which are this run's own: expected"
                " other names; leave out save_last and set filename"
            )
    _refuse_twins(callbacks)
    _check_monitors(callbacks)


def _writes_ours(each: ModelCheckpoint) -> bool:
    return bool(each.save_last) or each.filename in ("last", "best")


def _refuse_twins(callbacks: Mapping[str, Callback]) -> None:
    """Two of a kind that have one place in a checkpoint, or write one file."""
    places: dict[str, str] = {}
    for name, each in callbacks.items():
        own = type(each).__module__.startswith("jensen.")
        if not own and not is_overridden("state_dict", each, Callback):
            continue
        key = type(each).__qualname__ if own else each.state_key
        if key in places:
            raise InputError(
                f"callbacks.{places[key]} and callbacks.{name} are both {type(each).__name__}:"
                " expected one, since they would share its files or its place in a checkpoint;"
                f" leave one out, as by callbacks.{name}=null"
            )
        places[key] = name


def _check_monitors(callbacks: Mapping[str, Callback]) -> None:
    """Refuse to stop by, or save by, a number that this run does not give, or at no time."""
    run = {name for each in callbacks.values() for name in getattr(each, "diagnostics", ())}
    known = ["val", *sorted(run)]
    for name, each in callbacks.items():
        if isinstance(each, EarlyStopping):
            check_count(f"callbacks.{name}.patience", each.patience, least=0)
        monitor = getattr(each, "monitor", None)
        watches = isinstance(each, EarlyStopping | ModelCheckpoint) and monitor is not None
        if watches and str(monitor).split("/")[0] not in known:
            raise InputError(
                f"callbacks.{name}.monitor is {monitor!r}: expected a number of this run, one of"
                f" {', '.join(f'{each}/...' for each in known)}"
            )
