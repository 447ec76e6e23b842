"""EM run to convergence: several starts at once, accelerated, every iteration accounted for.

`fit_em` needs only the E-step's sums, so it is the same for data in memory, in a file or on several
ranks.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from jensen.base.replay import Replayed
from jensen.base.tree import tree_map
from jensen.em.collapse import twins
from jensen.em.local import Local, expected_log_joint, moments, picked
from jensen.em.reseed import Lost, Reseed, Seeding
from jensen.em.running import End, Running, needless, upright
from jensen.em.steps import Prior, log_prior, m_step
from jensen.em.stream import Statistics, coefficients
from jensen.family.mixture import Mixture
from jensen.family.moments import FLAT

_LOOK = 8
"""Iterations between two looks for components that are lost and starts that have met."""

Expect = Callable[[Mixture, Tensor, bool], Statistics | Local]
"""The E-step of the whole data set with mixtures `(R, K)` and their `stream.coefficients`, to full
precision or roughly.
"""


class Step(NamedTuple):
    """One iteration, nats per example: new parameters, seen with the responsibilities r that they
    were made from.

    q: E_r log p(x, k), which the M-step maximised.
    entropy: of r.
    bound: q + entropy, the lower bound that touched the previous log-likelihood.
    gap: KL(r || p(k|x)) = log_likelihood - bound. None of a Bayesian mixture, whose `bound` is the elbo of
        the parameters too and whose evidence is not known.
    log_likelihood: of the new parameters. Under `beta` it is the annealed bound and `q` and `bound`
        count log-weights and entropy `beta` times.
    log_prior: log density of the new parameters up to a constant; log_likelihood + log_prior never
        falls.
    """

    q: float
    entropy: float
    bound: float
    gap: float | None
    log_likelihood: float
    log_prior: float


class Fit(NamedTuple):
    """The best of the starts: its parameters `(K,)`, what happened, and why it ended.

    objective: log_likelihood + log_prior, which the best has most of, among those without a
        component on the floor.
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


class Options(NamedTuple):
    """The end of EM, and the way there.

    tolerance: nats per example, judged on plain EM steps; 0 goes on to `max_iter`.
    max_iter: the most M-steps; an accelerated cycle is three, of which one may be thrown away.
    rough: E-steps may err, each alike, by about this much in the log-likelihood until a step gains
        less, nats per example; then the fit goes on in full precision. 0 is full precision
        throughout.
    accelerate: SQUAREM, falling back on the EM iterate whenever the extrapolated point has a lower
        objective.
    beta: the temperature.
    prior: pseudo-counts and the floor, or a conjugate prior.
    reseeds: components that are lost start anew.
    """

    tolerance: float
    max_iter: int
    rough: float = 0.0
    accelerate: bool = True
    beta: float = 1.0
    prior: Prior = FLAT
    reseeds: bool = True


def fit_em(
    expect: Expect,
    p: Mixture,
    total: float,
    *,
    points: int,
    sigma: Tensor,
    generator: torch.Generator,
    options: Options,
) -> Fit:
    """EM from the starts `p` `(R, K)`, each until a step gains less than the tolerance.

    A start that has met another goes no further, and one that cannot proceed does not end the
    others.

    Args:
        expect: the E-step.
        total: the sum of the points' weights.
        points: how many points there are: a component with less than half a point's share is empty.
        sigma: `(D,)`, the data's standard deviations.
        generator: for the places of components that are seeded anew.
        options: when it ends, and how it gets there.
    """
    budget = 3 * p.log_weight.numel() if options.reseeds else 0
    seeding = Seeding(0.5 * total / points, budget, options.prior, generator)
    fit = _Fitting(expect, p, total, sigma, seeding, options)
    while fit.running.alive:
        if not fit.look():
            continue
        if fit.spent:
            break
        if fit.refine():
            continue
        if not fit.move():
            break
    fit.end(range(len(fit.running.alive)))
    return _best(fit)


class _Look(NamedTuple):
    """One E-step's word on the rows, `(R,)` each, sums over the data: see `Step`."""

    q: Tensor
    own: Tensor
    log_likelihood: Tensor
    log_prior: Tensor
    accepted: Tensor
    follows: Tensor


@final
class _Fitting:
    """A fit under way."""

    def __init__(
        self,
        expect: Expect,
        p: Mixture,
        total: float,
        sigma: Tensor,
        seeding: Seeding,
        options: Options,
    ) -> None:
        self.expect = expect
        self.total = total
        self.sigma = sigma
        self.seeding = seeding
        self.options = options
        self.running = Running(p)
        self.coefficients = Replayed("the natural form", partial(coefficients, beta=options.beta))
        self.belief = Replayed("the density of the prior", partial(log_prior, prior=options.prior))
        self.step = Replayed("the M-step", partial(_stepped, options.prior))
        self.starts = len(p.log_weight)
        self.exact = options.rough == 0
        self.iteration = 0
        self.done: set[int] = set()  # rows that have converged, as far as the last look can say
        self.ends: dict[int, End] = {}
        self.history: list[tuple[list[int], _Look]] = []

    def end(self, rows: Iterable[int], **how: Any) -> None:
        """Note how `rows` ended."""
        for row in rows:
            mixture = tree_map(lambda part: part[row : row + 1], self.running.best)  # noqa: B023
            stands = upright(mixture, self.options.prior)[0]
            mixture = tree_map(lambda part: part[0], mixture)
            stands = stands and not twins(mixture)
            start = self.running.alive[row]
            self.ends[start] = End(mixture, self.running.last[row], self.iteration, stands, **how)

    def look(self) -> bool:
        """One E-step; False where it was none, of rows that have left."""
        running = self.running
        beta = self.options.beta
        coefficient = self.coefficients(running.p)
        found = self.expect(running.p, coefficient, self.exact)
        believes = self.options.prior.believes
        belief = self.belief(running.p) if believes else torch.zeros_like(running.limit)
        # The one question to the device in an iteration.
        objective = (found.log_likelihood + belief if believes else found.log_likelihood).tolist()
        if self._drop_broken(objective):
            return False
        before = found if running.seen is None else running.seen
        q = expected_log_joint(running.p, coefficient, before, beta)
        own = expected_log_joint(running.p, coefficient, found, beta)
        follows = torch.full_like(running.limit, running.seen is not None)
        accepted = running.accept(found, objective)
        self.history.append(
            (running.alive, _Look(q, own, found.log_likelihood, belief, accepted, follows))
        )
        tolerance = self.options.tolerance
        self.done = {
            row for row, gain in enumerate(self.gains) if self.exact and 0 < tolerance > gain
        }
        return True

    def _drop_broken(self, objective: list[float]) -> bool:
        """Tell whether EM iterates have no finite objective; those leave, and what there is of the
        others is looked at again.
        """
        bad = [
            row
            for row, value in enumerate(objective)
            if self.running.phase != 2 and not math.isfinite(value)
        ]
        if bad:
            self.end(
                bad,
                failure=f"the log-likelihood is {objective[bad[0]]} after iteration {self.iteration}",
            )
            self.running.leave(bad)
        return bool(bad)

    @property
    def gains(self) -> list[float]:
        """Gains of the last EM step of each row, nats per example."""
        return [
            gain / self.total if self.running.phase != 2 else math.inf for gain in self.running.gain
        ]

    @property
    def spent(self) -> bool:
        """Tell whether there is no M-step left, and none of the rows has converged."""
        return not self.done and self.iteration >= self.options.max_iter

    def refine(self) -> bool:
        """Tell whether steps have been rough until now, and are exact from here on."""
        if self.exact or max(self.gains) >= max(self.options.rough, self.options.tolerance):
            return False
        self.exact = True
        self.running.begin()
        return True

    def move(self) -> bool:
        """One M-step, after which some rows leave; False at the last iteration."""
        running = self.running
        following, broken = _maximise(self.step, running.best, running.statistics)
        self.end(
            broken,
            failure=f"a covariance is not positive definite after iteration {self.iteration}",
        )
        looks = bool(self.done) or self.iteration % _LOOK == _LOOK - 1
        gone = self.seeding.find(following, running.statistics, running.alive) if looks else []
        over = self._leaving(broken, {each.row for each in gone}, looks)
        if self.iteration >= self.options.max_iter:
            running.leave(over)
            return False
        gone = [each for each in gone if each.row not in over]
        self._go_on(following, gone, over)
        return True

    def _leaving(self, broken: set[int], reseeded: set[int], looks: bool) -> set[int]:
        """The rows that are over: broken, converged with all components, or needless beside
        others.
        """
        done = self.done - reseeded - broken
        self.end(done, converged=True)
        over = done | broken
        if looks and self.starts > 1:
            settled = [each for each in self.ends.values() if each.converged]
            others = needless(self.running, settled, self.sigma, self.options.prior) - over
            self.end(others, dropped=True)
            over |= others
        return over

    def _go_on(self, following: Mixture, gone: list[Lost], over: set[int]) -> None:
        """Look next at `following`, with its lost components seeded anew, or beyond it."""
        running = self.running
        if gone:
            following = self.seeding.seed(gone, following, running.alive, self.iteration + 1)
        following = running.leave(over, following)
        if not running.alive:
            return
        if gone:
            running.begin()
        elif self.options.accelerate:
            following = running.turn(following)
        running.p = following
        self.iteration += 1


def _stepped(prior: Prior, p: Mixture, s: Statistics | Local) -> Mixture:
    return m_step(p, moments(p, s), prior)


def _maximise(
    step: Callable[[Mixture, Statistics | Local], Mixture], p: Mixture, s: Statistics | Local
) -> tuple[Mixture, set[int]]:
    """The M-step, and the rows that have none, which stay as they are."""
    try:
        return step(p, s), set()
    except torch.linalg.LinAlgError:
        found = []
        broken = set()
        for row in range(len(p.log_weight)):
            index = torch.tensor([row], device=p.log_weight.device)
            one = tree_map(lambda part: part[index], p)  # noqa: B023
            try:
                one = step(one, picked(s, index))
            except torch.linalg.LinAlgError:
                broken.add(row)
            found.append(one)
        return tree_map(lambda *parts: torch.cat(parts), *found), broken


def _best(fit: _Fitting) -> Fit:
    """The start that ended highest, the first of equals, with its part of the history."""
    start = max(fit.ends, key=lambda each: (*fit.ends[each].rank, -each))
    rows = [
        torch.stack([part[alive.index(start)] for part in look])
        for alive, look in fit.history
        if start in alive
    ]
    steps, value = _steps(torch.stack(rows).tolist() if rows else [], fit.total, fit.options.beta)
    best = fit.ends[start]
    return Fit(
        mixture=best.mixture,
        log_likelihood=value,
        objective=best.objective,
        iterations=best.iterations,
        converged=best.converged,
        history=steps,
        reseeded=[event for event in fit.seeding.reseeded if event.start == start],
        failure=best.failure,
    )


def _steps(rows: list[list[float]], total: float, beta: float) -> tuple[list[Step], float]:
    """The steps that the iterations of one start amount to, and its last log-likelihood."""
    steps = []
    entropy = 0.0
    value = math.nan
    for q, own, log_likelihood, belief, accepted, follows in rows:
        if not accepted:
            continue
        if follows:  # an M-step, as all but the first E-step do
            bound = q + beta * entropy
            figures = (q, entropy, bound, log_likelihood - bound, log_likelihood, belief)
            steps.append(Step(*(figure / total for figure in figures)))
        entropy = (log_likelihood - own) / beta
        value = log_likelihood
    return steps, value
