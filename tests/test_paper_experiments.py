"""The experiments that stand for papers: the numbers of the paper, and the sweeps that their files
give.
"""

import re
import shlex

import pytest
import torch
from cases import some
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tiny import TINY

from jensen.algorithm.gradient import Gradient
from jensen.launch.training import train
from jensen.run.conf import conf_folder

FULL = {  # from the papers and their authors' code: objective, strength, lr, steps, batch size
    "beta_vae": ("Beta", {"beta": 4.0}, 1e-2, 300_000, 64),
    "capacity": (
        "Capacity",
        {"capacity.start": 0.0, "capacity.end": 25.0, "capacity.steps": 100_000, "gamma": 1000.0},
        5e-4,
        100_000,
        64,
    ),
    "beta_tcvae": ("Decomposed", {"mi": 1.0, "tc": 6.0, "dwkl": 1.0}, 1e-3, 18_000, 2048),
    "factor_vae": (
        "Factor",
        {"gamma": 35.0, "lr": 1e-4, "betas": [0.5, 0.9], "hidden": [1000] * 6},
        1e-4,
        300_000,
        64,
    ),
    "dip": ("DIP", {"variant": "I", "off_diagonal": 10.0, "diagonal": 100.0}, 1e-4, 300_000, 64),
    "dip_ii": ("DIP", {"variant": "II", "off_diagonal": 10.0, "diagonal": 10.0}, 1e-4, 300_000, 64),
    "locatello2019": ("Beta", {"beta": 4.0}, 1e-4, 300_000, 64),
}
LOCATELLO = {  # disentanglement_lib, config/unsupervised_study_v1/sweep.py
    "objective.beta": [1, 2, 4, 6, 8, 16],
    "objective.capacity.end": [5, 10, 25, 50, 75, 100],
    "objective.gamma": [10, 20, 30, 40, 50, 100],
    "objective.off_diagonal": [1, 2, 5, 10, 20, 50],
    "objective.tc": [1, 2, 4, 6, 8, 10],
}


@pytest.mark.parametrize("name", FULL)
def test_the_numbers_are_the_papers(configure, name):
    cfg = configure(f"experiment={name}")
    objective, strengths, lr, steps, batch = FULL[name]
    assert cfg.objective._target_.endswith(f".{objective}")
    for key, value in strengths.items():
        assert OmegaConf.select(cfg.objective, key) == value, key
    assert (cfg.optimizer.lr, cfg.trainer.max_steps, cfg.data.batch_size, cfg.latent_dim) == (
        lr,
        steps,
        batch,
        10,
    )
    assert cfg.data.factors is None  # all 737,280 images
    assert cfg.model.likelihood._target_.endswith(".Bernoulli")
    assert isinstance(instantiate(cfg.algorithm), Gradient)


def test_the_discriminator_has_an_adam_of_its_own(configure):
    algorithm = instantiate(configure("experiment=factor_vae").algorithm)
    first, second = algorithm.configure_optimizers().param_groups
    assert (first["lr"], first["betas"]) == (1e-4, (0.9, 0.999))
    assert (second["lr"], second["betas"]) == (1e-4, (0.5, 0.9))


def parameters(module: torch.nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in module.parameters() if parameter.dim() > 1]


def test_the_networks_are_the_papers(configure):
    fully_connected = (
        [(1200, 4096), (1200, 1200), (20, 1200)],
        [(1200, 10), (1200, 1200), (1200, 1200), (4096, 1200)],
    )
    for name in ("beta_vae", "beta_tcvae"):
        model = instantiate(configure(f"experiment={name}").model)
        assert (parameters(model.encoder), parameters(model.decoder)) == fully_connected
        kinds = [
            type(layer).__name__
            for network in (model.encoder, model.decoder)
            for layer in network.modules()
        ]
        assert (kinds.count("ReLU"), kinds.count("Tanh")) == (2, 3)
    factor = instantiate(configure("experiment=factor_vae").model)
    assert parameters(factor.encoder) == [
        *((32, 1, 4, 4), (32, 32, 4, 4), (64, 32, 4, 4), (64, 64, 4, 4)),
        *((128, 1024), (20, 128)),
    ]
    assert parameters(factor.decoder)[:2] == [(128, 10), (1024, 128)]
    for name in ("dip", "dip_ii", "locatello2019"):
        model = instantiate(configure(f"experiment={name}").model)
        assert parameters(model.encoder) == [
            *((32, 1, 4, 4), (32, 32, 4, 4), (64, 32, 2, 2), (64, 64, 2, 2)),
            *((256, 1024), (20, 256)),
        ]


def test_the_optimiser_of_the_beta_vae_is_adagrad(configure):
    algorithm = instantiate(configure("experiment=beta_vae").algorithm)
    assert isinstance(algorithm.configure_optimizers(), torch.optim.Adagrad)


def sweeps(name: str) -> list[list[str]]:
    """The overrides of each sweep that an experiment's file gives."""
    text = (conf_folder() / "experiment" / f"{name}.yaml").read_text()
    return [
        shlex.split(line)
        for line in re.findall(r"^#   python -m jensen\.train -m (.*)$", text, re.MULTILINE)
    ]


def points(overrides: list[str]) -> tuple[list[str], str, list[float]]:
    """What all jobs share, the swept key, and its values."""
    (swept,) = [word for word in overrides if "," in word]
    key, values = swept.split("=")
    fixed = [word for word in overrides if word != swept and not word.startswith("seed=")]
    return fixed, key, [float(value) for value in values.split(",")]


@pytest.mark.parametrize("name", FULL)
def test_every_sweep_that_a_file_gives_composes(configure, name):
    given = [overrides for overrides in sweeps(name) if any("," in word for word in overrides)]
    assert given
    for overrides in given:
        fixed, key, values = points(overrides)
        for value in values:
            cfg = configure(*fixed, f"{key}={value:g}")
            assert OmegaConf.select(cfg, key) == value
        assert isinstance(instantiate(cfg.algorithm), Gradient)


def test_the_study_has_its_six_methods_with_six_strengths(configure):
    found = [points(overrides) for overrides in sweeps("locatello2019")]
    assert len(found) == 6
    for fixed, key, values in found:
        assert values == LOCATELLO[key]
        cfg = configure(*fixed, f"{key}={values[0]:g}")
        assert (cfg.optimizer.lr, cfg.trainer.max_steps, cfg.data.batch_size) == (1e-4, 300_000, 64)
        if key == "objective.capacity.end":
            assert (cfg.objective.capacity.steps, cfg.objective.gamma) == (100_000, 1000)


@pytest.mark.parametrize("strength", [1, 2, 5, 10.0, 20, 50, 0.5])
def test_the_weights_of_dip_keep_their_ratio(configure, strength):
    for name, times in (("dip", 10), ("dip_ii", 1)):
        objective = configure(f"experiment={name}", f"objective.off_diagonal={strength}").objective
        assert objective.diagonal == pytest.approx(times * strength)


@pytest.mark.parametrize("name", FULL)
def test_fast_is_the_same_objective_and_model_on_less(configure, name):
    full = configure(f"experiment={name}")
    fast = configure(f"experiment={name}", "fast=true")
    assert fast.trainer.max_steps <= 2000
    assert list(fast.data.factors) == ["shape", "scale", "posX", "posY"]
    assert fast.model == full.model
    assert (
        configure(f"experiment={name}", "fast=true", "trainer.max_steps=7").trainer.max_steps == 7
    )
    for key, value in full.objective.items():
        if key != "capacity":
            assert fast.objective[key] == value


@some(2, "name", FULL)
def test_fast_trains(configure, tmp_path, name):
    small = [word for word in TINY if word.startswith("data.")]
    quick = (
        "trainer.max_steps=2",
        "trainer.val_check_interval=2",
        "trainer.accelerator=cpu",
        "diagnostics=[rate]",
    )
    results = train(
        configure(f"experiment={name}", "fast=true", *small, *quick, "callbacks=[diagnose]"),
        tmp_path,
    )
    assert results["val/elbo"] < 0


def test_fast_is_unknown_where_it_would_change_nothing(configure):
    with pytest.raises(Exception, match="Could not override 'fast'"):
        configure("experiment=beta_sprites", "fast=true")
