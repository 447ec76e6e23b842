"""Every choice of every group composes and instantiates; wrong values are one sentence."""

from pathlib import Path

import pytest
from composing import choices as names
from hydra import compose
from hydra.errors import ConfigCompositionException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import LightningModule
from tiny import TINY

from jensen.base.errors import InputError
from jensen.base.schedule import Schedule
from jensen.data.module import DataModule
from jensen.launch import loggers
from jensen.launch.training import train
from jensen.run.conf import conf_folder
from jensen.run.trust import build
from jensen.run.words import explain

NODES = {"data", "model", "objective", "algorithm", "trainer", "logger", "callbacks", "diagnostics"}


def choices() -> list[tuple[str, str]]:
    files = sorted(conf_folder().rglob("*/*.yaml"))
    return [(str(file.parent.relative_to(conf_folder())), file.stem) for file in files]


TOGETHER = ("model/likelihood", "model/prior", "objective", "optimizer", "trainer", "logger")
"""Groups any choice of which goes with any of the others."""
OF_EXPERIMENTS = {name: name for name in ("em_slides", "ventriloquism", "double_flash", "mcgurk")}
"""Diagnostics that ask for a key of the data of one experiment."""


@pytest.mark.slow
@pytest.mark.parametrize(("group", "choice"), [each for each in choices() if each[0] != "schedule"])
def test_every_choice_composes_and_instantiates_alone(configure, group, choice, tmp_path):
    if group in ("loader", "start"):  # parts of other choices
        return
    if group.startswith("hydra/"):
        configure(f"{group}={choice}")
        return
    made(configure(*words(group, choice)), choice, tmp_path)


@pytest.mark.parametrize(
    ("group", "choice"), [each for each in choices() if each[0] in ("data", "experiment", "model")]
)
def test_every_choice_composes_and_instantiates(configure, group, choice, tmp_path):
    made(configure(*words(group, choice)), choice, tmp_path)


@pytest.mark.parametrize("row", range(max(len(names(group)) for group in TOGETHER)))
def test_every_choice_composes_and_instantiates_with_others(configure, row, tmp_path):
    """Each of every group in some row."""
    some = {group: names(group)[row % len(names(group))] for group in TOGETHER}
    cfg = configure("model=mlp", *(f"{group}={name}" for group, name in some.items()))
    made(cfg, some["logger"], tmp_path)


@pytest.mark.parametrize("group", ["callbacks", "diagnostics"])
def test_all_of_a_list_compose_and_instantiate(configure, group, tmp_path):
    listed = [name for name in names(group) if name not in OF_EXPERIMENTS]
    made(configure("data=gaussian", "model=linear", f"{group}=[{','.join(listed)}]"), "", tmp_path)


@pytest.mark.parametrize(("choice", "experiment"), OF_EXPERIMENTS.items())
def test_what_asks_an_experiments_data_composes_and_instantiates_there(
    configure, choice, experiment, tmp_path
):
    cfg = configure(f"experiment={experiment}", f"diagnostics=[{choice}]")
    made(cfg, choice, tmp_path)


@pytest.mark.parametrize("algorithm", ["em", "stepwise_em"])
def test_the_algorithms_of_mixtures_compose_and_instantiate(configure, algorithm, tmp_path):
    cfg = configure(*words("algorithm", algorithm))
    made(cfg, algorithm, tmp_path)


@pytest.mark.parametrize("choice", names("schedule"))
def test_every_schedule_is_one(configure, choice):
    cfg = configure(f"+schedule@objective.beta={choice}")
    assert isinstance(instantiate(cfg.objective).beta, Schedule)


@pytest.mark.parametrize(
    ("group", "choice"), [each for each in choices() if each[0].startswith("hydra")]
)
def test_every_choice_of_hydras_composes(configure, group, choice):
    configure(f"{group}={choice}")


def words(group: str, choice: str) -> list[str]:
    """The overrides with which a choice can be made."""
    if group in ("callbacks", "diagnostics"):
        override = f"{group}=[{choice}]"
    else:
        override = f"+{group}={choice}" if group == "transform" else f"{group}={choice}"
    extra = {
        "data/folder": ["data.root=somewhere"],
        "data/codes": ["data.path=somewhere"],
        "data/images": ["data.path=x.npz"],
        "data/torch_dataset": ["data.source._target_=jensen.data.blobs.blobs", "data.x_shape=[2]"],
    }.get(f"{group}/{choice}", [])
    model = ["model=mlp"] if group == "data" else []
    if choice in ("water_filling", "probabilistic_pca"):
        model = ["data=gaussian", "model=linear"]
    if choice == "multimodal":
        model = ["data=cues"]
    mixtures = ("gmm", "bayesian_gmm", "bernoulli_mixture", "poisson_mixture", "mixed_mixture")
    if choice in (*mixtures, "em", "stepwise_em") and group != "experiment":
        model = ["data=blobs", "model=gmm", "algorithm=em"]
    if choice in OF_EXPERIMENTS and group == "diagnostics":
        model = [f"experiment={OF_EXPERIMENTS[choice]}"]
    return [*model, override, *extra]


def made(cfg: DictConfig, choice: str, folder: Path) -> None:
    """Everything in the configuration is instantiated."""
    instantiate(cfg.data)
    instantiate(cfg.algorithm)
    for key, kind in (
        ("data", DataModule),
        ("algorithm", LightningModule),
    ):  # what we ship, a stranger may send
        build(cfg, key, kind)
    others = choice in ("wandb", "mlflow")  # tests/launch/test_loggers.py has them begin
    logger = [] if others else loggers.make(cfg, folder)
    instantiate(cfg.trainer, accelerator="cpu", logger=logger)
    assert all(callable(diagnostic) for diagnostic in instantiate(cfg.diagnostics).values())
    instantiate(cfg.callbacks)


def test_every_group_is_tried():
    assert {group.split("/")[0] for group, _ in choices()} == NODES | {
        *("schedule", "loader", "start", "optimizer", "experiment", "hydra")
    }


def test_an_unknown_key_and_a_misspelt_choice_are_hydras_own_errors(configure):
    with pytest.raises(ConfigCompositionException, match=r"data\.foo"):
        configure("data.foo=1")
    with pytest.raises(Exception, match="Could not find 'data/sprit'"):
        configure("data=sprit")


REFUSED = {
    "objective.beta=-1": "objective.beta is -1: expected a number of at least 0",
    "objective.beta=nan": "objective.beta is nan: expected a number of at least 0",
    "objective.beta=lots": "objective.beta is 'lots': expected a number",
    "latent_dim=0": "model.encoder.latent_dim is 0: expected an integer of at least 1",
    "latent_dim=2.5": "latent_dim is 2.5: expected an integer",
    "data.batch_size=0": "data.batch_size is 0",
    "data.batch_size=241": "data.batch_size is 241: expected at most 240, the number of training examples",
    "data.validation=300": "data.validation is 300: expected fewer than the 300",
    "data.validation=0": "data.validation is 0 but these data have no test split",
    "data.size=0": "size is 0",
    "data.size=737281": "size is 737281: expected at most 737280",
    "data.factors=[colour]": "factors is 'colour': expected one of shape, scale",
    "data.factors=[]": "factors is empty",
    "data.values={posY:8..32}": "values.posY is '8..32': expected different integers of 0 to 31",
    "data.x_shape=[1,32,32]": "data.x_shape is [1, 32, 32] but the first train example has shape [1, 64, 64]",
    "data.workers=-1": "data.workers is -1",
    "model.encoder.activation=sine": "model.encoder.activation is 'sine': expected one of relu",
    "model.encoder.hidden=[0]": "model.encoder.hidden is 0",
    "+schedule@objective.beta=linear objective.beta.steps=6": "objective.beta changes until step 6 but training ends at step 5",
    "+schedule@objective.beta=cyclic objective.beta.start=-1": "objective.beta falls to -1 in its schedule",
    "data=sprites_colour": "model/likelihood=bernoulli takes x that is 0 or 1",
    "data=folder data.root=/nowhere model=conv": "/nowhere is not a folder",
    "data=mnist model=conv": "model.encoder.x_shape is [1, 28, 28]: expected [channels, height, width] with sides",
    "data=mnist data.root=/nowhere": "data.download=true",
    "data=dsprites data.path=/nowhere.npz": "/nowhere.npz cannot be read",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_wrong_values_are_one_sentence_before_training(configure, tmp_path, overrides):
    keys = {word.split("=")[0] for word in overrides.split()}
    chosen = [word for word in TINY if word.split("=")[0] not in keys]
    if not overrides.startswith(("data=sprites", "data.")) and "data=" in overrides:
        chosen = [word for word in chosen if word != "data.size=300"]
    if "model=conv" in overrides:
        chosen = [word for word in chosen if not word.startswith("model.encoder")]
    cfg = configure(*overrides.split(), *chosen, "trainer.max_steps=5", "trainer.accelerator=cpu")
    with pytest.raises((InputError, InstantiationException)) as caught:
        train(cfg, tmp_path)
    sentence = explain(caught.value)
    assert sentence is not None
    assert REFUSED[overrides] in sentence
    assert not list(tmp_path.rglob("*.ckpt"))


def test_the_resolved_configuration_is_plain(configure):
    OmegaConf.to_container(configure("experiment=mnist_mlp"), resolve=True, throw_on_missing=True)


def test_evaluate_and_encode_compose(configure):
    cfg = compose("evaluate", ["diagnostics=[mig_hist20,dci]"])
    assert list(cfg.diagnostics) == ["mig_hist20", "dci"]
    assert compose("encode").out == "codes.npz"
