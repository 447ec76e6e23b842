"""Causal inference of cues: one cause for all of them, or one each, as an exact mixture.

Koerding et al. 2007 ("Causal inference in multisensory perception", PLoS ONE 2, e943), eq. 1-4 and
9-12. All densities are in nats; a cue that is absent is NaN.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_count, check_number
from jensen.family.cue_checks import check_log_prior, check_spread, check_tensors, listed
from jensen.family.full import FullGaussian
from jensen.family.gaussian import LOG_2PI, Gaussian
from jensen.family.mixture import Mixture


class Inferred(NamedTuple):
    """The causes of N observations, as far as these tell.

    common: `(N,)`, p(one cause | x).
    log_prob: `(N,)`, log p(x) of the cues that are there, nats.
    fused: `(N,)`, the source if there is one cause.
    alone: `(N, M)`, the source of each cue if it has its own; of an absent cue, the prior.
    apart: `(N,)`, p(one cause each | x), 1 - common, and exact also where it is below rounding.
    """

    common: Tensor
    log_prob: Tensor
    fused: Gaussian
    alone: Gaussian
    apart: Tensor

    @property
    def averaged(self) -> Gaussian:
        """Mean and variance of each cue's source over both causes, `(N, M)` (eq. 4: model
        averaging).
        """
        weight, rest = self.common.unsqueeze(1), self.apart.unsqueeze(1)
        one, each = self.fused.mean.unsqueeze(1), self.alone.mean
        within = weight * self.fused.log_var.exp().unsqueeze(1)
        within = within + rest * self.alone.log_var.exp()
        between = weight * rest * (one - each).square()
        return Gaussian(weight * one + rest * each, (within + between).log())

    @property
    def selected(self) -> Tensor:
        """The mean under the likelier cause, `(N, M)`: model selection."""
        one = self.fused.mean.unsqueeze(1)
        return torch.where(self.common.unsqueeze(1) > 0.5, one, self.alone.mean)

    def matched(self, chance: Tensor) -> Tensor:
        """The mean under a cause that is drawn with its probability, `(N, M)`: probability
        matching.

        Args:
            chance: `(N,)` uniform draws in [0, 1).
        """
        one = self.fused.mean.unsqueeze(1)
        return torch.where((chance < self.common).unsqueeze(1), one, self.alone.mean)


class Fit(NamedTuple):
    """The fitted cues, and the log-likelihood `(steps + 1,)` before each step and at the end,
    summed over observations, nats.
    """

    cues: "Cues"
    log_likelihood: Tensor
    converged: bool


class Cues(NamedTuple):
    """M cues x_m = s_m + N(0, noise_var_m) of sources s ~ N(prior_mean, prior_var): with
    probability `common` one source for all of them, else one each.

    common, prior_mean, prior_var: `()`. noise_var: `(M,)`.

    >>> cues = Cues.of(0.28, [2.14**2, 9.2**2], 0.0, 12.3**2)
    >>> found = cues.infer(torch.tensor([[5.0, 0.0]], dtype=torch.float64))
    >>> round(found.common.item(), 6), round(found.averaged.mean[0, 1].item(), 6)
    (0.356708, 1.64476)
    """

    common: Tensor
    noise_var: Tensor
    prior_mean: Tensor
    prior_var: Tensor

    @classmethod
    def of(
        cls,
        common: float,
        noise_var: list[float] | tuple[float, ...],
        prior_mean: float = 0.0,
        prior_var: float = 1.0,
    ) -> "Cues":
        """Cues of plain numbers, in float64.

        Raises:
            InputError: a variance that is not above 0, a probability outside [0, 1].
        """
        numbers = (common, listed("noise_var", noise_var), prior_mean, prior_var)
        check_number("common", common, low=0, high=1)
        check_number("prior_mean", prior_mean)
        for value in numbers[1]:
            check_spread("noise_var", value)
        check_spread("prior_var", prior_var)
        return cls(*(torch.tensor(each, dtype=torch.float64) for each in numbers))

    def mixture(self) -> Mixture:
        """p(x) of complete observations `(N, M)`, a mixture of two full Gaussians: one cause, and
        one each.
        """
        self._check()
        each = (self.noise_var + self.prior_var).sqrt().diag()
        factor = torch.stack([self._factor(), each])
        mean = self.prior_mean.expand(2, len(self.noise_var))
        weight = torch.stack([self.common, 1 - self.common])
        return Mixture(weight.log(), FullGaussian(mean, factor))

    def _factor(self) -> Tensor:
        """The Cholesky factor of diag(noise_var) + prior_var 11', `(M, M)`, from the variance of the
        one source given the cues before each: it exists however small noise is beside the prior.
        """
        told = torch.stack([self.prior_var, *self.noise_var[:-1]]).reciprocal().cumsum(0)
        left = 1 / told
        deviation = (self.noise_var + left).sqrt()
        return (left / deviation).expand(len(left), -1).tril(-1) + deviation.diag()

    def one_gaussian(self, x: Tensor) -> Gaussian:
        """The sources of `x` `(N, M)` by the single Gaussian that is nearest to the joint of sources
        and cues: mean and variance `(N, M)`.

        Its mean is linear in x, so that a sound is drawn to what is seen in proportion to how far
        off that is, however far: one Gaussian cannot doubt that they have one cause, as `infer` does.
        """
        return linear(
            self._checked(x), self.common, self.prior_mean, self.prior_var, self.noise_var
        )

    def infer(self, x: Tensor) -> Inferred:
        """The posterior of cause and sources, from `x` `(N, M)` with NaN for absent cues.

        Raises:
            InputError: observations of another number of cues, or infinite ones; cues whose numbers
                are no variances or no chance.
        """
        return self._infer(self._checked(x))

    def _infer(self, x: Tensor) -> Inferred:
        """The same of observations that are checked."""
        present = ~x.isnan()
        from_mean = torch.where(present, x - self.prior_mean, 0.0)
        precision = torch.where(present, 1 / self.noise_var, 0.0)
        log_noise = torch.where(present, self.noise_var.log(), 0.0)
        # log N of the cues with one source: the determinant and the inverse of diag + prior 1 1'
        total = 1 / self.prior_var + precision.sum(1)
        pull = (precision * from_mean).sum(1)
        fused = pull / total
        squares = (precision * (from_mean - fused.unsqueeze(1)).square()).sum(1)
        squares = squares + fused.square() / self.prior_var
        log_det = log_noise.sum(1) + total.log() + self.prior_var.log()
        count = present.sum(1).to(x)
        log_one = -0.5 * (count * LOG_2PI + log_det + squares)
        spread = self.noise_var + self.prior_var
        each = from_mean.square() / spread + spread.log() + LOG_2PI
        log_each = -0.5 * torch.where(present, each, 0.0).sum(1)
        joint = torch.stack([self.common.log() + log_one, torch.log1p(-self.common) + log_each])
        log_prob = joint.logsumexp(0)
        alone = 1 / self.prior_var + precision
        return Inferred(
            (joint[0] - log_prob).exp(),
            log_prob,
            Gaussian(self.prior_mean + fused, -total.log()),
            Gaussian(self.prior_mean + precision * from_mean / alone, -alone.log()),
            (joint[1] - log_prob).exp(),
        )

    def em_step(self, x: Tensor) -> "Cues":
        """The cues after a step of EM on `x` `(N, M)`, whose log p is no less: causes and sources
        are hidden, `prior_mean` is held.

        The maximum is in closed form: noise_var_m the mean of E (x_m - s_m)^2 over the observations
        that have cue m, prior_var the sum of E (s - prior_mean)^2 over sources divided by their
        expected number, common the mean of p(one cause | x). Sources of absent cues are not counted.
        """
        return self._em_step(self._checked(x))

    def _em_step(self, x: Tensor) -> "Cues":
        """The same of observations that are checked."""
        found = self._infer(x)
        present = (~x.isnan()).to(x)
        seen = x.nan_to_num(0.0)
        one, each = found.common.unsqueeze(1), found.apart.unsqueeze(1)
        fused_var = found.fused.log_var.exp()
        alone_var = found.alone.log_var.exp()
        error_one = (seen - found.fused.mean.unsqueeze(1)).square() + fused_var.unsqueeze(1)
        error_each = (seen - found.alone.mean).square() + alone_var
        error = (present * (one * error_one + each * error_each)).sum(0)
        counted = present.sum(0)
        source_one = (found.fused.mean - self.prior_mean).square() + fused_var
        source_each = (found.alone.mean - self.prior_mean).square() + alone_var
        total = (found.common * source_one).sum() + (each * present * source_each).sum()
        sources = found.common.sum() + (each * present).sum()
        return Cues(
            found.common.mean(),
            torch.where(counted > 0, error / counted.clamp(min=1), self.noise_var),
            self.prior_mean,
            total / sources,
        )

    def fit(self, x: Tensor, max_iter: int = 10_000, tolerance: float = 1e-12) -> Fit:
        """The maximum of log p(x) that EM finds from here; it ends once a step gains less than
        `tolerance` of it.

        Data may be best described by a cue without noise, a variance of 0 at the edge of what it
        can be. EM goes there ever more slowly; so does this, and says that it has not converged.

        Raises:
            InputError: observations of another number of cues, infinite ones, or none.
        """
        check_count("max_iter", max_iter, least=0)
        check_number("tolerance", tolerance, low=0)
        x = self._checked(x)
        if not bool((~x.isnan()).any()):
            raise InputError("x has no cue at all: expected one at least; give observations")
        cues = self
        history = [cues._infer(x).log_prob.sum()]
        converged = False
        while len(history) <= max_iter and not converged:
            step = cues._em_step(x)
            value = step._infer(x).log_prob.sum()
            if not bool(value >= history[-1] - 1e-9 * value.abs()):
                break  # by rounding, where a variance nears 0
            cues = step
            converged = bool((value - history[-1]).abs() <= tolerance * value.abs())
            history.append(value)
        return Fit(cues, torch.stack(history), converged)

    def _check(self) -> None:
        """Refuse numbers that are no chance and no variances."""
        check_tensors(self, "Cues.of")
        check_number("common", self.common.item(), low=0, high=1)
        check_number("prior_mean", self.prior_mean.item())
        for value in self.noise_var.tolist():
            check_spread("noise_var", value)
        check_spread("prior_var", self.prior_var.item())

    def _checked(self, x: Tensor) -> Tensor:
        """`x` in the precision of the cues."""
        self._check()
        count = len(self.noise_var)
        if not isinstance(x, Tensor):
            raise InputError(
                f"x is a {type(x).__name__}: expected a tensor (N, {count}); use torch.tensor(x)"
            )
        if x.dim() != 2 or x.shape[1] != count:
            raise InputError(
                f"x has the shape {list(x.shape)}: expected (N, {count}), a column for each cue"
            )
        if bool(x.isinf().any()):
            raise InputError("x holds infinite numbers: expected finite ones, and NaN for absent")
        return x.to(self.noise_var)


def mixture(c: Cues) -> Mixture:
    """`c.mixture()`."""
    return c.mixture()


def infer(x: Tensor, c: Cues) -> Inferred:
    """`c.infer(x)`: the posterior of cause and sources, from `x` `(N, M)` with NaN for absent cues.

    >>> found = infer(torch.tensor([[5.0, 0.0]]), Cues.of(0.28, [2.14**2, 9.2**2], 0.0, 12.3**2))
    >>> found.common.shape, found.selected.shape
    (torch.Size([1]), torch.Size([1, 2]))
    """
    return c.infer(x)


def em_step(x: Tensor, c: Cues) -> Cues:
    """`c.em_step(x)`: the cues after a step of EM on `x` `(N, M)`."""
    return c.em_step(x)


def fit(x: Tensor, c: Cues, max_iter: int = 10_000, tolerance: float = 1e-12) -> Fit:
    """`c.fit(x)`: the maximum of log p(x) that EM finds from `c`."""
    return c.fit(x, max_iter, tolerance)


class Counted(NamedTuple):
    """Counts on a grid of C integers, as far as N observations tell.

    common: `(N,)`, p(one cause | x). log_prob: `(N,)`, nats.
    source: `(N, M, C)`, p(s_m | x) of each cue's own count, over both causes.
    """

    common: Tensor
    log_prob: Tensor
    source: Tensor

    def mean(self) -> Tensor:
        """The posterior mean of each count, `(N, M)`."""
        return self.source @ torch.arange(self.source.shape[-1]).to(self.source)

    def likeliest(self) -> Tensor:
        """The count with the most probability, `(N, M)` int64."""
        return self.source.argmax(-1)


class CountCues(NamedTuple):
    """M cues x_m = n_m + N(0, noise_sd_m^2) of counts n = 0..C - 1 with probabilities
    exp(log_prior): with probability `common` one count for all of them, else one each (Shams et al.
    2005, "Sound-induced flash illusion as an optimal percept").

    common: `()`. noise_sd: `(M,)`. log_prior: `(C,)`.

    >>> flashes = CountCues.of(0.5, [0.8, 0.3], 5)
    >>> found = flashes.infer(torch.tensor([[1.0, 2.0]], dtype=torch.float64))  # a flash, two beeps
    >>> found.likeliest()[0, 0].item()
    2
    """

    common: Tensor
    noise_sd: Tensor
    log_prior: Tensor

    @classmethod
    def of(
        cls, common: float, noise_sd: list[float] | tuple[float, ...], counts: int
    ) -> "CountCues":
        """Cues of plain numbers, in float64, with all counts 0..counts - 1 alike.

        Raises:
            InputError: a deviation that is not above 0, a probability outside [0, 1].
        """
        check_number("common", common, low=0, high=1)
        check_count("counts", counts, least=2)
        for each in listed("noise_sd", noise_sd):
            check_spread("noise_sd", each)
        prior = torch.full((counts,), 1 / counts, dtype=torch.float64).log()
        one = torch.tensor(common, dtype=torch.float64)
        return cls(one, torch.tensor([*noise_sd], dtype=torch.float64), prior)

    def one_gaussian(self, x: Tensor) -> Gaussian:
        """The counts by the single Gaussian that is nearest to the joint of counts and cues, `(N, M)`
        (`Cues.one_gaussian`).
        """
        grid = torch.arange(len(self.log_prior)).to(self.noise_sd)
        weight = self.log_prior.softmax(0)
        mean = weight @ grid
        variance = weight @ (grid - mean).square()
        return linear(self._checked(x), self.common, mean, variance, self.noise_sd.square())

    def infer(self, x: Tensor) -> Counted:
        """The posterior of cause and counts, from `x` `(N, M)` with NaN for absent cues.

        Raises:
            InputError: observations of another number of cues, or infinite ones.
        """
        x = self._checked(x).unsqueeze(-1)
        grid = torch.arange(len(self.log_prior)).to(self.noise_sd)
        deviation = self.noise_sd.unsqueeze(-1)
        each = -0.5 * (((x - grid) / deviation).square() + LOG_2PI) - deviation.log()
        each = each.masked_fill(x.isnan(), 0.0)  # (N, M, C), log p(x_m | n)
        one = self.log_prior + each.sum(1)
        own = self.log_prior + each
        log_one = self.common.log() + one.logsumexp(-1)
        log_each = torch.log1p(-self.common) + own.logsumexp(-1).sum(1)
        log_prob = torch.logaddexp(log_one, log_each)
        common = (log_one - log_prob).exp()
        weight = common.reshape(-1, 1, 1)
        source = weight * one.softmax(-1).unsqueeze(1) + (1 - weight) * own.softmax(-1)
        return Counted(common, log_prob, source)

    def reports(self, shown: Tensor, cells: int = 401, width: float = 6.0) -> Tensor:
        """p(report | shown): the distribution over noise of the likeliest count of the first of two
        cues, `(N, 2)` to `(N, C)`, on a grid of `cells` in each that reaches `width` deviations.

        NaN for a cue that is not given.
        """
        check_count("cells", cells, least=3)
        if (count := len(self.noise_sd)) != 2:
            raise InputError(
                f"noise_sd has {count} cues: expected 2, of whose noise the grid is; leave out the"
                " others"
            )
        self._checked(shown)
        step = torch.linspace(-width, width, cells, dtype=self.noise_sd.dtype)
        weight = torch.softmax(-0.5 * step.square(), 0)
        first, second = (part.flatten() for part in torch.meshgrid(step, step, indexing="ij"))
        scatter = torch.stack([first, second], 1) * self.noise_sd
        mass = (weight.unsqueeze(1) * weight).flatten()
        counts = len(self.log_prior)
        found = []
        for row in shown.to(scatter):
            report = self.infer(row + scatter).likeliest()[:, 0]
            found.append(torch.zeros(counts).to(mass).index_add(0, report, mass))
        return torch.stack(found)

    def _checked(self, x: Tensor) -> Tensor:
        """`x` in the precision of the cues."""
        check_tensors(self, "CountCues.of")
        check_number("common", self.common.item(), low=0, high=1)
        for value in self.noise_sd.tolist():
            check_spread("noise_sd", value)
        check_log_prior(self.log_prior)
        count = len(self.noise_sd)
        if (
            not isinstance(x, Tensor)
            or x.dim() != 2
            or x.shape[1] != count
            or bool(x.isinf().any())
        ):
            raise InputError(
                f"x has the shape {[*getattr(x, 'shape', ())]}: expected (N, {count}) of finite numbers, and NaN"
                " for absent cues"
            )
        return x.to(self.noise_sd)


def linear(
    x: Tensor, common: Tensor, prior_mean: Tensor, prior_var: Tensor, noise_var: Tensor
) -> Gaussian:
    """Sources given cues `x` `(N, M)`, NaN where absent, of the Gaussian with the mean and the
    covariance of both: the one with the least KL divergence from their joint.

    Two sources have the covariance common prior_var, since with that chance they are one.
    """
    present = ~x.isnan()
    off = torch.where(present, x - prior_mean, 0.0)
    shared, own = common * prior_var, (1 - common) * prior_var
    spread = noise_var + own
    told = torch.where(present, 1 / spread, 0.0)
    # a source is a part of all, N(0, shared), and a part of its own; a cue adds its noise
    left = shared / (1 + shared * told.sum(1, keepdim=True))
    part = left * (told * off).sum(1, keepdim=True)
    taken = torch.where(present, own / spread, 0.0)
    kept = torch.where(present, noise_var / spread, 1.0)
    mean = prior_mean + kept * part + taken * off
    return Gaussian(mean, (own * kept + kept.square() * left).log())
