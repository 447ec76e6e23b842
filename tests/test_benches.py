"""Parts of scripts/bench that lean on the inside of jensen."""

import ast
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from jensen.data import sprites

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
BENCH = SCRIPTS / "bench"


def script(name):
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_batches_in_bulk_hold_the_images_of_the_items(monkeypatch, tmp_path):
    monkeypatch.setattr(sprites, "SIZES", (3, 2, 2, 2, 2))
    monkeypatch.setenv("JENSEN_CACHE", str(tmp_path))
    fetch = script("fetch")
    examples = sprites.sprites()
    items = fetch.PerItem(examples)
    one_by_one = next(fetch.per_item(items, len(items), 0, "cpu"))
    at_once = next(fetch.in_bulk(examples, len(items), "cpu"))
    for x in (one_by_one, at_once):
        assert x.shape == (48, 1, 64, 64)
    images = (
        {tuple(image.flatten().nonzero()[:, 0].tolist()) for image in x}
        for x in (one_by_one, at_once)
    )
    assert next(images) == next(images)
    assert torch.equal(one_by_one.unique(), at_once.unique())


@pytest.mark.parametrize(
    "path", sorted(SCRIPTS.rglob("*.py")), ids=lambda path: str(path.relative_to(SCRIPTS))
)
def test_a_script_imports_what_there_is(path):
    """Also inside of functions, where a name that has gone would be missed last of all."""
    asked = [
        (each.module, alias.name)
        for each in ast.walk(ast.parse(path.read_text()))
        if isinstance(each, ast.ImportFrom) and (each.module or "").startswith("jensen")
        for alias in each.names
    ]
    for module, name in asked:
        found = importlib.import_module(module)
        if not hasattr(found, name):
            importlib.import_module(f"{module}.{name}")


@pytest.mark.parametrize("kernel", [2, 4, 6])
@pytest.mark.parametrize("channels", [(3, 5), (8, 1), (1, 8)])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_convolution_as_a_product_is_the_convolution(kernel, channels, kind, monkeypatch):
    monkeypatch.syspath_prepend(BENCH / "gpu")
    torch.manual_seed(0)
    layer = kind(*channels, kernel, 2, kernel // 2 - 1).double()
    x = torch.randn(2, channels[0], 8, 12, dtype=torch.double, requires_grad=True)
    (product,) = script("gpu/products").as_products(nn.Sequential(layer))[1:2]
    expected = layer(x)
    found = product(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected)
    slope = torch.randn_like(expected)
    wanted = [x, *layer.parameters()]
    for one, other in zip(
        torch.autograd.grad(expected, wanted, slope),
        torch.autograd.grad(found, wanted, slope),
        strict=True,
    ):
        torch.testing.assert_close(other, one)


def test_a_part_of_the_gpu_bench_says_how_it_is_run():
    parts = [path for path in (BENCH / "gpu").glob("*.py") if path.stem != "__main__"]
    assert len(parts) > 10
    for path in parts:
        ended = subprocess.run(
            [sys.executable, path, "--help"], capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 1
        (said,) = ended.stderr.splitlines()
        assert f"{path.name} is a part of python scripts/bench/gpu: expected" in said
        assert path.stem != "mixtures" or said.endswith(" --sections em,em_large")


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the process in /proc")
def test_the_gpu_bench_ends_its_section_where_it_is_ended(tmp_path):
    words = ("--sections", "machine", "--device", "cpu", "--out", tmp_path / "gpu.json")
    bench = subprocess.Popen([sys.executable, BENCH / "gpu", *words], stdout=subprocess.DEVNULL)
    patience = time.monotonic() + 100
    while not (tmp_path / "gpu.json").exists() and time.monotonic() < patience:
        time.sleep(0.01)  # until its first record, after which its products take seconds
    (section,) = Path(f"/proc/{bench.pid}/task/{bench.pid}/children").read_text().split()
    bench.terminate()
    assert bench.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(section), 0)
