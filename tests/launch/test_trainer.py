"""What a run says before its first step of what it was given and will not use, or will not
leave.
"""

import pytest
import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from tiny import TINY

from jensen.base.errors import InputError, RefusedError
from jensen.launch.training import train

RUN = (
    *(*TINY, "trainer.accelerator=cpu", "trainer.max_steps=2", "trainer.log_every_n_steps=1"),
    "+trainer.enable_progress_bar=false",
)
IDLE = "diagnostics has rate, codes but callbacks has no diagnose to run them: none is run"
OTHER = "logger is CSV, which keeps no pictures, histograms and texts: they are left out"
NONE = "there is no logger: numbers and pictures of the training are kept nowhere"
NO_BEST = "callbacks has no best: last.ckpt is kept alone"
CSV = "logger=csv"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("callbacks=[checkpoint,diagnose] diagnostics=[rate]", set()),
        ("callbacks=[checkpoint] diagnostics=[]", set()),
        ("callbacks=[checkpoint] diagnostics=[rate,codes]", {IDLE}),
        (
            "callbacks=[checkpoint,diagnose] diagnostics=[rate,codes] callbacks.diagnose=null",
            {IDLE},
        ),
        ("callbacks=[checkpoint,diagnose] diagnostics=[rate,codes] diagnostics.codes=null", set()),
        ("callbacks=[diagnose] diagnostics=[rate]", {NO_BEST}),
        (
            "callbacks=[checkpoint] diagnostics=[] callbacks.best=null callbacks.last=null",
            {NO_BEST},
        ),
        (f"callbacks=[checkpoint] diagnostics=[] {CSV}", {OTHER}),
        (f"callbacks=[] diagnostics=[rate,codes] {CSV}", {IDLE, OTHER, NO_BEST}),
        ("callbacks=[checkpoint] diagnostics=[] logger=[tensorboard,csv]", set()),
        ("callbacks=[checkpoint] diagnostics=[] logger=none", {NONE}),
    ],
)
def test_what_is_configured_and_not_used_is_said(configure, tmp_path, capsys, words, said):
    train(configure(*RUN, *words.split()), tmp_path)
    out = capsys.readouterr().out
    assert {sentence for sentence in (IDLE, OTHER, NONE, NO_BEST) if sentence in out} == said
    assert (tmp_path / "checkpoints" / "best.ckpt").exists() == (NO_BEST not in said)
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


def test_a_duration_may_be_given_in_parts(configure, tmp_path):
    train(
        configure(*RUN, "callbacks=[checkpoint]", "diagnostics=[]", "+trainer.max_time={hours: 2}"),
        tmp_path,
    )
    assert (tmp_path / "finished.json").exists()


def test_batch_norm_of_all_ranks_is_refused_on_cpus(configure, tmp_path):
    ranks = ("trainer.devices=2", "+trainer.sync_batchnorm=true", "callbacks=[checkpoint]")
    with pytest.raises(InputError, match="sync_batchnorm is true but the ranks are on CPUs"):
        train(configure(*RUN, *ranks), tmp_path)


def test_a_rank_that_is_only_in_the_environment_is_refused_and_leaves_nothing(
    configure, tmp_path, monkeypatch
):
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # what Lightning reads at its import
    with pytest.raises(
        RefusedError, match=r"SLURM_PROCID is 1 in the environment, but .* for rank 0"
    ):
        train(configure(*RUN, "callbacks=[checkpoint]", "diagnostics=[]"), tmp_path)
    assert not [*tmp_path.iterdir()]
