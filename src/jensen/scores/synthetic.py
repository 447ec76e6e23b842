"""Codes whose scores are known: what the scores are tested and timed on.

Factors are uniform, of the sizes of dSprites' factors; a code of ten latents holds them well,
partly, or badly, each in a way that some scores see and others do not.
"""

import numpy as np

from jensen.scores.inputs import Floats, Labels

SIZES = (3, 6, 40, 32, 32)
"""Shape, scale, orientation, x, y."""

CODES = (
    "perfect",
    "+ 0.1 noise",
    "x,y rotated 45 deg",
    "all five rotated",
    "every factor twice",
    "orientation missing",
    "shape x scale in one latent",
    "pure noise",
)

REST = 0.02
"""The standard deviation of latents that hold nothing."""


def uniform_factors(points: int, seed: int = 0) -> Labels:
    """Independent uniform factors of `SIZES`, `(N, 5)`."""
    return np.random.default_rng(seed).integers(0, SIZES, (points, len(SIZES)))


def synthetic_codes(name: str, factors: Labels, seed: int = 1, rotation: int = 3) -> Floats:
    """The code `name` (one of `CODES`) of `factors` `(N, 5)`: `(N, 10)`.

    Each standardised factor in its own latent, five latents of noise, and what the name says.
    `rotation` seeds the random rotation of "all five rotated", on which its scores depend.
    """
    rng = np.random.default_rng(seed)
    if name == "pure noise":
        return rng.standard_normal((len(factors), 10))
    held = _standardised(factors)
    rest = REST * rng.standard_normal((len(factors), 5))
    if name == "+ 0.1 noise":
        held = held + 0.1 * rng.standard_normal(held.shape)
    elif name == "x,y rotated 45 deg":
        held[:, 3:] = held[:, 3:] @ np.array([(1, -1), (1, 1)]) / np.sqrt(2)
    elif name == "all five rotated":
        held = held @ np.linalg.qr(np.random.default_rng(rotation).standard_normal((5, 5)))[0]
    elif name == "every factor twice":
        rest = held + rest / 2
    elif name == "orientation missing":
        held[:, 2] = REST * rng.standard_normal(len(factors))
    elif name == "shape x scale in one latent":
        held[:, 0] = _standardised(factors[:, 0] * SIZES[1] + factors[:, 1])
        held[:, 1] = REST * rng.standard_normal(len(factors))
    return np.concatenate([held, rest], 1)


def _standardised(values: Labels) -> Floats:
    return (values - values.mean(0)) / values.std(0)
