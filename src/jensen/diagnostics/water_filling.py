"""The linear beta-VAE on Gaussian data against its closed-form optimum, reverse water-filling."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from torch import Tensor

from jensen.base.errors import check_number
from jensen.diagnostics.linear import check_variances, linear_model
from jensen.diagnostics.picture import chart
from jensen.diagnostics.snapshot import Snapshot, takes
from jensen.family.gaussian import Gaussian


class Optimum(NamedTuple):
    """rate: nats; squared_error: summed over dimensions; active: latents in use."""

    rate: float
    squared_error: float
    active: int


def optimum(
    variances: Sequence[float], beta: float, noise: float, latents: int | None = None
) -> Optimum:
    """The optimum of a linear VAE with decoder variance `noise` on N(0, Sigma), Sigma with
    eigenvalues `variances`, of as many `latents` as dimensions by default.

    With theta = beta * noise: rate = 1/2 sum_d max(0, log(lambda_d / theta)), squared error = sum_d
    min(lambda_d, theta), and one active latent for each lambda_d > theta. It is Shannon's
    rate-distortion function of a Gaussian source (Cover & Thomas 2006, theorem 10.3.3); as the
    optimum of a linear VAE, Lucas et al. 2019 (arXiv 1911.02469) for beta = 1. Fewer latents have the
    largest variances, and the others are left whole (Tipping & Bishop 1999).

    >>> optimum([4.0, 2.0, 1.0], beta=1.0, noise=1.0, latents=1)
    Optimum(rate=0.6931471805599453, squared_error=4.0, active=1)
    """
    theta = beta * noise
    ordered = sorted(variances, reverse=True)
    kept, left = ordered[:latents], ordered[len(ordered) if latents is None else latents :]
    return Optimum(
        rate=0.5 * sum(max(0.0, math.log(value / theta)) for value in kept),
        squared_error=sum(min(value, theta) for value in kept) + sum(left),
        active=sum(value > theta for value in kept),
    )


@takes(Gaussian)
def water_filling(
    snapshot: Snapshot,
    variances: Sequence[float],
    beta: float,
    noise: float,
    threshold: float = 0.01,
) -> Mapping[str, Tensor | str]:
    """The trained model's rate, squared error and active latents beside those of `optimum`, and
    both on Shannon's curve.

    Expectations over the data and z follow from the model's matrices, without sampling
    (`diagnostics.linear`), for data with covariance diag(variances): `data.rotate` must be false.
    """
    check_variances(variances, snapshot)
    check_number("beta", beta, low=1e-12)
    check_number("noise", noise, low=1e-12)
    check_number("threshold", threshold, low=0)
    model = linear_model(snapshot)
    sigma = torch.tensor(list(variances), dtype=torch.float64).diag().to(model.noise)
    rate = model.rate(sigma)
    error = model.squared_error(sigma)
    active = ((model.encoder @ sigma @ model.encoder.T).diagonal() > threshold).sum()

    latents = len(model.offset)
    best = optimum(variances, beta, noise, latents)
    table = "| | theory | trained |\n|---|---|---|\n"
    for name, wanted, got in zip(Optimum._fields, best, (rate, error, active), strict=True):
        table += f"| {name} | {wanted:.4f} | {got.item():.4f} |\n"

    def curve(axes: Axes) -> None:
        betas = [0.01 * max(variances) / noise * 1.05**step for step in range(95)]
        lines = {"Shannon": len(variances)}
        if latents < len(variances):
            lines[f"of {latents} latents"] = latents
        for label, count in lines.items():
            points = [optimum(variances, each, noise, count) for each in betas]
            axes.plot(
                [point.rate for point in points],
                [point.squared_error for point in points],
                label=label,
            )
        axes.plot(rate.item(), error.item(), "o", label=f"trained, beta = {beta:g}")
        axes.set(
            xlabel="rate (nats)",
            ylabel="squared error",
            title="rate-distortion function of the Gaussian source",
        )
        axes.legend()

    return {
        "rate": rate,
        "squared_error": error,
        "active": active.double(),
        "rate_excess": rate - best.rate,
        "squared_error_excess": error - best.squared_error,
        "active_excess": (active - best.active).double(),
        "curve": chart(curve),
        "table": table,
    }
