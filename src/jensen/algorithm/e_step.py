"""The E-step of a batch."""

import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.em.missing import expect
from jensen.em.stream import Statistics, Stream
from jensen.em.variational import expected
from jensen.family.columns import Columns
from jensen.family.mixture import Mixture


def e_step(x: Tensor, origin: Tensor, p: Mixture, beta: float, missing: bool) -> Statistics:
    """Float64 sums over the points `x` `(N, D)` about `origin` `(D,)`, about which the means of `p`
    are, too.

    Raises:
        InputError: NaN or infinity, unless it is told that NaN stands for what is `missing`.
    """
    if not missing and not bool(x.isfinite().all()):
        raise InputError(
            "a batch of x holds NaN or inf: expected finite numbers; set model.missing=true to"
            " marginalise NaN"
        )
    with torch.autocast(x.device.type, enabled=False):
        if missing and not isinstance(p.components, Columns):
            parts = lambda size: ((part, None) for part in x.split(size))  # noqa: E731
            return expect(parts, origin, expected(p), beta)
        return Stream(lambda size: ((part, None) for part in x.split(size)), 0, origin)(
            expected(p), beta=beta
        )
