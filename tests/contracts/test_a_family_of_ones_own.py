"""A family that the package does not know is fitted by the package's own EM, with nothing but
`family.Components` to go by.
"""

import numpy as np
import torch
from bernoulli import Bernoulli
from scipy.special import expit, logsumexp

from jensen.em.fit import Options, fit_em
from jensen.em.stream import Stream
from jensen.family.mixture import Mixture

DIM = 6


def answers():
    """Yes and no of three overlapping kinds of people, `(400, 6)`."""
    draw = np.random.default_rng(0)
    chance = draw.uniform(0.15, 0.85, (3, DIM))
    return (draw.random((400, DIM)) < chance[draw.integers(3, size=400)]).astype(float)


def start(rows):
    """Several starts of three components."""
    logit = torch.randn(
        rows, 3, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return Mixture(torch.full((rows, 3), -np.log(3), dtype=torch.float64), Bernoulli(logit))


def fitted(x, p, accelerate, max_iter=2000):
    points = torch.tensor(x)
    stream = Stream(
        lambda size: ((part, None) for part in points.split(size)),
        len(x),
        torch.zeros(DIM).double(),
    )
    return fit_em(
        lambda p, coefficient, exact: stream(p, coefficient=coefficient),
        p,
        float(len(x)),
        points=len(x),
        sigma=points.std(0),
        generator=torch.Generator().manual_seed(0),
        options=Options(tolerance=1e-7, max_iter=max_iter, accelerate=accelerate),
    )


def by_hand(x, logit, steps):
    """EM in numpy: the log-likelihood, nats per example, after each step."""
    weight = np.full(3, 1 / 3)
    chance = expit(logit)
    values = []
    for _ in range(steps):
        joint = x @ np.log(chance).T + (1 - x) @ np.log1p(-chance).T + np.log(weight)
        values.append(logsumexp(joint, 1).mean())
        r = np.exp(joint - logsumexp(joint, 1, keepdims=True))
        weight = r.mean(0)
        chance = (r.T @ x) / r.sum(0)[:, None]
    return values[1:]


def test_em_climbs_as_in_numpy():
    x = answers()
    p = start(1)
    expected = by_hand(x, p.components.logit[0].numpy(), 20)
    found = [step.log_likelihood for step in fitted(x, p, accelerate=False, max_iter=19).history]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


def test_squarem_reaches_the_same_maximum_in_fewer_iterations():
    x = answers()
    p = start(1)
    plain = fitted(x, p, accelerate=False)
    fast = fitted(x, p, accelerate=True)
    assert plain.converged
    assert fast.converged
    assert fast.iterations < 0.6 * plain.iterations
    assert abs(fast.log_likelihood / len(x) - plain.log_likelihood / len(x)) < 1e-6
    rises = np.diff([step.log_likelihood for step in fast.history])
    assert rises.min() > -1e-9


def test_the_best_of_several_starts_is_kept():
    x = answers()
    p = start(2)
    together = fitted(x, p, accelerate=True)
    alone = [
        fitted(
            x, Mixture(p.log_weight[[row]], Bernoulli(p.components.logit[[row]])), accelerate=True
        )
        for row in range(2)
    ]
    assert together.failure is None
    assert abs(together.objective - max(each.objective for each in alone)) < 1e-3
