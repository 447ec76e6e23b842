"""p(z) = sum_k weight_k N(z; mean_k, diag var_k), by variational Bayes on the encoder's distributions:
components that the latents do not need switch off, which is how many clusters they have.

The E-step is that of `mixture_prior`, with expected coefficients (`family.believed`), the M-step adds
the moments of so many `points` to a conjugate prior; from running averages of moments it is stochastic
variational inference, a step along the natural gradient (Hoffman et al. 2013, eq. 22-26).
"""

from typing import Any

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_count, check_float32
from jensen.bound.rate import diagonal_components, responsibilities
from jensen.em.variational import Belief, Shares, expected
from jensen.family.believed import DiagonalBelief
from jensen.family.family import Posterior, marginals
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture
from jensen.family.moments import TINY, Moments
from jensen.model.mixture_prior import LearnedPrior
from jensen.model.online_mixture import OnlineMixture, average, gathered, mean_moments

_LEAST = 1e-12
"""The least variance at the start; afterwards the prior holds variances up."""


class BelievedMixture(OnlineMixture):
    """A belief of a mixture of K diagonal Gaussians, and how minibatches of posteriors `(B, D)`
    change it.

    Up to step `warmup` it is N(0, I); it starts, and its step size falls, as a `LearnedMixture`'s, but
    with narrower components.

    Two components that share a cluster come apart by nothing, and starve one another slowly: by about
    the inverse of its points a step. So after each step one of the components, in turn, is offered to
    each of the heavier ones, and joins the one with which the elbo gains most, if it gains (Hughes & Sudderth
    2013, "Memoized online variational inference for Dirichlet process mixture models"): the change at
    these responsibilities is closed form, with the entropies of this minibatch. None does in the first
    `settle` steps after the start, when all lie across one another. What gains is a matter of the bound
    `divergence`, so two clusters closer than about three of their deviations are one.

    Args:
        shape: `(K, D)`.
        points: how many points the moments of all data count for, against the prior.
        concentration: of the Dirichlet of weights.
        mean_count: how many points it counts that means are about 0.
        df: how many points it counts that variances are about `variance`.
        settle: steps before components join.
        warmup, power, delay, forget: see `LearnedMixture`.
    """

    told_by_buffers = (
        *("points", "concentration", "mean_count_before", "df", "variance", "settle"),
        *("warmup", "power", "delay", "forget"),
    )
    mean: Tensor
    mean_count: Tensor
    shape_: Tensor
    rate: Tensor
    worth: Tensor
    prior_concentration: Tensor
    prior_count: Tensor
    prior_df: Tensor
    prior_variance: Tensor
    first_merge: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        points: float = 10_000,
        concentration: float = 0.01,
        mean_count: float = 0.1,
        df: float = 2.0,
        variance: float = 1.0,
        settle: int = 200,
        warmup: int = 200,
        power: float = 0.6,
        delay: float = 20.0,
        forget: float = 0.01,
    ) -> None:
        numbers = {
            "points": points,
            "concentration": concentration,
            "mean_count": mean_count,
            "df": df,
            "variance": variance,
        }
        for name, value in numbers.items():
            check_float32(name, value, low=0)
            if not value > 0:
                raise InputError(f"{name} is {value!r}: expected a number above 0")
        check_count("settle", settle, least=0)
        super().__init__(shape, warmup, _LEAST, power, delay, forget)
        self.points = points
        self.concentration = concentration
        self.mean_count_before = mean_count
        self.df = df
        self.variance = variance
        self.settle = settle
        self._hold(
            worth=points,
            prior_concentration=concentration,
            prior_count=mean_count,
            prior_df=df,
            prior_variance=variance,
            first_merge=warmup + settle,
        )
        share = points / shape[0]
        each = torch.full(shape[:1], 0.5 * (df + share), dtype=torch.float64)
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("mean_count", torch.full_like(each, mean_count + share))
        self.register_buffer("shape_", each)
        self.register_buffer("rate", each.unsqueeze(-1).expand(shape).clone())

    @property
    def prior(self) -> Belief:
        """The belief beforehand."""
        count, dim = self.shape
        each = torch.ones_like(self.mean_count)
        half = 0.5 * self.prior_df * each
        rate = (half * self.prior_variance).unsqueeze(-1).expand(count, dim)
        before = DiagonalBelief(torch.zeros_like(self.mean), self.prior_count * each, half, rate)
        return Belief(Shares(self.prior_concentration * each), before)

    @property
    def state(self) -> Mixture:
        """The posterior as an E-step takes it: E log weight, and components of beliefs."""
        prior = self.prior
        components: Any = self.belief
        return Mixture(prior.log_weight(prior.counts(components)), components)

    @property
    def belief(self) -> DiagonalBelief:
        """The belief of the components."""
        return DiagonalBelief(self.mean, self.mean_count, self.shape_, self.rate)

    def mixture(self) -> Mixture:
        """The mixture at the posterior means of weights, means and precisions, float64."""
        prior = self.prior
        weights = prior.weights.updated(self.mean_count - prior.components.mean_count)
        log_var = self.rate.log() - self.shape_.log().unsqueeze(-1)
        # a copy: update changes all state between a loss and its gradient
        return Mixture(weights.mean().log(), Gaussian(self.mean.clone(), log_var))

    @torch.no_grad()
    def update(self, posterior: Gaussian, step: Tensor) -> None:
        """Learn from the whole minibatch, `(B, D)` in float64, after the loss of `step`."""
        p = self.state
        prior = self.prior
        mixture = expected(p)
        r = responsibilities(posterior, mixture)
        now = mean_moments(posterior, diagonal_components(mixture), r)
        now = Moments(now.origin, *(self.worth * part for part in now[1:]))
        seen = average(moments_of(self.belief, prior, now.origin), now, self._size(step))
        join = step >= self.first_merge
        seen = merged(seen, r, prior, step % self.shape[0], join)
        start = self._start(posterior, self._rows(posterior, step), step, self.shape[1])
        start = as_wide_as_apart(start, posterior)
        begun = moments_of_start(start, self.worth)
        fresh, moved = (self.belief.maximise(each, prior) for each in (begun, seen))
        self._take(self.belief, fresh, moved, step)


def as_wide_as_apart(start: Mixture, posterior: Gaussian) -> Mixture:
    """The start with components of one width in all dimensions: half of what, in the median, lies
    between one and the next, which of two points of a cluster is its own variance.

    Widths in proportion to the whole's would be wrong where clusters lie along one direction: too wide
    there to tell them apart, and too narrow elsewhere. Those that lie across one another in many
    dimensions starve one another before they have found their clusters.
    """
    mean, _ = diagonal_components(start)
    square = (mean.unsqueeze(1) - mean).square().sum(-1)
    itself = torch.eye(len(mean), dtype=torch.bool, device=mean.device)
    near = square.masked_fill(itself, torch.inf).amin(1).median() / (2 * mean.shape[1])
    noise = posterior.log_var.exp().mean(0)
    whole = posterior.mean.var(0, correction=0) + noise
    variance = torch.minimum(torch.maximum(near.to(noise), noise), whole).clamp(min=_LEAST)
    return start._replace(components=Gaussian(mean, variance.log().expand(mean.shape)))


def moments_of(q: DiagonalBelief, prior: Belief, origin: Tensor) -> Moments:
    """The moments about `origin` `(1, D)` that made `q` of the prior."""
    old: DiagonalBelief = prior.components
    before, after = ((each.mean - origin) for each in (old, q))
    counts = [each.mean_count.unsqueeze(-1) for each in (old, q)]
    squares = counts[1] * after.square() - counts[0] * before.square()
    return Moments(
        origin,
        prior.counts(q),
        counts[1] * after - counts[0] * before,
        2 * (q.rate - old.rate) + squares,
    )


def moments_of_start(p: Mixture, points: Tensor) -> Moments:
    """The moments about 0 of so many `points` that are spread as the mixture says."""
    mean, log_var = diagonal_components(p)
    total = points * p.log_weight.exp()
    weight = total.unsqueeze(-1)
    origin = torch.zeros_like(mean[:1])
    return Moments(origin, total, weight * mean, weight * (mean.square() + log_var.exp()))


def merged(m: Moments, r: Tensor, prior: Belief, offered: Tensor, join: Tensor) -> Moments:
    """The moments `(K, ...)` with those of the component `offered` `()` added to the heavier one with
    which the elbo gains most, and none of its own; as they are, where it gains with none, or not `join`
    `()`.

    r: the responsibilities of a minibatch, `(B, K)`, whose entropies stand for those of all points.
    """
    place = torch.arange(m.total.shape[0], device=m.total.device)
    one = Moments(m.origin, *(part.index_select(0, offered.reshape(1)) for part in m[1:]))
    both = Moments(m.origin, *(part + own for part, own in zip(m[1:], one[1:], strict=True)))
    none = Moments(m.origin, *(torch.zeros_like(part) for part in one[1:]))
    gain = evidence(both, prior) + evidence(none, prior) - evidence(m, prior) - evidence(one, prior)
    own = r.index_select(1, offered.reshape(1))
    mixed, apart, alone = (-torch.xlogy(each, each).sum(0) for each in (r + own, r, own))
    # a point's, times the points there are by the moments, not by this minibatch
    share = both.total / (r + own).sum(0).clamp(min=TINY)
    gain = gain + share * (mixed - apart - alone)
    lighter = (m.total < one.total) | (place == offered)
    gain = gain.masked_fill(lighter, -torch.inf)
    best = gain.argmax()
    gains = join & (gain.index_select(0, best.reshape(1)) > 0)
    into = gains & (place == best)
    out = gains & (place == offered)

    def moved(part: Tensor, own: Tensor) -> Tensor:
        shape = [-1] + [1] * (part.dim() - 1)
        part = torch.where(into.reshape(shape), part + own, part)
        return part.masked_fill(out.reshape(shape), 0.0)

    return Moments(m.origin, *(moved(*each) for each in zip(m[1:], one[1:], strict=True)))


def evidence(m: Moments, prior: Belief) -> Tensor:
    """The part of the elbo, at given responsibilities, that a component with the moments `(..., D)`
    has, `(...)`, nats, up to what is linear in them: its log-normaliser and the weights' share.
    """
    old = prior.components
    first = DiagonalBelief(*(part[:1] for part in old))
    q = first.maximise(m, prior._replace(components=first))
    each = torch.lgamma(q.shape) - 0.5 * q.mean_count.log()
    dim = m.first.shape[-1]
    shares = torch.lgamma(prior.weights.concentration[:1] + m.total)
    return dim * each - q.shape * q.rate.log().sum(-1) + shares


class BayesianMixturePrior(LearnedPrior):
    """A mixture of up to K diagonal Gaussians over all D latents, by variational Bayes; the rate is the
    bound `divergence` from the mixture at the posterior means.

    Args:
        components: K, the most there can be.
        latent_dim: D.
        learning: see `BelievedMixture`.
    """

    learned: BelievedMixture

    def __init__(self, components: int, latent_dim: int, **learning: Any) -> None:
        super().__init__(BelievedMixture((components, latent_dim), **learning))
        self.latent_dim = latent_dim

    def update(self, posterior: Posterior, step: Tensor) -> None:
        own = marginals(posterior, "model/prior=bayesian_mixture")
        self.learned.update(gathered(own), step)

    def distribution(self) -> Mixture:
        return self.learned.mixture()
