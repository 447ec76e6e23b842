"""How far minibatch estimates of MI, TC and DWKL are from the exact ones, by estimator and batch
size.

    python scripts/bench/estimators.py [--sizes 64 256 1024] [--batches 40] [--samples 10000]
    [--seed 0]

The encoder is a toy of 10 latents on N = 10,000 examples: five factors, uniform with variance 1,
are coded with a standard deviation of 0.1, the last two of them after a rotation by 45 degrees; the
other five latents are N(0, 1) whatever x is. Besides the estimators of `jensen.bound.minibatch`
there are two mistakes found in public code: stratified weights of which column 0, not the diagonal,
gets the own posterior's 1/N; and sums without their constants.
"""

import argparse
import math

import torch
from torch import Tensor

from jensen.bound.decomposition import decompose
from jensen.bound.minibatch import log_weight, minibatch_parts
from jensen.family import gaussian
from jensen.family.gaussian import STANDARD, Gaussian

EXAMPLES = 10_000
LATENTS = 10
ACTIVE = 5
STD = 0.1

# The same table by an independent implementation: MI / TC / DWKL for M = 64, 256, 1024; its exact
# values 8.97 / 2.11 / 0.45.
REFERENCE = {
    "stratified": ((9.20, 2.47, -0.12), (9.18, 2.04, 0.34), (9.14, 1.96, 0.42)),
    "mws": ((13.37, 89.4, -91.2), (14.75, 88.4, -91.6), (16.12, 87.0, -91.6)),
    "plain": ((4.16, 6.52, 0.87), (5.54, 5.46, 0.55), (6.91, 4.14, 0.47)),
    "column 0 for the diagonal": ((4.22, 6.46, 0.86), (5.55, 5.45, 0.55), (6.91, 4.14, 0.47)),
    "constants dropped": ((0.0, -30.9, 42.5), (0.0, -44.4, 56.0), (0.0, -58.2, 69.8)),
}


def toy(generator: torch.Generator) -> Gaussian:
    """q(z|x) of every example, `(N, D)`."""
    factors = (
        2 * torch.rand(EXAMPLES, ACTIVE, generator=generator, dtype=torch.float64) - 1
    ) * math.sqrt(3)
    first = factors[:, -2].clone()
    second = factors[:, -1].clone()
    factors[:, -2] = (first - second) / math.sqrt(2)
    factors[:, -1] = (first + second) / math.sqrt(2)
    mean = torch.cat([factors, torch.zeros(EXAMPLES, LATENTS - ACTIVE, dtype=torch.float64)], 1)
    log_var = torch.zeros_like(mean)
    log_var[:, :ACTIVE] = 2 * math.log(STD)
    return Gaussian(mean, log_var)


def weights(row: str, batch: int, like: Tensor) -> Tensor:
    """log w `(M, M)` of an estimator, or of a mistake for one."""
    if row == "column 0 for the diagonal":
        right = log_weight("stratified", batch, EXAMPLES, like=like)
        wrong = torch.full_like(right, right[0, 1].item())
        wrong[:, 0] = right[0, 0]
        return wrong
    if row == "constants dropped":
        return torch.zeros(batch, batch, dtype=like.dtype)
    return log_weight(row, batch, EXAMPLES, like=like)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument(
        "--batches", type=int, default=40, help="of each size; a quarter of it from M = 1024 on"
    )
    parser.add_argument("--samples", type=int, default=10_000, help="draws for the exact values")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(options.seed)

    posterior = toy(generator)
    exact = decompose(posterior, samples=options.samples, generator=generator)
    terms = [exact.mutual_information, exact.total_correlation, exact.dimension_wise_kl]
    print(
        f"exact over N = {EXAMPLES}, nats: MI {terms[0]:.2f} (SE"
        f" {exact.mutual_information_se:.3f})",
        end=", ",
    )
    print(
        f"TC {terms[1]:.2f} (SE {exact.total_correlation_se:.3f}), DWKL {terms[2]:.2f}, sum"
        f" {exact.rate:.2f}",
        end=", ",
    )
    print(f"log N {exact.log_n:.2f}\n")

    sums: dict[tuple[str, int], Tensor] = {}
    rows = ["stratified", "mss", "mws", "plain", "column 0 for the diagonal", "constants dropped"]
    for size in options.sizes:
        count = options.batches if size < 1024 else -(-options.batches // 4)
        for _ in range(count):
            some = torch.randperm(EXAMPLES, generator=generator)[:size]
            noise = torch.randn(size, LATENTS, generator=generator)
            for row in rows:  # of the same batches
                q = Gaussian(posterior.mean[some], posterior.log_var[some])
                z = gaussian.sample(q, noise)
                found = minibatch_parts(z, q, weights(row, size, z), STANDARD.log_prob(z))
                sums[row, size] = (
                    sums.get((row, size), torch.zeros(3, dtype=torch.float64)) + found / count
                )

    def cell(values: Tensor | tuple[float, ...]) -> str:
        return " / ".join(f"{value:.2f}" for value in values)

    print(f"{'MI / TC / DWKL':28}" + "".join(f"{f'M = {size}':>24}" for size in options.sizes))
    for row in rows:
        print(f"{row:28}" + "".join(f"{cell(sums[row, size]):>24}" for size in options.sizes))
        if row in REFERENCE and options.sizes == [64, 256, 1024]:
            print(
                f"{'  (independent)':28}"
                + "".join(f"{cell(values):>24}" for values in REFERENCE[row])
            )
    print("\nEvery row sums to the rate of its batches, the wrong ones too.")


if __name__ == "__main__":
    main()
