"""A sweep whose jobs are trained as one program leaves what it leaves one job after another."""

import json
import os
import random
import signal
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning import Callback
from resume import records
from runs import weights
from sweeps import planning
from tensorboard.compat.proto.summary_pb2 import Summary
from tiny import TINY

from jensen.algorithm.stacked import Stack
from jensen.algorithm.stacked_trace import Traced
from jensen.base import signals
from jensen.base.errors import InputError
from jensen.base.signals import Stopped
from jensen.base.waiting import waited
from jensen.callbacks.diagnose import Diagnose
from jensen.launch import conflicts, groups, sequential, stacked, together
from jensen.launch.training import train
from jensen.reports.read import read
from jensen.reports.sweep import flat
from jensen.scores import importances

SHORT = (
    *TINY,
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=5",
    "trainer.val_check_interval=10",
    "trainer.max_steps=30",
    "callbacks=[checkpoint,diagnose]",
    "diagnostics=[rate]",
)
SWEPT = (
    "hydra.mode=MULTIRUN",
    "hydra.job.name=train",
    "hydra.sweep.subdir='${hydra.job.num}'",
)


def task(cfg):
    return train(cfg, Path(HydraConfig.get().runtime.output_dir))


def done(overrides, folder, by=stacked.launch, **settings):
    """The jobs of a sweep, after its launcher."""
    with planning() as make:
        made = make(*SWEPT, f"hydra.sweep.dir={folder}", folder=())
        jobs = made.plan([(*SHORT, *each) for each in overrides])
        by(made, made.to_do(jobs), task, **settings)
    return jobs


THREE = [
    ("objective.beta=1", "seed=0"),
    ("objective.beta=1", "seed=1", "optimizer.lr=0.002"),
    ("objective.beta=4", "seed=0"),
]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The jobs, together and one after another; members and steps of each call of the stack."""
    together, alone = (tmp_path_factory.mktemp(name) for name in ("together", "alone"))
    taken = []
    take = Stack.take

    def watched(stack, chunks, logged):
        taken.append((len(chunks), len(chunks[0].step)))
        return take(stack, chunks, logged)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Stack, "take", watched)
        jobs = done(THREE, together)
    return jobs, done(THREE, alone, by=sequential.launch), taken


def values(folder):
    found = {}
    for tag, step, content in records(folder):
        value = Summary.Value.FromString(content)
        if tag.endswith("beta_effective"):  # the difference of two large numbers
            continue
        if value.HasField("tensor") and value.tensor.float_val:
            found[tag, step] = value.tensor.float_val[0]
        elif value.HasField("simple_value"):
            found[tag, step] = value.simple_value
    return found


def test_each_job_leaves_what_it_leaves_alone(both):
    for one, other in zip(*both[:2], strict=True):
        assert one.outcome() == other.outcome() == ("trained", "")
        assert one.folder.name == other.folder.name
        files = [
            sorted(file.name.split(".train")[0].split("vm")[0] for file in each.folder.rglob("*"))
            for each in (one, other)
        ]
        assert len(files[0]) == len(files[1])
        assert values(one.folder) == pytest.approx(values(other.folder), rel=1e-4, abs=1e-5)
        torch.testing.assert_close(weights(one.folder), weights(other.folder), rtol=1e-4, atol=1e-5)
        size, expected = (
            (each.folder / "checkpoints" / "last.ckpt").stat().st_size for each in (one, other)
        )
        assert size == pytest.approx(expected, rel=0.05)
        found, right = (
            json.loads((each.folder / "finished.json").read_text()) for each in (one, other)
        )
        assert found["results"] == pytest.approx(right["results"], rel=1e-4)
        assert found["identity"] == right["identity"]


def test_the_log_of_each_job_is_its_own(both):
    for one in both[0]:
        log = (one.folder / "train.log").read_text()
        assert log.count("training in") == 1
        assert str(one.folder) in log
        assert log.count("step 10:") == 1


def test_a_line_at_the_terminal_names_the_job_it_is_of(tmp_path, capsys):
    jobs = done(THREE[:2], tmp_path)
    said = [line for line in capsys.readouterr().out.splitlines() if "training in" in line]
    assert said == [f"jensen: {each.folder.name}: training in {each.folder}" for each in jobs]
    for each in jobs:
        assert f"{each.folder.name}: training" not in (each.folder / "train.log").read_text()


def test_together_means_together(both):
    taken = both[2]
    assert {members for members, _ in taken} == {3}
    assert sum(steps for _, steps in taken) == 30
    assert max(steps for _, steps in taken) == 5


class Asked(Callback):
    """Sends a signal to its own process at a step."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 10 and Path(trainer.default_root_dir).name == "1":
            os.kill(os.getpid(), signal.SIGTERM)

    chunkwise = True


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in signals.ASKING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.slow
def test_a_signal_saves_all_jobs_and_the_same_sweep_goes_on_also_from_other_steps(
    both, monkeypatch, tmp_path, handlers
):
    with monkeypatch.context() as patched:
        patched.setattr(conflicts, "check", lambda chosen: chosen.setdefault("asked", Asked()))
        with pytest.raises(Stopped) as stopped:
            done(THREE, tmp_path)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert signals.asked() == 0
    folders = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    steps = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
        for folder in folders
    ]
    assert len(folders) == 3
    assert all(10 <= step <= 15 for step in steps)
    for file in (folders[2] / "checkpoints").iterdir():  # as if that one was never saved
        file.unlink()
    jobs = done(THREE, tmp_path)
    assert [job.outcome()[0] for job in jobs] == ["continued", "continued", "trained"]
    for one, other in zip(jobs, both[1], strict=True):
        torch.testing.assert_close(weights(one.folder), weights(other.folder), rtol=1e-4, atol=1e-5)
        assert values(one.folder) == pytest.approx(values(other.folder), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("fails", [False, True])
def test_what_waits_for_other_processes_keeps_nobody_waiting(both, tmp_path, monkeypatch, fails):
    """Each comes to a place where it waits for all of them; and is what it was there afterwards."""
    meeting = threading.Barrier(3 - fails)
    before = Diagnose.on_validation_epoch_end

    def meet(beta):
        if fails and beta == 4:
            raise InputError("expected another")
        meeting.wait(60)
        return beta

    def validated(self, trainer, algorithm):
        beta = algorithm.objective.beta.value.item()
        with torch.autocast("cpu"), torch.inference_mode(fails):
            assert waited(partial(meet, beta)) == beta
            assert torch.is_autocast_enabled("cpu")
            assert torch.is_inference_mode_enabled() == fails
        assert not torch.is_grad_enabled()
        before(self, trainer, algorithm)

    monkeypatch.setattr(Diagnose, "on_validation_epoch_end", validated)
    jobs = done(THREE, tmp_path)
    for one, other in zip(jobs[: 3 - fails], both[0], strict=False):
        assert values(one.folder) == values(other.folder)
    if fails:
        assert [job.outcome() for job in jobs[2:]] == [("failed", "expected another")]


def test_trees_in_processes_that_all_share_are_those_of_each_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(importances, "LONG", 0)
    asked = [(*each, "diagnostics=[dci_boost20]", "trainer.max_steps=10") for each in THREE[:2]]
    found = done(asked, tmp_path / "together")
    monkeypatch.setattr(importances, "LONG", 1 << 40)
    expected = done(asked, tmp_path / "alone", by=sequential.launch)
    for one, other in zip(found, expected, strict=True):
        assert values(one.folder) == pytest.approx(values(other.folder), rel=1e-4, abs=1e-5)
        assert ("dci_boost20/dci_boost20", 10) in values(one.folder)


def test_a_job_that_fails_amid_training_leaves_the_others_as_they_are(both, tmp_path):
    jobs = done([THREE[0], ("objective.beta=1", "optimizer.lr=1e30"), THREE[1]], tmp_path)
    assert [job.outcome()[0] for job in jobs] == ["trained", "failed", "trained"]
    assert "training stopped at step" in jobs[1].outcome()[1]
    facts = json.loads((jobs[1].folder / "non_finite.json").read_text())
    assert 0 < facts["step"] < 30
    for one, other in zip((jobs[0], jobs[2]), both[1][:2], strict=True):
        torch.testing.assert_close(weights(one.folder), weights(other.folder), rtol=1e-4, atol=1e-5)


def check_weights(jobs, alone):
    for one, other in zip(jobs, alone, strict=True):
        found, expected = weights(one.folder), weights(other.folder)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


class Freezing(Callback):
    """From the first validation on the encoder stays as it is, and weights decay."""

    def on_validation_end(self, trainer, pl_module):
        pl_module.model.encoder.requires_grad_(False)
        trainer.optimizers[0].param_groups[0]["weight_decay"] = 0.1


def test_what_a_callback_changes_amid_the_training_counts_in_a_stack(tmp_path):
    """The stack is made again, and the jobs are those that they are alone."""
    more = ("+callbacks.freezing._target_=test_together.Freezing",)
    overrides = [(*each, *more) for each in THREE]
    jobs = done(overrides, tmp_path / "together")
    alone = done(overrides, tmp_path / "alone", by=sequential.launch)
    check_weights(jobs, alone)


class Shaking(Callback):
    """At each validation weights move, by what all draw from."""

    def on_validation_end(self, trainer, pl_module):
        with torch.no_grad():
            for each in pl_module.model.decoder.parameters():
                by = random.random() + np.random.rand()  # noqa: NPY002
                each.add_(0.01 * by * torch.randn_like(each))


@pytest.mark.parametrize(
    "more",
    [
        ("algorithm._target_=fitting.Cycling",),
        ("+callbacks.shaking._target_=test_together.Shaking",),
    ],
)
def test_members_have_numbers_and_draws_of_their_own(tmp_path, more):
    overrides = [("objective.beta=1", f"seed={seed}", *more) for seed in range(2)]
    jobs = done(overrides, tmp_path / "together")
    alone = done(overrides, tmp_path / "alone", by=sequential.launch)
    check_weights(jobs, alone)


def test_models_that_cannot_be_stacked_take_their_steps_themselves(
    both, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(Stack, "refusal", lambda stack, chunks: "it asks for a value")
    jobs = done(THREE[:2], tmp_path)
    assert "since they cannot be stacked (it asks for a value)" in capsys.readouterr().out
    for one, other in zip(jobs, both[1][:2], strict=True):
        torch.testing.assert_close(weights(one.folder), weights(other.folder), rtol=0, atol=0)


COMPILED = "algorithm.compile=true"


@pytest.fixture
def kernels(monkeypatch):
    """Kernels without a compiler: the programs that they were to be made of."""
    made = []

    def make(program):
        made.append(program)
        return program

    monkeypatch.setattr(Traced, "make", staticmethod(make))
    return made


def test_kernels_are_made_once_for_all_jobs(both, kernels, tmp_path):
    jobs = done([(*each, COMPILED) for each in THREE], tmp_path)
    assert len(kernels) == 1
    check_weights(jobs, both[1])


def test_kernels_are_not_made_again_and_again(both, kernels, monkeypatch, tmp_path, capsys):
    """A stack begins anew whenever somebody has changed something, and goes on without after some."""
    monkeypatch.setattr(together, "_KERNELS", 2)
    monkeypatch.setattr(Stack, "holds", lambda stack: False)
    jobs = done([(*each, COMPILED) for each in THREE], tmp_path)
    assert len(kernels) == 2
    assert capsys.readouterr().out.count("no more kernels, after those of 2 stacks") == 1
    check_weights(jobs, both[1])


def test_convolutions_with_kernels_are_trained_one_after_another(nowhere, monkeypatch):
    monkeypatch.setattr(groups, "has_convolutions", lambda model: True)
    found = planned(*((COMPILED, f"seed={seed}") for seed in range(2)))
    assert [(len(group.jobs), group.why) for group in found] == [
        (2, "algorithm.compile makes kernels of the convolutions of one model")
    ]


def planned(*overrides, members="auto", common=SHORT):
    with planning() as make:
        made = make(folder=("hydra.sweep.dir=nowhere",))
        jobs = made.plan([(*common, *each) for each in overrides])
        return groups.plan(jobs, sequential.trainers(jobs), members)


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_jobs_that_differ_in_numbers_alone_are_one_group(nowhere):
    found = planned(
        ("objective.beta=1",),
        ("objective.beta=4", "seed=3", "optimizer.lr=0.01"),
        ("model.encoder.hidden=[17]",),
        ("data.batch_size=6",),
        ("objective.beta=1", "seed=2"),
        ("model/likelihood=normal", "model.likelihood.variance=0.5"),
        ("model/likelihood=normal", "model.likelihood.variance=2"),
        ("model/prior=mixture", "model.prior.floor=0.01", "model.prior.warmup=5"),
        ("model/prior=mixture", "model.prior.power=0.8", "model.prior.warmup=6"),
        ("model/prior=mixture", "model.prior.components=7", "model.prior.warmup=6"),
    )
    assert [len(group.jobs) for group in found] == [3, 1, 1, 2, 2, 1]
    assert [bool(group.why) for group in found] == [False, True, True, False, False, True]
    assert found[0].said().startswith("3 jobs together: ")
    assert "1 job alone (model.encoder.body.1 has weight of shape (17, " in found[1].said()


ALONE = {
    ("latent_dim=4",): "model.latent_dim is 4, not 3",
    ("model.encoder.hidden=[17]",): "model.encoder.body.1 has weight of shape (17, 4096), not (16,",
    ("model/prior=mixture", "model.prior.warmup=5"): "model.prior is MixturePrior, not Standard",
    ("model/posterior=flow",): "model.posterior is another",
    ("objective.tc=1",): "objective.equal_weights is True, not False",
    ("+schedule@objective.mi=linear",): "objective.mi is Linear, not Constant",
    ("optimizer=sgd",): "optimizer is torch.optim.SGD, not torch.optim.Adam",
    ("data.batch_size=6",): "data.batch_size is 6, not 12",
    ("data.transform=mine",): "data.transform is mine, not null",
    ("algorithm.non_finite=skip",): "algorithm.non_finite is skip, not stop",
    (
        "callbacks=[checkpoint,ema,diagnose]",
    ): "callbacks.ema is jensen.callbacks.Average, not absent",
    ("callbacks=[checkpoint]",): "callbacks.diagnose is absent, not jensen.callbacks.Diagnose",
    (
        "trainer.max_steps=7",
        "data.size=90",
    ): "data.size is 90, not 300; trainer.max_steps is 7, not",
    ("data.batch_size=5", "data.size=80", "data.validation=50", "trainer.max_steps=8"): (
        "data.batch_size is 5, not 12; data.size is 80, not 300; data.validation is 50, not 60; ..."
    ),
}


def test_a_job_that_is_alone_is_told_in_what(nowhere):
    common = ("objective=beta_tcvae", "objective.tc=6")
    first, pair, *others = planned(
        ("data=blobs", "model/likelihood=normal"),
        *((*common, f"seed={seed}") for seed in range(2)),
        *((*common, *overrides) for overrides in ALONE),
    )
    assert "; objective is Beta, not Decomposed; data." in first.why
    for group, (overrides, why) in zip(others, ALONE.items(), strict=True):
        assert group.why.startswith(why), overrides
        assert group.why.endswith(f", unlike {pair.jobs[0].folder.name}")
    assert planned(("seed=0",))[0].why == "there is no other"


def test_a_model_that_cannot_be_made_without_values_is_made_with_them(nowhere):
    found = planned(("seed=0",), ("seed=1",), common=(*SHORT, "model/prior=flow"))
    assert all(each.device.type == "meta" for each in found[0].algorithm.parameters())
    assert sum(len(group.jobs) for group in found) == 2


def test_seeds_of_parts_of_the_data_are_seeds(nowhere):
    senses = ("data=incomplete", "model=multimodal", "trainer.accelerator=cpu")
    found = planned(
        ("seed=0", "data.of.seed=3"), ("seed=1",), ("data.fraction=0.2",), common=senses
    )
    assert [len(group.jobs) for group in found] == [2, 1]


def test_groups_are_split_to_fit(nowhere, monkeypatch):
    five = [(f"seed={seed}",) for seed in range(5)]
    assert [len(group.jobs) for group in planned(*five)] == [5]
    assert [len(group.jobs) for group in planned(*five, members=2)] == [2, 2, 1]
    assert [group.why for group in planned(*five, members=1)] == ["members=1"]
    state, each = groups.needed(planned(five[0])[0].algorithm, planned(five[0])[0].jobs[0].cfg)
    assert 0 < state < each
    monkeypatch.setattr(groups, "memory", lambda: 2 * 3 * each)
    monkeypatch.setattr(groups, "CACHE", state)
    assert [len(group.jobs) for group in planned(*five)] == [3, 2]
    monkeypatch.setattr(groups, "CACHE", state - 1)
    assert [group.why for group in planned(*five)] == ["each fills the caches of a CPU"]
    monkeypatch.setattr(groups, "memory", lambda: each)
    with pytest.raises(InputError, match=r"seed=0 takes about .* GB and cpu has"):
        planned(*five)


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (("model=conv",), "convolutions on a CPU are faster so"),
        (("algorithm.non_finite=skip",), "algorithm.non_finite=skip looks at each step"),
        (("trainer.accumulate_grad_batches=2",), "trainer.accumulate_grad_batches is not 1"),
        (
            ("+trainer.max_time=00:00:00:05", "trainer.max_steps=-1"),
            "trainer.max_time counts the time of all of them",
        ),
        (  # the time of one attempt, which the others would take from it
            ("+trainer.max_time=00:00:00:05",),
            "trainer.max_time counts the time of all of them",
        ),
        (
            (
                "+callbacks.clock._target_=pytorch_lightning.callbacks.Timer",
                "+callbacks.clock.duration=00:00:00:05",
            ),
            "callbacks.clock counts the time of all of them",
        ),
    ],
)
def test_jobs_that_gain_nothing_are_trained_one_after_another(nowhere, overrides, why):
    common = [word for word in SHORT if "model" not in word]
    pair = [(*overrides, f"seed={seed}") for seed in range(2)]
    assert [(len(group.jobs), group.why) for group in planned(*pair, common=common)] == [(2, why)]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("optimizer.lr=-1", "optimizer.lr is -1: expected a number of at least 0"),
        ("objective.beta=-1", "objective.beta is -1: expected a number of at least 0"),
    ],
)
def test_a_job_that_cannot_be_made_fails_by_itself(tmp_path, capsys, override, sentence):
    jobs = done([("seed=0",), ("seed=1", override), ("seed=2",)], tmp_path)
    said = capsys.readouterr().out
    assert "2 jobs together: 0, 2" in said
    assert f"1 job alone ({sentence}): 1" in said
    assert [job.outcome()[0] for job in jobs] == ["trained", "failed", "trained"]
    assert jobs[1].outcome()[1].startswith(sentence)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("algorithm=em", "data=blobs"), "algorithm is EM: expected algorithm=gradient"),
        (("trainer=ddp", "trainer.devices=2"), "hydra/launcher=subprocess"),
    ],
)
def test_what_cannot_be_stacked_is_refused_before_anything_is_trained(
    tmp_path, overrides, sentence
):
    common = () if "algorithm=em" in overrides else SHORT
    with planning() as make:
        made = make(folder=(f"hydra.sweep.dir={tmp_path}",))
        jobs = made.plan([(*common, "seed=0", *overrides), (*common, "seed=1", *overrides)])
        with pytest.raises(InputError, match=sentence):
            stacked.launch(made, jobs, lambda cfg: pytest.fail("it was begun"))
    with planning() as make, pytest.raises(InputError, match="members is 0"):
        stacked.launch(make(folder=(f"hydra.sweep.dir={tmp_path}",)), [], task, members=0)


def test_a_report_reads_them_as_any_runs(both):
    found, right = (read(jobs[0].folder.parent) for jobs in both[:2])
    assert found.keys == right.keys
    assert not found.left_out
    for one, other in zip(found.runs, right.runs, strict=True):
        assert (one.name, one.seed, one.settings) == (other.name, other.seed, other.settings)
        scores, expected = (
            {key: value for key, value in flat(run.scores).items() if isinstance(value, float)}
            for run in (one, other)
        )
        assert scores == pytest.approx(expected, rel=1e-4)
