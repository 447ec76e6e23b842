"""What Lightning shows of a run, where it was asked for, and only there."""

import logging

import pytest
from tiny import TINY

from jensen.base.errors import InputError
from jensen.launch.training import train
from jensen.run.words import explain

RUN = (
    *(*TINY, "trainer.accelerator=cpu", "trainer.max_steps=2", "trainer.val_check_interval=2"),
    *("diagnostics=[]", "callbacks=[checkpoint]"),
)


@pytest.fixture
def shown():
    """Lines that Lightning logs, as its own handler gets them."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("pytorch_lightning")
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("callbacks=[checkpoint]", []),
        ("callbacks=[checkpoint,model_summary]", ["Total params"]),
        ("callbacks=[checkpoint,profiler]", ["FIT Profiler Report"]),
        ("trainer.profiler=simple", ["FIT Profiler Report"]),
    ],
)
def test_a_table_is_shown_if_it_is_asked_for(configure, tmp_path, shown, capsys, word, words):
    train(configure(*RUN, word), tmp_path)
    assert [
        each for each in ("Total params", "FIT Profiler Report") if each in "".join(shown)
    ] == words
    assert bool(shown) == bool(words)
    said = capsys.readouterr()
    assert "it/s" not in said.out + said.err  # no bar of Lightning's own in the place of ours


def test_a_monitor_that_no_validation_gives_is_one_sentence(configure, tmp_path):
    cfg = configure(*RUN, "callbacks=[early_stopping]", "callbacks.early_stopping.monitor=val/elb")
    with pytest.raises(RuntimeError) as caught:
        train(cfg, tmp_path)
    assert not isinstance(caught.value, InputError)
    assert explain(caught.value).startswith(
        "the monitor of EarlyStopping is val/elb: expected one of what a validation gives, val/elbo,"
    )
