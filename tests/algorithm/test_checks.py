"""Parts whose sizes differ: each is refused before the first step, where it would be broadcast, or
fail amid a run.
"""

import re
from copy import deepcopy

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from jensen.algorithm.checks import note_ranks
from jensen.algorithm.fits import check_shapes, check_stated
from jensen.base.errors import InputError
from jensen.family.gaussian import Gaussian
from jensen.launch.training import train
from jensen.model.likelihood import Normal
from jensen.model.prior import StandardNormal
from jensen.model.vae import VAE
from jensen.run.load import state

SHAPES = {"mlp": [1, 4, 4], "conv": [1, 16, 16], "linear": [5]}
SMALL = {
    "mlp": ["model.encoder.hidden=[4]"],
    "conv": [
        f"model.{part}.{sizes}"
        for part in ("encoder", "decoder")
        for sizes in ("channels=[2,2,2,2]", "hidden=[3]")
    ],
    "linear": [],
}
OTHERS = {"mlp": [1, 2, 8], "conv": [1, 32, 32], "linear": [3]}
PRIORS = {
    "mixture": "latent_dim",
    "factorised": "latent_dim",
    "bayesian_mixture": "latent_dim",
    "vamp": "x_shape",
}


def composed(configure, model, *overrides):
    shape = f"data.x_shape={SHAPES[model]}"
    return configure(
        f"model={model}",
        shape,
        "latent_dim=2",
        *SMALL[model],
        "objective=factor",
        "objective.hidden=[4]",
        *overrides,
    )


def refused(cfg, key, size):
    """The sentence about the parts of `cfg` with another size at `key`."""
    cfg = deepcopy(cfg)
    OmegaConf.update(cfg, key, size)
    vae = instantiate(cfg.model)
    objective = instantiate(cfg.objective)
    parts = {f"model.{name}": part for name, part in vae.named_children()} | {
        "objective": objective
    }
    with pytest.raises(InputError) as caught:
        check_stated(parts, vae.latent_dim, tuple(cfg.data.x_shape))
    return str(caught.value)


@pytest.mark.parametrize("model", SHAPES)
def test_every_number_of_latents_is_the_models(configure, model):
    cfg = composed(configure, model)
    for size in (1, 3):
        whole = f"model.encoder.latent_dim is 2 but model.latent_dim is {size}: expected one number of latents"
        assert whole in refused(cfg, "model.latent_dim", size)
        for part in ("model.encoder", "model.decoder", "objective"):
            sentence = f"{part}.latent_dim is {size} but model.latent_dim is 2: expected one number of latents"
            assert sentence in refused(cfg, f"{part}.latent_dim", size)


@pytest.mark.parametrize("model", SHAPES)
def test_every_shape_is_that_of_the_data(configure, model):
    cfg = composed(configure, model)
    for part in ("model.encoder", "model.decoder"):
        sentence = f"{part}.x_shape is {OTHERS[model]} but examples have shape {SHAPES[model]}: expected one shape"
        assert sentence in refused(cfg, f"{part}.x_shape", OTHERS[model])


@pytest.mark.parametrize("prior", PRIORS)
def test_a_priors_sizes_are_those_of_the_model_and_the_data(configure, prior):
    key = PRIORS[prior]
    size = {"latent_dim": 1, "x_shape": [2, 8]}[key]
    cfg = composed(configure, "mlp", f"model/prior={prior}")
    assert f"model.prior.{key} is {size} but " in refused(cfg, f"model.prior.{key}", size)


class Raw(nn.Module):
    """A user's part, which states no size."""

    def __init__(self, gives):
        super().__init__()
        self.gives = gives

    def forward(self, x):
        return self.gives(x)


def encoder(latents):
    return Raw(lambda x: Gaussian(torch.zeros(len(x), latents), torch.zeros(len(x), latents)))


class PerPixel(Normal):
    def distortion(self, output, x):
        return (output - x).square()


FIT = {
    "encoder": encoder(2),
    "decoder": Raw(lambda z: torch.zeros(len(z), 5)),
    "likelihood": Normal(),
    "prior": StandardNormal(),
}
UNFIT = {
    "one latent": (
        {"encoder": encoder(1)},
        r"^model.encoder gives shape \[2, 1\] for 2 examples of shape \[5\]: expected \[2, 2\]",
    ),
    "one pixel": (
        {"decoder": Raw(lambda z: torch.zeros(len(z), 1))},
        r"^model.decoder gives shape \[2, 1\] for 2 codes of 2 latents: expected \[2, 5\]",
    ),
    "a decoder of three": (
        {"decoder": nn.Linear(3, 5)},
        r"^model.decoder cannot take 2 codes of 2 latents \((addmm: )?mat1 and mat2",
    ),
    "a distortion of each pixel": (
        {"likelihood": PerPixel()},
        r"^model.likelihood.distortion gives shape \[2, 5\]",
    ),
}


def test_parts_that_fit_pass():
    check_shapes(VAE(**FIT, latent_dim=2), torch.zeros(2, 5))


@pytest.mark.parametrize("name", UNFIT)
def test_a_users_parts_are_tried_before_they_are_trained(name):
    parts, sentence = UNFIT[name]
    with pytest.raises(InputError, match=sentence):
        check_shapes(VAE(**FIT | parts, latent_dim=2), torch.zeros(2, 5))


def test_a_constant_lr_scale_scales_the_lr(configure, tmp_path):
    quick = (
        "data.size=48",
        "data.validation=12",
        "data.batch_size=12",
        "latent_dim=2",
        "callbacks=[checkpoint]",
    )
    quiet = (
        "diagnostics=[]",
        "trainer.accelerator=cpu",
        "trainer.max_steps=2",
        "+trainer.enable_progress_bar=false",
    )
    train(
        configure("data=gaussian", "model=linear", *quick, *quiet, "algorithm.lr_scale=0.1"),
        tmp_path,
    )
    (optimizer,) = state(tmp_path)["optimizer_states"]
    assert optimizer["param_groups"][0]["lr"] == pytest.approx(1e-4)


def test_a_part_may_state_its_shape_as_a_conf_file_gives_it():
    part = nn.Identity()
    part.x_shape = [1, 2, 3]
    check_stated({"model.decoder": part}, 2, (1, 2, 3))


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.BatchNorm1d(4), "encoder.body.1 normalises by a rank's own share .* 2 ranks .*sync_"),
        (nn.Dropout(), "encoder.body.1 draws for a rank's own share of each minibatch"),
        (nn.SyncBatchNorm(4), None),
        (nn.LayerNorm(4), None),
    ],
)
def test_what_a_rank_sees_or_draws_by_itself_is_said(module, said, caplog):
    encoder = nn.Module()
    encoder.body = nn.Sequential(nn.Linear(3, 4), module)
    model = VAE(encoder, nn.Linear(2, 3), Normal(), StandardNormal(), 2)
    with caplog.at_level("INFO"):
        note_ranks(model, 1)
        assert not caplog.text
        note_ranks(model, 2)
    assert bool(caplog.text) is bool(said)
    assert re.search(said or "", caplog.text)
