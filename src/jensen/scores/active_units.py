"""Active units: how many latents the encoder uses (Burda et al. 2016)."""

from typing import Any

import numpy.typing as npt
from torch import Tensor

from jensen.base.errors import check_number
from jensen.scores.activity import active_latents, mean_kl
from jensen.scores.inputs import check_codes, check_log_var


def active_units(
    codes: npt.ArrayLike | Tensor,
    factors: npt.ArrayLike | Tensor | None = None,
    log_var: npt.ArrayLike | Tensor | None = None,
    *,
    threshold: float = 0.01,
) -> dict[str, Any]:
    """Number of latents that have Var_x(mean of z_j) > `threshold` (Burda, Grosse & Salakhutdinov
    2016, arXiv 1509.00519, 5.1).

    The paper takes the variance over the data with N - 1 or N alike; here N. With `log_var` also
    the companion count, of latents whose mean KL from N(0, 1) exceeds 0.01 nats and whose means are
    not constant. It needs no factors: the argument is there so that all scores are called alike,
    and is not read.

    Args:
        codes: `(N, D)`, the posterior's means.
        log_var: `(N, D)`, the posterior's.

    Returns:
        active_units, a count; variance `(D,)`; active `(D,)`; with `log_var` active_by_kl, a count,
        and mean_kl `(D,)`.
    """
    check_number("threshold", threshold, 0)
    z = check_codes(codes)
    variance = z.var(0)
    found = {
        "active_units": int((variance > threshold).sum()),
        "variance": variance,
        "active": variance > threshold,
    }
    if log_var is not None:
        checked = check_log_var(log_var, z)
        found |= {
            "active_by_kl": int(active_latents(z, checked, "kl").sum()),
            "mean_kl": mean_kl(z, checked),
        }
    return found
