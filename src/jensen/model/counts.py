"""p(x|z) of counts: Poisson and negative binomial; and real numbers by a mixture of normals."""

import math

import torch
from scipy import stats
from torch import Tensor, nn

from jensen.base.errors import InputError, check_choice, check_count, check_number
from jensen.base.random import fold, normal, uniform
from jensen.family.gaussian import LOG_2PI
from jensen.model.choice import check_choosing, choose
from jensen.model.likelihood import check_finite

SIZES = ("none", "library")


class _Counts(nn.Module):
    """Counts whose mean is exp(output), or with `size=library` the example's total times softmax of
    the output: the total is a condition, as the library size is in single-cell data (Lopez et al.
    2018, scVI). Abstract.

    The terms of log p(x) of a large count, or a large r, are thousands of times what is left of their
    sum, so they are added in float64.
    """

    def __init__(self, size: str = "none") -> None:
        super().__init__()
        check_choice("size", size, SIZES)
        self.size = size

    def rate(self, output: Tensor, x: Tensor | None = None) -> Tensor:
        """log of the mean, `(B, *event)`; without x of a total of 1 where there is one."""
        wide = output.to(torch.promote_types(output.dtype, torch.float32))
        if self.size == "none":
            return wide.clamp(max=30)
        share = wide.flatten(1).log_softmax(1).view_as(wide)
        if x is None:
            return share
        total = x.flatten(1).sum(1).clamp(min=1).log()
        return share + total.reshape(-1, *[1] * (x.dim() - 1))

    def mean(self, output: Tensor) -> Tensor:
        """E[x | output], `(B, *event)`; of a total of 1 with `size=library`."""
        return self.rate(output).exp()

    def check(self, x: Tensor) -> None:
        off = ~((x >= 0) & (x == x.round()) & x.isfinite())
        if bool(off.any()):
            raise InputError(
                f"a likelihood of counts takes 0, 1, 2, ... but the data hold"
                f" {x[off][0].item():.3g}: use model/likelihood=normal"
            )


def _check_plain(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Refuse a temperature of counts, which would be drawn as ever."""
    check_choosing(temperature, top_k, top_p, None)
    if temperature != 1:
        raise InputError(
            f"temperature is {temperature:g}: expected 1 of counts, which have none; leave it out"
        )


class Poisson(_Counts):
    """Counts whose variance is their mean."""

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        log_rate = self.rate(output, x)
        wide, counts = log_rate.double(), x.double()
        log_p = counts * wide - wide.exp() - (counts + 1).lgamma()
        return -log_p.flatten(1).sum(1).to(log_rate)

    def sample(
        self,
        output: Tensor,
        key: int,
        index: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Counts, `(B, *event)`, of a total of 1 with `size=library`."""
        _check_plain(temperature, top_k, top_p)
        mean = self.mean(output).detach().double().cpu()
        chance = uniform(key, index, tuple(mean.shape[1:]), torch.float64).cpu()
        found = stats.poisson.ppf(chance.numpy(), mean.numpy())
        return torch.as_tensor(found).clamp(min=0).to(output)


class NegativeBinomial(_Counts):
    """Counts of variance mean + mean^2 / r, with one r that is learned.

    Args:
        dispersion: r at the start. size: `none` or `library`.
    """

    def __init__(self, dispersion: float = 1.0, size: str = "none") -> None:
        super().__init__(size)
        check_number("dispersion", dispersion, low=1e-4, high=1e6)
        self.log_r = nn.Parameter(torch.tensor(math.log(dispersion)))

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        log_rate = self.rate(output, x)
        log_mean, log_r, counts = log_rate.double(), self.log_r.double(), x.double()
        r = log_r.exp()
        both = torch.logaddexp(log_mean, log_r)
        counted = (counts + r).lgamma() - r.lgamma() - (counts + 1).lgamma()
        log_p = counted + r * (log_r - both) + counts * (log_mean - both)
        return -log_p.flatten(1).sum(1).to(log_rate)

    def sample(
        self,
        output: Tensor,
        key: int,
        index: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Counts, `(B, *event)`, of a total of 1 with `size=library`."""
        _check_plain(temperature, top_k, top_p)
        mean = self.mean(output).detach().double().cpu()
        r = self.log_r.detach().double().exp().item()
        chance = uniform(key, index, tuple(mean.shape[1:]), torch.float64).cpu()
        found = stats.nbinom.ppf(chance.numpy(), r, (r / (r + mean)).numpy())
        return torch.as_tensor(found).clamp(min=0).to(output)


class NormalMixture(nn.Module):
    """sum_l weight_l N(output + offset_l, variance_l) in each place, with weights, offsets and
    variances that all places share and that are learned.

    Args:
        components: L. variance: at the start, and the square of how far the offsets reach.
    """

    def __init__(self, components: int = 3, variance: float = 1.0) -> None:
        super().__init__()
        check_count("components", components)
        check_number("variance", variance, low=1e-8, high=1e8)
        reach = math.sqrt(variance) if components > 1 else 0.0
        self.log_weight = nn.Parameter(torch.zeros(components))
        self.offset = nn.Parameter(torch.linspace(-reach, reach, components))
        self.log_var = nn.Parameter(torch.full((components,), math.log(variance)))

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        wide = output.to(torch.promote_types(output.dtype, torch.float32))
        log_var = self.log_var.clamp(-20, 20)
        away = (x - wide).unsqueeze(-1) - self.offset
        each = -0.5 * (away.square() * (-log_var).exp() + log_var + LOG_2PI)
        return -(each + self.log_weight.log_softmax(0)).logsumexp(-1).flatten(1).sum(1)

    def mean(self, output: Tensor) -> Tensor:
        """E[x | output], `(B, *event)`."""
        return output + (self.log_weight.softmax(0) * self.offset).sum()

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
        event = tuple(output.shape[1:])
        weight = self.log_weight.log_softmax(0).expand(*output.shape, len(self.offset))
        which = choose(weight, fold(key, "component"), index)
        spread = (0.5 * self.log_var.clamp(-20, 20)).exp()[which] * temperature**0.5
        return output + self.offset[which] + spread * normal(key, index, event).to(output)

    def check(self, x: Tensor) -> None:
        check_finite(x)
