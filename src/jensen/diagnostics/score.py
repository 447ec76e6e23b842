"""A score of `jensen.scores` as a diagnostic."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from jensen.base.errors import InputError, check_count, check_flag, check_number, check_seed
from jensen.diagnostics.snapshot import Results, Snapshot, takes, told
from jensen.family.family import is_standard
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian
from jensen.scores.activity import KL_THRESHOLD
from jensen.scores.constant import constant


def check_options(function: Callable[..., object], options: Mapping[str, object]) -> None:
    """Refuse options that are not of the kind of their defaults: seeds, sizes of at least 1,
    numbers, flags.
    """
    parameters = inspect.signature(function).parameters
    try:
        inspect.signature(function).bind_partial(None, None, **options)
    except TypeError as error:
        raise InputError(
            f"the score cannot be called ({error}): expected options that it has"
        ) from error
    for name, value in options.items():
        default = parameters[name].default if name in parameters else None
        if name == "seed":
            check_seed(name, value)
        elif isinstance(default, bool):
            check_flag(name, value)
        elif isinstance(default, int):
            check_count(name, value)
        elif isinstance(default, float):
            check_number(name, value)


def _needs_log_var(options: Mapping[str, Any]) -> bool:
    """Tell whether a score, by the options of its diagnostic, cannot do without `log_var`."""
    function = options.get("function")
    if not callable(function):
        return False
    asked = inspect.signature(function).parameters.get("log_var")
    return asked is not None and asked.default is inspect.Parameter.empty


@takes(Gaussian, FullGaussian, where=_needs_log_var)
def score(
    snapshot: Snapshot, function: Callable[..., Mapping[str, Any]], **options: Any
) -> Results:
    """A score `function(codes, factors, ...)` of the posterior's means: numbers as scalars, sizes
    and arrays as details.

    Functions that ask for `log_var` get it; those that would only tell dead latents by their KL
    from N(0, 1) get none under another prior, and leave out by the prior's own rates, or else by
    their range. Nothing for data without factors.

    Raises:
        InputError: what the score refuses.
    """
    if not callable(function):
        raise InputError(f"function is {function!r}: expected a score, such as jensen.scores.dci")
    check_options(function, options)
    if not snapshot.factors.shape[1]:
        return {}
    options = _uncertainty(snapshot, function, "active" in options) | options
    found = function(
        snapshot.posterior.mean.double().cpu().numpy(), snapshot.factors.cpu().numpy(), **options
    )
    return {
        key: torch.tensor(value) if isinstance(value, float) else np.asarray(value)
        for key, value in found.items()
    }


def _uncertainty(
    snapshot: Snapshot, function: Callable[..., object], chosen: bool
) -> dict[str, Any]:
    """The options of a score by which it learns of the posterior's noise: `log_var`, or which
    latents are `active`.

    chosen: whether its caller says which are active.
    """
    parameters = inspect.signature(function).parameters
    if "log_var" not in parameters:
        return {}
    if not isinstance(snapshot.posterior, Gaussian | FullGaussian):
        return {}
    log_var = snapshot.posterior.marginals().log_var
    needed = parameters["log_var"].default is inspect.Parameter.empty
    if needed or chosen or is_standard(snapshot.prior):
        return {"log_var": log_var.double().cpu().numpy()}
    if "active" in parameters:
        still = constant(snapshot.posterior.mean.double().cpu().numpy())
        return {"active": (told(snapshot) > KL_THRESHOLD).cpu().numpy() & ~still}
    return {}
