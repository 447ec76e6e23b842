"""Event files that are set back to what a checkpoint knows of them."""

from types import SimpleNamespace

import numpy as np
import pytest
from pytorch_lightning.loggers import TensorBoardLogger
from resume import records
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from jensen.callbacks import events
from jensen.callbacks.events import Events, files, go_after, rewind


@pytest.fixture
def logger(tmp_path):
    logger = TensorBoardLogger(
        tmp_path, name="", version="", default_hp_metric=False, filename_suffix=".train"
    )
    yield logger
    logger.finalize("success")


def checkpoint(logger, rank=0):
    saved = {}
    Events().on_save_checkpoint(
        SimpleNamespace(
            loggers=[logger], is_global_zero=rank == 0, default_root_dir=logger.save_dir
        ),
        None,
        saved,
    )
    return saved["events"]


def logged(folder):
    return [(tag, step) for tag, step, _ in records(folder)]


def test_what_was_logged_before_the_checkpoint_stays_and_the_rest_goes(logger, tmp_path):
    for step in range(3):
        logger.log_metrics({"loss": step}, step)
    logger.experiment.add_histogram("codes", np.ones(3), 2)
    sizes = checkpoint(logger)
    logger.log_metrics({"loss": 3.0}, 3)
    logger.experiment.flush()
    assert ("loss", 3) in logged(tmp_path)
    rewind(files(tmp_path), sizes)
    assert logged(tmp_path) == [("codes", 2), ("loss", 0), ("loss", 1), ("loss", 2)]
    rewind(files(tmp_path), sizes)
    assert len(logged(tmp_path)) == 4


def test_files_that_the_checkpoint_does_not_know_go_and_those_of_others_stay(logger, tmp_path):
    logger.log_metrics({"loss": 0.0}, 0)
    sizes = checkpoint(logger)
    with (
        SummaryWriter(str(tmp_path), filename_suffix=".train") as later,
        SummaryWriter(str(tmp_path)) as evaluation,
    ):
        later.add_scalar("loss", 1.0, 1)
        evaluation.add_scalar("score", 1.0, 1)
    before = {
        file.name: file.read_bytes()
        for file in tmp_path.iterdir()
        if not file.name.endswith(".train")
    }
    assert len(before) == 1
    rewind(files(tmp_path), sizes)
    assert logged(tmp_path) == [("loss", 0)]
    assert {
        file.name: file.read_bytes()
        for file in tmp_path.iterdir()
        if not file.name.endswith(".train")
    } == before
    rewind(files(tmp_path), {})
    assert {file.name for file in tmp_path.iterdir()} == before.keys()


def test_a_file_that_is_shorter_than_it_was_is_left_alone(logger, tmp_path):
    logger.log_metrics({"loss": 0.0}, 0)
    sizes = checkpoint(logger)
    rewind(files(tmp_path), {name: size + 100 for name, size in sizes.items()})
    assert logged(tmp_path) == [("loss", 0)]


def test_other_ranks_know_no_files(logger):
    assert checkpoint(logger, rank=1) == {}


def test_files_of_a_clock_that_was_set_back_come_after_those_of_before(tmp_path, monkeypatch):
    monkeypatch.setattr(events.event_file_writer, "time", events.event_file_writer.time)
    ahead = tmp_path / "events.out.tfevents.9000000000.here.1.0.train"
    with SummaryWriter(str(tmp_path), filename_suffix=".train") as writer:
        writer.add_scalar("loss", 0.0, 0)
    next(tmp_path.iterdir()).rename(ahead)
    go_after(tmp_path)
    with SummaryWriter(str(tmp_path), filename_suffix=".train") as writer:
        writer.add_scalar("loss", 1.0, 1)
    first, second = sorted(tmp_path.iterdir())
    assert (first, second.name.split(".")[3]) == (ahead, "9000000001")
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert [event.step for event in accumulator.Scalars("loss")] == [0, 1]
