"""The latents that a model uses: three rules, for the scores that leave the others out."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jensen.base.errors import InputError, check_choice
from jensen.family.gaussian import Gaussian, kl, standard
from jensen.scores.constant import constant
from jensen.scores.inputs import Floats, Labels, as_array, check_log_var

RULES = ("kl", "range", "variance")
KL_THRESHOLD = 0.01
VARIANCE_THRESHOLD = 0.01
RANGE_THRESHOLD = 1 / 20


def mean_kl(codes: Floats, log_var: Floats) -> Floats:
    """Each latent's KL(q(z_j|x) || N(0, 1)), averaged over the points: `(D,)`, in nats."""
    posterior = Gaussian(torch.from_numpy(codes), torch.from_numpy(log_var))
    return kl(posterior, standard(posterior.mean)).mean(0).numpy()


Active = str | Sequence[bool] | npt.NDArray[np.bool_] | None
"""A rule, or the latents themselves: `(D,)` booleans."""


def named_active(
    codes: Floats, log_var: npt.ArrayLike | Tensor | None, best: Labels
) -> npt.NDArray[np.bool_]:
    """Tell whether the latents that a score names, `best` `(F,)`, are active by the default rule,
    `(F,)`.

    Scores on the means credit dead latents: what is left of a factor in the mean of a collapsed one
    fills as many bins as any other, and is drowned by the posterior's noise.
    """
    return active_latents(codes, None if log_var is None else check_log_var(log_var, codes), None)[
        best
    ]


def active_latents(codes: Floats, log_var: Floats | None, rule: Active) -> npt.NDArray[np.bool_]:
    """The latents that `rule` calls active, `(D,)`. Constant ones are not, by any rule
    (`constant.constant`).

    "kl": mean KL from N(0, 1) above 0.01 nats; needs `log_var`. "range": a range above 1/20 of the
    largest (Hsu et al. 2023; their training code has 1/8), which hangs on the scale of the other
    latents. "variance": variance of the means above 0.01 (Burda et al. 2016). A mask `(D,)` names
    them outright. None is "kl" where there is a `log_var`, else "range".
    """
    if rule is None:
        rule = "range" if log_var is None else "kl"
    if not isinstance(rule, str):
        mask = as_array("active", rule)
        if mask.dtype != bool or mask.shape != codes.shape[1:]:
            raise InputError(
                f"active is {mask.dtype} of shape {mask.shape}: expected {codes.shape[1]}"
                f" booleans, one a latent, or one of {', '.join(RULES)}"
            )
        return mask
    check_choice("active", rule, RULES)
    if rule == "variance":
        return codes.var(0) > VARIANCE_THRESHOLD
    if rule == "range":
        spread = np.ptp(codes, 0)
        return spread > RANGE_THRESHOLD * spread.max()
    if log_var is None:
        raise InputError(
            'active is "kl" but there is no log_var: expected the posterior\'s log_var, or active="range"'
        )
    return (mean_kl(codes, log_var) > KL_THRESHOLD) & ~constant(codes)
