"""What a prior costs and gains, and what draws of an autoregressive decoder cost.

    python scripts/bench/priors.py cost [--steps 60] [--rounds 5] [--priors diffusion ...]
    python scripts/bench/priors.py draws [--images 64]
    python scripts/bench/priors.py evidence RUN RUN ... [--images 256] [--samples 64]

cost: the processor time of a training step (forward, backward, Adam) of a 784-400-20 VAE on batches of 128 under
each prior, beside that under N(0, I): medians over rounds in turn.

draws: the processor time of drawing images of 784 pixels from PixelCNN and MADE as `conf` has them.

evidence: log p(x) of the same test images under each run, by importance sampling (Burda et al. 2016, eq. 8), and how
much it exceeds that of the first run, with the standard error of the paired difference. Of a diffusion log p(z) is that
of its probability flow.
"""

import argparse
import math
import statistics
import time
from pathlib import Path

import torch
from hydra.utils import instantiate
from torch import Tensor

import jensen
from jensen.base.random import fold, normal
from jensen.base.tree import tree_map
from jensen.bound.rate import BoundedBelow
from jensen.model.autoregressive import MADE
from jensen.model.pixelcnn import PixelCNN
from jensen.model.vae import VAE, still
from jensen.objective.beta import Beta
from jensen.run.load import load
from jensen.run.reading import configuration

PRIORS = ("standard_normal", "mixture", "factorised", "vamp", "flow", "diffusion")


def cost(steps: int, rounds: int, priors: list[str]) -> None:
    torch.set_num_threads(1)
    x = (torch.rand(128, 1, 28, 28, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    models = {
        name: jensen.VAE("mlp", "mlp", prior=name, latent_dim=20, x_shape=[1, 28, 28])
        for name in dict.fromkeys([PRIORS[0], *priors])
    }
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            seconds[name].append(_seconds_of_a_step(model, x, steps))
    plain = statistics.median(seconds["standard_normal"])
    print("| prior | ms of a step | of the plain VAE's |\n|---|---|---|")
    for name, found in seconds.items():
        print(
            f"| {name} | {1e3 * statistics.median(found):.2f} | {statistics.median(found) / plain:.2f} |"
        )


def _seconds_of_a_step(model: VAE, x: Tensor, steps: int) -> float:
    objective = Beta(1.0)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, fused=True)  # as a run has it
    start = 0.0
    for count in range(-5, steps):  # the first five warm up
        if count == 0:
            start = time.process_time()
        step = torch.tensor(max(count, 0) + 1000)  # past any warm-up
        inference = model(x, normal(count + 5, torch.arange(len(x)), (20,)))
        loss = objective(inference, step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        model.prior.update(tree_map(torch.detach, inference.posterior), step)
    return (time.process_time() - start) / steps


def draws(images: int) -> None:
    torch.set_num_threads(1)
    for likelihood in (PixelCNN([1, 28, 28]), MADE([1, 28, 28])):
        start = time.process_time()
        likelihood.sample(torch.zeros(images, 1, 28, 28), 0, torch.arange(images))
        spent = time.process_time() - start
        print(f"{type(likelihood).__name__}: {images} images, {spent:.1f} s of processor time")


def evidence(runs: list[Path], images: int, samples: int) -> None:
    x = instantiate(configuration(runs[0]).data).show(images)
    found = {}
    for run in runs:
        model, step = load(run)
        with still(model):
            found[run.name] = log_p(model, x, samples)
        print(f"{run.name}, of step {step}: {found[run.name].mean():.3f}", flush=True)
    first = found[runs[0].name]
    print(f"\nlog p(x) of {len(x)} images, {samples} draws, nats\n")
    print("| prior | log p(x) | more than the first | paired standard error |\n|---|---|---|---|")
    for name, each in found.items():
        more = each - first
        error = more.std() / math.sqrt(len(more))
        print(f"| {name} | {each.mean():.2f} | {more.mean():+.2f} | {error:.2f} |")


def log_p(model: VAE, x: Tensor, samples: int) -> Tensor:
    """`(B, *event)` to `(B,)`, nats."""
    log_weights = []
    for draw in range(samples):
        noise = normal(fold(0, "evidence", draw), torch.arange(len(x)), (model.latent_dim,))
        inference = model(x, noise)
        p = model.prior.distribution()
        log_prior = p.log_prob(inference.z) if isinstance(p, BoundedBelow) else inference.log_prior
        log_weights.append(
            (log_prior - inference.bound.distortion - inference.log_posterior).double()
        )
    return torch.stack(log_weights).logsumexp(0) - math.log(samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    one = what.add_parser("cost")
    one.add_argument("--steps", type=int, default=60)
    one.add_argument("--rounds", type=int, default=5)
    one.add_argument("--priors", nargs="+", choices=PRIORS, default=PRIORS)
    drawn = what.add_parser("draws")
    drawn.add_argument("--images", type=int, default=64)
    other = what.add_parser("evidence")
    other.add_argument("runs", type=Path, nargs="+")
    other.add_argument("--images", type=int, default=256)
    other.add_argument("--samples", type=int, default=64)
    given = parser.parse_args()
    if given.what == "cost":
        cost(given.steps, given.rounds, given.priors)
    elif given.what == "draws":
        draws(given.images)
    else:
        evidence(given.runs, given.images, given.samples)


if __name__ == "__main__":
    main()
