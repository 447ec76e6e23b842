"""A program over two ranks: what it does after its fit, and an end that one rank asks for."""

import json
import math

import pytest
import torch
from composing import composed, read_once
from omegaconf import open_dict
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import Checkpoint
from ranks import together
from tiny import TINY

import jensen
from jensen.base.errors import InputError
from jensen.launch.training import train

HELD_OUT = 21
QUIET = (
    "callbacks=[checkpoint,diagnose]",
    "trainer.accelerator=cpu",
    "trainer.val_check_interval=4",
    "diagnostics=[rate]",
)


def fitted(folder, ranks):
    draw = torch.Generator().manual_seed(0)
    x = (torch.rand(80, 1, 2, 3, generator=draw) < 0.5).float()
    torch.manual_seed(0)
    model = jensen.VAE("mlp", "mlp", latent_dim=2, x_shape=[1, 2, 3]).double()
    words = [*QUIET, "trainer.precision=64-true", f"trainer.devices={ranks}"]
    return jensen.fit(
        model, x, validation=HELD_OUT, max_steps=8, batch_size=8, folder=folder, overrides=words
    )


def program(rank, folder):
    """All ranks go on with it after the fit."""
    run = fitted(folder / "run", 2)
    assert "val/elbo" in run.results  # though rank zero alone has written them
    own = run.diagnose(["decomposition"])
    (folder / f"{rank}.json").write_text(json.dumps(own))
    if rank == 0:
        run.diagnose(["rate"])  # and nobody waits for the other
    with pytest.raises(InputError, match=r"1 rank but this process is rank . of 2 that an earlier"):
        fitted(folder / "other", 1)
    assert "val/elbo" in fitted(folder / "again", 2).results


def test_what_is_asked_after_a_fit_over_ranks_is_each_ranks_own(tmp_path):
    together(2, program, tmp_path)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1]
    alone = fitted(tmp_path / "alone", 1).diagnose(["decomposition"])["decomposition"]
    assert found[0]["decomposition"]["log_n"] == pytest.approx(math.log(HELD_OUT))
    assert found[0]["decomposition"] == pytest.approx(alone, rel=1e-6, abs=1e-9)
    kept = json.loads((tmp_path / "run" / "scores.json").read_text())["diagnostics"]
    assert kept["decomposition"]["log_n"] == pytest.approx(math.log(HELD_OUT))


class Stops(Callback):
    """Ends the training from one rank, as by its clock or its memory."""

    def __init__(self, place):
        self.place = place

    def stop(self, trainer, place):
        if place == self.place and trainer.global_rank == 1 and trainer.global_step >= 3:
            trainer.should_stop = True

    def on_train_batch_end(self, trainer, *_):
        self.stop(trainer, "batch")

    def on_train_epoch_end(self, trainer, *_):
        self.stop(trainer, "epoch")

    def on_train_epoch_start(self, trainer, *_):
        self.stop(trainer, "new epoch")

    def on_validation_end(self, trainer, *_):
        self.stop(trainer, "validation")


class Saves(Stops, Checkpoint):
    """The same of a `Checkpoint`, which Lightning calls after other callbacks."""


PLACES = {
    **dict.fromkeys(("batch", "epoch", "new epoch", "validation"), Stops),
    **{f"{place} saved": Saves for place in ("batch", "epoch", "new epoch", "validation")},
}


def stopped(rank, folder):
    read_once()
    for place, kind in PLACES.items():
        cfg = composed(*TINY, "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_steps=40",
                       "trainer.val_check_interval=4", "diagnostics=[]")  # fmt: skip
        with open_dict(cfg):
            cfg.callbacks.stops = {
                "_target_": f"{__name__}.{kind.__name__}",
                "place": place.removesuffix(" saved"),
            }
        train(cfg, folder / place)


def test_an_end_that_one_rank_asks_for_is_that_of_all(tmp_path):
    together(2, stopped, tmp_path, timeout=60)
    ends = {place: json.loads((tmp_path / place / "finished.json").read_text()) for place in PLACES}
    assert {place: end["why"] for place, end in ends.items()} == dict.fromkeys(ends, "a callback")
    for word in ("", " saved"):
        assert ends[f"batch{word}"]["step"] == 3
        assert ends[f"validation{word}"]["step"] == 4
        assert ends[f"epoch{word}"]["step"] == 20  # of 240 examples, 12 a step
        assert ends[f"new epoch{word}"]["step"] == 20
