"""Half precision is for networks: what is computed of their outputs is computed in float32 or
more.
"""

import pytest
import torch
from hydra.utils import instantiate
from priors import latent_rate_of, log_prob_of, rate_of
from resume import records
from tiny import TINY
from torch.distributions import Bernoulli, ContinuousBernoulli, Normal, kl_divergence

from jensen.algorithm.gradient import Gradient
from jensen.algorithm.step import loss_of
from jensen.base.errors import InputError
from jensen.family.gaussian import Gaussian
from jensen.launch.training import train

DTYPES = (torch.bfloat16, torch.float16)
RUN = (
    *TINY,
    "trainer.accelerator=cpu",
    "trainer.max_steps=4",
    "trainer.val_check_interval=4",
    "trainer.log_every_n_steps=1",
)
QUIET = (
    "callbacks=[checkpoint,diagnose]",
    "diagnostics=[rate,decomposition]",
    "+trainer.enable_progress_bar=false",
)


@pytest.fixture
def step(configure, monkeypatch):
    """`step(dtype, overrides...)`: a training step's inference and loss under autocast, and what
    the networks gave.
    """
    monkeypatch.setattr(Gradient, "global_step", 3)

    def step(dtype, *overrides):
        cfg = configure(*TINY, *overrides)
        torch.manual_seed(0)
        algorithm = instantiate(cfg.algorithm)
        data = instantiate(cfg.data)
        algorithm.objective.dataset_size = data.train_size
        batch = data.batch(range(12), 3)
        outputs = {}
        for name in ("encoder", "decoder"):
            network = getattr(algorithm.model, name)
            network.register_forward_hook(
                lambda module, inputs, output, name=name: outputs.__setitem__(name, output)
            )
        with torch.autocast("cpu", dtype=dtype):
            inference = algorithm.infer(batch, 3)
            loss = loss_of(algorithm.objective, inference, algorithm.step)
        return algorithm, batch.x, inference, loss, outputs

    return step


def densities(likelihood, output, x):
    """-log p(x | output) by torch.distributions, in float64."""
    output = output.double()
    x = x.double()
    scatter = {
        "bernoulli": lambda: Bernoulli(logits=output),
        "continuous_bernoulli": lambda: ContinuousBernoulli(
            logits=output, lims=(0.5 - 1e-5, 0.5 + 1e-5)
        ),
        "normal": lambda: Normal(output, 1.0),
        "learned_normal": lambda: Normal(output, 1.0),
        "optimal_normal": lambda: Normal(output, (x - output).square().mean().sqrt()),
    }
    return -scatter[likelihood]().log_prob(x).flatten(1).sum(1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "likelihood",
    ["bernoulli", "continuous_bernoulli", "normal", "learned_normal", "optimal_normal"],
)
def test_the_bound_is_that_of_the_outputs_in_full_precision(step, dtype, likelihood):
    _, x, inference, loss, outputs = step(
        dtype, f"model/likelihood={likelihood}", "objective.beta=2"
    )
    assert outputs["decoder"].dtype == outputs["encoder"].mean.dtype == dtype
    assert loss.dtype == torch.float32
    assert {
        part.dtype
        for part in (*inference.bound, *inference.posterior, inference.z, inference.log_prior)
    } == {torch.float32}
    raw = Gaussian(*(part.double() for part in outputs["encoder"]))
    log_var = 20 * torch.tanh(raw.log_var / 20)  # as family.gaussian bounds it
    rate = kl_divergence(Normal(raw.mean, (log_var / 2).exp()), Normal(0.0, 1.0)).sum(1)
    distortion = densities(likelihood, outputs["decoder"], x)
    torch.testing.assert_close(inference.bound.rate.double(), rate, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        inference.bound.distortion.double(), distortion, rtol=1e-5, atol=1e-3
    )
    assert loss.item() == pytest.approx((distortion + 2 * rate).mean().item(), rel=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "objective",
    [
        "dip",
        "dip_ii",
        "factor",
        "beta_tcvae",
        "mmd",
        "importance",
        "free_bits",
        "capacity",
        "control",
    ],
)
def test_an_objective_is_that_of_the_inference_in_full_precision(step, dtype, objective):
    """Under autocast its matrix products would be halved: the covariance of `dip` errs by half a
    nat then.
    """
    more = {"control": ("objective.target=5",), "factor": ("objective.hidden=[8]",)}.get(
        objective, ()
    )
    algorithm, _, inference, loss, _ = step(dtype, f"objective={objective}", *more)
    assert loss.dtype == torch.float32
    if objective == "control":  # its forward pass moves it on
        distortion, rate = inference.bound
        assert loss.item() == pytest.approx(
            (distortion + algorithm.objective.beta * rate).mean().item(), rel=1e-6
        )
        return
    assert loss.item() == pytest.approx(
        algorithm.objective(inference, algorithm.step).item(), rel=1e-6
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("prior", ["mixture", "factorised", "bayesian_mixture", "vamp"])
def test_a_mixture_is_learned_and_scored_in_double(step, dtype, prior):
    algorithm, _, inference, *_ = step(dtype, f"model/prior={prior}")
    model = algorithm.model
    posterior = Gaussian(*(part.detach() for part in inference.posterior))
    inside = {}
    outside = {}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for found, enabled in ((inside, True), (outside, False)):
        model.load_state_dict(state)
        with torch.autocast(
            "cpu", dtype=dtype, enabled=enabled and prior != "vamp"
        ):  # vamp's components are a network's
            for at in range(400, 403):
                model.prior.update(posterior, torch.tensor(at))
            found["log_prob"] = log_prob_of(model.prior, inference.z)
            found["rate"] = rate_of(model.prior, posterior, inference.z)
            found["latent_rate"] = latent_rate_of(model.prior, posterior)
        found |= {name: value.clone() for name, value in model.prior.state_dict().items()}
    for name in inside:
        assert torch.equal(inside[name], outside[name]), name
    if prior == "vamp":
        with torch.autocast("cpu", dtype=dtype):
            mixture = model.prior.distribution()
        assert {part.dtype for part in (mixture.log_weight, *mixture.components)} == {torch.float64}


def test_a_run_in_bf16_learns_what_one_in_float32_does(configure, tmp_path):
    results = {}
    for precision in ("32-true", "bf16-mixed"):
        cfg = configure(
            *RUN,
            *QUIET,
            f"trainer.precision={precision}",
            "model/prior=mixture",
            "model.prior.warmup=2",
        )
        results[precision] = train(cfg, tmp_path / precision)
        assert {step for tag, step, _ in records(tmp_path / precision) if tag == "train/loss"} == {
            0,
            1,
            2,
            3,
        }
    full, half = results.values()
    assert half["val/elbo"] == pytest.approx(full["val/elbo"], rel=5e-3)
    parts = (
        "decomposition/mutual_information",
        "decomposition/total_correlation",
        "decomposition/dimension_wise_kl",
    )
    assert sum(half[part] for part in parts) == pytest.approx(
        sum(full[part] for part in parts), abs=0.05
    )


@pytest.mark.filterwarnings("ignore:You passed `Trainer")  # Lightning would go on in bf16
def test_fp16_on_a_cpu_is_refused(configure, tmp_path):
    with pytest.raises(
        InputError,
        match=r"trainer.precision is 16-mixed but the cpu would compute in bf16-mixed: expected",
    ):
        train(configure(*RUN, *QUIET, "trainer.precision=16-mixed"), tmp_path)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_parameters_that_are_not_float32_are_refused(configure, tmp_path, precision):
    with pytest.raises(
        InputError, match=f"trainer.precision is '{precision}': expected one of 32-true"
    ):
        train(configure(*RUN, *QUIET, f"trainer.precision={precision}"), tmp_path)
