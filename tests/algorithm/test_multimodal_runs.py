"""Training on several modalities, some of them missing: the pipeline takes NaN as it takes numbers,
whoever drives the steps.
"""

import pytest
import torch
from fitting import ONE, fitted
from torch.func import functional_call, stack_module_state, vmap

from jensen.base.errors import InputError
from jensen.data.examples import Examples, identity
from jensen.model.likelihood import Normal
from jensen.model.mlp import MLPDecoder, MLPEncoder
from jensen.model.multimodal import MultimodalVAE
from jensen.model.prior import StandardNormal

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's
SENSES = (
    "data=incomplete",
    "data.of.size=300",
    "data.batch_size=20",
    "model=multimodal",
    "model.encoders.each.hidden=[8]",
    "latent_dim=1",
    "objective.beta=1",
)
STEPS = ("trainer.max_steps=40", "trainer.val_check_interval=20", "trainer.log_every_n_steps=10")


def trained(*overrides, senses=SENSES, **more):
    return fitted(*senses, *overrides, base=STEPS, **more)


def weights(algorithm):
    return torch.cat([part.detach().flatten() for part in algorithm.model.parameters()])


@pytest.mark.parametrize("fusion", ["product", "subsets"])
def test_steps_in_chunks_are_those_one_at_a_time_bit_for_bit(fusion):
    words = (f"model.fusion={fusion}", "+objective.samples=3" if fusion == "subsets" else "seed=0")
    algorithm, trainer, logged = trained(*words)
    other, _, log = trained(*words, ONE)
    assert weights(algorithm).isfinite().all()
    assert weights(algorithm).equal(weights(other))
    assert [terms for _, terms in logged] == [terms for _, terms in log]
    held_out = trainer.callback_metrics
    assert {
        f"val/{what}_{name}" for what in ("elbo", "distortion", "rate") for name in ("see", "hear")
    } <= {*held_out}
    total = held_out["val/distortion_see"] + held_out["val/distortion_hear"]
    if fusion == "product":  # the others' bound is of three draws, and these of the first
        torch.testing.assert_close(total, held_out["val/distortion"])


def test_a_run_that_goes_on_has_the_bytes_of_one_that_was_never_stopped(tmp_path):
    whole, _, _ = trained("model.fusion=mixture")
    _, trainer, _ = trained("model.fusion=mixture", "trainer.max_steps=20")
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    again, _, _ = trained("model.fusion=mixture", checkpoint=tmp_path / "half.ckpt")
    assert weights(again).equal(weights(whole))


def test_models_in_a_stack_say_what_each_says_alone():
    def made(seed):
        torch.manual_seed(seed)
        return MultimodalVAE(
            {"see": [3], "hear": [2]},
            {"each": MLPEncoder},
            {"each": MLPDecoder},
            {"each": Normal},
            StandardNormal(),
            2,
            "subsets",
        )

    models = [made(seed) for seed in range(2)]
    x = torch.randn(2, 6, 5)
    x[:, :2, 3:] = torch.nan
    noise = torch.randn(2, 18, 3)
    values, buffers = stack_module_state(models)

    def elbo(values, buffers, x, noise):
        return functional_call(models[0], (values, buffers), (x, noise)).bound.elbo

    found = vmap(elbo)(values, buffers, x, noise)
    for model, each, own, one in zip(models, x, noise, found, strict=True):
        torch.testing.assert_close(one, model(each, own).bound.elbo)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([float("nan")] * 2, r"none of the modalities see, hear.*example 7 of the train split"),
        ([float("inf"), 0.0], "modality see.*example 7 of the train split"),
    ],
)
def test_an_example_that_is_none_is_named_before_training(monkeypatch, row, words):
    x = torch.zeros(60, 2)
    x[7] = torch.tensor(row)
    monkeypatch.setattr("jensen.data.cues.cues", lambda **_: Examples(x, identity))
    with pytest.raises(InputError, match=words):
        trained("data=cues", "data.size=60", senses=[each for each in SENSES if "data" not in each])


LINEAR = (
    "model=multimodal",
    "+schedule@algorithm.lr_scale=linear",
    "algorithm.lr_scale.start=1",
    "algorithm.lr_scale.end=0",
    "algorithm.lr_scale.steps=1500",
    *(
        f"{change}"
        for part, kind in (("encoders", "LinearEncoder"), ("decoders", "LinearDecoder"))
        for change in (
            f"model.{part}.each=null",
            f"+model.{part}.see={{_target_: jensen.model.{kind}, _partial_: true}}",
            f"+model.{part}.hear={{_target_: jensen.model.{kind}, _partial_: true}}",
        )
    ),
    "+model.likelihoods.see={_target_: jensen.model.ColumnNormal, sd: 0.5}",
    "+model.likelihoods.hear={_target_: jensen.model.ColumnNormal, sd: 1.0}",
    "latent_dim=1",
    "objective.beta=1",
    "optimizer.lr=0.03",
    "data.batch_size=256",
    "trainer.max_steps=1500",
    "trainer.val_check_interval=1500",
    "trainer.log_every_n_steps=100",
)


@pytest.mark.slow
@pytest.mark.parametrize(("data", "most"), [("cues", 0.02), ("incomplete", 0.05)])
def test_a_trained_bound_nears_the_evidence_also_where_half_of_the_senses_were_missing(data, most):
    shortfalls = []
    for seed in range(3):
        _, trainer, _ = fitted(f"data={data}", f"seed={seed}", base=LINEAR)
        source = trainer.datamodule.source
        x = source.at("test", torch.arange(20_000)).double()
        covariance = 1 + torch.diag(torch.tensor([0.25, 1.0])).double()
        truth = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance)
        shortfalls.append(
            truth.log_prob(x).mean().item() - trainer.callback_metrics["val/elbo"].item()
        )
        print(data, seed, shortfalls[-1])
    assert -0.02 < sum(shortfalls) / 3 < most
