"""The lines and the bar of a run, and what they say of a model that came to nothing."""

import io
import json
import logging
import sys
import warnings

import pytest
import torch
from commands import run_here
from hydra.utils import instantiate
from omegaconf import OmegaConf
from runs import QUICK

from jensen.base.schedule import Linear
from jensen.callbacks.health import ills
from jensen.callbacks.progress import Progress, last_step
from jensen.callbacks.tell import Tell
from jensen.callbacks.words import say
from jensen.family.gaussian import Gaussian
from jensen.launch import console
from jensen.launch.training import train
from jensen.model.likelihood import LearnedNormal, OptimalNormal
from jensen.model.mixture_prior import MixturePrior
from jensen.objective import Beta, Capacity, Decomposed
from jensen.objective.control import Control
from jensen.run.log import Lines, RunLog
from jensen.run.summary import summary
from jensen.run.words import warnings_noted
from jensen.train import main

COLLAPSED = ("objective.beta=1e5", "optimizer.lr=0.05", "diagnostics=[rate]")


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Numbered(torch.nn.Module):
    """Encodes each example of a batch as its number."""

    def forward(self, x):
        mean = torch.arange(len(x)).float()[:, None].expand(-1, 3)
        return Gaussian(mean, torch.zeros_like(mean))


class Recalled(torch.nn.Module):
    """Decodes a number as that one of some examples."""

    def __init__(self, x):
        super().__init__()
        self.x = x

    def forward(self, z):
        return 8 * (self.x[z[:, 0].long()] - 0.5)


class Told:
    """As much of a trainer and an algorithm as a look at a model takes."""

    def __init__(self, model, data=None, objective=None, step=50, **metrics):
        self.model = model
        self.objective = objective if objective is not None else Beta()
        self.datamodule = data
        self.global_step = step
        self.device = "cpu"
        self.dtype = torch.float32
        self.callback_metrics = {
            name.replace("_", "/", 1): torch.tensor(value) for name, value in metrics.items()
        }

    def ills(self, codes=None, ended=False):
        return ills(self, self, codes, ended)


@pytest.fixture
def parts(configure):
    """A VAE, untrained, and its data."""
    cfg = configure(*QUICK)
    torch.manual_seed(0)
    return instantiate(cfg.model).eval(), instantiate(cfg.data)


@pytest.fixture(scope="module")
def collapsed(tmp_path_factory):
    from composing import composed

    folder = tmp_path_factory.mktemp("collapsed") / "run"
    train(composed(*QUICK, *COLLAPSED), folder)
    return folder


def test_warnings_of_python_are_in_the_runs_log_too(tmp_path):
    log = RunLog(tmp_path / "train.log", delay=True)
    logging.root.addHandler(log)
    try:
        with pytest.warns(UserWarning, match="it is odd") as shown, warnings_noted():
            warnings.warn("it is odd", stacklevel=1)
        with pytest.warns(UserWarning, match="it is late"):
            warnings.warn("it is late", stacklevel=1)
    finally:
        logging.root.removeHandler(log)
        log.close()
    assert len(shown) == 1
    (line,) = (tmp_path / "train.log").read_text().splitlines()
    assert line.startswith("UserWarning: it is odd (")


def test_a_run_says_what_is_trained_and_how_good_it_is(configure, tmp_path, capsys):
    log = RunLog(tmp_path / "train.log", delay=True)
    logging.root.addHandler(log)
    try:
        train(configure(*QUICK, "diagnostics=[rate]"), tmp_path / "run")
    finally:
        logging.root.removeHandler(log)
        log.close()
    out, err = capsys.readouterr()
    lines = [line.removeprefix("jensen: ") for line in out.splitlines()]
    assert lines[0] == f"training in {tmp_path / 'run'}"
    parameters = 4096 * 16 + 16 + 16 * 6 + 6 + 3 * 16 + 16 + 16 * 4096 + 4096
    assert lines[1].startswith(
        f"VAE of {parameters:,} parameters, 3 latents on 240 examples (60 held out), "
    )
    assert lines[1].endswith("30 steps of 12, on cpu")
    assert "using the CPU, " in lines[2]
    bounds = json.loads((tmp_path / "run" / "finished.json").read_text())["results"]
    told = f"elbo {bounds['val/elbo']:.2f}, distortion {bounds['val/distortion']:.2f}, rate {bounds['val/rate']:.2f}"
    assert lines[-1].startswith(f"step 30: {told}, ")
    assert [line.split(":")[0] for line in lines if line.startswith("step ")] == [
        "step 12",
        "step 24",
        "step 30",
    ]
    assert "\r" not in out + err  # there is no terminal
    assert (tmp_path / "train.log").read_text().splitlines() == lines
    assert not (tmp_path / "run" / "hparams.yaml").exists()


def test_the_first_line_names_an_objective_of_one_s_own(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from jensen.objective import Beta\n\nclass Own(Beta):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = (*QUICK, "diagnostics=[]", "trainer.max_steps=2", "trainer.val_check_interval=2")
    place = f"hydra.run.dir={tmp_path / 'run'}"
    ended = run_here(capsys, main, *words, "objective._target_=mine.Own", place)
    assert ended.status == 0, ended.err
    (line,) = (line for line in ended.out.splitlines() if "parameters" in line)
    assert "(data=sprites model=mlp objective=mine.Own) on 240 examples" in line


def test_a_run_of_a_sweep_is_brief(capsys):
    Tell(brief=True).line("once")
    Tell().line("twice")
    assert capsys.readouterr().out == "jensen: twice\n"


def test_a_model_that_collapses_is_told_at_a_validation_and_marked_at_the_end(collapsed, capsys):
    marker = json.loads((collapsed / "finished.json").read_text())
    assert marker["results"]["val/rate"] < 0.1
    (sentence,) = marker["warnings"].values()
    assert sentence.startswith("the model has collapsed: its rate is 0.0")
    assert "+schedule@objective.beta=linear" in sentence


def test_the_end_says_what_came_of_it_and_where_it_is_to_be_seen(collapsed, capsys):
    words = (*QUICK, *COLLAPSED[:2], "diagnostics=[rate,samples]")
    ended = run_here(capsys, main, *words, f"hydra.run.dir={collapsed}")  # is finished
    assert ended.status == 0
    best = json.loads((collapsed / "finished.json").read_text())["best"]
    assert ended.out.splitlines()[-5:] == [
        f"jensen: {line}"
        for line in (
            "0 of 3 latents active",
            f"best val/elbo {best['value']:.3f}, in checkpoints/best.ckpt",
            "warning: "
            + json.loads((collapsed / "finished.json").read_text())["warnings"]["collapsed"],
            "pictures (samples) are in TensorBoard's IMAGES",
            f"tensorboard --logdir {collapsed}",
        )
    ]


def test_the_end_names_what_the_loggers_left_and_nothing_else(tmp_path):
    cfg = OmegaConf.create({"diagnostics": {"samples": {}}})
    results = {"val/elbo": -1.0}
    assert len(summary(tmp_path, cfg, results)) == 1
    (tmp_path / "metrics.csv").touch()
    assert summary(tmp_path, cfg, results)[1:] == [f"its numbers are in {tmp_path / 'metrics.csv'}"]
    (tmp_path / "events.out.tfevents.1.here.2.0").touch()
    assert [line.split()[0] for line in summary(tmp_path, cfg, results)[2:]] == [
        "pictures",
        "tensorboard",
    ]


def test_a_rate_that_is_asked_to_be_small_is_no_collapse(parts):
    model, _ = parts
    low = {"val_rate": 0.05, "rate_active_units": 0.0}
    assert "its rate is 0.050 nats" in Told(model, **low).ills()["collapsed"]
    assert not Told(model, val_rate=0.2, rate_active_units=1.0).ills()
    growing = Told(model, objective=Capacity(Linear(0.0, 25.0, 100_000)), val_rate=0.05)
    assert not growing.ills()
    held = Told(model, objective=Capacity(5.0), val_rate=0.05)
    assert held.ills()
    strong = Told(model, objective=Decomposed(tc=12.0), val_rate=0.05)
    assert "a lower objective.tc, or" in strong.ills()["collapsed"]
    silent = Told(model, val_rate=3.0, rate_active_units=0.0)
    assert "no latent is active, at a rate of 3.00 nats" in silent.ills()["collapsed"]


def test_the_codes_of_one_example_vary_in_no_model(configure, parts):
    model, _ = parts
    for held_out, told in ((1, False), (2, True)):
        data = instantiate(configure(*QUICK, f"data.validation={held_out}").data)
        ills = Told(model, data, val_rate=3.0, rate_active_units=0.0).ills()
        assert ("no latent is active" in ills.get("collapsed", "")) is told


def test_a_decoder_that_ignores_z_is_told(parts):
    model, data = parts
    model.encoder = Numbered()
    model.decoder = Recalled(data.show(64))
    assert not Told(model, data, val_rate=3.0).ills()
    model.decoder = Recalled(data.show(64)[:1].expand(64, -1, -1, -1))
    said = Told(model, data, val_rate=3.0).ills()["ignored"]
    assert "another example's code costs no more than its own" in said


def test_a_scale_at_its_bound_is_told(parts):
    model, _ = parts
    model.likelihood = LearnedNormal()
    assert not Told(model, val_rate=3.0).ills()
    with torch.no_grad():
        model.likelihood.raw_log_var.fill_(-60.0)
    assert "exp(-19.9), the least" in Told(model, val_rate=3.0).ills()["scale"]
    with torch.no_grad():
        model.likelihood.raw_log_var.fill_(60.0)
    assert "the greatest" in Told(model, val_rate=3.0).ills()["scale"]
    model.likelihood = OptimalNormal()
    assert not Told(model, val_rate=3.0).ills()  # no batch was seen yet
    model.likelihood.variance.fill_(1e-9)
    assert "exp(-20.7), the least" in Told(model, val_rate=3.0).ills()["scale"]


def test_dead_components_of_a_prior_are_told(parts):
    model, _ = parts
    prior = MixturePrior(3, 3)
    model.prior = prior
    prior.learned.started.fill_(True)
    prior.learned.mean.copy_(torch.tensor([[0.0] * 3, [5.0] * 3, [100.0] * 3]))
    codes = torch.cat([torch.zeros(40, 3), torch.full((40, 3), 5.0)])
    said = Told(model, val_rate=3.0).ills(codes)["dead"]
    assert said.startswith("1 of the prior's 3 components are dead (component 2)")
    assert not Told(model, val_rate=3.0).ills(codes[:50])  # too few to tell
    prior.learned.mean.copy_(torch.tensor([[0.0] * 3, [5.0] * 3, [0.0] * 3]))
    assert not Told(model, val_rate=3.0).ills(codes)


def test_a_beta_that_never_came_to_its_end_is_told_at_the_end(parts):
    model, _ = parts
    told = Told(model, objective=Beta(Linear(0.0, 4.0, 100)), val_rate=3.0)
    assert not told.ills()
    assert (
        "until step 100 and training ended at step 50" in told.ills(ended=True)["schedule of beta"]
    )
    control = Control(2.0, beta_max=10.0)
    assert not Told(model, objective=control, val_rate=3.0).ills(ended=True)
    control.beta.fill_(10.0)
    said = Told(model, objective=control, val_rate=3.0).ills(ended=True)["controller"]
    assert "ended at objective.beta_max, 10" in said


def test_a_mixture_alone_has_no_such_ills():
    assert not Told(torch.nn.Linear(1, 1), val_rate=0.0).ills(ended=True)


def test_at_a_terminal_there_is_a_bar_below_the_lines(configure, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "120")
    cfg = configure(
        *QUICK, "diagnostics=[]", "callbacks.progress.refresh_rate=1", "trainer.max_steps=20"
    )
    train(cfg, tmp_path)
    shown = terminal.getvalue().split("\r")
    assert any(line.startswith("step 0/20 ") for line in shown)
    assert terminal.getvalue().rstrip(" ").endswith("\r")  # it is gone
    assert " left" in terminal.getvalue()


def test_the_last_step_is_whichever_end_comes_first():
    class Trainer:
        max_steps = 100
        max_epochs = 3
        num_training_batches = 20
        accumulate_grad_batches = 2

    trainer = Trainer()
    assert last_step(trainer) == 30
    trainer.max_epochs = -1
    assert last_step(trainer) == 100
    trainer.max_steps = -1
    assert last_step(trainer) is None
    trainer.max_epochs, trainer.num_training_batches = 3, float("inf")
    assert last_step(trainer) is None
    with pytest.raises(ValueError, match="refresh_rate is -1"):
        Progress(refresh_rate=-1)


def test_log_lines_go_above_a_bar(capsys):
    stream = io.StringIO()
    handler = Lines(stream)
    handler.emit(logging.LogRecord("x", logging.INFO, "", 0, "a line", (), None))
    say("another")
    assert stream.getvalue() == "a line\n"
    assert capsys.readouterr().out == "jensen: another\n"


def test_why_a_run_failed_is_in_its_log_and_a_refusal_is_in_nobodys(
    capsys, collapsed, tmp_path, monkeypatch
):
    noted = []
    monkeypatch.setattr(console, "note", lambda line, error=None: noted.append(line))
    ended = run_here(capsys, main, *QUICK, "optimizer.lr=-1", f"hydra.run.dir={tmp_path}")
    assert noted == [f"failed: {ended.err.strip()}"]
    other = run_here(capsys, main, *QUICK, "objective.beta=3", f"hydra.run.dir={collapsed}")
    assert "holds another run" in other.err
    assert len(noted) == 1


def test_a_step_of_several_batches_is_told_as_it_is(configure, tmp_path, capsys):
    train(configure(*QUICK, "trainer.accumulate_grad_batches=2", "trainer.max_steps=2"), tmp_path)
    told = capsys.readouterr().out
    assert "2 steps of 2 x " in told
