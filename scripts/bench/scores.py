"""How long each score takes, and how well the fast DCI agrees with DCI.

    python scripts/bench/scores.py [--full] [--agreement] [--code "+ 0.1 noise"] [--jobs N]

Codes are synthetic (15,000 points, factors of dSprites' sizes, 113 values), so nothing is trained
and encoding is not counted. The core set is what a run computes at validation; `--full` times all
scores at their full sizes, of which dci takes minutes. Beside it stand the seconds that disent's
fast settings took on one thread, quoted, not measured here.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import joblib
import numpy as np
import sklearn

from jensen import scores
from jensen.scores.synthetic import CODES, synthetic_codes, uniform_factors

DISENT = {"mig_hist20": 2.4, "dci": 36.0, "factor_vae": 117.0}
POINTS = 15_000
Score = Callable[..., dict[str, Any]]


def core(jobs: int | None) -> dict[str, Score]:
    """The core set at the sizes of a validation."""
    return {
        "mig_hist20": scores.mig_hist20,
        "infomec": scores.infomec,
        "factor_vae": scores.factor_vae,
        "sap_r2": scores.sap_r2,
        "modularity": scores.modularity,
        "dci": partial(scores.dci, train=1_000, test=500, jobs=jobs),
    }


def others(jobs: int | None) -> dict[str, Score]:
    """The other scores, at sizes that take seconds."""
    return {
        "dci_boost20": partial(scores.dci_boost20, train=1_000, test=500, jobs=jobs),
        "mig_exact": partial(scores.mig_exact, samples=1_000),
        "mig_knn": scores.mig_knn,
        "mig_sup": scores.mig_sup,
        "dcimig": scores.dcimig,
        "jemmig": scores.jemmig,
        "sap_svc": partial(scores.sap_svc, train=3_000),
        "beta_vae": scores.beta_vae,
        "explicitness": partial(scores.explicitness, train=1_000, test=1_000),
        "irs": scores.irs,
    }


def full(jobs: int | None) -> dict[str, Score]:
    """Those of the scores whose full size is another one."""
    return {
        "infomec": partial(scores.infomec, points=10_000, train=10_000),
        "mig_exact": scores.mig_exact,
        "mig_knn": partial(scores.mig_knn, points=10_000),
        "sap_svc": scores.sap_svc,
        "explicitness": scores.explicitness,
        "dci_boost20": partial(scores.dci_boost20, jobs=jobs),
        "dci": partial(scores.dci, jobs=jobs),
    }


def headline(found: dict[str, Any]) -> str:
    keys = [
        key
        for key in ("completeness", "informativeness", "infoc", "infoe", "standard_error")
        if key in found
    ]
    return "  ".join(f"{key} {found[key]:.3f}" for key in [next(iter(found)), *keys])


def clock(title: str, contenders: dict[str, Score], codes: np.ndarray, factors: np.ndarray) -> None:
    print(f"\n{title:28} {'seconds':>8} {'CPU':>8} {'disent':>8}")
    total = np.zeros(2)
    for name, score in contenders.items():
        extra = (np.full_like(codes, 2 * np.log(0.1)),) if name == "mig_exact" else ()
        begin = np.array([time.perf_counter(), time.process_time()])
        found = score(codes, factors, *extra)
        spent = np.array([time.perf_counter(), time.process_time()]) - begin
        total += spent
        quoted = f"{DISENT[name]:8.1f}" if name in DISENT else f"{'':8}"
        print(f"{name:28} {spent[0]:8.2f} {spent[1]:8.2f} {quoted}  {headline(found)}", flush=True)
    print(f"{'together':28} {total[0]:8.2f} {total[1]:8.2f}", flush=True)


def agree(factors: np.ndarray, train: int, jobs: int | None) -> None:
    title = f"dci, dci_boost20 at {train}"
    keys = ("disentanglement", "completeness", "informativeness")
    print(f"\n{title:28} " + "".join(f"{key:>16}" for key in keys) + f"{'seconds':>13}")
    differences = []
    for name in CODES:
        codes = synthetic_codes(name, factors)
        found = []
        spent = []
        for score in (scores.dci, scores.dci_boost20):
            begin = time.perf_counter()
            found.append(score(codes, factors, train=train, test=train // 2, jobs=jobs))
            spent.append(time.perf_counter() - begin)
        pairs = [[one[key] for one in found] for key in keys]
        differences.append([abs(slow - fast) for slow, fast in pairs])
        shown = "".join(f"{slow:10.3f} {fast:.3f}" for slow, fast in pairs)
        print(f"{name:28} {shown} {spent[0]:10.1f} {spent[1]:.1f}", flush=True)
    print(
        f"{'mean |difference|':28} "
        + "".join(f"{value:16.3f}" for value in np.mean(differences, 0))
    )
    print(
        f"{'largest |difference|':28} "
        + "".join(f"{value:16.3f}" for value in np.max(differences, 0))
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true", help="full sizes too: minutes")
    parser.add_argument(
        "--agreement", action="store_true", help="dci_boost20 against dci at 1,000 points: minutes"
    )
    parser.add_argument("--code", choices=CODES, default="+ 0.1 noise")
    parser.add_argument("--jobs", type=int, help="processes of dci; by default all cores")
    options = parser.parse_args()
    factors = uniform_factors(POINTS)
    codes = synthetic_codes(options.code, factors)
    print(f'code "{options.code}", {joblib.cpu_count()} cores, scikit-learn {sklearn.__version__}')
    clock("core set, dci at 1,000", core(options.jobs), codes, factors)
    clock("others, at sizes of seconds", others(options.jobs), codes, factors)
    if options.full:
        clock("full sizes", full(options.jobs), codes, factors)
    if options.agreement:
        agree(factors, 1_000, options.jobs)


if __name__ == "__main__":
    main()
