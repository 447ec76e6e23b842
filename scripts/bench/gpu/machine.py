"""The device, and what it reaches on a large square product and a large copy."""

import os
import platform
import time
from collections.abc import Callable
from typing import Any

import alone  # noqa: F401
import torch


def seconds(work: Callable[[], Any], device: str, repeats: int = 1) -> float:
    """Wall-clock seconds of one of `repeats` calls, the device waited for."""
    synchronise(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronise(device)
    return (time.perf_counter() - begin) / repeats


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def product(device: str, dtype: torch.dtype, size: int, tf32: bool = False) -> float:
    """Floating-point operations a second of a square product."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    out = torch.empty_like(a)
    for _ in range(3):
        torch.mm(a, b, out=out)
    each = min(seconds(lambda: torch.mm(a, b, out=out), device, 5) for _ in range(3))
    torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * size**3 / each


def main(report: Callable[..., None], device: str, tiny: bool) -> None:
    from importlib.metadata import version

    named = torch.cuda.get_device_name() if device != "cpu" else platform.processor()
    report(
        name="device",
        device=named,
        torch=torch.__version__,
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        lightning=version("pytorch-lightning"),
        python=platform.python_version(),
        cores=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
    )
    report(
        name="tf32 by default",
        products=torch.backends.cuda.matmul.allow_tf32,
        convolutions=torch.backends.cudnn.allow_tf32,
    )
    size = 256 if tiny else 8192
    rates = {
        "float32": product(device, torch.float32, size),
        "float64": product(device, torch.float64, size // 2),
        "bfloat16": product(device, torch.bfloat16, size),
    }
    if device != "cpu":
        rates["tf32"] = product(device, torch.float32, size, tf32=True)
    report(name="square product", size=size, **{k: round(v / 1e12, 2) for k, v in rates.items()})
    source = torch.empty(1 << (20 if tiny else 30), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    each = min(seconds(lambda: target.copy_(source), device, 5) for _ in range(3))
    report(name="copy", gigabytes_a_second=round(2 * source.numel() / each / 1e9, 1))
