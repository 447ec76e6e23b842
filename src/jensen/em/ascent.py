"""EM run to convergence: several starts at once, accelerated, every iteration accounted for.

`ascend` needs only the E-step's sums, so it is the same for data in memory, in a file or on several ranks.
"""

import math
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from jensen.em.collapse import on_floor
from jensen.em.local import Local, counts, expected_log_joint, merged, moments, picked
from jensen.em.start import settle
from jensen.em.steps import log_prior, m_step
from jensen.em.stream import Statistics, coefficients
from jensen.family.components import FLAT, Components, Prior, Tied
from jensen.family.mixture import Mixture, mapped

_TRUST = 0.05
"""Of extrapolation (`_reach`). Without it one fit in nine ends lower than plain EM does, with it one in fifty."""

_LOOK = 8
"""Iterations between two looks for components that are lost and starts that have met."""

_MET = 0.05
"""Two starts this close in all parameters (`_reach`) are on their way to one maximum."""

_HOPELESS = 100
"""Steps of the last gain that a start may be behind the best: after more than eight steps few catch up with more."""

Expect = Callable[[Mixture, Tensor, bool], Statistics | Local]
"""The E-step of the whole data set with mixtures `(R, K)` and their `stream.coefficients`, to full precision or roughly."""


_TRIES = 2
"""A component that collapses there once more stays: an outlier, or copies of one point, are what the likelihood wants."""


class Step(NamedTuple):
    """One iteration, nats per example: new parameters, seen with the responsibilities r that they were made from.

    q: E_r log p(x, k), which the M-step maximised.
    entropy: of r.
    bound: q + entropy, the lower bound that touched the previous log-likelihood.
    gap: KL(r || p(k|x)) = log_likelihood - bound.
    log_likelihood: of the new parameters. Under `beta` it is the annealed bound and `q` and `bound` count log-weights and
        entropy `beta` times.
    log_prior: log density of the new parameters up to a constant; log_likelihood + log_prior never falls.
    """

    q: float
    entropy: float
    bound: float
    gap: float
    log_likelihood: float
    log_prior: float


class Reseed(NamedTuple):
    """A component that was started anew: after which iteration, of which start, and why ("empty" or "collapsed")."""

    iteration: int
    start: int
    component: int
    reason: str


class Ascent(NamedTuple):
    """The best of the starts: its parameters `(K,)`, what happened, and why it ended.

    objective: log_likelihood + log_prior, which the best has most of, among those without a component on the floor.
    failure: why a fit could not proceed, and then the parameters are the last good ones; else None.
    """

    mixture: Mixture
    log_likelihood: float
    objective: float
    iterations: int
    converged: bool
    history: list[Step]
    reseeded: list[Reseed]
    failure: str | None


def _column(value: Tensor, like: Tensor) -> Tensor:
    """`(R,)` with as many axes as `like` `(R, ...)`."""
    return value.reshape(-1, *[1] * (like.dim() - 1))


def _choose(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The starts of `a` `(R, ...)` that are `chosen` `(R,)`, the others of `b`."""
    return torch.where(_column(chosen, a), a, b)


def _free(p: Mixture, sigma: Tensor) -> list[Tensor]:
    """The parameters without constraints, means in units of `sigma`: a Cholesky factor by the log of its diagonal."""
    mean, shape = p.components
    if hasattr(p.components, "scale_tril"):
        shape = shape / sigma.unsqueeze(-1)
        shape = shape.tril(-1) + shape.diagonal(dim1=-2, dim2=-1).log().diag_embed()
    return [p.log_weight, mean / sigma, shape]


def _bound(free: list[Tensor], like: Mixture, sigma: Tensor) -> Mixture:
    """The inverse of `_free`."""
    log_weight, mean, shape = free
    structure: Callable[..., Components] = type(like.components)
    if hasattr(like.components, "scale_tril"):
        shape = (shape.tril(-1) + shape.diagonal(dim1=-2, dim2=-1).exp().diag_embed()) * sigma.unsqueeze(-1)
    return Mixture(log_weight.log_softmax(-1), structure(mean * sigma, shape))


def extrapolate(first: Mixture, second: Mixture, third: Mixture, sigma: Tensor, limit: Tensor) -> tuple[Mixture, Tensor]:
    """Where three successive EM iterates `(R, K)` point, and how many steps away, `(R,)`, at most `limit`.

    SQUAREM with step length S3 (Varadhan & Roland 2008, eq. 8-9); at length 1 it is the third iterate. No farther than `_TRUST`
    from the third iterate, within the basin that EM is in: near the maximum, where EM is slow, that is no restriction.
    """
    a, b, c = (_free(p, sigma) for p in (first, second, third))
    step = [y - x for x, y in zip(a, b, strict=True)]
    bend = [(z - y) - s for y, z, s in zip(b, c, step, strict=True)]

    def norm(parts: list[Tensor]) -> Tensor:
        return sum((part.square().flatten(1).sum(1) for part in parts), parts[0].new_zeros(len(parts[0]))).sqrt()

    length = (norm(step) / norm(bend).clamp(min=1e-300)).clamp(min=1).minimum(limit)
    beyond = [2 * _column(length - 1, s) * s + _column(length.square() - 1, v) * v for s, v in zip(step, bend, strict=True)]
    short = (_TRUST / _reach(beyond, third, sigma).clamp(min=_TRUST)).clamp(max=1)
    return _bound([z + _column(short, z) * m for z, m in zip(c, beyond, strict=True)], first, sigma), length


def _reach(move: list[Tensor], p: Mixture, sigma: Tensor) -> Tensor:
    """The farthest a `move` of the free parameters takes one, `(R,)`: in deviations of its component, or as a logarithm."""
    weight, mean, shape = move
    deviation = (0.5 * p.components.marginals().log_var).exp() / sigma
    if not hasattr(p.components, "scale_tril"):
        shape = 0.5 * shape
    else:
        own = deviation if shape.dim() == deviation.dim() + 1 else deviation[:, 0]
        diagonal = shape.diagonal(dim1=-2, dim2=-1)
        shape = shape.tril(-1) / own.unsqueeze(-1) + diagonal.diag_embed()
    parts = (weight, mean / deviation, shape)
    return torch.stack([part.abs().flatten(1).amax(1) for part in parts]).amax(0)


def lost(p: Mixture, s: Statistics | Local, share: float, prior: Prior) -> list[tuple[int, int, str]]:
    """(start, component, reason) of components with a total below `share` or on the covariance floor."""
    empty = counts(s) < share
    found = [(*place, "empty") for place in empty.nonzero().tolist()] if bool(empty.any()) else []
    if (isinstance(prior.floor, float) and prior.floor == 0) or isinstance(p.components, Tied):
        return found
    flat = on_floor(p, prior.floor) & ~empty
    flat &= ~flat.all(-1, keepdim=True)  # all at once is the data's shape, not a component's fate
    return found + [(*place, "collapsed") for place in flat.nonzero().tolist()]


def reseed(p: Mixture, events: list[Reseed], generator: torch.Generator) -> Mixture:
    """Each lost component takes half of the heaviest one of its start, at a point drawn from that."""
    p = mapped(torch.clone, p)
    mean, deviations = p.components.mean, (0.5 * p.components.marginals().log_var).exp()
    for _, start, component, _ in events:
        donor = int(p.log_weight[start].argmax())
        noise = torch.randn(deviations.shape[-1], generator=generator, dtype=torch.float64).to(deviations)
        settle(p, start, component, donor, mean[start, donor] + deviations[start, donor] * noise)
        deviations[start, component] = deviations[start, donor]
    return p._replace(log_weight=p.log_weight.log_softmax(-1))


class _End(NamedTuple):
    """How one start ended.

    upright: no component is on the floor, where its density is as high as the floor is low.
    dropped: another start goes on for it.
    """

    mixture: Mixture
    objective: float
    iterations: int
    upright: bool
    converged: bool = False
    dropped: bool = False
    failure: str | None = None

    @property
    def rank(self) -> tuple[bool, bool, bool, float, bool]:
        """What orders ends, the best last. One that was dropped may be about to collapse, or higher by rounding alone."""
        return self.failure is None, not self.dropped, self.upright, self.objective, self.converged


@final
class _Rows:
    """The starts that still climb, a row each.

    alive: which starts they are.
    p: the parameters to look at next. best, last, seen: the last ones accepted, their objective and statistics.
    phase: 2 where `p` was extrapolated, else 0 or 1, EM iterates, which `cycle` collects.
    limit, length: `(R,)`, the most steps to extrapolate by, and those of the last time.
    """

    def __init__(self, p: Mixture) -> None:
        self.alive = list(range(len(p.log_weight)))
        self.p = self.best = p
        self.limit = self.length = torch.full_like(p.log_weight[:, 0], 4)
        self.begin()

    def begin(self) -> None:
        """Forget what the objective was: the next one is of other components, or of other rounding."""
        self.last = [-math.inf for _ in self.alive]
        self.gain = [math.inf for _ in self.alive]
        self.seen: Statistics | Local | None = None
        self.phase = 0
        self.cycle: list[Mixture] = []

    @property
    def statistics(self) -> Statistics | Local:
        assert self.seen is not None
        return self.seen

    def accept(self, found: Statistics | Local, objective: list[float]) -> Tensor:
        """Take `p`, but for extrapolated ones that have a lower objective; 1 where it was taken, `(R,)`."""
        if self.phase != 2:
            self.gain = [a - b for a, b in zip(objective, self.last, strict=True)]
        better = [self.phase != 2 or (math.isfinite(a) and a >= b) for a, b in zip(objective, self.last, strict=True)]
        chosen = torch.tensor(better, device=self.limit.device)
        if self.phase == 2:  # where steps still grow, on leaving a saddle, long ones fail again and again
            longer = torch.where(self.length < self.limit, self.limit, 4 * self.limit)
            self.limit = torch.where(chosen, longer, (self.limit / 4).clamp(min=2))
        if all(better):
            self.best, self.last, self.seen = self.p, objective, found
        else:  # where extrapolation failed everything is as before it, and the next iterate the one it was to replace
            self.best = mapped(partial(_choose, chosen), self.p, self.best)
            self.seen = merged(chosen, found, self.statistics, self.p)
            self.last = [a if ok else b for a, b, ok in zip(objective, self.last, better, strict=True)]
        return chosen.to(self.limit)

    def turn(self, following: Mixture, sigma: Tensor) -> Mixture:
        """Where to look after the EM iterate `following`: there, or after two of them beyond it."""
        self.cycle = [*self.cycle, self.p] if self.phase < 2 else []
        self.phase = (self.phase + 1) % 3
        if self.phase == 2:
            first, second = self.cycle
            following, self.length = extrapolate(first, second, following, sigma, self.limit)
        return following

    def leave(self, rows: Collection[int], following: Mixture | None = None) -> Mixture:
        """Drop `rows`, and return `following`, or `p`, without them."""
        following = self.p if following is None else following
        if not rows:
            return following
        kept = [row for row in range(len(self.alive)) if row not in rows]
        at = torch.tensor(kept, dtype=torch.long, device=self.limit.device)
        pick = partial(mapped, lambda part: part[at])
        self.alive = [self.alive[row] for row in kept]
        self.last = [self.last[row] for row in kept]
        self.gain = [self.gain[row] for row in kept]
        self.p, self.best = pick(self.p), pick(self.best)
        self.cycle = [pick(each) for each in self.cycle]
        self.seen = None if self.seen is None else picked(self.seen, at)
        self.limit, self.length = self.limit[at], self.length[at]
        return pick(following)


@final
class _Seeding:
    """The components that are lost on the way, and start anew.

    reseeded: those that did. budget: how many more may.
    """

    def __init__(self, share: float, budget: int, prior: Prior, generator: torch.Generator) -> None:
        self.share = share
        self.budget = budget
        self.prior = prior
        self.generator = generator
        self.reseeded: list[Reseed] = []
        self._places: list[tuple[int, Tensor]] = []  # where components of which start have collapsed

    def find(self, following: Mixture, s: _Rows) -> list[tuple[int, int, str]]:
        """The lost that are to start anew: not what has collapsed at the same place before, `_TRIES` times."""
        found = []
        for row, component, reason in lost(following, s.statistics, self.share, self.prior) if self.budget else []:
            mean = following.components.mean[row, component]
            there = (bool(torch.isclose(mean, place, rtol=1e-9).all()) for at, place in self._places if at == s.alive[row])
            if reason != "collapsed" or sum(there) < _TRIES:
                found.append((row, component, reason))
        return found[: self.budget]

    def seed(self, gone: list[tuple[int, int, str]], following: Mixture, s: _Rows, iteration: int) -> Mixture:
        """`following` with those that are `gone` started anew."""
        events = [Reseed(iteration, *each) for each in gone]
        for _, row, component, reason in events:
            if reason == "collapsed":
                self._places.append((s.alive[row], following.components.mean[row, component]))
        self.budget -= len(events)
        self.reseeded += [event._replace(start=s.alive[event.start]) for event in events]
        return reseed(following, events, self.generator)


def _maximise(p: Mixture, s: Statistics | Local, prior: Prior) -> tuple[Mixture, set[int]]:
    """The M-step, and the rows that have none, which stay as they are."""
    try:
        return m_step(p, moments(p, s), prior), set()
    except torch.linalg.LinAlgError:
        found, broken = [], set()
        for row in range(len(p.log_weight)):
            index = torch.tensor([row], device=p.log_weight.device)
            one = mapped(lambda part: part[index], p)  # noqa: B023
            try:
                one = m_step(one, moments(one, picked(s, index)), prior)
            except torch.linalg.LinAlgError:
                broken.add(row)
            found.append(one)
        return mapped(lambda *parts: torch.cat(parts), *found), broken


def _upright(p: Mixture, prior: Prior) -> list[bool]:
    """Which of the starts `p` `(R, K)` have no component on the floor."""
    if isinstance(prior.floor, float) and prior.floor == 0:
        return [True] * len(p.log_weight)
    return (~on_floor(p, prior.floor).any(-1)).tolist()


def _needless(s: _Rows, ends: list[_End], sigma: Tensor, prior: Prior) -> set[int]:
    """The rows that fall too far behind, or are on the way to where a better one, or a start that has ended, is already."""
    standing = list(zip(_upright(s.best, prior), s.last, strict=True))
    top = max([*standing, *((each.upright, each.objective) for each in ends)])[1]
    found = {row for row, gain in enumerate(s.gain) if top > s.last[row] and top - s.last[row] > _HOPELESS * gain}
    every = [mapped(lambda part: part[row], s.best) for row in range(len(s.alive))]  # noqa: B023
    every += [each.mixture for each in ends]
    weights = torch.stack([p.log_weight for p in every]).sort(-1).values
    near = ((weights.unsqueeze(1) - weights).abs().amax(-1) < _MET).tolist()
    ahead = list(range(len(s.alive), len(every)))
    for row in sorted(set(range(len(s.alive))) - found, key=lambda row: -s.last[row]):
        if any(near[row][other] and _alike(every[row], every[other], sigma) for other in ahead):
            found.add(row)
        else:
            ahead.append(row)
    return found


def _alike(a: Mixture, b: Mixture, sigma: Tensor) -> bool:
    """Whether two mixtures `(K,)` are the same within `_MET`, whatever the order of their components."""
    match = torch.cdist(a.components.mean / sigma, b.components.mean / sigma).argmin(1)
    if len(set(match.tolist())) < len(match):
        return False
    shared = isinstance(b.components, Tied)
    b = mapped(lambda part: part if shared and part is b.components[1] else part[match], b)  # type: ignore[index]
    first, second = (mapped(lambda part: part.unsqueeze(0), p) for p in (a, b))
    move = [y - x for x, y in zip(_free(first, sigma), _free(second, sigma), strict=True)]
    return bool(_reach(move, first, sigma) < _MET)


def ascend(
    expect: Expect,
    p: Mixture,
    total: float,
    *,
    points: int,
    sigma: Tensor,
    generator: torch.Generator,
    tolerance: float,
    max_iter: int,
    rough: float = 0.0,
    accelerate: bool = True,
    beta: float = 1.0,
    prior: Prior = FLAT,
) -> Ascent:
    """EM from the starts `p` `(R, K)`, each until a step gains less than `tolerance` nats per example.

    A start that has met another goes no further, and one that cannot proceed does not end the others.

    Args:
        expect: the E-step.
        total: the sum of the points' weights.
        points: how many points there are: a component with less than half a point's share is empty.
        sigma: `(D,)`, the data's standard deviations.
        generator: for the places of components that are seeded anew.
        tolerance: nats per example, judged on plain EM steps; 0 goes on to `max_iter`.
        rough: E-steps may err, each alike, by about this much in the log-likelihood until a step gains less, nats per example;
            then the climb goes on in full precision. 0 is full precision throughout.
        max_iter: the most M-steps; an accelerated cycle is three, of which one may be thrown away.
        accelerate: SQUAREM, falling back on the EM iterate whenever the extrapolated point has a lower objective.
    """
    s, exact, iteration = _Rows(p), rough == 0, 0
    ends: dict[int, _End] = {}
    history: list[tuple[list[int], tuple[Tensor, ...]]] = []
    seeding = _Seeding(0.5 * total / points, 3 * p.log_weight.numel(), prior, generator)
    believes = bool(prior.weight or prior.covariance)

    def end(rows: Iterable[int], **how: Any) -> None:
        for row in rows:
            mixture = mapped(lambda parameter: parameter[row : row + 1], s.best)  # noqa: B023
            upright = _upright(mixture, prior)[0]
            mixture = mapped(lambda parameter: parameter[0], mixture)
            ends[s.alive[row]] = _End(mixture, s.last[row], iteration, upright, **how)

    while s.alive:
        coefficient = coefficients(s.p, beta)
        found = expect(s.p, coefficient, exact)
        belief = log_prior(s.p, prior) if believes else torch.zeros_like(s.limit)
        # The one question to the device in an iteration.
        objective = (found.log_likelihood + belief if believes else found.log_likelihood).tolist()
        bad = [row for row, value in enumerate(objective) if s.phase != 2 and not math.isfinite(value)]
        if bad:
            end(bad, failure=f"the log-likelihood is {objective[bad[0]]} after iteration {iteration}")
            s.leave(bad)
            continue
        q = expected_log_joint(s.p, coefficient, found if s.seen is None else s.seen, beta)
        own = expected_log_joint(s.p, coefficient, found, beta)
        follows = torch.full_like(s.limit, s.seen is not None)
        accepted = s.accept(found, objective)
        gains = [gain / total if s.phase != 2 else math.inf for gain in s.gain]
        history.append((s.alive, (q, own, found.log_likelihood, belief, accepted, follows)))
        done = {row for row, gain in enumerate(gains) if exact and 0 < tolerance > gain}
        if not done and iteration >= max_iter:
            break
        if not exact and max(gains) < max(rough, tolerance):
            exact = True
            s.begin()
            continue

        following, broken = _maximise(s.best, s.statistics, prior)
        end(broken, failure=f"a covariance is not positive definite after iteration {iteration}")
        look = bool(done) or iteration % _LOOK == _LOOK - 1
        gone = seeding.find(following, s) if look else []
        done -= {row for row, _, _ in gone}
        done -= broken
        end(done, converged=True)
        over = done | broken
        if look and len(p.log_weight) > 1:
            needless = _needless(s, [each for each in ends.values() if each.converged], sigma, prior) - over
            end(needless, dropped=True)
            over |= needless
        if iteration >= max_iter:
            s.leave(over)
            break
        gone = [each for each in gone if each[0] not in over]
        if gone:
            following = seeding.seed(gone, following, s, iteration + 1)
        following = s.leave(over, following)
        if gone:
            s.begin()
        elif accelerate:
            following = s.turn(following, sigma)
        s.p = following
        iteration += 1
    end(range(len(s.alive)))

    return _best(ends, history, seeding.reseeded, total, beta)


def _best(
    ends: dict[int, _End],
    history: list[tuple[list[int], tuple[Tensor, ...]]],
    reseeded: list[Reseed],
    total: float,
    beta: float,
) -> Ascent:
    """The start that ended highest, the first of equals, with its part of the history."""
    start = max(ends, key=lambda each: (*ends[each].rank, -each))
    rows = [torch.stack([part[alive.index(start)] for part in parts]) for alive, parts in history if start in alive]
    steps, value = _steps(torch.stack(rows).tolist() if rows else [], total, beta)
    best = ends[start]
    return Ascent(
        mixture=best.mixture,
        log_likelihood=value,
        objective=best.objective,
        iterations=best.iterations,
        converged=best.converged,
        history=steps,
        reseeded=[event for event in reseeded if event.start == start],
        failure=best.failure,
    )


def _steps(rows: list[list[float]], total: float, beta: float) -> tuple[list[Step], float]:
    """What the iterations of one start amount to, and its last log-likelihood."""
    steps, entropy, value = [], 0.0, math.nan
    for q, own, log_likelihood, belief, accepted, follows in rows:
        if not accepted:
            continue
        if follows:  # an M-step, as all but the first E-step do
            bound = q + beta * entropy
            figures = q, entropy, bound, log_likelihood - bound, log_likelihood, belief
            steps.append(Step(*(figure / total for figure in figures)))
        entropy, value = (log_likelihood - own) / beta, log_likelihood
    return steps, value
