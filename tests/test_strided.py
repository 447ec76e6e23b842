"""The kernels of `scripts/bench/gpu/strided.py`, where there is no GPU: interpreted, and compiled for one."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "scripts" / "bench"


def _interprets():
    """Tell without importing triton; before 3.7 its interpreter stumbles over numpy."""
    try:
        major, minor = metadata.version("triton").split(".")[:2]
    except metadata.PackageNotFoundError:
        return False
    return (int(major), int(minor)) >= (3, 7)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _interprets(), reason="no triton of 3.7 or later"),
]
INTERPRETED = """
import strided
import torch
from torch import nn

torch.manual_seed(0)
encoder = nn.Sequential(
    nn.Conv2d(3, 5, 4, 2, 1), nn.ReLU(), nn.Conv2d(5, 6, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 4)
)
decoder = nn.Sequential(
    nn.Linear(4, 24), nn.ReLU(), nn.Unflatten(1, (6, 2, 2)),
    nn.ConvTranspose2d(6, 5, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(5, 1, 6, 2, 2),
)
x = torch.randn(3, 3, 8, 8, requires_grad=True)
slope = torch.randn(3, 1, 8, 8)


def step(first, second, x, slope):
    found = second(first(x))
    return found, *torch.autograd.grad(found, [x, *encoder.parameters(), *decoder.parameters()], slope)


ours = step(strided.strided(encoder), strided.strided(decoder, beside=2), x, slope)
encoder.double(), decoder.double()
for one, other in zip(ours, step(encoder, decoder, x.double(), slope.double()), strict=True):
    torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)
"""


STACKED = """
import strided
import torch
from standing_in import standing_in

from jensen.algorithm.stacked import Stack
from jensen.model import VAE, Bernoulli, ConvDecoder, ConvEncoder, StandardNormal
from jensen.objective import Beta


def member(at):
    torch.manual_seed(at)
    sizes = ([1, 16, 16], 2, [3, 4, 3, 4], [4, 2, 4, 4], [5])
    model = VAE(ConvEncoder(*sizes), ConvDecoder(*sizes), Bernoulli(), StandardNormal(), 2)
    return standing_in(model, Beta(1.0 + at), torch.optim.SGD(model.parameters(), lr=0.1))


def learned(stack, members):
    torch.manual_seed(5)
    x, noise = torch.rand(2, 3, 1, 16, 16).round(), torch.randn(2, 3, 2)
    stack.step(x, noise, torch.zeros(2, dtype=torch.long), lambda words: [])
    return [weight for each in members for weight in each.model.parameters()]


torchs = [member(at) for at in range(2)]
expected = learned(Stack(torchs, branched=False), torchs)
ours = [member(at) for at in range(2)]
calls = []
chained = strided.chained
strided.chained = lambda *given: calls.append(given[1]) or chained(*given)
with strided.stacked():
    stack = Stack(ours, branched=False)
found = learned(stack, ours)
assert len(calls) == 8 and {way.members for way in calls} == {2}
for one, other in zip(found, expected, strict=True):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
"""


@pytest.mark.parametrize("script", [INTERPRETED, STACKED], ids=["chains", "stacks"])
def test_interpreted_kernels_are_the_convolutions_in_value_and_slope(script):
    paths = os.pathsep.join([str(BENCH / "gpu"), str(BENCH), str(Path(__file__).parent), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not ended.returncode, ended.stderr


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("large", "side"), [(1, 32), (32, 16), (32, 8), (32, 4)])
def test_kernels_compile_for_a_gpu_and_keep_their_numbers_in_registers(
    large, side, half, monkeypatch
):
    monkeypatch.syspath_prepend(BENCH / "gpu")
    monkeypatch.syspath_prepend(BENCH)
    import strided

    shape = strided.Shape(64, side, side, large, 32, 4)
    for of, kernel in {
        "halved": strided._halve,
        "doubled": strided._double,
        "slopes": strided._outer,
    }.items():
        tiles = strided.tiles_of(of, shape)
        fixed = {"CL": large, "CS": 32, "K": 4, "PRECISION": "tf32", "OF_LARGE": True}
        fixed |= {"ROWS": tiles.rows, "COLUMNS": tiles.columns, "DEPTH": tiles.depth}
        fixed |= {"BIAS": True, "RELU": True, "KEPT": True}
        numbers = {"count": shape.count, "height": side, "width": side, "each": 512, "parts": 16}
        compiled = _compiled(kernel, fixed, numbers, "bf16" if half else "fp32", tiles)
        assert "mma" in compiled.asm["ptx"]  # tensor cores
        assert ".local" not in compiled.asm["ptx"]
        assert compiled.metadata.shared < 200_000


def _compiled(kernel, fixed, numbers, image, tiles):
    """As for an H100 or H200, by what the kernel is given."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kinds = {"large": image, "small": image, "kept": image}
    signature, constants, whole = {}, {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in fixed:
            signature[name] = "constexpr"
            constants[place,] = fixed[name]
            continue
        signature[name] = "i32" if name in numbers else f"*{kinds.get(name, 'fp32')}"
        if numbers.get(name, 16) % 16 == 0:
            whole[place,] = [["tt.divisibility", 16]]
    settings = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    source = ASTSource(kernel, signature, constants, whole)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=settings)
