"""Modalities as a fact of a data set: names and shapes of the parts of an observation."""

from collections.abc import Mapping, Sequence
from math import prod

from jensen.base.errors import InputError, check_choices, check_counts, check_list


def check_modalities(
    modalities: object, x_shape: Sequence[int], condition: Sequence[str] = ()
) -> None:
    """Refuse modalities that have no shapes, or other shapes than add up to `x_shape` `[P]`; and
    conditions that are none of them.
    """
    check_list("condition", condition)
    if modalities is None and condition:
        raise InputError(
            f"condition is {condition!r} and there are no modalities: expected data of several, such"
            " as data=mnist_label; leave it out"
        )
    if modalities is None:
        return
    if not isinstance(modalities, Mapping):
        raise InputError(
            f"modalities is {modalities!r}: expected names with their shapes, such as {{image: [1,"
            " 28, 28], label: [10]}"
        )
    for name, shape in modalities.items():
        check_counts(f"modalities.{name}", shape)
    check_list("x_shape", x_shape)
    numbers = [prod(shape) for shape in modalities.values()]
    if [*x_shape] != [sum(numbers)]:
        parts = " + ".join(map(str, numbers))
        raise InputError(
            f"x_shape is {[*x_shape]} and modalities have {parts} numbers: expected"
            f" [{sum(numbers)}], their sum; set one of the two"
        )
    check_choices("condition", condition, [*modalities])
