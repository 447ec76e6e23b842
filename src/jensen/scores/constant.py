"""The one rule for which latents are constant: all scores share it.

The deviation of such a latent is rounding, and dividing by it makes numbers of nothing. So it tells
nothing in any score, and adding one changes none, but for three whose published definitions count
all latents: `modularity` (a mean over them), the completeness of `dci` (a logarithm to the base of
their number) and `sap_svc` (a constant predicts at chance).
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SINGLE = 2.0**-17
"""The rounding of a latent held in single precision, relative to its magnitude: 64 units in the
last place.
"""

DOUBLE = 2.0**-40
"""That of one in double precision: of a sum of some thousand terms."""

BESIDE = 2.0**-22
"""A range that is lost beside another, where a decoder adds them up in single precision."""


def constant(codes: Floats) -> npt.NDArray[np.bool_]:
    """Mark the latents of `(N, D)` that are constant but for rounding, `(D,)`.

    Those whose range is at most `SINGLE` of their largest magnitude, or `DOUBLE` of it if some
    value is not of single precision; and those whose range is at most `BESIDE` of the largest among
    the others.
    """
    if not codes.size:
        return np.ones(codes.shape[1], bool)
    spread = np.ptp(codes, 0)
    with np.errstate(over="ignore"):
        single = (codes.astype(np.float32) == codes).all(0)
    still = spread <= np.where(single, SINGLE, DOUBLE) * np.abs(codes).max(0)
    return still | (spread <= BESIDE * spread[~still].max(initial=0.0))


def settled(codes: Floats) -> Floats:
    """Set the constant latents of `(N, D)` to 0."""
    return np.where(constant(codes), 0.0, codes)


def varying(codes: Floats) -> npt.NDArray[np.int64]:
    """Find the latents of `(N, D)` that are not constant; the first one, where all are, so that
    there is one to fit.
    """
    found = np.flatnonzero(~constant(codes))
    return found if len(found) else np.zeros(1, np.int64)
