"""How long an EM iteration takes: jensen against scikit-learn, pomegranate and torchgmm (the last
two where importable).

    python scripts/bench/gmm.py [--workloads ABCDEF] [--dtypes float32 float64] [--rounds 3]
    [--threads 1] [--device cpu]
                                [--peers sklearn pomegranate torchgmm] [--memory] [--target]

Every contender starts at the same K data points with the data's variance and equal weights, and
takes the same number of iterations. Rounds are interleaved; a table cell is the median of CPU
seconds an iteration (wall-clock on a GPU), everything that `fit` does divided by the iterations.
"floor" is the two bare matrix products of an iteration, and "of peak" what the rate of those in
jensen's time is of the rate of a large square product. "ll" is the mean log-likelihood of the
parameters found, by one float64 evaluation, less jensen's float64 one. --memory: peak memory of a
fit beyond the data, MiB (Linux). --target: time to scikit-learn's own final log-likelihood at its
tolerance, jensen with its acceleration.
"""

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":  # before numpy and torch are loaded
    threads = sys.argv[sys.argv.index("--threads") + 1] if "--threads" in sys.argv else "1"
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = threads
    os.environ.pop("OPENBLAS_CORETYPE", None)  # of another processor, it slows scikit-learn

import numpy as np
import torch

from jensen.family import mixture
from jensen.family.mixture import Mixture
from jensen.family.structures import STRUCTURES
from jensen.model.gmm import GMM


class Workload(NamedTuple):
    points: int
    dim: int
    components: int
    covariance: str
    iterations: int


WORKLOADS = {
    "A": Workload(100_000, 16, 32, "full", 20),
    "B": Workload(100_000, 16, 32, "diag", 20),
    "C": Workload(1_000_000, 8, 16, "diag", 20),
    "D": Workload(1_000, 1, 2, "full", 200),
    "E": Workload(200_000, 64, 64, "full", 3),
    "F": Workload(200_000, 64, 64, "full", 2),
    "G": Workload(2_000_000, 64, 32, "full", 10),
    "S": Workload(2_000_000, 64, 32, "spherical", 10),
}
TARGET = Workload(100_000, 8, 16, "diag", 1000)


def data(name: str, w: Workload) -> np.ndarray:
    rng = np.random.default_rng(0)
    if name == "D":
        return np.where(
            rng.random(w.points) < 0.7, rng.normal(0, 1, w.points), rng.normal(5, 1, w.points)
        )[:, None]
    means = 2 * rng.normal(size=(w.components, w.dim))
    factors = 0.7 * rng.normal(size=(w.components, w.dim, w.dim)) / np.sqrt(w.dim) + 0.5 * np.eye(
        w.dim
    )
    label = rng.choice(w.components, w.points, p=rng.dirichlet([5] * w.components))
    x = rng.normal(size=(w.points, w.dim))
    for k in range(w.components):
        x[label == k] = means[k] + x[label == k] @ factors[k].T
    return x + rng.normal(size=x.shape) if name == "F" else x


def start(name: str, w: Workload, x: np.ndarray) -> np.ndarray:
    return (
        np.array([[-1.0], [3.0]])
        if name == "D"
        else x[np.random.default_rng(1).choice(len(x), w.components, replace=False)]
    )


def covariances(w: Workload, x: np.ndarray) -> np.ndarray:
    variance = x.var(0, dtype=np.float64)
    each = np.diag(variance) if w.covariance == "full" else variance
    return np.repeat(each[None], w.components, 0)


Run = Callable[[], tuple[float, Any]]
"""Fits once: seconds, and what `judge` takes."""


def timed(fit: Callable[[], Any], device: str) -> tuple[float, Any]:
    clock = time.process_time if device == "cpu" else time.perf_counter
    begin = clock()
    fitted = fit()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - begin, fitted


def jensen_run(w: Workload, x: np.ndarray, means: np.ndarray, device: str, **options: Any) -> Run:
    settings = {
        "init": torch.as_tensor(means),
        "tolerance": 0.0,
        "max_iter": w.iterations,
        "accelerate": False,
    } | options
    points = torch.as_tensor(x, device=device)
    return lambda: timed(lambda: GMM(w.components, w.covariance, **settings).fit(points), device)


def sklearn_run(w: Workload, x: np.ndarray, means: np.ndarray, device: str, **options: Any) -> Run:
    from sklearn.mixture import GaussianMixture

    cov = covariances(w, x)
    settings = {
        "weights_init": np.full(w.components, 1 / w.components, x.dtype),
        "means_init": means.astype(x.dtype),
        "precisions_init": (np.linalg.inv(cov) if w.covariance == "full" else 1 / cov).astype(
            x.dtype
        ),
        "tol": 0.0,
        "reg_covar": 1e-10 if x.dtype == np.float64 else 1e-6,
        "max_iter": w.iterations,
    }
    return lambda: timed(
        lambda: GaussianMixture(
            w.components, covariance_type=w.covariance, **settings | options
        ).fit(x),
        device,
    )


def pomegranate_run(w: Workload, x: np.ndarray, means: np.ndarray, device: str) -> Run:
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    points = torch.as_tensor(x, device=device)
    dtype = torch.as_tensor(x).dtype
    cov = torch.as_tensor(covariances(w, x)).to(points)

    def fit() -> Any:
        mean = torch.as_tensor(means).to(points)
        parts = [
            Normal(m.clone(), c.clone(), covariance_type=w.covariance)
            for m, c in zip(mean, cov, strict=True)
        ]
        weights = torch.full((w.components,), 1 / w.components, dtype=dtype)
        return (
            GeneralMixtureModel(parts, priors=weights, tol=-1e30, max_iter=w.iterations)
            .to(device)
            .fit(points)
        )

    return lambda: timed(fit, device)


def torchgmm_run(w: Workload, x: np.ndarray, means: np.ndarray, device: str) -> Run:
    import logging

    from torchgmm.bayes import GaussianMixture

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    points = torch.as_tensor(x)
    trainer = {
        "max_epochs": w.iterations,
        "accelerator": "gpu" if device != "cpu" else "cpu",
        "devices": 1,
    }

    def fit() -> Any:
        model = GaussianMixture(
            w.components,
            covariance_type=w.covariance,
            init_means=torch.as_tensor(means).to(points),
            convergence_tolerance=0.0,
            covariance_regularization=1e-6,
            trainer_params=trainer
            | {"enable_progress_bar": False, "logger": False, "enable_checkpointing": False},
        )
        return model.fit(points)

    return lambda: timed(fit, device)


CONTENDERS = {
    "jensen": jensen_run,
    "sklearn": sklearn_run,
    "pomegranate": pomegranate_run,
    "torchgmm": torchgmm_run,
}


def judge(fitted: Any, w: Workload, x: np.ndarray) -> float:
    """Mean log-likelihood by one float64 evaluation of whatever was fitted."""
    if isinstance(fitted, GMM):
        p = fitted.mixture
    else:
        library = type(fitted).__module__.split(".")[0]
        if library == "sklearn":
            weights = fitted.weights_
            means = fitted.means_
            cov = fitted.covariances_
        elif library == "pomegranate":
            weights = fitted.priors.cpu().numpy()
            means = np.stack([each.means.cpu().numpy() for each in fitted.distributions])
            cov = np.stack([each.covs.cpu().numpy() for each in fitted.distributions])
        else:
            model = fitted.model_
            weights, means, cov = (
                part.cpu().numpy()
                for part in (model.component_probs, model.means, model.covariances)
            )
        weights, means, cov = (torch.as_tensor(part).double() for part in (weights, means, cov))
        shape = torch.linalg.cholesky(cov) if w.covariance == "full" else cov.log()
        p = Mixture(weights.log(), STRUCTURES[w.covariance](means, shape))
    p = Mixture(p.log_weight.cpu(), type(p.components)(*(part.cpu() for part in p.components)))
    return mixture.log_prob(torch.as_tensor(x), p).mean().item()


def products(w: Workload, dtype: torch.dtype, device: str) -> Callable[[], float]:
    """Seconds of an iteration's two matrix products alone, on chunks that stay in the cache."""
    width = STRUCTURES[w.covariance].layout(w.dim).width
    chunk = (
        min(w.points, max(256, 2**21 // ((width + w.components) * dtype.itemsize)))
        if device == "cpu"
        else 1 << 16
    )
    features = torch.randn(width, chunk, dtype=dtype, device=device)
    coefficient = features.new_ones(w.components, width)
    r = features.new_empty(w.components, chunk)
    sums = features.new_empty(width, w.components)

    def once() -> float:
        count = max(1, w.points // chunk)
        repeats = max(1, 100_000 // w.points)

        def iteration() -> None:
            for _ in range(count * repeats):
                torch.mm(coefficient, features, out=r)
                torch.mm(features, r.T, out=sums)

        return timed(iteration, device)[0] * w.points / (count * repeats * chunk)

    return once


def peak(dtype: torch.dtype, device: str) -> float:
    """Products of large square matrices, floating-point operations a second."""
    size = 1024 if device == "cpu" else 8192
    a, b = torch.randn(2, size, size, dtype=dtype, device=device)
    out = torch.empty_like(a)
    times = [timed(lambda: torch.mm(a, b, out=out), device)[0] for _ in range(6)]
    return 2 * size**3 / min(times[1:])


def high_water(fit: Callable[[], Any]) -> float:
    """MiB by which a call raises the process's peak of resident memory (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status")

    def read(key: str) -> int:
        return next(
            int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(key)
        )

    before = read("VmRSS")
    fit()
    return (read("VmHWM") - before) / 1024


def compare(name: str, dtype: str, options: argparse.Namespace) -> None:
    w = WORKLOADS[name]
    whole = data(name, WORKLOADS[name])
    means = start(name, w, whole)
    x = whole.astype(dtype)
    runs: dict[str, Run] = {}
    for contender in ("jensen", *options.peers):
        try:
            runs[contender] = CONTENDERS[contender](w, x, means, options.device)
        except ImportError:
            continue
    times: dict[str, list[float]] = {contender: [] for contender in runs}
    floor = products(w, getattr(torch, dtype), options.device)
    bare = []
    fitted: dict[str, Any] = {}
    reference = judge(jensen_run(w, whole, means, options.device)()[1], w, whole)  # warms up too
    for _ in range(options.rounds):
        bare.append(floor())
        for contender, run in list(runs.items()):
            try:
                seconds, fitted[contender] = run()
                times[contender].append(seconds / w.iterations)
            except Exception as error:
                fitted[contender] = f"fails: {str(error).splitlines()[0][:60]}"
                del runs[contender]
    ours = statistics.median(times["jensen"])
    work = 4 * w.points * w.components * STRUCTURES[w.covariance].layout(w.dim).width
    best = peak(getattr(torch, dtype), options.device)
    shape = f"{w.points:,} x {w.dim}, K={w.components}, {w.covariance}"
    print(f"\n{name} {dtype}: {shape}, {w.iterations} iterations; log-likelihood {reference:.8f}")
    least = statistics.median(bare)
    print(
        f"  {'floor':12} {least * 1e3:10.3f} ms/it {least / ours:6.2f}x  "
        f" {work / least / 1e9:,.0f} GFLOP/s, jensen"
        f" {work / ours / 1e9:,.0f}, {100 * work / ours / best:.0f} % of peak"
    )
    for contender, seconds in times.items():
        if isinstance(fitted.get(contender), str) or not seconds:
            print(f"  {contender:12} {fitted.get(contender)}")
            continue
        ratio = statistics.median(seconds) / ours
        ll = judge(fitted[contender], w, whole) - reference
        memory = f"   {high_water(runs[contender]):6.1f} MiB" if options.memory else ""
        print(
            f"  {contender:12} {statistics.median(seconds) * 1e3:10.3f} ms/it {ratio:6.2f}x   ll"
            f" {ll:+.2e}{memory}",
            flush=True,
        )


def target(options: argparse.Namespace) -> None:
    """Time to scikit-learn's final log-likelihood at two of its tolerances."""
    w = TARGET
    x = data("", w)
    means = start("", w, x)
    jensen_run(w, x, means, options.device, max_iter=2)()  # warms up
    for tolerance in (1e-3, 1e-5):
        seconds, fitted = sklearn_run(w, x, means, options.device, tol=tolerance)()
        goal = judge(fitted, w, x)
        print(
            f"\ntarget: {w.points:,} x {w.dim}, K={w.components}, {w.covariance}; scikit-learn at"
            f" tol {tolerance:g}:"
        )
        print(
            f"  sklearn          {seconds:8.2f} s {fitted.n_iter_:5d} iterations   log-likelihood"
            f" {goal:.8f}"
        )
        for dtype in options.dtypes:
            points = x.astype(dtype)
            run = jensen_run(w, points, means, options.device, accelerate=True, tolerance=1e-9)
            history = [step.log_likelihood for step in run()[1].history]
            steps = next((i + 1 for i, value in enumerate(history) if value >= goal), None)
            if steps is None:
                print(f"  jensen {dtype}   ends at {history[-1]:.8f}, below it")
                continue
            # A step that was thrown away has no entry: allow for it until the goal is met.
            for allowed in range(steps, 3 * steps):
                ours, found = jensen_run(
                    w,
                    points,
                    means,
                    options.device,
                    accelerate=True,
                    tolerance=0.0,
                    max_iter=allowed,
                )()
                if judge(found, w, x) >= goal:
                    break
            print(
                f"  jensen {dtype}   {ours:8.2f} s {allowed:5d} iterations   {seconds / ours:.1f}x"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", default="ABCDEF")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    peers = [name for name in CONTENDERS if name != "jensen"]
    parser.add_argument("--peers", nargs="*", default=peers, choices=peers)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--target", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    name = torch.cuda.get_device_name(options.device) if options.device != "cpu" else "cpu"
    print(
        f"torch {torch.__version__}, {options.threads} thread(s), {name}, {options.rounds} rounds"
    )
    for name in options.workloads:
        for dtype in options.dtypes:
            compare(name, dtype, options)
    if options.target:
        target(options)


if __name__ == "__main__":
    main()
