"""How many sprites a second reach the model: batches gathered in bulk against items fetched one by
one.

    python scripts/bench/fetch.py [--batch 64] [--seconds 2] [--rounds 5] [--device cpu]

The peers' way is a Dataset whose item is one image, decoded by torchvision's ToTensor, and a
DataLoader that stacks them. Each contender's images are drawn at random from the same 100,000, and
end as float32 on the device. The rounds are interleaved; the table gives medians, and ratios to the
peers' way without workers.
"""

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from jensen.data.examples import Examples
from jensen.data.order import Shuffled
from jensen.data.sprites import SIDE, sprites

IMAGES = 100_000


class PerItem(Dataset[torch.Tensor]):
    """The images unpacked to a byte a pixel, one decoded at a time."""

    def __init__(self, examples: Examples) -> None:
        self.images = (
            examples.decode(examples.stored).mul(255).byte().reshape(-1, SIDE, SIDE, 1).numpy()
        )
        self.decode = ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.decode(self.images[row])


def per_item(dataset: PerItem, batch: int, workers: int, device: str) -> Iterator[torch.Tensor]:
    loader = DataLoader(
        dataset,
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        yield from (x.to(device) for x in loader)


def in_bulk(examples: Examples, batch: int, device: str) -> Iterator[torch.Tensor]:
    order = Shuffled(
        torch.arange(len(examples)), batch, seed=0, rank=0, world=1, position=lambda: 0
    )
    loader = DataLoader(examples, sampler=order, batch_size=None)
    while True:
        yield from (examples.decode(found.stored.to(device)) for found in loader)


def rate(batches: Iterator[torch.Tensor], seconds: float, wait: Callable[[], None]) -> float:
    """Images a second."""
    next(batches)
    wait()
    start = time.perf_counter()
    count = 0
    for x in batches:
        count += len(x)
        if time.perf_counter() - start > seconds:
            break
    wait()
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    wait = torch.cuda.synchronize if options.device.startswith("cuda") else lambda: None

    examples = sprites(size=IMAGES)
    items = PerItem(examples)
    workers = os.cpu_count() or 1
    contenders = {
        "per item, 0 workers": per_item(items, options.batch, 0, options.device),
        f"per item, {workers} workers": per_item(items, options.batch, workers, options.device),
        "jensen, packed in memory": in_bulk(examples, options.batch, options.device),
    }
    if options.device != "cpu":
        contenders[f"jensen, packed on {options.device}"] = in_bulk(
            examples.to(options.device), options.batch, options.device
        )
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for _, (name, batches) in itertools.product(range(options.rounds), contenders.items()):
        measured[name].append(rate(batches, options.seconds, wait))

    base = measured["per item, 0 workers"]
    print(
        f"batch {options.batch}, {options.device}, torch {torch.__version__},"
        f" {torch.get_num_threads()} threads"
    )
    print(f"{'':28} {'images/s':>10} {'ratio':>7}")
    for name, rates in measured.items():
        ratio = statistics.median(mine / theirs for mine, theirs in zip(rates, base, strict=True))
        print(f"{name:28} {statistics.median(rates):10,.0f} {ratio:7.1f}")


if __name__ == "__main__":
    main()
