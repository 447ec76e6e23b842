"""The one exception for bad input, raised where the input enters."""

import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from numbers import Real
from os import PathLike


class InputError(ValueError):
    """Input of the user that cannot be used.

    The message is one sentence that names the key or file, says what was found and what was
    expected, and how to mend it. The programs print it without a traceback.
    """


class RefusedError(InputError):
    """The folder belongs to another run: nothing in it was changed."""


class SaidError(InputError):
    """A failure that another rank of the run prints."""


def check_count(name: str, value: object, least: int = 1, other: str | None = None) -> None:
    """Refuse a `value` that is not an integer of at least `least`, nor the word `other`."""
    if other is not None and value == other:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        word = f"{other} or " if other else ""
        raise InputError(f"{name} is {value!r}: expected {word}an integer of at least {least}")


def check_number(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> None:
    """Refuse a `value` that is not a finite number in [low, high]."""
    if (
        isinstance(value, bool)
        or not isinstance(value, Real)
        or not (_is_finite(value) and low <= float(value) <= high)
    ):
        bounds = (
            f"a number in [{low:g}, {high:g}]"
            if high < math.inf
            else f"a number of at least {low:g}"
        )
        raise InputError(
            f"{name} is {value!r}: expected {bounds if low > -math.inf else 'a finite number'}"
        )


LARGEST = 3.4e38
"""About the largest number of float32."""


def check_float32(name: str, value: object, low: float = -math.inf) -> None:
    """Refuse a `value` that is not a number of at least `low` that float32, in which networks are
    trained, can hold.
    """
    check_number(name, value, low)
    if abs(float(value)) > LARGEST:  # type: ignore[arg-type]
        raise InputError(
            f"{name} is {value!r}: expected a number within {LARGEST:g}, the range of float32"
        )


def _is_finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond any float
        return False


def check_flag(name: str, value: object) -> None:
    """Refuse a `value` that is not True or False: by its truth, "false" would be true and NaN as
    well.
    """
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}: expected true or false")


def check_seed(name: str, value: object) -> None:
    """Refuse a `value` that is not an integer in [0, 2^32), which every generator takes (numpy's
    take no more).
    """
    check_count(name, value, 0)
    if int(value) >= 1 << 32:  # type: ignore[call-overload]
        raise InputError(f"{name} is {value!r}: expected an integer below 2^32")


def check_path(name: str, value: object) -> None:
    """Refuse a `value` that is no path."""
    if not isinstance(value, str | PathLike) or not str(value):
        raise InputError(f"{name} is {value!r}: expected a path")


def check_text(name: str, value: object) -> None:
    """Refuse a `value` that is not a text of at least a letter."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{name} is {value!r}: expected a text")


def check_list(name: str, value: object) -> None:
    """Refuse a `value` that is not a sequence of values."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InputError(f"{name} is {value!r}: expected a list, such as {name}=[{value}]")


def check_choices(name: str, values: Iterable[str], choices: Sequence[str]) -> None:
    """Refuse `values` that are not a list of choices, each once."""
    check_list(name, values)
    found = [*values]
    for value in found:
        check_choice(name, value, choices)
    if len({*found}) < len(found):
        raise InputError(f"{name} is {found}: expected each once; remove one")


def check_counts(name: str, values: object) -> None:
    """Refuse `values` that are not a list of integers of at least 1: the sides of a shape, the
    widths of layers.
    """
    check_list(name, values)
    for value in values:  # type: ignore[attr-defined]
        check_count(name, value)


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Refuse a `value` that is not one of `choices`."""
    if not any(
        type(value) is type(choice) and value == choice for choice in choices
    ):  # 1 and 1.0 equal True
        known = [str(choice) for choice in choices]
        near = get_close_matches(str(value), known, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"{name} is {value!r}: expected one of {', '.join(known)}{meant}")
