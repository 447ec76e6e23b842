"""Sets of points as `EMLayer` takes them, refused where it cannot."""

from typing import Protocol

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_number
from jensen.family.full import FullGaussian
from jensen.family.mixture import Mixture
from jensen.family.moments import PseudoCounts
from jensen.family.structures import STRUCTURES
from jensen.family.tied import TiedGaussian
from jensen.model.points import WIDEST

_LEAST_WEIGHT = 1e-100
"""Sums of weights below it, and above its inverse, leave the range of float64 in products."""


class Layer(Protocol):
    """The facts of a layer that its input must fit."""

    components: int
    dim: int
    covariance: str
    starts: str

    @property
    def prior(self) -> PseudoCounts: ...


def check_shapes(
    layer: Layer, x: Tensor, mask: Tensor | None, weights: Tensor | None, start: Mixture | None
) -> None:
    """Refuse arguments of `EMLayer.forward` that are of another kind, shape or dtype."""
    for name, value in (("x", x), ("mask", mask), ("weights", weights)):
        if value is not None and not isinstance(value, Tensor):
            raise InputError(
                f"{name} is a {type(value).__name__}: expected a tensor; use"
                f" torch.as_tensor({name})"
            )
    if x.dim() != 3 or x.shape[-1] != layer.dim:
        raise InputError(
            f"x has shape {tuple(x.shape)}: expected (sets, points, {layer.dim}); reshape it"
        )
    if not x.is_floating_point():
        raise InputError(f"x has dtype {x.dtype}: expected floating-point numbers; use x.float()")
    for name, value in (("mask", mask), ("weights", weights)):
        if value is not None and value.shape != x.shape[:2]:
            raise InputError(
                f"{name} has shape {tuple(value.shape)}: expected {tuple(x.shape[:2])}, a value"
                " for each point of x"
            )
    if mask is not None and mask.dtype != torch.bool:
        raise InputError(
            f"mask has dtype {mask.dtype}: expected bool, True where there is a point; numbers are"
            " weights="
        )
    if weights is not None and (weights.is_complex()):
        raise InputError(f"weights has dtype {weights.dtype}: expected real numbers")
    if (start is None) == (layer.starts == "given"):
        found = "is missing" if start is None else "is given"
        raise InputError(
            f'start {found}: this EMLayer was made with starts="{layer.starts}"; change one of the two'
        )
    if start is not None:
        _check_start(layer, start, len(x))


def _check_start(layer: Layer, start: Mixture, sets: int) -> None:
    found: type = type(start.components)
    structure = STRUCTURES[layer.covariance]
    if found is not structure:
        raise InputError(
            f"start has {found.__name__} components: expected {structure.__name__}, since"
            f" covariance is {layer.covariance!r}"
        )
    size = layer.components
    dim = layer.dim
    shapes = {
        "diag": (size, dim),
        "spherical": (size,),
        "tied": (dim, dim),
        "full": (size, dim, dim),
    }
    expected = ((size,), (size, dim), shapes[layer.covariance])
    for name, value, shape in zip(
        ("log_weight", *structure._fields),
        (start.log_weight, *start.components),
        expected,
        strict=True,
    ):
        lead = (sets,) if start.components.mean.dim() == 3 else ()
        if value.shape != (*lead, *shape):
            raise InputError(
                f"start.{name} has shape {tuple(value.shape)}: expected {shape}, or"
                f" {(sets, *shape)} with one start a set"
            )


def check_values(layer: Layer, x: Tensor, counts: Tensor, occupied: Tensor, start: Mixture) -> bool:
    """Tell whether every set has points; refuses numbers that EM cannot use. All in one question to
    the device.
    """
    with torch.no_grad():
        few = counts.new_zeros(len(counts))
        if not layer.prior.covariance:
            few = ((counts > 0).sum(-1) < layer.components) & occupied
        usable = torch.stack(
            [part.isfinite().all() for part in (start.log_weight, *start.components)]
        ).all()
        if isinstance(start.components, TiedGaussian | FullGaussian):
            usable = usable & (start.components.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()
        size = counts.sum(-1)
        odd = occupied & ((size < _LEAST_WEIGHT) | (size > 1 / _LEAST_WEIGHT))
        negative = ~(counts.isfinite() & (counts >= 0)).all()
        flags = (
            ~(x.abs() <= WIDEST).all(),
            negative,
            odd.any(),
            few.any(),
            ~usable,
            occupied.all(),
        )
        infinite, negative, extreme, few_points, bad_start, full = torch.stack(flags).tolist()
    if infinite:
        raise InputError(
            f"x holds NaN or infinite values, or some beyond {WIDEST:g}, outside the mask:"
            " expected ones whose squares are finite; mask them out, or rescale x"
        )
    if negative:
        raise InputError(
            "weights holds a value that is negative or not finite: expected finite numbers of at"
            " least 0"
        )
    if extreme:
        raise InputError(
            f"weights of a set add up to less than {_LEAST_WEIGHT:g} or more than"
            f" {1 / _LEAST_WEIGHT:g}: expected numbers"
            " nearer to 1, since the prior counts in the same unit; divide them by their mean"
        )
    if few_points:
        raise InputError(
            f"a set has fewer points than the {layer.components} components: expected at least one"
            " for each where the prior"
            " gives covariances no pseudo-counts; use PseudoCounts(covariance=1.0)"
        )
    if bad_start:
        raise InputError(
            "start holds values that are not finite, or a diagonal of scale_tril that is not"
            " positive"
        )
    return bool(full)


def check_prior(prior: PseudoCounts, dim: int) -> None:
    """Refuse pseudo-counts that no layer can use."""
    check_number("prior.weight", prior.weight, low=0)
    check_number("prior.covariance", prior.covariance, low=0)
    variance = torch.as_tensor(prior.variance)
    if variance.shape not in ((), (dim,)) or not bool(
        (variance > 0).all() & variance.isfinite().all()
    ):
        raise InputError(
            f"prior.variance is {prior.variance}: expected a positive number, or {dim} of them"
        )
    if bool((torch.as_tensor(prior.floor) != 0).any()):
        raise InputError(
            f"prior.floor is {prior.floor}: expected 0, since a floor has no useful gradient; use"
            " prior.covariance"
        )
