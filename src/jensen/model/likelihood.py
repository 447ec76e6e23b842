"""p(x|z): the distortion of a decoder's output, in nats per example with every constant.

A decoder gives one unbounded number for each pixel or coordinate; the likelihood says what it
means.
"""

import math
from typing import Any, Protocol, cast

import torch
from torch import Tensor, distributed, nn

from jensen.base.errors import InputError, check_number
from jensen.base.random import normal, uniform
from jensen.base.ranks import world
from jensen.family.gaussian import LOG_2PI, LOG_VAR_BOUND
from jensen.model.bernoulli import bernoulli_distortion
from jensen.model.choice import chance_of_one, check_choosing


class Likelihood(Protocol):
    """The scatter of observations about a decoder's output."""

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        """-log p(x | output), `(B, *event)`, `(B, *event)` to `(B,)`, nats, summed over the
        event.
        """
        ...

    def mean(self, output: Tensor) -> Tensor:
        """E[x | output], `(B, *event)`."""
        ...

    def sample(
        self,
        output: Tensor,
        key: int,
        index: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """x ~ p(x | output), `(B, *event)`; an example's is a function of `key` and its `index`
        `(B,)` (`base.random`).

        temperature: above 0; below 1 draws are likelier than the model's own. top_k, top_p: of
        symbols, see `choice.sharpened`; another likelihood refuses them.
        """
        ...

    def check(self, x: Tensor) -> None:
        """Refuse observations that this likelihood is no density of, with an `InputError`."""
        ...


def drawn(
    likelihood: Likelihood, output: Tensor, key: int, index: Tensor, *choosing: Any
) -> Tensor:
    """`likelihood.sample`, `(B, *event)`, of the density that its `distortion` is of; choosing: its
    temperature, top_k and top_p.

    Raises:
        InputError: one that has none, or a distortion of its own and the draws of the likelihood that
            it is derived from.
    """
    ancestors = type(likelihood).__mro__
    by = next((each for each in ancestors if "sample" in vars(each)), None)
    own, *others = (each for each in ancestors if "distortion" in vars(each))
    below = by is not None and own is not by and issubclass(own, by)
    if by is None or (below and any(issubclass(o, by) or issubclass(by, o) for o in others)):
        has = f"would draw as {others[0].__name__} does" if by else "has no sample"
        raise InputError(
            f"model.likelihood is {type(likelihood).__name__}, which has a distortion of its own and"
            f" {has}: expected a sample of its own; add one, or ask for no draws of x"
        )
    return likelihood.sample(output, key, index, *choosing)


def normal_distortion(mean: Tensor, x: Tensor, log_var: Tensor) -> Tensor:
    """-log N(x; mean, exp(log_var) I), `(B, *event)`, `(B, *event)`, `()` to `(B,)`."""
    squares = (x - _wide(mean)).square().flatten(1)
    return 0.5 * (squares.sum(1) * (-log_var).exp() + squares.shape[1] * (LOG_2PI + log_var))


def log_normaliser(logit: Tensor) -> Tensor:
    """log C of the continuous Bernoulli, elementwise: C = 2 atanh(1 - 2p) / (1 - 2p) = logit /
    tanh(logit / 2).

    Loaiza-Ganem & Cunningham 2019 (arXiv 1907.06845), eq. 8. Even in the logit. About p = 1/2 the
    quotient is 0/0: there its series log 2 + l^2/12 - 7 l^4/1440, whose next term, 31 l^6/90720, is
    below 5e-7 at the |l| = 1/3 where they meet.
    """
    size = logit.abs()
    near = size < 1 / 3
    safe = torch.where(
        near, torch.ones_like(size), size
    )  # keeps NaN out of the gradient of the branch not taken
    square = torch.where(near, logit, torch.zeros_like(logit)).square()
    series = math.log(2) + square / 12 - 7 * square.square() / 1440
    return torch.where(near, series, safe.log() - (safe / 2).tanh().log())


def _check_unit_interval(name: str, x: Tensor) -> None:
    check_finite(x)
    if x.min() < 0 or x.max() > 1:
        raise InputError(
            f"model/likelihood={name} takes x in [0, 1] but the data lie in [{x.min():.3g},"
            f" {x.max():.3g}]: use model/likelihood=normal"
        )


class Bernoulli(nn.Module):
    """Pixels that are 0 or 1; the output is the logit."""

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        return bernoulli_distortion(output, x)

    def mean(self, output: Tensor) -> Tensor:
        return output.sigmoid()

    def sample(
        self,
        output: Tensor,
        key: int,
        index: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Zeros and ones, `(B, *event)`."""
        return _bits(output, key, index, temperature, top_k, top_p)

    def check(self, x: Tensor) -> None:
        other = (x != 0) & (x != 1)
        if bool(other.any()):  # to index by none of them takes as long as a small encoder
            check_finite(x)
            raise InputError(
                "model/likelihood=bernoulli takes x that is 0 or 1 but the data hold"
                f" {x[other][0]:.3g}: use cross_entropy or"
                " continuous_bernoulli for grey levels, or normal"
            )


class CrossEntropy(nn.Module):
    """Grey levels in [0, 1] under the Bernoulli formula: the common loss on MNIST, and no
    log-density of them.

    It is the expectation of the Bernoulli distortion over pixels binarised with probability x, so
    its least value is the pixels' own entropy, not 0.
    """

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        return bernoulli_distortion(output, x)

    def mean(self, output: Tensor) -> Tensor:
        return output.sigmoid()

    def sample(
        self,
        output: Tensor,
        key: int,
        index: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Zeros and ones, `(B, *event)`, the pixels that the formula is of."""
        return _bits(output, key, index, temperature, top_k, top_p)

    def check(self, x: Tensor) -> None:
        _check_unit_interval("cross_entropy", x)


class ContinuousBernoulli(nn.Module):
    """A density on [0, 1]: p^x (1-p)^(1-x) C(p), with its normaliser (Loaiza-Ganem & Cunningham
    2019, eq. 6-8).
    """

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        return bernoulli_distortion(output, x) - log_normaliser(_wide(output)).flatten(1).sum(1)

    def mean(self, output: Tensor) -> Tensor:
        """1 / (1 - exp(-l)) - 1 / l for logit l (eq. 9), by its series 1/2 + l/12 - l^3/720 about
        0; 1/2 and an odd part.
        """
        logit = _wide(output)
        size = logit.abs()
        near = size < 1 / 3
        safe = torch.where(near, torch.ones_like(size), size)
        small = torch.where(near, size, torch.zeros_like(size))
        odd = torch.where(
            near, small / 12 - small**3 / 720, 0.5 + 1 / torch.expm1(safe.clamp(max=80)) - 1 / safe
        )
        return 0.5 + odd * logit.sign()

    def sample(
        self,
        output: Tensor,
        key: int,
        index: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Grey levels, `(B, *event)`, by the inverse of log(1 + u (e^l - 1)) / l for logit l."""
        check_choosing(temperature, top_k, top_p, None)
        logit = (_wide(output) / temperature).double()
        u = uniform(key, index, tuple(output.shape[1:]), torch.float64)
        size = logit.abs().clamp(min=1e-4, max=700)
        # of |l|, from the side where exp(-|l|) is small; 1 - x has the logit -l
        low = -torch.log1p(u * torch.expm1(-size)) / size
        drawn = torch.where(logit > 0, 1 - low, low)
        return torch.where(logit.abs() < 1e-4, u, drawn).clamp(0, 1).to(output.dtype)

    def check(self, x: Tensor) -> None:
        _check_unit_interval("continuous_bernoulli", x)


class _AboutOutput(nn.Module):
    """The common part of the normal likelihoods: the output is the mean, and any finite x will do.
    Abstract.
    """

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
        """The output and noise of the likelihood's variance, times the temperature."""
        check_choosing(temperature, top_k, top_p, None)
        log_var = self.log_scale() + math.log(temperature)
        noise = normal(key, index, tuple(output.shape[1:])).to(output)
        return output + (0.5 * log_var).exp().to(output) * noise

    def log_scale(self) -> Tensor:
        """The logarithm of the variance, `()`."""
        log_var: Tensor = cast(Any, self).log_var
        return log_var

    def check(self, x: Tensor) -> None:
        check_finite(x)


class Normal(_AboutOutput):
    """N(output, variance I) with a fixed `variance`."""

    log_var: Tensor

    def __init__(self, variance: float = 1.0) -> None:
        super().__init__()
        check_number("variance", variance, low=1e-8)
        self.register_buffer("log_var", torch.tensor(math.log(variance)), persistent=False)

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        return normal_distortion(output, x, self.log_var)


class LearnedNormal(_AboutOutput):
    """N(output, variance I) with one variance for all pixels, learned by gradient from
    `variance`.
    """

    def __init__(self, variance: float = 1.0) -> None:
        super().__init__()
        check_number("variance", variance, low=1e-8, high=1e8)
        self.raw_log_var = nn.Parameter(
            LOG_VAR_BOUND * torch.atanh(torch.tensor(math.log(variance) / LOG_VAR_BOUND))
        )

    @property
    def log_var(self) -> Tensor:
        """`()`, bounded as in `family.gaussian.bounded`."""
        return LOG_VAR_BOUND * torch.tanh(self.raw_log_var / LOG_VAR_BOUND)

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        return normal_distortion(output, x, self.log_var)


class OptimalNormal(_AboutOutput):
    """N(output, variance I) with the variance that is best for the data: their mean squared error.

    Rybkin et al. 2021 (arXiv 2006.13202), eq. 5-6. In training it is the error of the minibatch
    over all ranks. It minimises the mean distortion, so no gradient flows through it and none is
    lost. In evaluation it is the running mean over the last hundred or so training batches: a bound
    must not be told the variance by the example it bounds.
    """

    MINIMUM = math.exp(-12)
    """A standard deviation of exp(-6), the floor that the authors use: below a half grey level of
    8-bit images.
    """

    variance: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        check_number("decay", decay, low=0, high=1)
        self.decay = decay
        self.register_buffer(
            "variance", torch.tensor(math.nan)
        )  # NaN until the first batch is seen

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        error = (x - _wide(output.detach())).square().mean()
        variance = (
            self._running(error)
            if self.training
            else torch.where(self.variance.isnan(), error, self.variance)
        )
        return normal_distortion(output, x, variance.clamp(min=self.MINIMUM).log())

    def log_scale(self) -> Tensor:
        """The logarithm of the running variance, `()`; of 1 before there is one."""
        known = torch.where(self.variance.isnan(), torch.ones_like(self.variance), self.variance)
        return known.clamp(min=self.MINIMUM).log()

    def _running(self, error: Tensor) -> Tensor:
        if (ranks := world()[1]) > 1:
            distributed.all_reduce(error)
            error = error / ranks
        mixed = self.decay * self.variance + (1 - self.decay) * error
        self.variance.copy_(torch.where(self.variance.isnan(), error, mixed))
        return error


def _bits(
    output: Tensor,
    key: int,
    index: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> Tensor:
    """Zeros and ones of logits, `(B, *event)`."""
    logit = _wide(output)
    p = chance_of_one(logit, temperature, top_k, top_p)
    return (uniform(key, index, tuple(output.shape[1:])).to(p) < p).to(p)


def _wide(logit: Tensor) -> Tensor:
    """In float32 at least: a float64 run keeps its digits."""
    return logit.to(torch.promote_types(logit.dtype, torch.float32))


def check_finite(x: Tensor) -> None:
    """Refuse observations with NaN or infinite numbers."""
    if not x.isfinite().all():
        raise InputError(
            "the data hold NaN or infinite numbers: expected finite ones; remove or mend those"
            " examples"
        )
