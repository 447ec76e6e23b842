"""Draw how EM, stepwise EM and Adam climb the likelihood of a mixture, on one axis of E-steps.

    python scripts/bench/climbs.py [--out climbs.png] [--points 20000] [--passes 60] [--seed 0]

All three start at the same points, with the variance of all, and fit the same points. An E-step over all
points counts one; one over a batch its share; a step of Adam is counted as the E-step that its
gradient is made of. Stepwise EM (Cappe & Moulines 2009) is a natural-gradient step whose length falls
as (steps + 2)^-decay; Adam moves logits, means and logarithms of variances, at the best of four step
sizes. The log-likelihood is that of all points, a point.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from jensen.data.blobs import blobs
from jensen.em.steps import e_step, m_step
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture
from jensen.family.moments import Moments, PseudoCounts

Curve = list[tuple[float, float]]
FLOOR = PseudoCounts(floor=1e-3)
BATCH = 500
RATES = (0.003, 0.01, 0.03, 0.1)


def at_points(x: Tensor, components: int) -> Mixture:
    """Equal weights, means at the first points, and the variances of all."""
    log_var = x.var(0, correction=0).log().expand(components, -1)
    weight = x.new_full((components,), -math.log(components))
    return Mixture(weight, Gaussian(x[:components], log_var))


def likelihood(x: Tensor, p: Mixture) -> float:
    return float(p.log_prob(x).mean())


def em(x: Tensor, p: Mixture, passes: int) -> Curve:
    curve = [(0.0, likelihood(x, p))]
    for step in range(passes):
        p = m_step(p, p.components.moments(x, e_step(x, p)), FLOOR)
        curve.append((step + 1.0, likelihood(x, p)))
    return curve


def stepwise(x: Tensor, p: Mixture, passes: int, decay: float = 0.6) -> Curve:
    """Averages of moments about 0, of one point."""
    curve = [(0.0, likelihood(x, p))]
    batches = x.split(BATCH)
    average = None
    for step in range(passes * len(batches)):
        part = batches[step % len(batches)]
        seen = about_zero(p.components.moments(part, e_step(part, p)), len(part))
        size = (step + 2) ** -decay
        average = seen if average is None else blend(average, seen, size)
        p = m_step(p, average, FLOOR)
        if (step + 1) % max(1, len(batches) // 4) == 0:
            curve.append(((step + 1) / len(batches), likelihood(x, p)))
    return curve


def about_zero(m: Moments, count: int) -> Moments:
    """The diagonal moments of a point about the origin."""
    total = m.total.unsqueeze(-1)
    first = m.first + total * m.origin
    second = m.second + 2 * m.origin * m.first + total * m.origin.square()
    return Moments(torch.zeros_like(m.origin), m.total / count, first / count, second / count)


def blend(old: Moments, new: Moments, size: float) -> Moments:
    parts = (torch.lerp(a, b, size) for a, b in zip(old[1:], new[1:], strict=True))
    return Moments(old.origin, *parts)


def adam(x: Tensor, p: Mixture, passes: int, rate: float) -> Curve:
    parameters = [part.clone().requires_grad_() for part in (p.log_weight, *p.components)]
    optimiser = torch.optim.Adam(parameters, lr=rate)
    batches = x.split(BATCH)
    curve = [(0.0, likelihood(x, p))]
    for step in range(passes * len(batches)):
        logit, mean, log_var = parameters
        now = Mixture(logit.log_softmax(-1), Gaussian(mean, log_var))
        optimiser.zero_grad()
        (-now.log_prob(batches[step % len(batches)]).mean()).backward()
        optimiser.step()
        if (step + 1) % max(1, len(batches) // 4) == 0:
            with torch.no_grad():
                logit, mean, log_var = parameters
                now = Mixture(logit.log_softmax(-1), Gaussian(mean, log_var))
                curve.append(((step + 1) / len(batches), likelihood(x, now)))
    return curve


def draw(curves: dict[str, Curve], out: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    top = max(value for curve in curves.values() for _, value in curve)
    for name, curve in curves.items():
        places, values = zip(*curve, strict=True)
        axes.plot(places, [top - value + 1e-5 for value in values], label=name)
    axes.set(
        xscale="symlog",
        yscale="log",
        xlabel="E-steps over all points",
        ylabel="log-likelihood below the best found, nats a point",
    )
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("climbs.png"))
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--passes", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    x = blobs(options.points, dim=4, components=8, spread=1.5, seed=options.seed).stored.double()
    start = at_points(x, 8)
    climbs: dict[str, Callable[[], Curve]] = {
        "EM": lambda: em(x, start, options.passes),
        "stepwise EM (natural gradient)": lambda: stepwise(x, start, options.passes),
    }
    curves = {name: climb() for name, climb in climbs.items()}
    tried = {rate: adam(x, start, options.passes, rate) for rate in RATES}
    best = max(tried, key=lambda rate: max(value for _, value in tried[rate]))
    curves[f"Adam, step size {best:g}"] = tried[best]
    top = max(value for curve in curves.values() for _, value in curve)
    for name, curve in curves.items():
        at = {
            gap: next((place for place, value in curve if value > top - gap), None)
            for gap in (0.1, 0.01, 0.001)
        }
        print(f"{name:32s} ends at {curve[-1][1]:.5f}; E-steps to within {at} of the best")
    draw(curves, options.out)
    print(options.out)


if __name__ == "__main__":
    main()
