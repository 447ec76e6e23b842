"""EM on points that are read from a memory map, 20,000,000 x 16 with K = 64, as far as they fit."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import alone  # noqa: F401
import gmm
import numpy as np
import torch
from mixtures import drawn

POINTS = 20_000_000
DIM = 16
COMPONENTS = 64
ITERATIONS = 3
_BYTES = 4 * DIM
_WRITE_SECONDS = 15


def main(report: Callable[..., None], device: str, tiny: bool) -> None:
    wanted = 20_000 if tiny else POINTS
    with tempfile.TemporaryDirectory() as folder:
        room = shutil.disk_usage(folder).free // 2 // _BYTES
        path = Path(folder) / "points.npy"
        points = _write(path, min(wanted, room), device)
        x = np.load(path, mmap_mode="r")
        for covariance in ("diag", "full"):
            w = gmm.Workload(points, DIM, COMPONENTS, covariance, ITERATIONS)
            means = torch.as_tensor(x[:: points // COMPONENTS][:COMPONENTS].copy()).double()
            fit = gmm.GMM(
                COMPONENTS,
                covariance,
                init=means,
                tolerance=0.0,
                max_iter=ITERATIONS,
                accelerate=False,
            ).to(device)
            if device != "cpu":
                torch.cuda.reset_peak_memory_stats()
            begin = time.perf_counter()
            fit.fit(x)
            seconds = time.perf_counter() - begin
            held = {}
            if device != "cpu":
                held["device_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
            report(
                name=f"{points:,} x {DIM}, {COMPONENTS} {covariance}",
                of_wanted=round(points / wanted, 3),
                ms=round(1e3 * seconds / ITERATIONS, 1),
                whole_fit_s=round(seconds, 2),
                iterations=w.iterations,
                gigabytes=round(points * _BYTES / 1e9, 2),
                log_likelihood=fit.log_likelihood / points,
                **held,
            )


def _write(path: Path, points: int, device: str) -> int:
    """Write as many points as the disk takes in time; the number of them."""
    part = min(points, 1_000_000)
    begin = time.perf_counter()
    w = gmm.Workload(part, DIM, COMPONENTS, "diag", 1)
    block = drawn(w, device).cpu().numpy()
    rng = np.random.default_rng(0)
    written = 0
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (points, DIM)}
        )
        while written < points:
            count = min(part, points - written)
            (block[:count] + rng.standard_normal(DIM, np.float32) / 10).tofile(file)
            written += count
            if time.perf_counter() - begin > _WRITE_SECONDS:
                break
    if written < points:
        with path.open("r+b") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": (written, DIM)}
            )
    return written
