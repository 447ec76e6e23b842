"""A score of `jensen.scores` as a diagnostic."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from jensen.core.errors import InputError, check_count, check_flag, check_number, check_seed
from jensen.core.family import marginals
from jensen.core.gaussian import Gaussian
from jensen.core.normal import Normal
from jensen.diagnostics.snapshot import Results, Snapshot, takes


def check_options(function: Callable[..., object], options: Mapping[str, object]) -> None:
    """Refuse options that are not of the kind of their defaults: seeds, sizes of at least 1, numbers, flags."""
    parameters = inspect.signature(function).parameters
    try:
        inspect.signature(function).bind_partial(None, None, **options)
    except TypeError as error:
        raise InputError(f"the score cannot be called ({error}): expected options that it has") from error
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


@takes(Gaussian, Normal)
def score(snapshot: Snapshot, function: Callable[..., Mapping[str, Any]], **options: Any) -> Results:
    """What `function(codes, factors, ...)` says of the posterior's means: numbers as scalars, sizes and arrays as details.

    Functions that ask for `log_var` get it. Nothing for data without factors.

    Raises:
        InputError: what the score refuses.
    """
    if not callable(function):
        raise InputError(f"function is {function!r}: expected a score, such as jensen.scores.dci")
    check_options(function, options)
    if not snapshot.factors.shape[1]:
        return {}
    if "log_var" in inspect.signature(function).parameters:
        log_var = marginals(snapshot.posterior, "this score").log_var
        if log_var.isfinite().all():
            options = {"log_var": log_var.double().cpu().numpy()} | options
        elif inspect.signature(function).parameters["log_var"].default is inspect.Parameter.empty:
            raise InputError("log_var is missing: expected codes with the log-variances of their posteriors")
    found = function(snapshot.posterior.mean.double().cpu().numpy(), snapshot.factors.cpu().numpy(), **options)
    return {key: torch.tensor(value) if isinstance(value, float) else np.asarray(value) for key, value in found.items()}
