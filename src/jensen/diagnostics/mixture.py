"""A learned mixture, the prior of a VAE or a GMM: who uses which component, and what each
generates.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from jensen.base.errors import InputError, check_count
from jensen.base.random import fold, normal
from jensen.diagnostics.picture import brightness, chart, grid, is_image
from jensen.diagnostics.snapshot import Snapshot, by_rate
from jensen.family.codes import Codes
from jensen.family.family import are_gaussians
from jensen.family.full import FullGaussian
from jensen.family.full import full as whole
from jensen.family.mixture import Mixture

_POINTS = 2000
"""Codes in the picture of ellipses."""


def mixture(snapshot: Snapshot, rows: int = 10, columns: int = 8) -> Mapping[str, Tensor | str]:
    """The `components` of a prior that is a mixture of K Gaussians; for any other prior a note that
    it is none.

    rate_bound, rate_monte_carlo (and its standard error): the held-out rate as the model reports
    it, and log q(z|x) - log p(z); the latter not of codes alone.
    """
    _check(rows, columns)
    if not isinstance(snapshot.prior, Mixture):
        return {
            "note": "The prior is not a mixture over all latents: there are no components to show."
        }
    found = {**components(snapshot, rows, columns), "rate_bound": snapshot.bound.rate.mean()}
    if isinstance(snapshot.posterior, Codes):
        return found
    sampled = (snapshot.posterior.log_prob(snapshot.z) - snapshot.log_prior).double()
    return {
        **found,
        "rate_monte_carlo": sampled.mean(),
        "rate_monte_carlo_se": sampled.std() / math.sqrt(len(sampled)),
    }


def components(snapshot: Snapshot, rows: int = 10, columns: int = 8) -> Mapping[str, Tensor]:
    """The mixture of K components that a GMM or another mixture is, or a prior:

    components_used: exp of the entropy of the weights, K if all are equal.
    responsibility_entropy: mean over held-out examples of the entropy of p(k | z) at their z; 0 if
        components do not overlap.
    component_information: entropy of the mean responsibilities less that, I(x; k) <= log K, nats.
    weights: and the share of the held-out examples that each component answers for.
    samples: of the `rows` heaviest components, the decoded mean and `columns` - 1 decoded draws.
    ellipses: of Gaussians, two standard deviations of each component over codes, in the two latents
        of largest rate.
    prototypes: of other components, what each expects, the heaviest first, with their weights.
    """
    _check(rows, columns)
    if not isinstance(snapshot.prior, Mixture):
        raise InputError(
            "the prior is no mixture of all latents: expected model/prior=mixture or vamp, or a GMM"
        )
    log_weight, parts = snapshot.prior
    weight = log_weight.exp()
    order = log_weight.argsort(descending=True)
    r = (log_weight + parts.log_density(snapshot.z.double())).softmax(-1)
    within = _entropy(r).mean()
    between = _entropy(r.mean(0))

    def bars(axes: Axes) -> None:
        axes.bar(np.arange(len(weight)), weight[order].cpu().numpy(), label="weight")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.step(
            np.arange(len(weight)),
            r.mean(0)[order].cpu().numpy(),
            where="mid",
            color="C1",
            label="held-out share",
        )
        axes.set(xlabel="component, by weight", ylabel="weight")
        axes.legend()

    results = {
        "components_used": _entropy(weight).exp(),
        "largest_weight": weight.max(),
        "smallest_weight": weight.min(),
        "responsibility_entropy": within,
        "component_information": between - within,
        "log_weight": log_weight,
        "weights": chart(bars),
    }
    if not are_gaussians(parts):
        return results | {
            "prototypes": _prototypes(snapshot, weight[order], parts.mean[order], columns)
        }
    full = whole(parts)
    results["ellipses"] = ellipses(snapshot, weight, full)
    if is_image(snapshot.images.shape[1:]):
        shown = order[:rows]
        index = torch.arange(len(shown), device=shown.device)
        noise = normal(fold(0, "component samples"), index, (columns, snapshot.z.shape[1]))
        noise[:, 0] = 0
        draws = full.mean[shown].unsqueeze(1) + noise.to(full.mean) @ full.scale_tril[shown].mT
        images = snapshot.decode(draws.flatten(0, 1).to(snapshot.z.dtype)).unflatten(
            0, draws.shape[:2]
        )
        labels = [f"{component}\n{weight[component]:.3f}" for component in shown.tolist()]
        results["samples"] = grid(brightness(snapshot.images)(images), labels)
    return results


def _prototypes(snapshot: Snapshot, weight: Tensor, mean: Tensor, columns: int) -> Tensor:
    """Draw of images the mean of each component, in rows; else a chart of all means."""
    if not is_image(snapshot.images.shape[1:]):

        def draw(axes: Axes) -> None:
            spread = mean.std(0).clamp(min=1e-12)
            shown = axes.imshow(
                ((mean - mean.mean(0)) / spread).cpu().numpy(), cmap="RdBu", aspect="auto"
            )
            axes.figure.colorbar(shown, label="mean, in deviations among components")
            axes.set_yticks(range(len(weight)), [f"{value:.3f}" for value in weight.tolist()])
            axes.set(xlabel="column", ylabel="component, by weight")

        return chart(draw)
    images = brightness(snapshot.images)(snapshot.decode(mean.to(snapshot.z.dtype)))
    rows = -(-len(images) // columns)
    blank = images.new_ones(rows * columns - len(images), *images.shape[1:])
    padded = torch.cat([images, blank])  # black would be a component of black images
    labels = [
        f"{weight[row * columns]:.3f}\n{weight[min((row + 1) * columns, len(weight)) - 1]:.3f}"
        for row in range(rows)
    ]
    return grid(padded.unflatten(0, (rows, columns)), labels)


def _check(rows: int, columns: int) -> None:
    check_count("rows", rows)
    check_count("columns", columns)


def _entropy(p: Tensor) -> Tensor:
    """Entropy of probabilities on the last axis, nats."""
    return -torch.xlogy(p, p).sum(-1)


def ellipses(snapshot: Snapshot, weight: Tensor, parts: FullGaussian) -> Tensor:
    """Two standard deviations of each component, faded by weight, over codes in two latents."""
    latents = by_rate(snapshot)[:2].cpu()
    codes = snapshot.posterior.mean[:_POINTS, latents].cpu()
    mean = parts.mean[:, latents].cpu()
    scale_tril = parts.scale_tril[:, latents].cpu()
    variances, axes_of = torch.linalg.eigh(scale_tril @ scale_tril.mT)
    strength = (weight / weight.max()).clamp(min=0.1).cpu().tolist()
    axis = "column " if isinstance(snapshot.posterior, Codes) else "z"

    def draw(axes: Axes) -> None:
        if len(latents) == 1:
            axes.hist(codes[:, 0], bins=60, density=True, color="0.8")
            x = torch.linspace(*torch.aminmax(codes[:, 0].double()), 400, dtype=torch.float64)
            density = (
                torch.distributions.Normal(mean[:, 0], variances[:, 0].sqrt())
                .log_prob(x[:, None])
                .exp()
                * weight.cpu()
            )
            axes.plot(x, density, color="C0")
            axes.plot(x, density.sum(1), color="C1")
            axes.set(
                xlabel=f"{axis}{latents[0]}",
                ylabel="density",
                title="components and their sum over codes",
            )
            return
        axes.scatter(codes[:, 0], codes[:, 1], s=2, color="0.6")
        for centre, size, direction, alpha in zip(
            mean, variances.sqrt(), axes_of, strength, strict=True
        ):
            angle = math.degrees(math.atan2(float(direction[1, 1]), float(direction[0, 1])))
            place = (float(centre[0]), float(centre[1]))
            axes.add_patch(
                Ellipse(
                    place,
                    4 * float(size[1]),
                    4 * float(size[0]),
                    angle=angle,
                    fill=False,
                    color="C0",
                    alpha=alpha,
                )
            )
        axes.set(
            xlabel=f"{axis}{latents[0]}",
            ylabel=f"{axis}{latents[1]}",
            title="components (2 standard deviations) over codes",
        )

    return chart(draw, 6, 6)
