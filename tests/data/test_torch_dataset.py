"""Data that a person already has: any torch Dataset, by its name, in an exact order; streams in
their own, and said so.
"""

import random
import time
from types import SimpleNamespace

import numpy as np
import pytest
import ranks
import torch
from cases import slow
from hydra.utils import instantiate
from nursery import SERVER
from pytorch_lightning import Callback
from resume import differences
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from jensen.base.errors import InputError
from jensen.data.examples import Examples, identity
from jensen.data.module import DataModule
from jensen.launch.training import train
from jensen.model.likelihood import Bernoulli, CrossEntropy, Normal
from jensen.run.fingerprint import fingerprint

SHAPE = (1, 2, 3)
RUN = (
    *(
        "data=torch_dataset",
        "data.x_shape=[1,2,3]",
        "data.validation=20",
        "data.batch_size=8",
        "model=mlp",
        "latent_dim=2",
    ),
    *(
        "model.encoder.hidden=[8]",
        "trainer.accelerator=cpu",
        "trainer.max_steps=20",
        "trainer.val_check_interval=8",
    ),
    *(
        "trainer.log_every_n_steps=1",
        "callbacks=[checkpoint,diagnose]",
        "diagnostics=[rate]",
        "callbacks.last.seconds=0",
    ),
    *("callbacks.last.share=1e9", "+trainer.enable_progress_bar=false"),
)


class Lazy(Dataset):
    """Binary images that are a function of their place, with a factor; `how` says in what form and
    what is wrong.
    """

    def __init__(self, size=60, how="pair", broken=-1):
        self.size = size
        self.how = how
        self.broken = broken

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index >= self.size:
            raise IndexError(index)
        x = (torch.arange(6).reshape(SHAPE) + index) % 3 == 0
        x = x.float()
        if index == self.broken:
            return {
                "shape": x[0],
                "dtype": x.double(),
                "list": x.tolist(),
                "label": (x, 0.5),
                "three": (x, 1, 2),
                "none": None,
            }[self.how]
        forms = {
            "x": x,
            "array": x.numpy(),
            "mapping": {"x": x, "factors": [index % 4, 1]},
            "bool": x.bool(),
        }
        forms |= {"byte": (255 * x).byte(), "double": x.double(), "one": (x,)}
        return forms.get(self.how, (x, index % 4) if self.how in ("pair", "label", "three") else x)


class Augmented(Lazy):
    """Draws by all three generators whenever it is read."""

    def __getitem__(self, index):
        found = super().__getitem__(index)[0]
        return found * (torch.rand(()) < 0.5) * (np.random.random() < 0.9) * (random.random() < 0.9)  # noqa: NPY002


class Unseeded(Lazy):
    def __getitem__(self, index):
        return torch.from_numpy(np.random.default_rng().random(SHAPE, np.float32))


class Stream(IterableDataset):
    """Items one after the other, `size` a pass."""

    def __init__(self, size=50, bad=-1):
        self.size = size
        self.bad = bad

    def __iter__(self):
        for index in range(self.size):
            yield Lazy()[index][0] * (0.5 if index == self.bad else 1)


class Once(Stream):
    """Ends for good at its first end."""

    def __init__(self):
        super().__init__()
        self.left = super().__iter__()

    def __iter__(self):
        return self.left


def halves(split, **options):
    return Stream(**options) if split == "train" else Lazy(30)


def module(source, **options):
    options = {"x_shape": SHAPE, "batch_size": 8, "seed": 0, "validation": 20} | options
    return DataModule(source if callable(source) else lambda: source, **options)


def test_a_dataset_gives_what_the_same_tensor_gives():
    """The same rows, order, held-out set and numbers as examples in memory: an oracle that reads no
    item.
    """
    lazy = Lazy()
    x = torch.stack([lazy[index][0] for index in range(60)])
    stored = module(Examples(x, identity, (torch.arange(60) % 4)[:, None], ("factor",), (4,)))
    own = module(lazy)
    assert own.train_size == stored.train_size == 40
    assert own.show(20).equal(stored.show(20))
    assert own.sample(7).equal(stored.sample(7))
    assert own.examples("train").names == ("factor",)
    rows = torch.tensor([3, 59, 0])
    assert own.examples("train")[rows].factors.equal(stored.examples("train")[rows].factors)
    assert own.batch([5, 7], step=3).x.equal(stored.batch([5, 7], step=3).x)


@pytest.mark.parametrize("how", ["x", "array", "mapping", "bool", "byte", "double", "one", "pair"])
def test_every_form_of_an_item_is_read(how):
    data = module(Lazy(how=how))
    expected = torch.stack([Lazy()[index][0] for index in (3, 8)])
    assert data.batch([3, 8], 0).x.equal(expected.to(data.batch([3, 8], 0).x.dtype))
    assert data.batch([3, 8], 0).factors.tolist() == {
        "pair": [[3], [0]],
        "mapping": [[3, 1], [0, 1]],
    }.get(how, [[], []])
    data.check_values(Bernoulli().check)


@pytest.mark.parametrize(
    ("how", "sentence", "workers"),
    [
        (
            "shape",
            r"item 41 of .*Lazy is x of float32 \[2, 3\] and 0 factors: expected x of float32 \[1,"
            r" 2, 3\]",
            0,
        ),
        ("shape", r"item 41 of .*Lazy is x of float32 \[2, 3\] and 0 factors", 2),
        ("dtype", "item 41 of .*Lazy is x of float64", 0),
        ("list", "x of item 41 of .*Lazy is a list: expected a tensor or an array", 0),
        ("none", "x of item 41 of .*Lazy is a NoneType", 0),
        ("label", "factors of item 41 of .*Lazy are torch.float32", 0),
        ("three", "item 41 of .*Lazy has 3 parts", 0),
    ],
)
def test_an_item_unlike_the_others_is_one_sentence_with_its_index(how, sentence, workers):
    data = module(Lazy(how=how, broken=41), workers=workers)
    with pytest.raises(InputError, match=rf"^{sentence}") as caught:
        fingerprint(data)
    assert "\n" not in str(caught.value)


def test_what_is_no_data_set_or_has_no_such_item_is_one_sentence():
    class Shrinks(Lazy):
        pass

    shrinks = Shrinks()
    data = module(shrinks)
    assert data.train_size == 40
    shrinks.size = 50
    with pytest.raises(InputError, match="Shrinks has 50 items and had 60 at first"):
        data.batch([3], 0)

    class Lies(Lazy):
        def __len__(self):
            return self.size + 5

    with pytest.raises(
        InputError,
        match=r"item 60 of .*Lies cannot be read \(IndexError: 60\): expected items 0\.\.64",
    ):
        fingerprint(module(Lies()))
    for source, sentence in (
        (Lazy(0), "has 0 items"),
        (Stream(0), "gives no item"),
        (lambda: 3, "source gives a int"),
        (
            type("Bare", (Dataset,), {"__getitem__": lambda self, index: torch.zeros(SHAPE)})(),
            "Bare has no length",
        ),
        (
            TensorDataset(torch.zeros(30, *SHAPE, dtype=torch.long)),
            "torch.int64: expected floating-point",
        ),
    ):
        with pytest.raises(InputError, match=sentence):
            module(source).examples("train")


def test_bytes_of_zeros_and_ones_are_not_read_as_black():
    data = module(TensorDataset(torch.ones(60, *SHAPE, dtype=torch.uint8)))
    with pytest.raises(InputError, match="uint8 and none is above 1"):
        data.check_values(CrossEntropy().check)


@pytest.mark.parametrize("survey", [True, False])
def test_the_domain_of_every_item_is_checked_and_the_first_wrong_one_named(survey):
    x = torch.zeros(60, *SHAPE)
    x[47, 0, 1, 1] = 0.5
    data = module(TensorDataset(x), survey=survey)
    data.check_values(Normal().check)
    if survey:
        with pytest.raises(
            InputError, match=r"data hold 0\.5: .*\(example 47 of the train split, counted from 0\)"
        ):
            data.check_values(Bernoulli().check)
        return
    data.check_values(Bernoulli().check)  # as each batch comes
    data.trainer = type("Trainer", (), {"training": True, "global_step": 0})()
    with pytest.raises(InputError, match=r"data hold 0\.5: .*\(example 47 of the train split"):
        data.on_after_batch_transfer(data.examples("train")[torch.tensor([3, 47, 5])], 0)


def test_the_fingerprint_is_of_every_item_or_names_what_was_not_read():
    print_of = fingerprint(module(Lazy()))
    assert len(print_of) == 64
    assert fingerprint(module(Lazy(), workers=2)) == print_of
    assert len({print_of, fingerprint(module(Lazy(59))), fingerprint(module(Lazy(how="x")))}) == 3
    x = torch.zeros(60, *SHAPE)
    before = fingerprint(module(TensorDataset(x)))
    x[59, 0, 1, 2] = 1
    assert fingerprint(module(TensorDataset(x))) != before
    assert fingerprint(module(Augmented())) == fingerprint(module(Augmented()))
    assert fingerprint(module(Lazy(), survey=False)).endswith(
        ", train unhashed: test_torch_dataset.Lazy"
    )
    assert fingerprint(module(Unseeded())).endswith(", train unhashed: test_torch_dataset.Unseeded")
    assert "reading an item twice gives two" in module(Unseeded()).examples("train").note
    stream = fingerprint(module(halves, splits=["train", "test"], validation=0))
    assert stream.endswith(", train unhashed: test_torch_dataset.Stream")
    assert stream[:64] != print_of[:64]


class StoppedError(Exception):
    pass


class Stop(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 9:
            raise StoppedError


@pytest.fixture
def stop(monkeypatch):
    from jensen.launch import trainer as program

    make = program.instantiate

    def with_stop(cfg, **more):
        found = make(cfg, **more)
        if "last" in cfg and "best" in cfg:
            found["stop"] = Stop()
            monkeypatch.setattr(program, "instantiate", make)
        return found

    return lambda: monkeypatch.setattr(program, "instantiate", with_stop)


@pytest.mark.parametrize(
    ("name", "workers"), [slow("Lazy", 0), ("Augmented", 0), slow("Augmented", 2)]
)
def test_a_run_on_a_dataset_that_was_stopped_equals_one_that_was_not(
    configure, tmp_path, stop, name, workers
):
    """Amid an epoch, with an augmentation by the usual generators, and with workers beside none."""
    cfg = configure(*RUN, f"data.source._target_=test_torch_dataset.{name}")
    train(cfg, tmp_path / "whole")
    stop()
    cfg.data.workers = workers
    with pytest.raises(StoppedError):
        train(cfg, tmp_path / "parts")
    train(cfg, tmp_path / "parts")
    assert differences(tmp_path / "whole", tmp_path / "parts") == []


def test_workers_draw_what_the_process_itself_draws():
    read = []
    for workers in (0, 2):
        data = module(Augmented(), workers=workers)
        data.trainer = SimpleNamespace(
            global_step=3,
            accumulate_grad_batches=1,
            num_training_batches=5,
            world_size=1,
            global_rank=0,
            callbacks=(),
        )
        read.append([rows.stored for rows in data.train_dataloader()])
    assert len(read[0]) == 2  # of the 5 steps of an epoch
    assert all(one.equal(other) for one, other in zip(*read, strict=True))


def test_an_augmentation_differs_from_step_to_step_and_not_in_validation():
    data = module(Augmented())
    batches = [data.batch([*range(20)], step).x for step in (0, 0, 1)]
    assert batches[0].equal(batches[1])
    assert not batches[0].equal(batches[2])
    assert data.show(20).equal(data.show(20))
    state = torch.get_rng_state()
    data.show(3)
    assert torch.get_rng_state().equal(state)


STREAM = (
    "data.source._target_=test_torch_dataset.halves",
    "data.splits=[train,test]",
    "data.validation=0",
)


def test_a_stream_trains_in_its_own_order_and_a_run_that_goes_on_says_what_it_loses(
    configure, tmp_path, stop, caplog
):
    with caplog.at_level("INFO"):
        stop()
        with pytest.raises(StoppedError):
            train(configure(*RUN, *STREAM), tmp_path)
        assert "not hashed" in caplog.text
        assert "no longer" not in caplog.text
        results = train(configure(*RUN, *STREAM), tmp_path)
    assert "from step 8 on it is read from its beginning" in caplog.text
    assert results["val/elbo"] < 0
    assert "train unhashed: test_torch_dataset.Stream" in (tmp_path / "finished.json").read_text()


def test_the_batches_of_a_stream_are_its_items_in_turn():
    data = module(halves, splits=["train", "test"], validation=0)
    stream = data.examples("train")
    stream.batch_size = 8
    stream.together = 3
    batches = [*stream]
    assert [rows.row.tolist() for rows in batches] == [
        [*range(start, start + 8)] for start in range(0, 48, 8)
    ]
    assert torch.cat([rows.stored for rows in batches]).equal(
        torch.stack([Lazy()[index][0] for index in range(48)])
    )


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ("data.validation=5",),
            "data.validation is 5 and the train split is test_torch_dataset.Stream, a stream",
        ),
        (
            ("data.workers=2",),
            "data.workers is 2 and the train split is test_torch_dataset.Stream, a stream",
        ),
        (("+data.size=7",), "gave 7 items before it ended: expected at least 8"),
        (("+data.bad=33",), r"data hold 0\.5: .*\(example 33 of the train split"),
        (("objective=beta_tcvae",), "dataset_size is 0: expected at least 1, .* a stream"),
        (
            ("algorithm=stepwise_em", "~latent_dim"),
            "the train split is .*Stream, a stream: expected a map-style Dataset",
        ),
    ],
)
def test_what_a_stream_cannot_do_is_one_sentence(configure, tmp_path, overrides, sentence):
    keys = {each.split("=")[0] for each in overrides}
    if "algorithm" in keys:
        keys |= {"model", "model.encoder.hidden", "diagnostics", "latent_dim"}
    cfg = configure(
        *(each for each in (*RUN, *STREAM) if each.split("=")[0] not in keys), *overrides
    )
    with pytest.raises(InputError, match=sentence):
        train(cfg, tmp_path)


def test_a_stream_that_ends_for_good_does_not_train_on_nothing_for_ever():
    data = module(
        lambda split: Once() if split == "train" else Lazy(30),
        splits=["train", "test"],
        validation=0,
    )
    stream = data.examples("train")
    stream.batch_size = 8
    assert len([*stream]) == 6  # 49 are left
    with pytest.raises(InputError, match="gave 0 items before it ended: expected at least 8"):
        next(iter(stream))


def test_a_test_split_that_is_a_stream_is_refused():
    data = module(lambda split: Stream(), splits=["train", "test"], validation=0)
    with pytest.raises(InputError, match=r"the test split is .*Stream, a stream"):
        data.show(1)


def test_the_source_and_its_shape_must_be_said(configure):
    cfg = configure("data=torch_dataset", "model=mlp")
    with pytest.raises(Exception, match=r"_target_|x_shape"):
        instantiate(cfg.data)


@pytest.mark.slow
def test_two_ranks_train_what_one_does_on_items_that_draw(tmp_path):
    words = [
        *RUN,
        "data.source._target_=test_torch_dataset.Augmented",
        "trainer.max_steps=12",
        "diagnostics=[]",
    ]
    ranks.together(1, ranks.fit, [(tmp_path / "one", words)])
    both = [*words, "trainer=ddp", "trainer.devices=2", "data.workers=1"]
    ranks.together(2, ranks.fit, [(tmp_path / "two", both)])
    one, two = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("one", "two")
    )
    for name, weights in one["state_dict"].items():
        assert torch.allclose(weights, two["state_dict"][name], atol=1e-5), name


@pytest.mark.slow
def test_a_run_on_a_dataset_that_was_killed_equals_one_that_was_not(configure, tmp_path):
    """By SIGKILL, at whatever step that is, with its workers."""
    words = [
        *RUN,
        "data.source._target_=test_torch_dataset.Augmented",
        "data.workers=2",
        "trainer.max_steps=60",
    ]
    train(configure(*words), tmp_path / "whole")
    process = SERVER.Process(
        target=ranks._live, args=(0, 0, ranks.fit, ([(tmp_path / "parts", words)],))
    )
    process.start()
    while not (tmp_path / "parts" / "checkpoints" / "last.ckpt").exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert not (tmp_path / "parts" / "finished.json").exists()
    train(configure(*words), tmp_path / "parts")
    assert differences(tmp_path / "whole", tmp_path / "parts") == []
