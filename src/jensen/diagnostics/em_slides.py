"""EM on a mixture of two normals, pictured: the log-likelihood and the lower bounds that touch
it.
"""

from collections.abc import Mapping
from typing import TypeGuard

import numpy as np
import torch
from matplotlib.axes import Axes
from scipy import optimize, special, stats
from torch import Tensor

from jensen.base.errors import InputError, check_list, check_number
from jensen.diagnostics.picture import chart
from jensen.diagnostics.snapshot import Snapshot
from jensen.em import steps as em
from jensen.family.family import gaussians
from jensen.family.mixture import Mixture, log_prob
from jensen.family.tied import TiedGaussian

_ALONE = 50
"""EM steps on the weight alone, which converge to rounding."""

_BOUNDS = 4
_STEPS = 10
"""Bounds in the pictures of the weight alone, and EM steps in that of all parameters."""


def two_normals(alpha: float, means: tuple[float, float], sigma: float) -> Mixture:
    """alpha N(means[0], sigma^2) + (1 - alpha) N(means[1], sigma^2), float64."""
    check_number("alpha", alpha, low=1e-9, high=1 - 1e-9)
    check_list("means", means)
    for each in means:
        check_number("means", each, low=-1e6, high=1e6)
    if len(means) != 2:
        raise InputError(f"means is {[*means]}: expected two numbers")
    check_number("sigma", sigma, low=1e-6, high=1e6)
    weight = torch.tensor([alpha, 1 - alpha], dtype=torch.float64)
    mean = torch.tensor(list(means), dtype=torch.float64).unsqueeze(1)
    return Mixture(weight.log(), TiedGaussian(mean, torch.full((1, 1), sigma, dtype=torch.float64)))


def em_slides(
    snapshot: Snapshot, start: Mixture, truth: Mixture, far: Mixture
) -> Mapping[str, Tensor]:
    """Slides of points `(N, 1)` and the mixture of two normals with one variance that was fitted to
    them, nats per example:

    alpha, alpha_direct: the weight alone, everything else as in `truth`, by EM from the start's and
        by direct maximisation.
    log_likelihood, log_likelihood_direct: of the fitted mixture, and the maximum over all four
        parameters found directly.
    parameter_error: the largest difference between its four parameters and the direct ones.
    weight_alone, weight_alone_gap: the log-likelihood by alpha with the first four bounds, and how
        far below it they are.
    all_parameters: the same along the path of EM from `far`.
    """
    for name, p in (("start", start), ("truth", truth), ("far", far)):
        if not _is_two_normals(p):
            raise InputError(
                f"{name} is a {type(p).__name__}: expected two normals of one variance, as"
                " conf/start has them"
            )
    fitted_mixture = snapshot.prior
    if not _is_two_normals(fitted_mixture):
        raise InputError(
            "the model is no mixture of two normals with one variance: expected"
            " experiment=em_slides"
        )
    x = snapshot.z
    start, truth, far = (_to(p, x) for p in (start, truth, far))
    path = [truth._replace(log_weight=start.log_weight)]
    for _ in range(_ALONE):
        path.append(_weighted(truth, em.fit(x, path[-1], 1).log_weight))
    alone = optimize.minimize_scalar(
        lambda alpha: (
            -_log_prob(x, _weighted(truth, torch.tensor([alpha, 1 - alpha]).to(x).log())).item()
        ),
        bounds=(1e-6, 1 - 1e-6),
        method="bounded",
        options={"xatol": 1e-12},
    )
    fitted = _parameters(fitted_mixture)
    direct = _directly(x, start)
    return {
        "alpha": path[-1].log_weight[0].exp(),
        "alpha_direct": torch.tensor(alone.x),
        "log_likelihood": _log_prob(x, fitted_mixture),
        "log_likelihood_direct": _log_prob(
            x, two_normals(float(direct[0]), (float(direct[1]), float(direct[2])), float(direct[3]))
        ),
        "parameter_error": (fitted.cpu() - direct).abs().max(),
        **dict(
            zip(
                ("fitted_alpha", "fitted_mean_0", "fitted_mean_1", "fitted_sigma"),
                fitted,
                strict=True,
            )
        ),
        **_draw_alone(x, truth, path[:_BOUNDS]),
        "all_parameters": chart(lambda axes: _draw_path(axes, x, far)),
    }


def _is_two_normals(p: object) -> TypeGuard[Mixture]:
    return (
        isinstance(p, Mixture)
        and isinstance(p.components, TiedGaussian)
        and p.components.mean.shape[-2:] == (2, 1)
    )


def _log_prob(x: Tensor, p: Mixture) -> Tensor:
    return log_prob(x, p).mean()


def _elbo(x: Tensor, p: Mixture, r: Tensor) -> Tensor:
    return em.bound(x, p, r).elbo.mean()


def _to(p: Mixture, x: Tensor) -> Mixture:
    mean, scale_tril = p.components
    return Mixture(p.log_weight.to(x), TiedGaussian(mean.to(x), scale_tril.to(x)))


def _weighted(p: Mixture, log_weight: Tensor) -> Mixture:
    return p._replace(log_weight=log_weight)


def _parameters(p: Mixture) -> Tensor:
    """alpha, the two means and sigma, `(4,)`, with the lower mean first."""
    mean, scale_tril = p.components
    order = mean[:, 0].argsort()
    return torch.cat([p.log_weight.exp()[order[:1]], mean[order, 0], scale_tril.flatten()])


def _directly(x: Tensor, start: Mixture) -> Tensor:
    """The maximum by BFGS on the density written out, in alpha's logit and sigma's logarithm; in
    the order of `_parameters`.
    """
    points = x[:, 0].cpu().numpy()

    def loss(theta: np.ndarray) -> float:
        logit, low, high, log_sigma = theta
        first, second = (stats.norm.logpdf(points, mean, np.exp(log_sigma)) for mean in (low, high))
        return -float(
            np.logaddexp(
                special.log_expit(logit) + first, special.log_expit(-logit) + second
            ).mean()
        )

    alpha, low, high, sigma = _parameters(start).tolist()
    begin = np.array([special.logit(alpha), low, high, np.log(sigma)])
    found = optimize.minimize(loss, begin, jac="3-point", method="BFGS", options={"gtol": 1e-9}).x
    return _parameters(
        two_normals(
            float(special.expit(found[0])),
            (float(found[1]), float(found[2])),
            float(np.exp(found[3])),
        )
    )


def _draw_alone(x: Tensor, truth: Mixture, path: list[Mixture]) -> dict[str, Tensor]:
    grid = torch.linspace(0.01, 0.99, 197, dtype=torch.float64)
    mixtures = [_weighted(truth, torch.stack([alpha, 1 - alpha]).to(x).log()) for alpha in grid]
    value = torch.stack([_log_prob(x, p) for p in mixtures]).cpu()
    bounds = [torch.stack([_elbo(x, q, em.e_step(x, p)) for q in mixtures]).cpu() for p in path]
    places = [p.log_weight[0].exp().item() for p in path]

    def curves(axes: Axes) -> None:
        axes.plot(grid, value, color="black", label="log-likelihood")
        for step, (place, bound, p) in enumerate(zip(places, bounds, path, strict=True)):
            axes.plot(
                grid,
                bound,
                color=f"C{step}",
                label=f"bound after E-step {step + 1}, at alpha = {place:.4f}",
            )
            axes.plot(place, _log_prob(x, p).cpu(), "o", color=f"C{step}")
        axes.set(xlabel="alpha, the weight of the first component", ylabel="nats per example")
        axes.legend()

    def gaps(axes: Axes) -> None:
        for step, (place, bound) in enumerate(zip(places, bounds, strict=True)):
            axes.semilogy(
                grid,
                (value - bound).clamp(min=1e-7),
                color=f"C{step}",
                label=f"after E-step {step + 1}",
            )
            axes.axvline(place, color=f"C{step}", linestyle=":")
        axes.set(
            xlabel="alpha; dotted: where the bound touches",
            ylabel="log-likelihood - bound, nats per example",
        )
        axes.legend()

    return {"weight_alone": chart(curves), "weight_alone_gap": chart(gaps)}


def _draw_path(axes: Axes, x: Tensor, start: Mixture) -> None:
    p = start
    within = torch.linspace(0, 1, 21)
    beyond = torch.linspace(-0.3, 1.6, 39)
    for step in range(_STEPS):
        r = em.e_step(x, p)
        following = em.fit(x, p, 1)
        value = torch.stack(
            [_log_prob(x, _between(p, following, s)) for s in within.tolist()]
        ).cpu()
        bound = torch.stack([_elbo(x, _between(p, following, s), r) for s in beyond.tolist()]).cpu()
        axes.plot(step + beyond, bound, color=f"C{step}", linewidth=1)
        axes.plot(
            step + within,
            value,
            color="black",
            linewidth=2,
            label=None if step else "log-likelihood",
        )
        axes.plot(
            step,
            value[0],
            "o",
            color=f"C{step}",
            label=None if step else "where a bound touches it: an E-step",
        )
        p = following
    low = _log_prob(x, start).item()
    high = _log_prob(x, p).item()
    axes.set(
        xlabel="EM step; between two, the straight line from the parameters to the next, and on",
        ylabel="nats per example",
        ylim=(low - 0.2 * (high - low), high + 0.1 * (high - low)),
    )
    axes.legend(loc="lower right")


def _between(p: Mixture, q: Mixture, share: float) -> Mixture:
    """On the line in log-weights, means and the logarithm of sigma."""
    mean = torch.lerp(p.components.mean, q.components.mean, share)
    ours, theirs = (gaussians(each.components).cholesky()[0].log() for each in (p, q))
    scale_tril = torch.lerp(ours, theirs, share).exp()
    return Mixture(
        torch.lerp(p.log_weight, q.log_weight, share).log_softmax(-1),
        TiedGaussian(mean, scale_tril),
    )
