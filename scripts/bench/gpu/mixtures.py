"""EM of `scripts/bench/gmm.py`'s workloads: milliseconds an iteration, and the bare products'.

Beside the largest, G and S, stands what NVIDIA has published of cuVS: other hardware, and a whole
fit from its own start, so a scale and no comparison.
"""

import statistics
from collections.abc import Callable

import alone  # noqa: F401
import gmm
import torch
from machine import product

CUVS = {"G": 1.31, "S": 0.176}
"""Seconds of a whole fit of cuVS on an RTX PRO 6000, float32, as NVIDIA published in July 2026."""
ROUNDS = 3


def main(report: Callable[..., None], device: str, tiny: bool, names: str) -> None:
    peak = product(device, torch.float32, 256 if tiny else 8192)
    for name in names:
        w = gmm.WORKLOADS[name]
        if tiny:
            w = w._replace(points=2000, iterations=2)
        try:
            _measure(report, name, w, device, peak)
        except Exception as error:
            report(name=name, fails=f"{type(error).__name__}: {error}"[:400])


def _measure(
    report: Callable[..., None], name: str, w: gmm.Workload, device: str, peak: float
) -> None:
    x = drawn(w, device)
    means = x[torch.randperm(len(x), device=device)[: w.components]].double().cpu()
    run = gmm.jensen_run(w, x, means, device)
    run()  # warms up
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated() if device != "cpu" else 0
    times = []
    for _ in range(ROUNDS):
        seconds, fitted = run()
        times.append(seconds / w.iterations)
    bare = statistics.median(gmm.products(w, torch.float32, device)() for _ in range(ROUNDS))
    ours = statistics.median(times)
    work = 4 * w.points * w.components * gmm.STRUCTURES[w.covariance].layout(w.dim).width
    more = {}
    if device != "cpu":
        more["mib_beyond_the_data"] = round((torch.cuda.max_memory_allocated() - held) / 2**20, 1)
    if name in CUVS:
        more["seconds_of_cuvs_whole_fit"] = CUVS[name]
        more["iterations_in_that_time"] = round(CUVS[name] / ours, 1)
    report(
        name=f"{name}: {w.points:,} x {w.dim}, {w.components} {w.covariance}",
        ms=round(1e3 * ours, 3),
        bare_products_ms=round(1e3 * bare, 3),
        percent_of_a_float32_product=round(100 * work / ours / peak, 1),
        iterations=w.iterations,
        log_likelihood=fitted.log_likelihood / w.points,
        **more,
    )


def drawn(w: gmm.Workload, device: str) -> torch.Tensor:
    """Points of a mixture as `gmm.data` draws them, but on the device: `(N, D)` float32."""
    torch.manual_seed(0)
    means = 2 * torch.randn(w.components, w.dim, device=device)
    factors = 0.7 * torch.randn(w.components, w.dim, w.dim, device=device) / w.dim**0.5
    factors += 0.5 * torch.eye(w.dim, device=device)
    label = torch.randint(w.components, (w.points,), device=device)
    x = torch.randn(w.points, w.dim, device=device)
    for k in range(w.components):
        mine = (label == k).nonzero()[:, 0]
        x[mine] = means[k] + x[mine] @ factors[k].T
    return x
