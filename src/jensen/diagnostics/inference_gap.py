"""The part of a VAE's gap that is the encoder's, and the part that no Gaussian could close."""

import math
from collections.abc import Mapping
from functools import partial

import torch
from matplotlib.axes import Axes
from torch import Tensor

from jensen.base.errors import check_count, check_seed
from jensen.base.random import fold, normal
from jensen.bound.rate import BoundedBelow
from jensen.diagnostics.picture import chart
from jensen.diagnostics.snapshot import Snapshot, takes
from jensen.family.gaussian import Gaussian

_DRAWS = 8
"""Draws of each example in a step of the search."""

_AT_A_TIME = 16
"""Draws of each example that are decoded at once."""


@takes(Gaussian)
def inference_gap(
    snapshot: Snapshot,
    count: int = 64,
    steps: int = 200,
    samples: int = 256,
    lr: float = 0.1,
    seed: int = 0,
) -> Mapping[str, Tensor]:
    """evidence - elbo of `count` held-out examples, always the same, nats per example, as the sum of an
    `approximation` and an `amortisation` gap (Cremer, Li & Duvenaud 2018, arXiv 1801.03558).

    The best diagonal Gaussian of each example is sought by `steps` of Adam on its own mean and
    variance, from the encoder's. `approximation` is what is missing to the evidence even then,
    `amortisation` what the encoder's Gaussian has less than that one. The evidence is by importance
    sampling with `samples` draws of the best Gaussian: too low, if anything, and the approximation
    gap with it. `..._se` are standard errors over draws. `parts`: the two as bars.
    """
    check_count("count", count, least=2)
    check_count("steps", steps)
    check_count("samples", samples, least=2)
    check_seed("seed", seed)
    x = snapshot.images[:count]
    encoded = snapshot.encode(x)
    assert isinstance(encoded, Gaussian)
    encoded = Gaussian(*(part.detach() for part in encoded))
    best = _best(snapshot, x, encoded, steps, lr, seed)
    own, fitted = (
        _log_weights(snapshot, x, encoded, each, samples, seed) for each in (encoded, best)
    )
    # An example whose search ended lower than where it began keeps the encoder's.
    fitted = torch.where(fitted.mean(0) < own.mean(0), own, fitted)
    evidence = fitted.logsumexp(0) - math.log(samples)
    elbo, top = own.mean(0), fitted.mean(0)
    approximation, amortisation = evidence - top, top - elbo
    spread = math.sqrt(samples) * math.sqrt(len(x))
    error = (own.var(0).mean() + fitted.var(0).mean()).sqrt() / spread
    found = {
        "evidence": evidence.mean(),
        "elbo": elbo.mean(),
        "gap": (evidence - elbo).mean(),
        "approximation": approximation.mean(),
        "amortisation": amortisation.mean(),
        "amortisation_se": error,
        "approximation_se": fitted.var(0).mean().sqrt() / spread,
    }
    numbers = {name: float(value) for name, value in found.items()}
    return found | {"parts": chart(partial(_bars, numbers))}


def _bars(found: Mapping[str, float], axes: Axes) -> None:
    parts = ("approximation", "amortisation")
    axes.bar(
        [f"{part}: {found[part]:.2f}" for part in parts],
        [found[part] for part in parts],
        yerr=[found[f"{part}_se"] for part in parts],
        capsize=3,
    )
    axes.set(
        ylabel="nats per example, with standard errors",
        ylim=(0, None),
        title=f"evidence {found['evidence']:.2f} - elbo {found['elbo']:.2f} = {found['gap']:.2f}",
    )


def _best(
    snapshot: Snapshot, x: Tensor, encoded: Gaussian, steps: int, lr: float, seed: int
) -> Gaussian:
    """The diagonal Gaussians of greatest elbo, by Adam in units of the encoder's deviations, with
    steps that shrink to none.
    """
    with torch.inference_mode(False), torch.enable_grad():
        start = Gaussian(*(part.clone() for part in encoded))
        move = torch.zeros_like(start.mean, requires_grad=True)
        grow = torch.zeros_like(start.mean, requires_grad=True)
        optimiser = torch.optim.Adam([move, grow], lr=lr)
        x = x.clone()
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            q = _moved(start, move, grow)
            noise = _noise(seed, ("search", step), len(x), _DRAWS, q.mean)
            value = _log_weight(snapshot, x, start, q, noise)
            move.grad, grow.grad = torch.autograd.grad(-value.sum() / _DRAWS, [move, grow])
            optimiser.step()
        return Gaussian(*(part.detach() for part in _moved(start, move, grow)))


def _moved(start: Gaussian, move: Tensor, grow: Tensor) -> Gaussian:
    return Gaussian(start.mean + move * (0.5 * start.log_var).exp(), start.log_var + grow)


def _log_weights(
    snapshot: Snapshot, x: Tensor, encoded: Gaussian, q: Gaussian, samples: int, seed: int
) -> Tensor:
    """log p(x, z) - log q(z) at draws of q, `(samples, B)` float64."""
    parts = []
    for start in range(0, samples, _AT_A_TIME):
        some = min(_AT_A_TIME, samples - start)
        noise = _noise(seed, ("draws", start), len(x), some, q.mean)
        parts.append(_log_weight(snapshot, x, encoded, q, noise).detach())
    return torch.cat(parts).double()


def _noise(seed: int, words: tuple[str, int], rows: int, draws: int, like: Tensor) -> Tensor:
    """`(draws, rows, D)`."""
    index = torch.arange(rows, device=like.device)
    return normal(fold(seed, *words), index, (draws, like.shape[1])).transpose(0, 1).to(like)


def _log_weight(
    snapshot: Snapshot, x: Tensor, encoded: Gaussian, q: Gaussian, noise: Tensor
) -> Tensor:
    """log p(x, z) - log q(z) at z = q's draw of `noise` `(S, B, D)`, `(S, B)`, by the model's own
    inference: of the noise that its encoder's posterior makes that z of.
    """
    z = q.mean + (0.5 * q.log_var).exp() * noise
    own = (z - encoded.mean) * (-0.5 * encoded.log_var).exp()
    inference = snapshot.infer(x, own.flatten(0, 1))
    log_prior = inference.log_prior
    if isinstance(snapshot.prior, BoundedBelow):
        log_prior = snapshot.prior.log_prob(inference.z)
    joint = log_prior - inference.bound.distortion
    # A slope by way of z alone has the same mean, and no noise where q is the posterior (Roeder, Wu &
    # Duvenaud 2017, arXiv 1703.09194).
    held = Gaussian(*(part.detach() for part in q))
    return joint.unflatten(0, noise.shape[:2]) - held.log_prob(z)
