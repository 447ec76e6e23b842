"""What a mixture prior has learned: who uses which component, and what each generates."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from torch import Tensor

from jensen.core import gaussian
from jensen.core.gaussian import Gaussian
from jensen.core.random import fold, normal
from jensen.diagnostics.picture import chart, grid, is_image
from jensen.diagnostics.snapshot import Snapshot, by_rate

_POINTS = 2000
"""Codes in the picture of ellipses."""


def mixture(snapshot: Snapshot, rows: int = 10, columns: int = 8) -> Mapping[str, Tensor | str]:
    """Of a prior that is a mixture of K Gaussians; for any other prior a note that it is none.

    components_used: exp of the entropy of the weights, K if all are equal.
    responsibility_entropy: mean over held-out examples of the entropy of p(k | z) at their z; 0 if components do not overlap.
    component_information: entropy of the mean responsibilities less that, I(x; k) <= log K, nats.
    rate_bound, rate_monte_carlo (and its standard error): the held-out rate as the model reports it, and log q(z|x) - log p(z).
    samples: of the `rows` heaviest components, the decoded mean and `columns` - 1 decoded draws.
    ellipses: two standard deviations of each component over codes, in the two latents of largest rate.
    """
    if snapshot.prior is None:
        return {"note": "The prior is not a mixture over all latents: there are no components to show."}
    log_weight, components = snapshot.prior
    weight, order = log_weight.exp(), log_weight.argsort(descending=True)
    r = (log_weight + components.log_density(snapshot.z.double())).softmax(-1)
    within, between = _entropy(r).mean(), _entropy(r.mean(0))
    sampled = (gaussian.log_density(snapshot.z, snapshot.posterior).sum(-1) - snapshot.log_prior).double()

    def bars(axes: Axes) -> None:
        axes.bar(np.arange(len(weight)), weight[order].cpu().numpy(), label="weight")
        axes.step(np.arange(len(weight)), r.mean(0)[order].cpu().numpy(), where="mid", color="C1", label="held-out share")
        axes.set(xlabel="component, by weight", ylabel="weight")
        axes.legend()

    marginals = components.marginals()
    results = {
        "components_used": _entropy(weight).exp(),
        "largest_weight": weight.max(),
        "smallest_weight": weight.min(),
        "responsibility_entropy": within,
        "component_information": between - within,
        "rate_bound": snapshot.bound.rate.mean(),
        "rate_monte_carlo": sampled.mean(),
        "rate_monte_carlo_se": sampled.std() / math.sqrt(len(sampled)),
        "log_weight": log_weight,
        "weights": chart(bars),
        "ellipses": _ellipses(snapshot, weight, marginals),
    }
    if is_image(snapshot.images.shape[1:]):
        shown = order[:rows]
        index = torch.arange(len(shown), device=shown.device)
        noise = normal(fold(0, "component samples"), index, (columns, snapshot.z.shape[1]))
        noise[:, 0] = 0
        full = components.full()
        draws = full.mean[shown].unsqueeze(1) + noise.double() @ full.scale_tril[shown].mT
        images = snapshot.decode(draws.flatten(0, 1).to(snapshot.z.dtype)).unflatten(0, draws.shape[:2])
        labels = [f"{component}\n{weight[component]:.3f}" for component in shown.tolist()]
        results["samples"] = grid(images, labels)
    return results


def _entropy(p: Tensor) -> Tensor:
    """Of probabilities on the last axis, nats."""
    return -torch.xlogy(p, p).sum(-1)


def _ellipses(snapshot: Snapshot, weight: Tensor, components: Gaussian) -> Tensor:
    first, second = (by_rate(snapshot).tolist() * 2)[:2]
    codes = snapshot.posterior.mean[:_POINTS].cpu()
    mean, std = components.mean.cpu(), (0.5 * components.log_var).exp().cpu()
    strength = (weight / weight.max()).cpu().tolist()

    def draw(axes: Axes) -> None:
        axes.scatter(codes[:, first], codes[:, second], s=2, color="0.6")
        for centre, size, alpha in zip(mean, std, strength, strict=True):
            place = (float(centre[first]), float(centre[second]))
            axes.add_patch(
                Ellipse(place, 4 * float(size[first]), 4 * float(size[second]), fill=False, color="C0", alpha=max(alpha, 0.1))
            )
        axes.set(xlabel=f"z{first}", ylabel=f"z{second}", title="components (2 standard deviations) over codes")

    return chart(draw, 6, 6)
