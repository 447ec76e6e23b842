"""How long an iteration of other mixtures takes, in CPU seconds and ratios.

    python scripts/bench/mixtures.py [--rows bernoulli A B C] [--rounds 3] [--dtypes float32 float64]

bernoulli: 10,000 x 784 zeros and ones, K = 50: an EM step (E-step and M-step) against its two bare
matrix products. A, B, C: the workloads of gmm.py, a step of variational Bayes against one of EM, and
against scikit-learn's BayesianGaussianMixture, everything that `fit` does divided by the iterations;
last what no E-step does without, the two products and an exponential of each point and component.
Rounds are interleaved, one thread; a cell is the median.
"""

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # before numpy and torch are loaded
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ.pop("OPENBLAS_CORETYPE", None)  # of another processor, it slows scikit-learn
    sys.path.insert(0, str(Path(__file__).parent))

import torch
from gmm import WORKLOADS, Workload, data, products, start

import jensen
from jensen.base.memory import freed_kept
from jensen.em.steps import m_step
from jensen.em.stream import Stream, moments
from jensen.family.moments import PseudoCounts

Timed = Callable[[], float]


def median_of(contenders: dict[str, Timed], rounds: int) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            found[name].append(run())
    return {name: statistics.median(times) for name, times in found.items()}


def seconds(run: Callable[[], object], times: int) -> float:
    begin = time.process_time()
    for _ in range(times):
        run()
    return (time.process_time() - begin) / times


def bernoulli(dtype: torch.dtype, rounds: int) -> dict[str, float]:
    draw = torch.Generator().manual_seed(0)
    x = (torch.rand(10_000, 784, generator=draw) < 0.2).to(dtype)
    model = jensen.MixtureModel(50, "bernoulli", max_iter=0).fit(x[:2000])
    p = model.mixture
    stream = Stream(
        lambda size: ((part, None) for part in x.split(size)), len(x), torch.zeros(784, dtype=dtype)
    )
    prior = PseudoCounts(values=2.0)

    def step() -> None:
        m_step(p, moments(p, stream(p, dtype)), prior)

    coefficients = torch.randn(50, 784, dtype=dtype)
    joint = torch.empty(50, 10_000, dtype=dtype)
    sums = torch.empty(784, 50, dtype=dtype)

    def products() -> None:
        torch.mm(coefficients, x.T, out=joint)
        torch.mm(x.T, joint.T, out=sums)

    with freed_kept():  # as a fit has it
        for each in (step, products):
            each()
        contenders = {
            "two bare products": partial(seconds, products, 5),
            "EM step": partial(seconds, step, 5),
        }
        return median_of(contenders, rounds)


def exponentials(w: Workload, dtype: torch.dtype) -> float:
    """Seconds of an iteration's exponentials alone, one for each point and component."""
    r = -20 * torch.rand(w.components, 1 << 12, dtype=dtype)
    out = torch.empty_like(r)
    times = w.points // r.shape[1]
    return seconds(lambda: torch.exp(r, out=out), times) * w.points / r.shape[1]


def bayesian(name: str, dtype: str, rounds: int) -> dict[str, float]:
    from sklearn.mixture import BayesianGaussianMixture

    w = WORKLOADS[name]
    x = data(name, w).astype(dtype)
    means = start(name, w, x)
    points = torch.as_tensor(x)
    shared = {"init": torch.as_tensor(means), "tolerance": 0.0, "max_iter": w.iterations}

    def em() -> None:
        jensen.GMM(w.components, w.covariance, accelerate=False, **shared).fit(points)

    def variational() -> None:
        jensen.BayesianGMM(w.components, w.covariance, **shared).fit(points)

    def theirs(iterations: int) -> None:
        BayesianGaussianMixture(
            n_components=w.components,
            covariance_type=w.covariance,
            weight_concentration_prior_type="dirichlet_distribution",
            init_params="random_from_data",
            max_iter=iterations,
            tol=0.0,
            random_state=0,
        ).fit(x)

    few = max(2, w.iterations // 5)
    bare = products(w, getattr(torch, dtype), "cpu")
    return median_of(
        {
            "EM": lambda: seconds(em, 1) / w.iterations,
            "variational Bayes": lambda: seconds(variational, 1) / w.iterations,
            "scikit-learn": lambda: seconds(partial(theirs, few), 1) / few,
            "its two products and exponentials": lambda: (
                bare() + exponentials(w, getattr(torch, dtype))
            ),
        },
        rounds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", default=["bernoulli", "A", "B", "C"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for row in options.rows:
        for dtype in options.dtypes:
            if row == "bernoulli":
                found = bernoulli(getattr(torch, dtype), options.rounds)
            else:
                found = bayesian(row, dtype, options.rounds)
            first = next(iter(found.values()))
            cells = [
                f"{name} {1e3 * value:.1f} ms ({value / first:.2f})"
                for name, value in found.items()
            ]
            print(f"{row:10s} {dtype}  " + ", ".join(cells), flush=True)


if __name__ == "__main__":
    main()
