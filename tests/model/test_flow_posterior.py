"""A posterior that a flow has moved: against quadrature and autograd, and beside every choice of
every group, which is right for it or refuses it before training.
"""

import math
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from cases import some
from composing import choices, composed, priors
from contracts.test_every_diagnostic import ELSEWHERE, build, snapshot_for
from hydra.utils import instantiate
from own_families import AsNormal
from scipy import stats
from tiny import TINY

import jensen
from jensen.algorithm.fits import check_fit
from jensen.base.errors import InputError
from jensen.bound.bound import Bound, Inference
from jensen.diagnostics.evidence import evidence
from jensen.diagnostics.snapshot import Embedding, Film, check_families
from jensen.encode import write_codes
from jensen.family.codes import Codes
from jensen.family.flowed import FlowedGaussian
from jensen.family.gaussian import STANDARD, Gaussian
from jensen.launch.training import train
from jensen.model.flow_posterior import FlowPosterior
from jensen.model.flow_prior import FlowPrior
from jensen.model.likelihood import Normal
from jensen.model.prior import StandardNormal
from jensen.model.vae import VAE

KINDS = ("maf", "nsf")
SCALES = {"maf": 0.2, "nsf": 0.1}
FLOW = "model/posterior=flow"
QUICK = (*TINY, FLOW, "trainer.accelerator=cpu", "trainer.max_steps=3")


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images():
    return torch.rand(8, 1, 64, 64, generator=torch.Generator().manual_seed(3)).round()


def bent(kind="maf", dim=2, scale=0.1, seed=1):
    """A flow posterior with some weights that are not 0."""
    torch.manual_seed(seed)
    flow = FlowPosterior(dim, kind)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += scale * torch.randn_like(parameter)
    return flow


# ---- the distribution


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_it_is_the_encoder_s_gaussian_until_it_has_learned(kind, dim):
    base = Gaussian(randn(6, dim), randn(6, dim, seed=1))
    q = FlowPosterior(dim, kind)(base)
    noise = randn(6, dim, seed=2)
    z, log_q = q.rsample_and_log_prob(noise)
    torch.testing.assert_close(z, base.rsample(noise), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(log_q, base.log_prob(z), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(q.mean, base.mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_of_a_draw_is_that_of_a_change_of_variables(kind):
    q = bent(kind)(Gaussian(randn(6, 2), randn(6, 2, seed=1) - 1))
    noise = randn(6, 2, seed=2)
    z, log_q = q.rsample_and_log_prob(noise)
    torch.testing.assert_close(q.log_prob(z), log_q, rtol=1e-3, atol=1e-3)
    for row in range(6):
        own = FlowedGaussian(Gaussian(*(part[[row]] for part in q.base)), q.flow)
        slope = torch.func.jacrev(lambda u, own=own: own.rsample(u[None])[0])(noise[row])
        expected = STANDARD.log_prob(noise[row]) - torch.linalg.slogdet(slope).logabsdet
        torch.testing.assert_close(log_q[row], expected, rtol=1e-4, atol=1e-4)


@some(1, "kind", KINDS)
def test_its_density_integrates_to_one_and_draws_follow_it(kind):
    q = bent(kind, scale=SCALES[kind])(Gaussian(torch.zeros(1, 2), torch.zeros(1, 2)))
    side = torch.linspace(-9, 9, 400, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side).float()
    many = FlowedGaussian(Gaussian(*(part.expand(len(grid), 2) for part in q.base)), q.flow)
    with torch.no_grad():
        density = many.log_prob(grid).exp().reshape(400, 400).double()
        draws = many._replace(base=Gaussian(*(part[:2000] for part in many.base))).rsample(
            randn(2000, 2, seed=4)
        )
    whole = torch.trapezoid(torch.trapezoid(density, side), side)
    assert whole.item() == pytest.approx(1, abs=2e-3)
    for axis in (0, 1):
        one = torch.trapezoid(density, side, dim=1 - axis)
        cumulative = torch.cumulative_trapezoid(one, side)
        found = torch.searchsorted(side, draws[:, axis].double().contiguous()).clamp(1, 399) - 1
        assert stats.kstest(cumulative[found].numpy(), "uniform").pvalue > 1e-3


# ---- one observation whose exact posterior is a banana


class Bend(torch.nn.Module):
    """z to z2 - z1^2, without parameters."""

    def forward(self, z):
        return (z[:, 1] - z[:, 0].square()).unsqueeze(1)


class One(torch.nn.Module):
    """One Gaussian, learned, whatever x is."""

    def __init__(self):
        super().__init__()
        self.mean, self.log_var = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))

    def forward(self, x):
        return Gaussian(self.mean.expand(len(x), 2), self.log_var.expand(len(x), 2))


def banana_model(flow):
    torch.manual_seed(0)
    made = FlowPosterior(2, transforms=2, hidden=(32,)) if flow else None
    model = VAE(One(), Bend(), Normal(0.05), StandardNormal(), 2, made)
    optimiser = torch.optim.Adam(model.parameters(), 2e-2)
    x = torch.full((64, 1), -1.0)
    for step in range(300):
        loss = -model(x, randn(64, 2, seed=step)).bound.elbo.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


@pytest.mark.slow
def test_a_flow_closes_the_gap_that_a_gaussian_leaves_and_its_evidence_is_exact():
    side = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    z = torch.cartesian_prod(side, side)
    joint = STANDARD.log_prob(z) - 0.5 * (
        (-1 - z[:, 1] + z[:, 0].square()).square() / 0.05 + math.log(2 * math.pi * 0.05)
    )
    exact = joint.logsumexp(0).item() + 2 * math.log(0.01)
    gaps = []
    for flow in (False, True):
        model = banana_model(flow)
        x = torch.full((4000, 1), -1.0)
        with torch.no_grad():
            found = model(x, randn(4000, 2, seed=999))
        elbo = found.bound.elbo.mean().item()
        error = found.bound.elbo.std().item() / 4000**0.5
        assert elbo < exact + 4 * error
        gaps.append(exact - elbo)
    assert gaps[1] < 0.5 * gaps[0]
    asked = SimpleNamespace(images=x[:100], z=found.z, infer=model, prior=STANDARD)
    with torch.no_grad():
        importance = evidence(asked, samples=200, count=100)
    allowed = 5 * importance["log_p_se"].item() + 5e-3
    assert importance["log_p"].item() == pytest.approx(exact, abs=allowed)
    assert importance["gap"].item() == pytest.approx(gaps[1], abs=0.1)


# ---- every choice of every group

REFUSED = {
    "objective": {"beta_tcvae", "beta_tcvae_12", "decomposed", "dip", "dip_ii", "free_bits"},
    "model/prior": {"mixture", "factorised", "bayesian_mixture", "vamp"},
    "diagnostics": {
        *("decomposition", "decomposition_full", "estimator_audit", "goodness_of_fit"),
        *("inference_gap", "mig_exact", "probabilistic_pca", "sigma", "water_filling"),
    },
}
NEEDED = {"capacity": ["objective.capacity=1"], "control": ["objective.target=1"]}


@some(5, "choice", choices("objective"))
def test_every_objective_takes_the_sampled_rate_or_refuses(choice):
    cfg = composed(*TINY, FLOW, f"objective={choice}", *NEEDED.get(choice, []))
    torch.manual_seed(0)
    model, objective = (instantiate(cfg[part]) for part in ("model", "objective"))
    objective.dataset_size = 300
    if choice in REFUSED["objective"]:
        with pytest.raises(
            InputError, match=r"model/posterior=flow gives a FlowedGaussian"
        ) as said:
            check_fit(model, objective, images())
        assert "; leave model/posterior=flow out" in str(said.value)
        return
    assert check_fit(model, objective, images()) is FlowedGaussian
    objective.eval()
    step = torch.tensor(0)
    found = model(images(), randn(8 * objective.samples, 3))
    # Until it has learned it is the Gaussian, whose sampled rate is written out here.
    q = Gaussian(*found.posterior.base)
    rate = q.log_prob(found.z) - STANDARD.log_prob(found.z)
    same = Inference(Bound(found.bound.distortion, rate), q, found.z, STANDARD.log_prob(found.z))
    torch.testing.assert_close(objective(found, step), objective(same, step), rtol=1e-5, atol=1e-4)
    objective(found, step).backward()
    assert all(each.grad.isfinite().all() for each in model.posterior.parameters())
    assert any(each.grad.any() for each in model.posterior.parameters())


@pytest.mark.parametrize("choice", priors())
def test_every_prior_takes_the_sampled_rate_or_refuses(choice):
    extra = [] if choice == "standard_normal" else [f"model/prior={choice}"]
    torch.manual_seed(0)
    model = instantiate(composed(*TINY, FLOW, *extra).model)
    objective = instantiate(composed(*TINY).objective)
    if choice in REFUSED["model/prior"]:
        with pytest.raises(InputError, match=r"model/posterior=flow gives a FlowedGaussian"):
            check_fit(model, objective, images())
        return
    model.posterior = bent(dim=3)
    check_fit(model, objective, images())
    with torch.no_grad():
        found = model.eval()(images()[:1].expand(400, -1, -1, -1), randn(400, 3))
    sampled = found.posterior.log_prob(found.z) - STANDARD.log_prob(found.z)
    # Every prior is N(0, I) until it has learned; a bounded one is so on average.
    error = (found.bound.rate - sampled).std() / 20 + 1e-3
    assert abs((found.bound.rate - sampled).mean()) < 4 * error


def test_a_flow_prior_and_a_flow_posterior_stand_beside_each_other():
    torch.manual_seed(0)
    model = instantiate(composed(*TINY, FLOW, "model/prior=flow").model)
    assert isinstance(model.prior, FlowPrior)
    model.posterior = bent(dim=3)
    found = model(images(), randn(8, 3))
    expected = found.posterior.log_prob(found.z) - model.prior.distribution().log_prob(found.z)
    torch.testing.assert_close(found.bound.rate, expected, rtol=1e-3, atol=1e-3)


def moved(snapshot):
    """The same codes, samples and rates, told as a flow that moves nothing."""
    flow = FlowPosterior(snapshot.z.shape[1]).requires_grad_(False)

    def infer(x, noise):
        found = snapshot.infer(x, noise)
        return found._replace(
            posterior=flow(found.posterior), log_q=found.posterior.log_prob(found.z)
        )

    return snapshot._replace(
        posterior=flow(snapshot.posterior),
        latent_rate=torch.full_like(snapshot.z, torch.nan),
        encode=lambda x: flow(snapshot.encode(x)),
        infer=infer,
    )


@some(8, "choice", [each for each in choices("diagnostics") if each not in ELSEWHERE])
def test_every_diagnostic_shows_what_it_would_of_the_codes_or_is_refused(choice):
    diagnostic = build(choice)
    if choice in REFUSED["diagnostics"]:
        with pytest.raises(
            InputError, match=rf"diagnostics holds {choice}, and model/posterior=flow gives"
        ):
            check_families({choice: diagnostic}, FlowedGaussian)
        return
    check_families({choice: diagnostic}, FlowedGaussian)
    snapshot = snapshot_for(choice)
    found = diagnostic(moved(snapshot))
    same = diagnostic(snapshot._replace(latent_rate=torch.full_like(snapshot.z, torch.nan)))
    assert found.keys() <= same.keys()
    assert found or not same
    for name, value in found.items():
        if isinstance(value, torch.Tensor) and value.dim() < 2:
            torch.testing.assert_close(value, same[name], rtol=1e-3, atol=1e-3, equal_nan=True)
        assert isinstance(value, Embedding | Film) or type(value) is type(same[name])


def test_all_diagnostics_that_do_not_hold_are_named_at_once(configure, tmp_path):
    with pytest.raises(InputError) as said:
        train(configure(*QUICK, "callbacks=[checkpoint,diagnose]"), tmp_path)
    assert str(said.value) == (
        "diagnostics holds sigma, decomposition, and model/posterior=flow gives a FlowedGaussian:"
        " expected a Gaussian; leave those diagnostics out, or leave model/posterior=flow out"
    )
    assert not (tmp_path / "checkpoints").exists()


# ---- runs


def test_a_run_is_loaded_and_its_codes_are_where_the_flow_takes_the_mean(configure, tmp_path):
    shown = "diagnostics=[rate,traversals,codes,evidence,aggregate_posterior]"
    cfg = configure(*QUICK, "callbacks=[checkpoint,diagnose]", shown)
    found = train(cfg, tmp_path / "run")
    model = jensen.load(tmp_path / "run").model
    x = instantiate(cfg.data).show(60)
    with torch.no_grad():
        q = model.encode(x)
        torch.testing.assert_close(model.reconstruct(x), model.decode(q.mean))
    assert isinstance(q, FlowedGaussian)
    assert found["val/elbo"] == pytest.approx(
        -found["val/distortion"] - found["val/rate"], rel=1e-5
    )
    assert found["evidence/log_p"] >= found["val/elbo"] - 5 * found["evidence/log_p_se"]


def test_codes_are_written_without_a_variance(tmp_path, capsys):
    snapshot = moved(snapshot_for("rate"))
    write_codes(snapshot, tmp_path / "codes.npz")
    assert "they come without log_var" in capsys.readouterr().out
    import numpy as np

    from jensen.diagnostics.from_codes import read_codes

    with np.load(tmp_path / "codes.npz") as file:
        assert "log_var" not in file
        np.testing.assert_array_equal(file["codes"], snapshot.posterior.mean)
    assert isinstance(read_codes(tmp_path / "codes.npz").posterior, Codes)


def test_by_name_it_is_a_part_of_a_vae_in_one_line():
    model = jensen.VAE(
        "mlp", "mlp", likelihood="normal", latent_dim=2, x_shape=[3], posterior="flow"
    )
    assert isinstance(model.encode(torch.zeros(2, 3)), FlowedGaussian)
    assert jensen.VAE("mlp", "mlp", latent_dim=2, x_shape=[3]).posterior is None


# ---- what it cannot be


def test_an_encoder_of_another_family_is_refused():
    model = VAE(
        AsNormal((3,), 2), torch.nn.Linear(2, 3), Normal(), StandardNormal(), 2, FlowPosterior(2)
    )
    with pytest.raises(InputError, match=r"and model\.encoder gives a FullGaussian: expected a"):
        model(torch.zeros(1, 3))


def test_without_zuko_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    sentence = r"^kind is maf, which needs zuko, .* pip install 'jensen\[flows\]'$"
    with pytest.raises(InputError, match=sentence):
        FlowPosterior(2)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kind": "iaf"}, "kind is 'iaf': expected"),
        ({"transforms": 0}, "transforms is 0: expected"),
        ({"hidden": [0]}, "hidden is 0: expected"),
        ({"latent_dim": 0}, "latent_dim is 0: expected"),
    ],
)
def test_what_it_cannot_be_is_said(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        partial(FlowPosterior, 2)(**settings) if "latent_dim" not in settings else FlowPosterior(0)
