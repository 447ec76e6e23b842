"""Optuna's trials, by hydra-optuna-sweeper's own loop and a launcher that trains nothing."""

import logging
import math
import sys
from types import SimpleNamespace

import pytest
import shell
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException, ConfigCompositionException
from omegaconf import OmegaConf
from tiny import TINY

from jensen.base.errors import InputError
from jensen.launch import optuna
from jensen.run.conf import conf_folder

pytest.importorskip(
    "hydra_plugins.hydra_optuna_sweeper", reason="the extra jensen[optuna] is not installed"
)
pytestmark = [  # what Optuna's makers know of their own versions
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
BETA = "objective.beta=interval(1,4)"


@pytest.fixture(autouse=True)
def listened(caplog, capfd, monkeypatch):
    """Of the handlers that the process has, those of this test alone: others' streams are closed."""
    monkeypatch.setattr(logging.root, "handlers", [caplog.handler])
    optuna.sweeper(settings())  # by which optuna's own handler is there
    for handler in logging.getLogger("optuna").handlers:
        if type(handler) is logging.StreamHandler:  # and not pytest's
            monkeypatch.setattr(handler, "stream", sys.stderr)


def settings(**changed):
    found = OmegaConf.load(conf_folder() / "hydra" / "sweeper" / "maximise.yaml")
    return {key: found[key] for key in found if not key.startswith("_")} | changed


class Launcher:
    """Returns the values that it is given, one for each trial; an exception is that of a run that failed."""

    def __init__(self, values):
        self.values = [*values]
        self.failed = {}
        self.sweep = SimpleNamespace(failures=self.failed, summary=lambda: "; ".join(self.failed))

    def launch(self, job_overrides, initial_job_idx):
        value = self.values[initial_job_idx]
        folder = f"sweep/{initial_job_idx}"
        if isinstance(value, ConfigCompositionException):
            raise value
        failed = isinstance(value, str)
        if failed:
            self.failed[folder] = value
            value = str(self.failed)  # all so far, as a sweep's summary is
        status = JobStatus.FAILED if failed else JobStatus.COMPLETED
        return [JobReturn(job_overrides[0], working_dir=folder, status=status, _return_value=value)]


def sweep(values, folder, *words):
    made = optuna.sweeper(settings(n_trials=len(values)))
    made.sweeper.launcher = Launcher(values)
    made.sweeper.hydra_context = ()
    made.sweeper.config = OmegaConf.create(
        {"maximise": "val/elbo", "hydra": {"sweep": {"dir": str(folder)}}}
    )
    optuna.sweep(made, [*(words or (BETA,))])
    return OmegaConf.load(folder / "optimization_results.yaml").best_value


def test_a_score_that_is_nan_is_a_failed_trial_and_the_sweep_goes_on(tmp_path, caplog, capfd):
    assert sweep([-3.0, math.nan, -2.0, math.nan], tmp_path) == -2.0
    told = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert told == [f"Failed experiment: sweep/{at}: maximise=val/elbo is NaN" for at in (1, 3)]
    assert capfd.readouterr().err == ""
    with pytest.raises(
        CompactHydraException,
        match=r"^sweep/0: maximise=val/elbo is NaN; sweep/1: maximise=val/elbo is NaN$",
    ):
        sweep([math.nan, math.nan], tmp_path)


def test_a_trial_that_failed_is_told_once(tmp_path, caplog):
    with pytest.raises(CompactHydraException, match=r"^sweep/0; sweep/2$"):
        sweep(["no room", -1.0, "no data"], tmp_path)
    told = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert told == [
        "Failed experiment: sweep/0: no room",
        "Failed experiment: sweep/2: no data",
    ]


def test_of_optuna_only_its_warnings_and_what_it_found_are_said(tmp_path, caplog, capfd):
    caplog.set_level(logging.INFO)
    for name in ("alembic.runtime.plugins", "optuna.study", "optuna.trial"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    sweep([-1.0], tmp_path)
    logging.getLogger("alembic.runtime.plugins").info("setup plugin")
    assert [each.getMessage().partition(":")[0] for each in caplog.records] == [
        "Best parameters",
        "Best value",
    ]
    logging.getLogger("optuna.study").info("A new study")
    assert capfd.readouterr().err == ""
    logging.getLogger("optuna.study").warning("a warning")
    assert "a warning" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("objective.beta=4",), "no key is swept: expected a key of several values"),
        ((BETA, "objective.beta=4"), "the command fixes objective.beta: expected"),
    ],
)
def test_trials_that_would_all_be_one_run_are_refused(tmp_path, words, why):
    with pytest.raises(InputError, match=why):
        sweep([-1.0], tmp_path, *words)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"n_trials": 0}, "hydra.sweeper.n_trials is 0: expected an integer of at least 1"),
        ({"n_jobs": 0}, "hydra.sweeper.n_jobs is 0"),
        ({"max_failure_rate": 2}, "hydra.sweeper.max_failure_rate is 2"),
        ({"direction": "up"}, "hydra.sweeper.direction is 'up': expected one of maximize"),
        ({"maximise": None}, "maximise is not set: .*add maximise=val/elbo"),
    ],
)
def test_what_no_trial_could_be_counted_by_is_refused_before_the_first(changed, sentence):
    config = OmegaConf.create({"maximise": changed.pop("maximise", "val/elbo")})
    with pytest.raises(InputError, match=sentence):
        optuna.check(settings(**changed), config)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("hydra/sweeper=optuna", "+hydra.sweeper.params={objective.beta: 'interval(1,4)'}"),
            "hydra/sweeper is optuna, .*expected hydra/sweeper=maximise",
        ),
        (
            (
                "hydra/sweeper=maximise",
                "maximise=val/elbo",
                "hydra.sweeper.params={no.key: 'choice(1,2)'}",
            ),
            "no.key is no key of the configuration",
        ),
    ],
)
def test_what_optuna_is_told_wrong_is_one_sentence(tmp_path, words, sentence):
    done = shell.run("jensen.train", "-m", *TINY, *words, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert sentence.split(", .*")[0] in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_misspelt_score_ends_the_sweep_before_it_trains(tmp_path):
    words = ("experiment=tune_beta", "data.factors=null", "maximise=val/elb", "diagnostics=[]")
    short = ("trainer.max_steps=4", "trainer.accelerator=cpu", "callbacks=[checkpoint]")
    done = shell.run("jensen.train", "-m", *TINY, *words, *short, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("maximise is 'val/elb': expected one of")
    assert last.endswith("did you mean val/elbo?")
    assert len([*tmp_path.rglob("failed.json")]) == 1
    assert not [*tmp_path.rglob("*.ckpt")]


def test_a_sweeper_without_a_sweep_is_told(tmp_path):
    words = ("experiment=tune_beta", "data.factors=null", "maximise=val/elbo", "diagnostics=[]")
    short = ("trainer.max_steps=4", "trainer.accelerator=cpu", "callbacks=[checkpoint]")
    done = shell.run("jensen.train", *TINY, *words, *short, "hydra.run.dir=run", cwd=tmp_path)
    assert "hydra/sweeper=maximise chooses nothing in one run; -m" in done.stdout


def test_a_launcher_of_another_package_is_refused_in_a_sentence():
    choices = {"runtime": {"choices": {"hydra/launcher": "basic"}}}
    own = SimpleNamespace(launcher=object(), config=OmegaConf.create({"hydra": choices}))
    with pytest.raises(InputError, match="hydra/launcher is basic, which does not say how"):
        optuna.sweep(SimpleNamespace(sweeper=own), [])
