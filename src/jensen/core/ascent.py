"""EM run to convergence: several starts at once, accelerated, every iteration accounted for.

`ascend` needs only the E-step's sums, so it is the same for data in memory, in a file or on several ranks.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from jensen.core.collapse import on_floor
from jensen.core.components import FLAT, Components, Prior, Tied
from jensen.core.em import log_prior, m_step
from jensen.core.local import Local, counts, expected_log_joint, merged, moments
from jensen.core.mixture import Mixture
from jensen.core.stream import Statistics, coefficients

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

    objective: log_likelihood + log_prior, which the best of the starts has most of.
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


def _map(function: Callable[..., Tensor], *mixtures: Mixture) -> Mixture:
    """`function` of each parameter of the mixtures."""
    structure: Callable[..., Components] = type(mixtures[0].components)
    parameters = (function(*each) for each in zip(*(p.components for p in mixtures), strict=True))
    return Mixture(function(*(p.log_weight for p in mixtures)), structure(*parameters))


def _column(value: Tensor, like: Tensor) -> Tensor:
    """`(R,)` with as many axes as `like` `(R, ...)`."""
    return value.reshape(-1, *[1] * (like.dim() - 1))


def _choose(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The starts of `a` `(R, ...)` that are `chosen` `(R,)`, the others of `b`."""
    return torch.where(_column(chosen, a), a, b)


def _where(chosen: Tensor, p: Mixture, q: Mixture) -> Mixture:
    return _map(partial(_choose, chosen), p, q)


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

    SQUAREM with step length S3 (Varadhan & Roland 2008, eq. 8-9); at length 1 it is the third iterate.
    """
    a, b, c = (_free(p, sigma) for p in (first, second, third))
    step = [y - x for x, y in zip(a, b, strict=True)]
    bend = [(z - y) - s for y, z, s in zip(b, c, step, strict=True)]

    def norm(parts: list[Tensor]) -> Tensor:
        return sum((part.square().flatten(1).sum(1) for part in parts), parts[0].new_zeros(len(parts[0]))).sqrt()

    length = (norm(step) / norm(bend).clamp(min=1e-300)).clamp(min=1).minimum(limit)

    def move(x: Tensor, s: Tensor, v: Tensor) -> Tensor:
        alpha = _column(length, x)
        return x + 2 * alpha * s + alpha.square() * v

    return _bound([move(*parts) for parts in zip(a, step, bend, strict=True)], first, sigma), length


def lost(p: Mixture, s: Statistics | Local, share: float, prior: Prior) -> list[tuple[int, int, str]]:
    """(start, component, reason) of components with a total below `share` or on the covariance floor."""
    empty = counts(s) < share
    found = [(*place, "empty") for place in empty.nonzero().tolist()] if bool(empty.any()) else []
    if (isinstance(prior.floor, float) and prior.floor == 0) or isinstance(p.components, Tied):
        return found
    flat = on_floor(p, prior.floor) & ~empty
    flat &= ~flat.all(-1, keepdim=True)  # all at once is the data's shape, not a component's fate
    return found + [(*place, "collapsed") for place in flat.nonzero().tolist()]


def _anew(gone: list[tuple[int, int, str]], p: Mixture, places: list[tuple[int, Tensor]]) -> list[tuple[int, int, str]]:
    """Those of the lost to start anew: not what has collapsed at the same place of `places` before, `_TRIES` times."""
    found = []
    for start, component, reason in gone:
        mean = p.components.mean[start, component]
        before = sum(bool(torch.isclose(mean, place, rtol=1e-9).all()) for at, place in places if at == start)
        if reason != "collapsed" or before < _TRIES:
            found.append((start, component, reason))
    return found


def reseed(p: Mixture, events: list[Reseed], generator: torch.Generator) -> Mixture:
    """Each lost component takes half of the heaviest one of its start, at a point drawn from that."""
    p = _map(torch.clone, p)
    structure, deviations = p.components, (0.5 * p.components.marginals().log_var).exp()
    for _, start, component, _ in events:
        donor = int(p.log_weight[start].argmax())
        p.log_weight[start, donor] -= math.log(2)
        p.log_weight[start, component] = p.log_weight[start, donor]
        for parameter in structure:
            if parameter.shape[:2] == p.log_weight.shape:  # Tied shares its covariance
                parameter[start, component] = parameter[start, donor]
        noise = torch.randn(deviations.shape[-1], generator=generator, dtype=torch.float64).to(deviations)
        structure.mean[start, component] += deviations[start, donor] * noise
        deviations[start, component] = deviations[start, donor]
    return p._replace(log_weight=p.log_weight.log_softmax(-1))


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
    """EM from the starts `p` `(R, K)` until a step gains less than `tolerance` nats per example in all of them.

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
    phase, iteration, converged, failure = 0, 0, False, None  # phase 2 is the extrapolated point, the others EM iterates
    exact = rough == 0
    starts = range(len(p.log_weight))
    history: list[tuple[Tensor, ...]] = []
    reseeded: list[Reseed] = []
    places: list[tuple[int, Tensor]] = []  # where components have collapsed
    cycle: list[Mixture] = []
    best, last = p, [-math.inf for _ in starts]  # the last parameters accepted, and their objective
    seen: Statistics | Local | None = None
    limit = length = torch.full_like(p.log_weight[:, 0], 4)
    belief = zero = torch.zeros_like(limit)
    one = torch.ones_like(limit)
    believes = bool(prior.weight or prior.covariance)
    budget = 3 * p.log_weight.numel()

    while True:
        coefficient = coefficients(p, beta)
        found = expect(p, coefficient, exact)
        if believes:
            belief = log_prior(p, prior)
        # The one question to the device in an iteration.
        objective = (found.log_likelihood + belief if believes else found.log_likelihood).tolist()
        better = [math.isfinite(a) and (phase != 2 or a >= b) for a, b in zip(objective, last, strict=True)]
        every = all(better)
        if not every and phase != 2:
            failure = f"the log-likelihood is {objective[better.index(False)]} after iteration {iteration}"
            break
        chosen = torch.tensor(better, device=limit.device) if phase == 2 or not every else None
        if phase == 2 and chosen is not None:  # where steps still grow, on leaving a saddle, long ones fail again and again
            limit = torch.where(chosen, torch.where(length < limit, limit, 4 * limit), (limit / 4).clamp(min=2))
        q = expected_log_joint(p, coefficient, found if seen is None else seen, beta)
        own = expected_log_joint(p, coefficient, found, beta)
        accepted = one if chosen is None else chosen.to(limit)
        history.append((q, own, found.log_likelihood, belief, accepted, zero if seen is None else one))
        gain = max(a - b for a, b in zip(objective, last, strict=True)) / total if phase != 2 else math.inf
        done = exact and 0 < tolerance > gain
        if every:
            best, last, seen = p, objective, found
        else:  # where extrapolation failed everything is as before it, and the next iterate the one it was to replace
            assert seen is not None
            assert chosen is not None
            best, seen = _where(chosen, p, best), merged(chosen, found, seen, p)
            last = [a if ok else b for a, b, ok in zip(objective, last, better, strict=True)]
        if not done and iteration >= max_iter:
            break
        if not exact and gain < max(rough, tolerance):
            exact, seen, last, phase, cycle = True, None, [-math.inf for _ in starts], 0, []
            continue

        try:
            following = m_step(best, moments(best, seen), prior)
        except torch.linalg.LinAlgError:
            failure = f"a covariance is not positive definite after iteration {iteration}"
            break
        look = budget and (done or iteration % 8 == 7)
        gone = lost(following, seen, 0.5 * total / points, prior) if look else []
        gone = _anew(gone, following, places)
        if gone:
            events = [Reseed(iteration + 1, *event) for event in gone[:budget]]
            places += [(e.start, following.components.mean[e.start, e.component]) for e in events if e.reason == "collapsed"]
            following, budget = reseed(following, events, generator), budget - len(events)
            reseeded += events
            seen, last, done, phase, cycle = None, [-math.inf for _ in starts], False, 0, []
        elif done:
            converged = True
            break
        elif accelerate:
            phase, cycle = (phase + 1) % 3, [*cycle, p] if phase < 2 else []
            if phase == 2:
                following, length = extrapolate(cycle[0], cycle[1], following, sigma, limit)
        p, iteration = following, iteration + 1

    start = max(starts, key=last.__getitem__)
    rows = torch.stack([torch.stack(row) for row in history])[..., start].tolist() if history else []
    steps, value = _steps(rows, total, beta)
    return Ascent(
        mixture=_map(lambda parameter: parameter[start], best),
        log_likelihood=value,
        objective=last[start],
        iterations=iteration,
        converged=converged,
        history=steps,
        reseeded=[event for event in reseeded if event.start == start],
        failure=failure,
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
