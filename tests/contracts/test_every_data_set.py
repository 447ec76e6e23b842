"""The contract of a data set, for every choice of `conf/data`: another one is covered by its conf
file, and by what makes its files here if it reads any."""

import pickle
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composing import choices, composed
from hydra.utils import instantiate
from PIL import Image
from torch.utils.data import TensorDataset

GENERATOR = np.random.default_rng(0)


def mnist_files(folder):
    for split, count in (("train", 60), ("t10k", 20)):
        pixels = GENERATOR.integers(0, 256, (count, 28, 28), np.uint8)
        labels = GENERATOR.integers(0, 10, count, np.uint8)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 2051, count, 28, 28) + pixels.tobytes()
        )
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 2049, count) + labels.tobytes()
        )
    return f"data.root={folder}", "data.validation=12"


def images_file(folder):
    np.savez(folder / "x.npz", images=GENERATOR.integers(0, 256, (60, 64, 64, 3), np.uint8))
    return f"data.path={folder / 'x.npz'}", "data.validation=12"


def codes_file(folder):
    np.savez(folder / "x.npz", codes=GENERATOR.standard_normal((60, 3)).astype(np.float32))
    return f"data.path={folder / 'x.npz'}", "data.validation=12", "latent_dim=3"


def image_files(folder):
    for place in range(60):
        Image.new("RGB", (70, 66), (4 * place, 9, 200)).save(folder / f"{place}.png")
    return f"data.root={folder}", "data.validation=12"


class Points(TensorDataset):
    """A torch data set of 60 vectors."""

    def __init__(self):
        super().__init__(torch.randn(60, 5, generator=torch.Generator().manual_seed(0)))

    def __getitem__(self, place):
        return super().__getitem__(place)[0]


SIZED = ("data.size=60", "data.validation=12")
ARGUMENTS = {
    **dict.fromkeys(("blobs", "gaussian", "chain"), lambda folder: SIZED),
    **dict.fromkeys(
        ("sprites", "sprites_colour", "sprites_noise"),
        lambda folder: (*SIZED, "data.factors=[shape,posX]"),
    ),
    **dict.fromkeys(
        ("mnist", "mnist_32", "mnist_binary", "mnist_threshold", "fashion_mnist"), mnist_files
    ),
    "mnist_label": mnist_files,
    **dict.fromkeys(("cues", "flashes", "phonemes"), lambda folder: ("data.size=60",)),
    "incomplete": lambda folder: ("data.of.size=60",),
    "sprites_caption": lambda folder: SIZED,
    "squares": lambda folder: SIZED,
    "normals": lambda folder: ("data.size=60",),
    "images": images_file,
    "codes": codes_file,
    "folder": image_files,
    "torch_dataset": lambda folder: (
        f"data.source._target_={__name__}.Points",
        "data.x_shape=[5]",
        "data.validation=12",
    ),
}
ELSEWHERE = {"dsprites", "emnist", "qmnist"}
"""Whose files are large or of several kinds: `test_dsprites.py`, `test_nist.py`."""


@pytest.fixture(scope="module", params=[each for each in choices("data") if each not in ELSEWHERE])
def data(request, tmp_path_factory):
    arguments = ARGUMENTS[request.param](tmp_path_factory.mktemp(request.param))
    cfg = composed("model=mlp", f"data={request.param}", "data.batch_size=12", *arguments)
    return lambda **changes: instantiate(cfg.data, **changes)


def trained(data, rank=0, world=1, step=0, **changes):
    """A data module as a trainer holds it at a step."""
    module = data(**changes)
    module.trainer = SimpleNamespace(
        accumulate_grad_batches=1,
        num_training_batches=float("inf"),
        callbacks=(),
        world_size=world,
        global_rank=rank,
        global_step=step,
        current_epoch=0,
        training=True,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    module.setup("fit")
    return module


def test_observations_are_floating_point_of_the_shape_it_says(data):
    module = data()
    x = module.show(12)
    assert x.shape == (12, *module.source.x_shape)
    assert x.dtype == (
        torch.float64 if module.source.x_shape == (1,) else torch.float32
    )  # data=normals
    assert x.isfinite().all()
    if len(module.source.x_shape) == 3:
        assert x.min() >= 0
        assert x.max() <= 1
    assert module.show(1).shape == (1, *module.source.x_shape)
    torch.testing.assert_close(module.show(1), x[:1])


def test_the_same_again_and_the_same_from_a_pickled_one(data):
    first = data().show(12)
    assert torch.equal(data().show(12), first)
    assert torch.equal(pickle.loads(pickle.dumps(data())).show(12), first)


def test_factors_are_whole_numbers_below_their_sizes(data):
    examples = data().examples("train")
    batch = examples[torch.arange(5)]
    assert batch.factors.shape == (5, len(examples.names))
    assert batch.factors.dtype == torch.int64
    assert batch.row.tolist() == [0, 1, 2, 3, 4]
    assert len(examples.sizes) == len(examples.names)
    assert (batch.factors >= 0).all()


def test_what_is_held_out_is_not_trained_on_and_the_rest_is(data):
    module = trained(data, seed=5)
    rows = torch.cat([batch.row for batch in module.train_dataloader()])
    held_out = torch.cat([batch.row for batch in module.val_dataloader()])
    assert len(rows) == len(set(rows.tolist()))
    if module.source.validation:
        assert not set(rows.tolist()) & set(held_out.tolist())
        assert len(held_out) == 12


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_a_minibatch_without_rest(data, world):
    whole = list(trained(data).train_dataloader())
    shares = [list(trained(data, rank, world).train_dataloader()) for rank in range(world)]
    for place, batch in enumerate(whole):
        parts = [share[place].row for share in shares]
        assert sorted(torch.cat(parts).tolist()) == sorted(batch.row.tolist())
        for rank, part in enumerate(parts):
            assert part.tolist() == batch.row[rank::world].tolist()


def test_the_order_is_that_of_the_seed(data):
    first, again, other = (
        [batch.row.tolist() for batch in trained(data, seed=seed).train_dataloader()]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
