"""p(x|z) of numbers that differ in how noisy they are."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jensen.base.errors import InputError, check_list, check_number
from jensen.base.random import normal
from jensen.family.gaussian import LOG_2PI
from jensen.model.choice import check_choosing


class ColumnNormal(nn.Module):
    """N(output, diag sd^2), with a fixed standard deviation of each number of an event.

    >>> likelihood = ColumnNormal([1.0, 0.5])
    >>> round(likelihood.distortion(torch.zeros(1, 2), torch.zeros(1, 2)).item(), 4)
    1.1447

    Args:
        sd: one number, or one for each of D.
    """

    log_var: Tensor

    def __init__(self, sd: float | Sequence[float] = 1.0) -> None:
        super().__init__()
        if not isinstance(sd, Sequence):
            sd = [sd]
        check_list("sd", sd)
        for each in sd:
            check_number("sd", each, low=1e-4)
        log_var = torch.tensor([2 * math.log(each) for each in sd])
        self.register_buffer("log_var", log_var, persistent=False)

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        wide = output.to(torch.promote_types(output.dtype, torch.float32))
        squares = (x - wide).flatten(1).square() * (-self.log_var).exp()
        return 0.5 * (squares + self.log_var + LOG_2PI).sum(1)

    def mean(self, output: Tensor) -> Tensor:
        return output

    def sample(
        self,
        output: Tensor,
        key: int,
        index: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Draws `(B, *event)`; the temperature multiplies variances."""
        check_choosing(temperature, top_k, top_p, None)
        noise = normal(key, index, (output[0].numel(),)).to(output)
        spread = (0.5 * self.log_var).exp().to(output) * temperature**0.5
        return output + (spread * noise).view_as(output)

    def check(self, x: Tensor) -> None:
        if len(self.log_var) not in (1, x[0].numel()):
            raise InputError(
                f"sd has {len(self.log_var)} numbers: expected {x[0].numel()}, one for each of x"
            )
        if not x.isfinite().all():
            raise InputError("the data hold infinite numbers: expected finite ones; mend those")
