"""Settings of diagnostics, before the first step: no training ends at its first validation because
of one.
"""

from functools import partial

import pytest
import torch
from hydra.utils import instantiate

import jensen
from jensen.algorithm.snapshot import known
from jensen.base.errors import InputError
from jensen.diagnostics.preview import Preview, check_settings
from jensen.diagnostics.snapshot import Snapshot
from jensen.launch.training import train

QUICK = (
    *(
        "data=gaussian",
        "model=linear",
        "latent_dim=2",
        "data.size=48",
        "data.validation=12",
        "data.batch_size=12",
    ),
    *(
        "callbacks=[diagnose]",
        "trainer.accelerator=cpu",
        "trainer.max_steps=2",
        "+trainer.enable_progress_bar=false",
    ),
)
WRONG = {
    "codes.latents=0": "codes.latents is 0: expected an integer of at least 1",
    "decomposition.samples=1": "decomposition.samples is 1: expected an integer of at least 2",
    "+decomposition.seed=x": "decomposition.seed is 'x': expected an integer of at least 0",
    "embedding.points=-1": "embedding.points is -1: expected an integer of at least 1",
    "+embedding.side=0": "embedding.side is 0: expected an integer of at least 1",
    "estimator_audit.sizes=64": "estimator_audit.sizes is 64: expected a list, such as sizes=[64]",
    "estimator_audit.sizes=[64,x]": "estimator_audit.sizes is 'x': expected an integer of at least 2",
    "estimator_audit.batches=0": "estimator_audit.batches is 0: expected an integer of at least 1",
    "evidence.count=1": "evidence.count is 1: expected an integer of at least 2",
    "factor_map.importances=perhaps": "factor_map.importances is 'perhaps': expected true or false",
    "mixture.rows=0": "mixture.rows is 0: expected an integer of at least 1",
    "components": "components: the prior is no mixture of all latents: expected model/prior=mixture or vamp, or a GMM",
    "rate.threshold=nan": "rate.threshold is nan: expected a number of at least 0",
    "reconstructions.count=0": "reconstructions.count is 0: expected an integer of at least 1",
    "samples.count=null": "samples.count is None: expected an integer of at least 1",
    "traversals.tail=0.6": "traversals.tail is 0.6: expected a number in [0, 0.5]",
    "traversals.images=all": "traversals.images is 'all': expected an integer of at least 1",
    "dci_1000.train=-1": "dci_1000.train is -1: expected an integer of at least 1",
    "+dci_1000.seed=true": "dci_1000.seed is True: expected an integer of at least 0",
    "+mig_hist20.bins=20": "mig_hist20: the score cannot be called (got an unexpected keyword argument 'bins'): expected",
    "+codes.nonsense=1": "codes cannot be called",
    "water_filling.variances=[1,2]": "water_filling.variances has 2 numbers but examples have shape [5]: expected one for each",
    "water_filling.beta=0": "water_filling.beta is 0: expected a number of at least 1e-12",
    "probabilistic_pca.variances=[1,2,0]": "probabilistic_pca.variances is 0: expected a number of at least 1e-12",
    "bayesian_mixture": "bayesian_mixture: diagnostics=[bayesian_mixture] is of a model that keeps beliefs: expected",
    "modalities": "modalities: diagnostics holds modalities and model has one alone: expected model=multimodal",
    "inference_gap.steps=0": "inference_gap.steps is 0: expected an integer of at least 1",
    "samples.temperature=1e300": "samples.temperature is 1e+300: expected a number within 3.4e+38",
    "em_slides": "em_slides: the model is no mixture of two normals with one variance: expected experiment=em_slides",
}
EM_SLIDES = (
    "+start@model.init=two_normals",
    "+data.alpha=0.3",
    "+data.means=[0.0,5.0]",
    "+data.sigma=1.0",
)


def chosen(setting):
    """Overrides that choose the diagnostic of a setting, and set it."""
    name = setting.lstrip("+").partition(".")[0].partition("=")[0]
    choice = f"diagnostics=[{name}]"
    if "=" not in setting:
        return [choice]
    plus = "+" * setting.startswith("+")
    return [choice, f"{plus}diagnostics.{setting.lstrip('+')}"]


@pytest.fixture(scope="module")
def preview():
    """What a linear VAE on Gaussian data knows of itself."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from jensen.run.conf import conf_folder

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        algorithm = instantiate(compose("train", [*QUICK]).algorithm)
        data = instantiate(compose("train", [*QUICK]).data)
    images = data.show(12)
    return Preview(names=(), images=images, **algorithm.known(images))


@pytest.mark.parametrize("setting", WRONG)
def test_a_setting_that_would_end_a_validation_is_one_sentence(configure, preview, setting):
    extra = EM_SLIDES if "em_slides" in setting else ()
    cfg = configure(*QUICK, *chosen(setting), *extra)
    with pytest.raises(InputError) as caught:
        check_settings(instantiate(cfg.diagnostics), preview)
    assert str(caught.value).startswith(f"diagnostics.{WRONG[setting]}")


def test_it_is_said_before_the_first_step(configure, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "jensen.algorithm.gradient.Gradient.training_step",
        lambda *_: pytest.fail("a step was made"),
    )
    with pytest.raises(
        InputError, match=r"^diagnostics.codes.latents is -1: expected an integer of at least 1$"
    ):
        train(
            configure(*QUICK, "diagnostics=[rate,codes]", "diagnostics.codes.latents=-1"), tmp_path
        )


def test_the_settings_of_conf_pass(configure, preview):
    names = (
        "codes",
        "decomposition",
        "embedding",
        "estimator_audit",
        "evidence",
        "factor_map",
        "mixture",
        "rate",
        "dci_1000",
    )
    more = (
        "reconstructions",
        "samples",
        "traversals",
        "water_filling",
        "probabilistic_pca",
        "mig_exact",
        "factor_vae",
    )
    check_settings(
        instantiate(configure(*QUICK, f"diagnostics=[{','.join(names + more)}]").diagnostics),
        preview,
    )


def test_a_model_that_is_not_linear_has_no_closed_form_optimum(configure):
    cfg = configure(*QUICK, "model=mlp", "model/likelihood=normal", "diagnostics=[water_filling]")
    algorithm = instantiate(cfg.algorithm)
    images = instantiate(cfg.data).show(12)
    with pytest.raises(
        InputError,
        match=r"^diagnostics.water_filling: the decoder is not linear: expected model=linear",
    ):
        check_settings(
            instantiate(cfg.diagnostics),
            Preview(names=(), images=images, **algorithm.known(images)),
        )


def test_a_users_diagnostic_is_not_called_but_its_keywords_are_checked():
    def mine(snapshot, size):
        pytest.fail("it was called")

    check_settings({"mine": partial(mine, size=3)}, Preview())
    with pytest.raises(
        InputError,
        match=r"^diagnostics.mine cannot be called \(.*\): expected settings that it has$",
    ):
        check_settings({"mine": partial(mine, sise=3)}, Preview())


@pytest.mark.parametrize("kind", ["vae", "gmm"])
def test_whether_a_model_has_what_some_alone_have_is_known_before_the_first_step(kind):
    """Else a diagnostic that needs it would be refused at the first validation."""
    x = torch.randn(20, 2)
    vae = jensen.VAE("mlp", "mlp", likelihood="normal", latent_dim=2, x_shape=[2])
    model = vae if kind == "vae" else jensen.GMM(2).fit(x)
    assert {*Snapshot._field_defaults} <= known(model, x).keys()
