"""Random changes to observations, made on their device: functions of `(x, key, index)`.

The draws belong to the example (`base.random`), so they do not depend on batch, rank or order.
Training gives a new key at every step, evaluation always the same one.
"""

from functools import partial
from typing import Protocol

from torch import Tensor

from jensen.base.random import fold, uniform


class Transform(Protocol):
    """`(B, *event)` observations of examples `index` `(B,)` to `(B, *event')`, random by `key`, if at all."""

    def __call__(self, x: Tensor, key: int, index: Tensor) -> Tensor: ...


def colour(x: Tensor, key: int, index: Tensor) -> Tensor:
    """Grey `(B, 1, H, W)` times one colour per image, uniform in [0.5, 1]^3: `(B, 3, H, W)`.

    The variant "Color-dSprites" of Locatello et al. 2019 (arXiv 1811.12359); the colour is not a
    factor.
    """
    return x * (0.5 + 0.5 * uniform(fold(key, "colour"), index, (3, 1, 1)))


def noise(x: Tensor, key: int, index: Tensor) -> Tensor:
    """Grey `(B, 1, H, W)` on a background of uniform noise, min(x + noise, 1): `(B, 3, H, W)`.

    The variant "Noisy-dSprites" of Locatello et al. 2019.
    """
    return (x + uniform(fold(key, "background"), index, (3, *x.shape[2:]))).clamp(max=1)


def binarise(x: Tensor, key: int, index: Tensor) -> Tensor:
    """Grey levels in [0, 1] to 0 or 1 with that probability, same shape: "dynamic binarisation".

    Burda et al. 2016 (arXiv 1509.00519), section 5. Values on binarised and on grey-level images
    are not comparable.
    """
    return (uniform(fold(key, "binarise"), index, tuple(x.shape[1:])) < x).float()


def threshold(x: Tensor, key: int, index: Tensor) -> Tensor:
    """1 where `x` is above 1/2, else 0, same shape: of MNIST's 256 grey levels those above 127."""
    return (x > 0.5).float()


_POINTWISE = (colour, noise, binarise, threshold)


def is_pointwise(transform: Transform) -> bool:
    """Tell whether what a value becomes is known not to depend on the image's other values."""
    return (transform.func if isinstance(transform, partial) else transform) in _POINTWISE
