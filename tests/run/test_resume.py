"""A run that is stopped anywhere and started again ends as one that was not, and what is torn is
noticed.
"""

import random
import shutil

import pytest
import torch
from cases import slow, some
from omegaconf import OmegaConf
from pytorch_lightning import Callback
from resume import differences, equal, records
from tiny import TINY

from jensen.base.errors import InputError, RefusedError
from jensen.launch.training import train
from jensen.run.load import resume_from, state

PLAIN = (
    *(
        *TINY,
        "trainer.accelerator=cpu",
        "trainer.max_steps=30",
        "trainer.val_check_interval=12",
        "trainer.log_every_n_steps=1",
    ),
    *("callbacks=[checkpoint,diagnose]", "+trainer.enable_progress_bar=false"),
    *("callbacks.last.seconds=0", "callbacks.last.share=1e9"),  # saved at every step
    *(
        "+schedule@algorithm.lr_scale=linear",
        "algorithm.lr_scale.steps=25",
        "algorithm.lr_scale.end=0.1",
    ),
)
RUN = (*PLAIN, "diagnostics=[decomposition,samples]", "diagnostics.samples.count=9")
MIXTURE = ("model/prior=mixture", "model.prior.components=4", "model.prior.warmup=5")
DROPOUT = (
    "~model.encoder",
    "+model.encoder={_target_:dropping.Encoder,x_shape:${data.x_shape},latent_dim:3}",
    *("model.decoder.hidden=[16]", "model.decoder.activation=relu"),
)
CONTROL = ("objective=control", "objective.target=5", "model/likelihood=optimal_normal")
FACTOR = ("objective=factor", "objective.hidden=[8]")
ACCUMULATED = (
    "trainer.accumulate_grad_batches=3",
    "trainer.max_steps=26",
    *MIXTURE,
)  # 6 steps an epoch

SENSES = (
    "data=incomplete",
    "data.of.size=300",
    "data.of.validation=60",
    "data.batch_size=12",
    "model=multimodal",
    "model.encoders.each.hidden=[16]",
    "model.fusion=subsets",
    "+objective.samples=3",
    "latent_dim=2",
    *PLAIN[len(TINY) :],
    "diagnostics=[decomposition,modalities]",
    "diagnostics.modalities.samples=4",
)


CHAIN = (
    *("data=chain", "data.workers=2"),
    *("model/prior=flow", "model.prior.hidden=[8]", "model/posterior=flow"),
    *("model/likelihood=made", "model.likelihood.hidden=[8]"),
)
DIFFUSION = (
    *("data=squares", "model/prior=diffusion", "model.prior.hidden=[8]", "model.prior.steps=5"),
    *("model/likelihood=pixelcnn", "model.likelihood.channels=4", "model.likelihood.layers=1"),
)


class StoppedError(Exception):
    pass


class Stop(Callback):
    """Raises in a hook at a step, before that step is saved: the logs then hold more than the
    checkpoint knows.
    """

    def __init__(self, hook, step):
        self.step = step
        setattr(self, hook, self._stop)

    def _stop(self, trainer, *_):
        if trainer.global_step == self.step:
            raise StoppedError


@pytest.fixture
def stop(monkeypatch):
    """`stop(hook, step)` makes the next run end there, with more in its logs than its checkpoint
    knows.
    """

    def stop(hook, step):
        from jensen.launch import trainer as program

        instantiate = program.instantiate

        def with_stop(cfg, **more):
            found = instantiate(cfg, **more)
            if OmegaConf.is_dict(cfg) and "last" in cfg and "best" in cfg:
                found["stop"] = Stop(hook, step)
                monkeypatch.setattr(program, "instantiate", instantiate)
            return found

        monkeypatch.setattr(program, "instantiate", with_stop)

    return stop


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    return {}, tmp_path_factory.mktemp("wholes")


@pytest.fixture
def whole(configure, wholes):
    """`whole(overrides)` is the folder of such a run that nobody stopped."""
    runs, folder = wholes

    def whole(overrides):
        if overrides not in runs:
            runs[overrides] = folder / str(len(runs))
            train(configure(*RUN, *overrides), runs[overrides])
        return runs[overrides]

    return whole


@pytest.mark.parametrize(
    ("overrides", "hook", "step"),
    [
        slow((), "on_train_batch_end", 7),  # amid an epoch of 20 steps
        slow((), "on_train_batch_end", 20),  # its last batch
        slow((), "on_train_batch_start", 20),  # the first of the next
        slow((), "on_validation_start", 12),
        slow(MIXTURE, "on_validation_end", 24),
        slow(MIXTURE, "on_train_batch_end", 26),
        slow(CONTROL, "on_train_batch_end", 9),
        slow(FACTOR, "on_train_batch_end", 9),
        slow(("data.workers=2",), "on_train_batch_end", 13),
        slow(ACCUMULATED, "on_train_batch_end", 6),
        slow(DROPOUT, "on_train_batch_end", 9),
        slow((*FACTOR, "data.workers=2"), "on_train_batch_end", 13),
        slow((*CONTROL, *DROPOUT), "on_train_batch_end", 9),
    ],
)
def test_a_run_that_was_stopped_equals_one_that_was_not(
    configure, tmp_path, whole, stop, overrides, hook, step
):
    stop(hook, step)
    with pytest.raises(StoppedError):
        train(configure(*RUN, *overrides), tmp_path / "parts")
    train(configure(*RUN, *overrides), tmp_path / "parts")
    assert differences(whole(overrides), tmp_path / "parts") == []


@pytest.mark.parametrize(
    ("overrides", "stops"),
    [
        (
            (),
            {
                "on_train_batch_end": (7, 20),  # amid an epoch of 20 steps, and its last batch
                "on_train_batch_start": (20,),  # the first of the next
                "on_validation_start": (12,),
            },
        ),
        slow(ACCUMULATED, {"on_train_batch_end": (6, 25), "on_validation_end": (24,)}),
    ],
)
def test_a_run_that_was_stopped_anywhere_equals_one_that_was_not(
    configure, tmp_path, whole, stop, overrides, stops
):
    """All of them in one run, in turn."""
    places = [(step, hook) for hook, steps in stops.items() for step in steps]
    for step, hook in sorted(places):
        stop(hook, step)
        with pytest.raises(StoppedError):
            train(configure(*RUN, *overrides), tmp_path / "parts")
    train(configure(*RUN, *overrides), tmp_path / "parts")
    assert differences(whole(overrides), tmp_path / "parts") == []


@pytest.mark.slow
def test_a_run_on_several_senses_goes_on_as_if_nobody_had_stopped_it(configure, tmp_path, stop):
    train(configure(*SENSES), tmp_path / "whole")
    stop("on_train_batch_end", 13)  # amid an epoch, and after a validation
    with pytest.raises(StoppedError):
        train(configure(*SENSES), tmp_path / "parts")
    train(configure(*SENSES), tmp_path / "parts")
    assert differences(tmp_path / "whole", tmp_path / "parts") == []


@some(1, "overrides", [CHAIN, DIFFUSION])
def test_flows_diffusions_and_autoregressive_decoders_go_on_as_if_nobody_had_stopped_them(
    configure, tmp_path, stop, overrides
):
    short = ("trainer.max_steps=14", "trainer.val_check_interval=6", "algorithm.lr_scale.steps=12")
    words = (*PLAIN, "diagnostics=[]", *short, *overrides)
    train(configure(*words), tmp_path / "whole")
    stop("on_train_batch_end", 9)  # amid an epoch, and after a validation
    with pytest.raises(StoppedError):
        train(configure(*words), tmp_path / "parts")
    train(configure(*words), tmp_path / "parts")
    assert differences(tmp_path / "whole", tmp_path / "parts") == []


EM = (
    *(
        "algorithm=em",
        "data=blobs",
        "data.size=600",
        "data.validation=60",
        "data.batch_size=256",
        "model.components=2",
    ),
    *(
        "trainer.accelerator=cpu",
        "trainer.max_steps=24",
        "algorithm.tolerance=0",
        "trainer.log_every_n_steps=1",
    ),
    *(
        "callbacks=[checkpoint]",
        "diagnostics=[]",
        "callbacks.last.seconds=0",
        "callbacks.last.share=1e9",
    ),
    *(
        "+trainer.enable_progress_bar=false",
        "trainer.check_val_every_n_epoch=5",
        "model.restarts=1",
    ),
)
BY_EPOCHS = (
    *PLAIN,
    "diagnostics=[]",
    "trainer.check_val_every_n_epoch=2",
    "trainer.val_check_interval=1.0",
    "data.batch_size=60",
)


# saved at a step, or after its validation, which here is at every fifth, at an epoch's end
@pytest.mark.parametrize(
    ("overrides", "stops"),
    [
        slow(EM, (7, 14)),
        (EM, (6, 11, 17)),  # each just after a validation
        slow((*EM, "trainer.precision=64-true"), (6, 14)),
        (
            (
                *EM,
                "algorithm=stepwise_em",
                "trainer.check_val_every_n_epoch=null",
                "trainer.val_check_interval=5",
            ),
            (3, 11, 14),
        ),
        slow(BY_EPOCHS, (5, 13, 17)),  # 4 steps an epoch: after the end of one, each
        slow(
            (
                *BY_EPOCHS,
                "trainer.max_steps=-1",
                "trainer.max_epochs=7",
                "algorithm.lr_scale.steps=20",
            ),
            (5, 9, 13),
        ),
        slow((*RUN, "trainer.precision=64-true", *MIXTURE), (7, 21, 26)),
    ],
)
def test_a_run_that_was_stopped_again_and_again_equals_one_that_was_not(
    configure, tmp_path, stop, overrides, stops
):
    train(configure(*overrides), tmp_path / "whole")
    for step in stops:
        stop("on_train_batch_end", step)
        with pytest.raises(StoppedError):
            train(configure(*overrides), tmp_path / "parts")
    train(configure(*overrides), tmp_path / "parts")
    assert differences(tmp_path / "whole", tmp_path / "parts") == []
    if "algorithm=em" in overrides and "algorithm=stepwise_em" not in overrides:
        validated = [step for tag, step, _ in records(tmp_path / "parts") if tag == "val/elbo"]
        assert validated == [5, 10, 15, 20, 24]


@pytest.mark.parametrize(
    ("overrides", "every"),
    [
        (EM, 5),
        slow(
            (*BY_EPOCHS, "trainer.max_steps=24", "~algorithm.lr_scale", "+algorithm.lr_scale=1"), 8
        ),
    ],
)
def test_a_run_that_is_trained_longer_equals_one_that_was_so_from_the_start(
    configure, tmp_path, overrides, every
):
    """Its last steps, which were validated because they were, are amid the interval."""
    train(configure(*overrides), tmp_path / "whole")
    for steps in (4, 7, 12, 13, 24):
        train(configure(*overrides, f"trainer.max_steps={steps}"), tmp_path / "parts")
    saved = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("whole", "parts")
    ]
    assert all(
        equal(saved[0][key], saved[1][key])
        for key in ("state_dict", "optimizer_states", "global_step", "epoch")
    )
    validated = [step for tag, step, _ in records(tmp_path / "parts") if tag == "val/elbo"]
    assert validated == sorted({4, 7, 12, 13, 24, *range(every, 25, every)})


@pytest.mark.parametrize(
    "interval",
    [
        ("trainer.val_check_interval=3",),
        slow(("trainer.check_val_every_n_epoch=1", "trainer.val_check_interval=1.0")),
    ],
)
def test_a_run_of_more_epochs_equals_one_that_had_them_from_the_start(
    configure, tmp_path, interval
):
    """However its validations are spaced: by steps none is due at the end of an epoch."""
    overrides = (
        *(word for word in PLAIN if "lr_scale" not in word),
        "diagnostics=[]",
        "data.batch_size=60",  # 4 steps an epoch
        *interval,
        "trainer.max_steps=-1",
    )
    train(configure(*overrides, "trainer.max_epochs=3"), tmp_path / "whole")
    for epochs in (1, 2, 3):
        train(configure(*overrides, f"trainer.max_epochs={epochs}"), tmp_path / "parts")
    saved = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("whole", "parts")
    ]
    assert all(
        equal(saved[0][key], saved[1][key])
        for key in ("state_dict", "optimizer_states", "global_step", "epoch")
    )
    assert saved[0]["global_step"] == 12
    before = content(tmp_path / "parts")
    with pytest.raises(
        RefusedError,
        match=r"trainer.max_epochs is 2 but .* has finished epoch 3: expected at least that",
    ):
        train(configure(*overrides, "trainer.max_epochs=2"), tmp_path / "parts")
    assert content(tmp_path / "parts") == before


def test_a_continued_mixture_knows_which_components_were_seeded_anew(
    configure, tmp_path, stop, monkeypatch
):
    """They are no more than three times each: without the count, the rest of a run would seed as
    often again.
    """
    monkeypatch.setattr("jensen.algorithm.fate.LOOK", 2)
    monkeypatch.setattr("jensen.algorithm.fate.lost", lambda *_: [(0, 0, "collapsed")])
    train(configure(*EM), tmp_path / "whole")
    for step in (9, 15):
        stop("on_train_batch_end", step)
        with pytest.raises(StoppedError):
            train(configure(*EM), tmp_path / "parts")
    train(configure(*EM), tmp_path / "parts")
    assert differences(tmp_path / "whole", tmp_path / "parts") == []
    saved = torch.load(tmp_path / "parts" / "checkpoints" / "last.ckpt", weights_only=True)
    assert [step for step, *_ in saved["reseeded"]] == [2, 4, 6, 8, 10, 12]


def test_validations_are_counted_in_optimiser_steps_and_each_step_is_logged_once(
    configure, tmp_path
):
    train(configure(*RUN, "trainer.accumulate_grad_batches=3", "trainer.max_steps=25"), tmp_path)
    found = [each[:2] for each in records(tmp_path)]
    assert [step for tag, step in found if tag == "val/elbo"] == [12, 24, 25]
    assert [step for tag, step in found if tag == "train/loss"] == [*range(25)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def run(configure, finished, tmp_path):
    """A copy of a run that has reached step 24 of 30, and the configuration that goes on."""
    if not finished.exists():
        train(configure(*RUN, "trainer.max_steps=24", "algorithm.lr_scale.steps=20"), finished)
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def tear(path):
    path.write_bytes(path.read_bytes()[: random.Random(0).randrange(1, path.stat().st_size)])


def content(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_the_checkpoint_before_a_torn_one_is_used_and_the_person_is_told(run, capsys):
    folder = run / "checkpoints"
    tear(folder / "last.ckpt")
    torn = (folder / "last.ckpt").read_bytes()
    before = content(run)
    resumed = resume_from(run)
    assert content(run) == before  # until it is sure that it goes on
    resumed.set_back()
    assert resumed.checkpoint == folder / "last.previous.ckpt"
    said = capsys.readouterr().out
    assert f"{folder / 'last.ckpt'} cannot be read" in said
    assert "going on from last.previous.ckpt, of step 23" in said
    assert (folder / "last.torn.ckpt").read_bytes() == torn
    assert (
        resume_from(run).checkpoint == folder / "last.previous.ckpt"
    )  # as where a process was killed between two files' new names
    assert max(step for _, step, _ in records(run)) == 22


def test_a_run_with_a_torn_checkpoint_ends_as_it_would_have(configure, run, tmp_path):
    tear(run / "checkpoints" / "last.ckpt")
    cfg = configure(*RUN, "trainer.max_steps=24", "algorithm.lr_scale.steps=20")
    (run / "finished.json").unlink()
    train(cfg, run)
    train(cfg, tmp_path / "again")
    assert differences(tmp_path / "again", run) == []


def test_two_torn_checkpoints_are_refused_and_nothing_is_changed(configure, run):
    for name in ("last", "last.previous"):
        tear(run / "checkpoints" / f"{name}.ckpt")
    before = content(run)
    with pytest.raises(
        InputError,
        match=r"last.ckpt cannot be read .* and .*last.previous.ckpt cannot be read .*: expected",
    ):
        resume_from(run)
    assert content(run) == before


def test_a_torn_checkpoint_is_no_model(run):
    for name in ("last", "best"):
        tear(run / "checkpoints" / f"{name}.ckpt")
        with pytest.raises(
            InputError, match=rf"{name}.ckpt cannot be read .*: expected a whole checkpoint"
        ):
            state(run, name)


def test_without_a_checkpoint_training_starts_anew_and_so_do_its_logs(configure, tmp_path, stop):
    stop("on_train_batch_start", 0)
    with pytest.raises(StoppedError):
        train(configure(*RUN), tmp_path)
    (tmp_path / "events.out.tfevents.1.of.a.person").write_bytes(b"kept")
    assert list(tmp_path.glob("events*.train"))
    resumed = resume_from(tmp_path)
    assert resumed.checkpoint is None
    resumed.set_back()
    assert not list(tmp_path.glob("events*.train"))
    assert (tmp_path / "events.out.tfevents.1.of.a.person").exists()


def test_a_checkpoint_of_another_program_is_told(run):
    torch.save({"model": {}}, run / "checkpoints" / "last.ckpt")
    with pytest.raises(InputError, match=r"last.ckpt cannot be read \(KeyError\)"):
        state(run)
