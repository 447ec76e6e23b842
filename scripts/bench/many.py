"""How long many small fits take: `GMM.fit` of all of them against loops, CPU seconds, one thread.

    python scripts/bench/many.py [--sets 1000] [--points 200] [--dim 2] [--components 2] [--rounds 3]

A fit takes the likeliest of five k-means starts, scikit-learn's one: a row has jensen with one too.
Loops are timed on `--some` of the sets and scaled to all. scikit-learn's stops at 1e-3 nats by
default, after one k-means; at jensen's 1e-6 it goes as far as jensen does.
"""

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable

if __name__ == "__main__":  # before numpy and torch are loaded
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"

import torch

import jensen
from jensen.em import many_start


def sets(count: int, points: int, dim: int) -> torch.Tensor:
    """Two overlapping clusters each, `(count, points, dim)`."""
    generator = torch.Generator().manual_seed(0)
    inside = torch.rand(count, points, 1, generator=generator, dtype=torch.float64) < 0.4
    noise = torch.randn(count, points, dim, generator=generator, dtype=torch.float64)
    return noise * torch.linspace(1, 0.5, dim).double() + 3 * inside


def seconds(run: Callable[[], object]) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin


def with_one_start(run: Callable[[], object]) -> None:
    several = many_start.CANDIDATES
    many_start.CANDIDATES = 1
    try:
        run()
    finally:
        many_start.CANDIDATES = several


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("sets", 1000), ("points", 200), ("dim", 2), ("components", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--some", type=int, default=100)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    x = sets(given.sets, given.points, given.dim)
    some = x[: given.some]
    scale = len(x) / len(some)
    contenders: dict[str, tuple[Callable[[], object], float]] = {
        "jensen, one batch": (lambda: jensen.GMM(given.components).fit(x), 1.0),
        "the same with one k-means start": (
            lambda: with_one_start(lambda: jensen.GMM(given.components).fit(x)),
            1.0,
        ),
        "a loop of GMM.fit": (
            lambda: [jensen.GMM(given.components).fit(each) for each in some],
            scale,
        ),
    }
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError:
        print("scikit-learn is not installed: its rows are left out")
    else:
        arrays = some.numpy()
        contenders["scikit-learn, its tolerance 1e-3"] = (
            lambda: [GaussianMixture(given.components).fit(each) for each in arrays],
            scale,
        )
        contenders["scikit-learn, tolerance 1e-6"] = (
            lambda: [
                GaussianMixture(given.components, tol=1e-6, max_iter=1000).fit(each)
                for each in arrays
            ],
            scale,
        )
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(given.rounds + 1):  # of which the first warms up
        for name, (run, times) in contenders.items():
            found[name].append(seconds(run) * times)
    print(f"{given.sets} fits of {given.points} x {given.dim}, K = {given.components}")
    print("| | CPU seconds | times as long |\n|---|---|---|")
    base = statistics.median(found["jensen, one batch"][1:])
    for name, values in found.items():
        middle = statistics.median(values[1:])
        print(f"| {name} | {middle:.3f} | {middle / base:.1f} |")


if __name__ == "__main__":
    main()
