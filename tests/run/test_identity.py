"""Which keys make another run, and when data are other data."""

import json
from pathlib import Path

import pytest
import torch
from composing import composed
from tiny import TINY

from jensen.data.examples import Examples, pixels
from jensen.data.module import DataModule
from jensen.run.fingerprint import fingerprint
from jensen.run.identity import difference, identity

MADE = json.loads(Path(__file__).with_name("identities.json").read_text())
"""Identities of runs by the words of their commands, as they were at the end of November 2026."""

SAME = (
    "diagnostics=[rate,mig_exact]",
    "callbacks=[checkpoint]",
    "callbacks.best.mode=min",
    "logger.tensorboard.filename_suffix=x",
    "maximise=val/elbo",
    "data.device=cpu",
    "data.workers=2",
    "trainer=ddp",
    "trainer.devices=2",
    "trainer.num_nodes=3",
    "trainer.accelerator=cpu",
    "trainer.strategy=ddp",
    "trainer.log_every_n_steps=7",
    "+trainer.profiler=simple",
)
LONGER = ("trainer.max_steps=99", "trainer.val_check_interval=7")
OTHER = {
    "seed=1": "seed is 1 here and 0 there",
    "latent_dim=4": "latent_dim is 4 here and 3 there",
    "data.size=301": "data.size is 301 here and 300 there",
    "data.batch_size=6": "data.batch_size is 6 here and 12 there",
    "objective.beta=5": "objective.beta is 5 here and 4.0 there",
    "objective=capacity": "objective._target_ is",
    "optimizer.lr=0.1": "optimizer.lr is 0.1 here and 0.001 there",
    "model.encoder.hidden=[8]": "model.encoder.hidden is [8] here and [16] there",
    "model/likelihood=normal": "model.likelihood._target_ is",
    "trainer.precision=bf16-mixed": "trainer.precision is 'bf16-mixed' here and '32-true' there",
    "trainer.accumulate_grad_batches=2": "trainer.accumulate_grad_batches is 2 here and 1 there",
    "trainer.gradient_clip_val=1": "trainer.gradient_clip_val is 1 here and None there",
    "algorithm.compile=true": "algorithm.compile is True here and False there",
    "+something.of.yours=1": "something.of.yours is 1 here and absent there",
}


@pytest.mark.parametrize("override", SAME)
def test_a_key_without_effect_on_the_numbers_makes_no_other_run(configure, override):
    before = configure(*TINY)
    after = configure(*TINY, override)
    assert before != after
    assert identity(before) == identity(after)
    assert difference(before, after) == ""


@pytest.mark.parametrize("override", LONGER)
def test_a_longer_run_is_another_one_but_may_continue(configure, override):
    before = configure(*TINY)
    after = configure(*TINY, override)
    assert identity(before) != identity(after)
    assert difference(before, after) == ""


@pytest.mark.parametrize("override", OTHER)
def test_any_other_key_makes_another_run_and_is_named(configure, override):
    before = configure(*TINY)
    after = configure(
        *(each for each in TINY if each.split("=")[0] != override.split("=")[0]), override
    )
    assert identity(before) != identity(after)
    assert OTHER[override] in difference(before, after)
    assert difference(after, before).startswith(OTHER[override].split(" is ")[0])


def test_a_number_beside_a_schedule_is_told_with_its_parts(configure):
    number = configure(*TINY)
    schedule = configure(*TINY, "+schedule@objective.beta=linear")
    parts = difference(number, schedule)
    assert parts.startswith("objective.beta is {'_target_': ")
    assert parts.endswith("} here and 4.0 there")
    assert difference(schedule, number).startswith("objective.beta is 4.0 here and {'_target_': ")


def test_a_key_that_is_gone_is_named_too(configure):
    before = configure(*TINY, "+something.of.yours=1")
    after = configure(*TINY)
    assert difference(before, after) == "something.of.yours is absent here and 1 there"


def data(images, factors=None, names=()):
    examples = (
        Examples(images, pixels)
        if factors is None
        else Examples(images, pixels, factors, names, (4,))
    )
    return DataModule(lambda: examples, images.shape[1:], batch_size=2, seed=0, validation=1)


def test_every_bit_of_the_data_counts():
    images = torch.arange(40, dtype=torch.uint8).reshape(10, 1, 2, 2)
    factors = torch.arange(10)[:, None] % 4
    known = {fingerprint(data(images)), fingerprint(data(images, factors, ("a",)))}
    assert len(known) == 2
    assert fingerprint(data(images.clone())) in known
    other = images.clone()
    other[9, 0, 1, 1] += 1
    moved = factors.clone()
    moved[0] = 3
    for changed in (
        data(other),
        data(images.flip(0)),
        data(images.reshape(10, 4)),
        data(images, moved, ("a",)),
        data(images, factors, ("b",)),
    ):
        assert fingerprint(changed) not in known


@pytest.mark.parametrize("words", MADE, ids=lambda words: words or "the default")
def test_runs_that_were_made_before_are_continued(words):
    """A key that is new makes every run before it another one, which nobody is told: give it a value
    in `NEUTRAL`. Where numbers are to change, write the new identity into the file.
    """
    assert identity(composed(*words.split())) == MADE[words]
