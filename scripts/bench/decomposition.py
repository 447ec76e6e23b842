"""The exact decomposition against the [S, N, D] broadcast that other projects use for the same
numbers.

    python scripts/bench/decomposition.py [--examples 10000 100000] [--samples 10000] [--latents 10]
    [--rounds 3]

One thread. The broadcast is done in blocks of draws, so that it fits in memory, in float32 as users
do; for large N it is timed on part of the draws and scaled up. The error of log q(z) is against the
same sum in float64, broadcast, of 100 draws.
"""

import argparse
import math
import statistics
import time

import torch
from torch import Tensor

from jensen.bound.aggregate import aggregate_log_density, draw
from jensen.bound.decomposition import decompose
from jensen.family.gaussian import LOG_2PI, Gaussian

BLOCK = 100


def posteriors(count: int, dim: int) -> Gaussian:
    """Half of the latents narrow, half near the prior."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(count, dim, generator=generator)
    log_var = torch.full((count, dim), 2 * math.log(0.1))
    mean[:, dim // 2 :] *= 0.05
    log_var[:, dim // 2 :] = 0
    return Gaussian(mean, log_var)


def broadcast(z: Tensor, q: Gaussian) -> tuple[Tensor, Tensor]:
    """log q(z) `(S,)` and log q(z_d) `(S, D)` by all S x N x D log-densities."""
    joint = []
    marginals = []
    for block in z.split(BLOCK):
        each = -0.5 * (
            LOG_2PI + q.log_var + (block[:, None] - q.mean).square() * (-q.log_var).exp()
        )
        joint.append(each.sum(2).logsumexp(1) - math.log(len(q.mean)))
        marginals.append(each.logsumexp(1) - math.log(len(q.mean)))
    return torch.cat(joint), torch.cat(marginals)


def seconds(function, *arguments, **options) -> float:
    start = time.process_time()
    function(*arguments, **options)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--latents", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"S = {options.samples}, D = {options.latents}, one thread, torch {torch.__version__}; CPU"
        " seconds, medians"
    )
    print(
        f"{'N':>8} {'broadcast':>10} {'joint':>8} {'all parts':>10} {'ratio':>7}"
        f" {'error of log q(z)':>18}"
    )
    for count in options.examples:
        q = posteriors(count, options.latents)
        exact = Gaussian(q.mean.double(), q.log_var.double())
        draws = draw(exact, options.samples, torch.Generator().manual_seed(1))
        part = min(options.samples, max(BLOCK, 10_000_000 // count))
        theirs = []
        joint = []
        ours = []
        for _ in range(options.rounds):
            theirs.append(seconds(broadcast, draws.z[:part].float(), q) * options.samples / part)
            joint.append(seconds(aggregate_log_density, draws, exact, count))
            ours.append(
                seconds(
                    decompose,
                    q,
                    samples=options.samples,
                    generator=torch.Generator().manual_seed(1),
                )
            )
        truth = broadcast(draws.z[:100].double(), exact)[0]
        error = (aggregate_log_density(draws, exact, count)[:100] - truth).abs().max()
        ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
        medians = [statistics.median(times) for times in (theirs, joint, ours)]
        print(
            f"{count:8,} {medians[0]:10.2f} {medians[1]:8.2f} {medians[2]:10.2f} {ratio:7.0f}"
            f" {error:18.1e}"
        )


if __name__ == "__main__":
    main()
