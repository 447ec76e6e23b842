"""How many components are chosen: jensen's elbo against scikit-learn's lower bound, and the digits of
both on Old Faithful.

    python scripts/bench/choices.py [--seeds 6] [--faithful old_faithful.csv]

18 sets of two clusters 6 deviations apart in each coordinate, 60 points each, in 1, 2 and 6
dimensions; of K = 1..5 the one with the largest bound is chosen, with Dirichlet weights
(concentration 1/K) and with a stick-breaking process. --faithful: a csv of 272 rows whose last two
columns are minutes and waiting; elbos beside those of the theory reference, best of 20 starts.
"""

import argparse
import csv
import os
import warnings
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # before numpy and torch are loaded
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"

import numpy as np
import torch
from sklearn.mixture import BayesianGaussianMixture

import jensen

LARGEST = 5
DIMENSIONS = (1, 2, 6)
REFERENCE = {  # elbo by concentration, for K = 1..4: computed without this project's code
    "1/K": (-1303.897518, -1178.979243, -1181.422683, -1182.841296),
    "1": (-1303.897518, -1178.571838, -1183.406408, -1187.839315),
}
THEIRS = (-805.8517084, -681.6454565, -684.1341165, -685.2136546)

Bound = Callable[[np.ndarray, int], float]


def two_clusters(dim: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=(60, dim)), 6 + rng.normal(size=(60, dim))])


def theirs(weights: str) -> Bound:
    def bound(x: np.ndarray, k: int) -> float:
        model = BayesianGaussianMixture(
            n_components=k,
            weight_concentration_prior_type=weights,
            max_iter=1000,
            random_state=0,
        )
        return float(model.fit(x).lower_bound_)

    return bound


def ours(weights: str, labels: bool) -> Bound:
    def bound(x: np.ndarray, k: int) -> float:
        concentration = 1.0 if weights == "stick" else 1 / k
        model = jensen.BayesianGMM(k, concentration=concentration, weights=weights, restarts=3)
        model.fit(x)
        return float(model.labelled if labels else model.elbo)

    return bound


def chosen(bound: Bound, x: np.ndarray) -> int:
    values = [bound(x, k) for k in range(1, LARGEST + 1)]
    return 1 + int(np.argmax(values))


def choices(seeds: int) -> None:
    contenders = {
        "scikit-learn, its defaults (Dirichlet process)": theirs("dirichlet_process"),
        "scikit-learn, Dirichlet": theirs("dirichlet_distribution"),
        "jensen, Dirichlet, elbo": ours("dirichlet", labels=False),
        "jensen, Dirichlet, elbo + log K!": ours("dirichlet", labels=True),
        "jensen, stick-breaking, elbo": ours("stick", labels=False),
    }
    heads = [f"D = {dim}" for dim in DIMENSIONS]
    print(f"| | {' | '.join(heads)} | wrong |\n|---|{'---|' * len(heads)}---|")
    for name, bound in contenders.items():
        found = [
            [chosen(bound, two_clusters(dim, seed)) for seed in range(seeds)] for dim in DIMENSIONS
        ]
        wrong = sum(k != 2 for row in found for k in row)
        cells = [" ".join(map(str, row)) for row in found]
        total = seeds * len(DIMENSIONS)
        print(f"| {name} | {' | '.join(cells)} | {wrong} of {total} |", flush=True)


def faithful(path: Path) -> None:
    with path.open() as file:
        rows = list(csv.reader(file))[1:]
    x = torch.tensor([[float(value) for value in row[-2:]] for row in rows], dtype=torch.float64)
    print("\n| concentration | K | reference | jensen | difference | scikit-learn's lower_bound_ |")
    print("|---|---|---|---|---|---|")
    for name, expected in REFERENCE.items():
        for k, value in enumerate(expected, start=1):
            concentration = 1 / k if name == "1/K" else 1.0
            model = jensen.BayesianGMM(
                k, concentration=concentration, restarts=20, tolerance=1e-12, max_iter=20_000
            )
            found = float(model.fit(x).elbo)
            beside = f"{THEIRS[k - 1]:.4f}" if name == "1/K" else "-"
            row = (name, k, f"{value:.6f}", f"{found:.6f}", f"{found - value:+.1e}", beside)
            print("| " + " | ".join(map(str, row)) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--faithful", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    choices(options.seeds)
    if options.faithful:
        faithful(options.faithful)


if __name__ == "__main__":
    main()
