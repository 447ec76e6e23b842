"""The latents' scores that a diffusion prior has learned, beside the exact ones."""

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from torch import Tensor

from jensen.base.errors import InputError, check_count, check_list, check_number, check_seed
from jensen.base.random import fold, normal
from jensen.diagnostics.picture import chart
from jensen.diagnostics.snapshot import Snapshot, takes
from jensen.family.family import diagonal
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import aggregate
from jensen.model.diffusion import Denoise, Diffusion, exact, levels


@takes(Gaussian)
def score_field(
    snapshot: Snapshot,
    gammas: tuple[float, ...] = (-4.0, 0.0, 4.0),
    count: int = 500,
    side: int = 16,
    seed: int = 0,
) -> Mapping[str, Tensor]:
    """The prior's denoiser against the exact one of q(z), the mixture of all held-out posteriors,
    at each noise level gamma; for two latents a picture of both scores too.

    `excess_<level>` is E |guess - exact guess|^2 over `count` draws of q(z) under that noise, of
    `unexplained_<level>`, E |eps - exact guess|^2, which no denoiser is below.

    Raises:
        InputError: a prior that is no diffusion.
    """
    check_list("gammas", gammas)
    for gamma in gammas:
        check_number("gammas", gamma, low=-30, high=30)
    check_count("count", count, least=2)
    check_count("side", side, least=2)
    check_seed("seed", seed)
    prior = snapshot.prior
    if not isinstance(prior, Diffusion):
        raise InputError(
            f"model.prior is a {type(prior).__name__}: expected model/prior=diffusion, whose scores"
            " are learned; choose that, or leave out diagnostics=[score_field]"
        )
    z = snapshot.z[:count]
    truth = exact(aggregate(diagonal(snapshot.posterior, "diagnostics=[score_field]")))
    index = torch.arange(len(z), device=z.device)
    found: dict[str, Tensor] = {}
    for level, gamma in enumerate(gammas):
        at = torch.full_like(z[:, 0], gamma)
        alpha, sigma = levels(at[0])
        eps = normal(fold(seed, "score field", level), index, (z.shape[1],)).to(z)
        noisy = alpha * z + sigma * eps
        best = truth(noisy, at)
        found[f"excess_{level}"] = (prior.denoise(noisy, at) - best).square().sum(1).mean()
        found[f"unexplained_{level}"] = (eps - best).square().sum(1).mean()
        if z.shape[1] == 2:
            found[f"gamma_{level}"] = _picture(prior, truth, noisy, gamma, side)
    return {name: value.detach() for name, value in found.items()}


def _picture(prior: Diffusion, truth: Denoise, noisy: Tensor, gamma: float, side: int) -> Tensor:
    """Arrows of both scores on a grid over the points."""
    low = noisy.amin(0)
    high = noisy.amax(0)
    across, up = (torch.linspace(a.item(), b.item(), side) for a, b in zip(low, high, strict=True))
    grid = torch.cartesian_prod(across, up).to(noisy)
    at = torch.full_like(grid[:, 0], gamma)
    _, sigma = levels(at[0])
    scores = [(-guess(grid, at) / sigma).cpu() for guess in (truth, prior.denoise)]
    longest = max(score.norm(dim=1).quantile(0.9).item() for score in scores)
    place = grid.cpu()
    points = noisy.cpu()

    def arrows(axes: Axes) -> None:
        axes.scatter(points[:, 0], points[:, 1], s=2, color="0.8")
        for score, colour, name in zip(
            scores, ("C0", "C1"), ("exact score of q(z)", "prior"), strict=True
        ):
            axes.quiver(*place.T, *score.T, color=colour, label=name, scale=side * longest)
        axes.set(xlabel="z0", ylabel="z1", title=f"scores under noise, gamma = {gamma:g}")
        axes.legend(loc="upper right")

    return chart(arrows, 5, 5)
