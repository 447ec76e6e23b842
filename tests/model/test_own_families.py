"""A prior of one's own, and posteriors with a covariance: every choice of every group gives what is
right, or refuses.
"""

from copy import deepcopy
from functools import partial

import pytest
import torch
from cases import some
from composing import priors
from diagnostics.snapshots import image_snapshot, vector_snapshot, with_posterior
from hydra.utils import instantiate
from own_families import AsNormal, Banana, banana_rate
from priors import rate_of
from tiny import TINY
from torch import distributions

import jensen
from jensen.base.errors import InputError
from jensen.base.tree import tree_map
from jensen.bound.bound import Bound, Inference
from jensen.bound.decomposition import decompose
from jensen.diagnostics.decomposition import decomposition
from jensen.diagnostics.estimator_audit import estimator_audit
from jensen.diagnostics.probabilistic_pca import probabilistic_pca
from jensen.diagnostics.snapshot import by_rate, check_families
from jensen.diagnostics.water_filling import water_filling
from jensen.family import gaussian
from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian
from jensen.launch.training import train
from jensen.model.mlp import MLPEncoder
from jensen.model.vae import VAE
from jensen.run.conf import conf_folder

QUICK = (*TINY, "trainer.accelerator=cpu", "trainer.max_steps=3", "callbacks=[checkpoint,diagnose]")
OWN = "model.encoder._target_=own_families.Correlated"
BANANA = ("model/prior=standard_normal", "model.prior._target_=own_families.BananaPrior")


def choices(group):
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def bent_codes(count=400, dim=3):
    """Posteriors that lie along the banana."""
    noise = torch.randn(2, count, dim, generator=generator(), dtype=torch.float64)
    mean = noise[0].clone()
    mean[:, 1] = mean[:, 0].square() + 0.4 * mean[:, 1]
    return Gaussian(mean, 0.3 * noise[1] - 2)


class Masked:
    """The standard normal, of which nobody is told that it is that."""

    @staticmethod
    def log_prob(z):
        return gaussian.STANDARD.log_prob(z)

    @staticmethod
    def marginal(latent):
        return None


# ---- a prior of which only the density is known


def test_the_rate_against_a_density_is_the_divergence():
    q = bent_codes()
    parts = decompose(q, samples=20_000, generator=generator(1), prior=Banana())
    exact = banana_rate(q).mean()
    assert parts.rate_se > 0
    assert abs(parts.rate - exact) < 4 * parts.rate_se
    assert parts.rate_se < 0.02 * exact
    assert (parts.mutual_information + parts.marginal_kl).item() == pytest.approx(
        parts.rate.item(), abs=1e-9
    )
    unknown = (
        "latent_rate",
        "dimension_wise_kl",
        "dimension_wise_kl_se",
        "latent_dimension_wise_kl",
        "prior_dependence",
    )
    assert all(getattr(parts, name) is None for name in unknown)


def test_what_does_not_ask_the_prior_is_the_same_under_any():
    q = bent_codes()
    plain = decompose(q, samples=2000, generator=generator(1))
    masked = decompose(q, samples=2000, generator=generator(1), prior=Masked())
    for name in (
        "mutual_information",
        "total_correlation",
        "mutual_information_se",
        "total_correlation_se",
    ):
        torch.testing.assert_close(getattr(masked, name), getattr(plain, name))
    # log p(z) is a function of the moments, which the regression knows: nothing is left to chance.
    assert masked.rate.item() == pytest.approx(plain.rate.item(), abs=1e-6)
    assert masked.marginal_kl.item() == pytest.approx(plain.marginal_kl.item(), abs=1e-6)


def test_the_diagnostic_leaves_out_what_is_unknown():
    q = bent_codes()
    snapshot = with_posterior(vector_snapshot(count=400), *q)._replace(prior=Banana())
    found = decomposition(snapshot, samples=4000)
    assert abs(found["rate"] - banana_rate(q).mean()) < 4 * found["rate_se"]
    assert not {"dimension_wise_kl", "prior_dependence"} & found.keys()


@pytest.mark.slow
def test_the_audit_is_against_the_prior():
    q = bent_codes()
    snapshot = with_posterior(vector_snapshot(count=400), *q)._replace(prior=Banana(), z=q.mean)
    found = estimator_audit(snapshot, sizes=(400,), batches=40)
    parts = ("mutual_information", "total_correlation", "dimension_wise_kl")
    rate = banana_rate(q).mean().item()
    assert sum(found[f"{part}_exact"].item() for part in parts) == pytest.approx(rate, rel=0.02)
    # An estimate of all rows adds up to their sampled rate.
    assert sum(found[f"{part}_stratified"].item() for part in parts) == pytest.approx(
        rate, rel=0.05
    )


def test_latents_of_unknown_rate_are_in_the_order_of_their_variance():
    snapshot = image_snapshot(latents=4)
    unknown = snapshot._replace(latent_rate=torch.full_like(snapshot.z, torch.nan))
    expected = snapshot.posterior.mean.var(0).argsort(descending=True)
    assert by_rate(unknown).tolist() == expected.tolist()


def test_a_run_with_a_prior_of_ones_own_reports_its_rate(configure, tmp_path):
    shown = "rate,decomposition,estimator_audit,mixture,traversals,samples,codes,evidence,mig_exact"
    cfg = configure(*QUICK, *BANANA, f"diagnostics=[{shown}]")
    found = train(cfg, tmp_path)
    model = jensen.load(tmp_path, trust="own_families").model
    with torch.no_grad():
        q = model.encode(instantiate(cfg.data).show(60))
    exact = banana_rate(q).mean()
    assert abs(found["decomposition/rate"] - exact) < 4 * found["decomposition/rate_se"]
    assert (
        abs(exact - gaussian.kl(q, gaussian.STANDARD).sum(1).mean())
        > 8 * found["decomposition/rate_se"]
    )

    draws = q.rsample(torch.randn(1000, 60, 3, generator=generator()))
    spread = (q.log_prob(draws) - Banana().log_prob(draws)).std(0).square().mean().sqrt()
    assert abs(found["val/rate"] - exact) < 4 * spread / 60**0.5
    assert "rate/active_rates" not in found
    assert "rate/active_units" in found


@some(3, "objective", choices("objective"))
def test_every_objective_takes_a_prior_of_ones_own_or_refuses_it(configure, tmp_path, objective):
    cfg = configure(*QUICK, *BANANA, f"objective={objective}", "diagnostics=[]", *needed(objective))
    if objective in ("free_bits", "mmd", "wae"):
        with pytest.raises(
            InputError, match=r"model\.prior a BananaPrior: expected model/prior=standard_normal"
        ):
            train(cfg, tmp_path)
        assert not (tmp_path / "checkpoints").exists()
    else:
        assert train(cfg, tmp_path)["val/rate"] > 0


# ---- posteriors with a covariance


def needed(objective):
    return {"capacity": ["objective.capacity=1"], "control": ["objective.target=1"]}.get(
        objective, []
    )


def both(configure, *overrides):
    """The same weights with the posterior as a diagonal Gaussian and as one with a covariance
    matrix, and a batch.
    """
    pair = []
    for encoder in (MLPEncoder, AsNormal):
        torch.manual_seed(0)
        name = f"{encoder.__module__}.{encoder.__name__}"
        cfg = configure(*QUICK, f"model.encoder._target_={name}", *overrides)
        pair.append(instantiate(cfg.algorithm).requires_grad_(False))
    pair[1].load_state_dict(pair[0].state_dict())
    return pair


DIAGONAL_ALONE = {"beta_tcvae", "beta_tcvae_12", "decomposed", "dip", "dip_ii"}


@some(3, "objective", choices("objective"))
def test_every_objective_is_the_same_for_a_diagonal_covariance_matrix_or_refuses_it(
    configure, objective
):
    losses = []
    for algorithm in both(configure, f"objective={objective}", *needed(objective)):
        own = algorithm.objective
        own.dataset_size = 300
        if losses and objective in DIAGONAL_ALONE:
            with pytest.raises(
                InputError,
                match=r"needs a diagonal Gaussian and model\.encoder gives a FullGaussian",
            ):
                loss_of(algorithm)
            return
        losses.append(loss_of(algorithm))
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)


def by_torch(model, x, noise):
    """The inference of a posterior with a covariance, as torch's own distributions have it."""
    posterior = model.encode(x)
    times = len(noise) // len(x)
    posterior, x = tree_map(
        lambda part: part.repeat(times, *[1] * (part.dim() - 1)), (posterior, x)
    )
    q = distributions.MultivariateNormal(posterior.mean, scale_tril=posterior.scale_tril)
    p = distributions.MultivariateNormal(torch.zeros(3), torch.eye(3))
    z = posterior.mean + (posterior.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
    log_p = distributions.Bernoulli(logits=model.decoder(z)).log_prob(x).flatten(1).sum(1)
    bound = Bound(-log_p, distributions.kl_divergence(q, p))
    return Inference(bound, posterior, z, p.log_prob(z), q.log_prob(z))


PERMITTED = sorted(set(choices("objective")) - DIAGONAL_ALONE)


@some(4, "objective", PERMITTED)
def test_steps_of_posteriors_with_a_covariance_are_those_by_torch_s_distributions(
    configure, objective
):
    ours = both(configure, f"objective={objective}", *needed(objective))[1].requires_grad_(True)
    ours.model.encoder.tilt = 0.5
    ours.objective.dataset_size = 300
    theirs = deepcopy(ours)
    started = deepcopy(ours.model.state_dict())
    losses = []
    for algorithm, infer in ((ours, VAE.forward), (theirs, by_torch)):
        optimiser = torch.optim.SGD(algorithm.parameters(), lr=1e-4)
        draw = generator(4)
        for step in range(3):
            noise = torch.randn(8 * algorithm.objective.samples, 3, generator=draw)
            inference = infer(algorithm.model, images(), noise)
            loss = algorithm.objective(inference, torch.tensor(step))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
    torch.testing.assert_close(losses[:3], losses[3:], rtol=1e-5, atol=1e-5)
    for name, value in theirs.model.state_dict().items():
        found = ours.model.state_dict()[name]
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-6, msg=name)
        assert name.startswith("prior.") or not found.equal(started[name]), name


def loss_of(algorithm):
    algorithm.eval()
    inference = algorithm.model(
        images(), torch.randn(8 * algorithm.objective.samples, 3, generator=generator(2))
    )
    terms = algorithm.objective.terms(inference, torch.tensor(0))
    return torch.stack([algorithm.objective(inference, torch.tensor(0)), *terms.values()])


def images():
    return torch.rand(8, 1, 64, 64, generator=generator(3)).round()


SAMPLED = ("flow", "diffusion")
"""Priors without a closed form: their rate is that of a draw, right on average."""


@some(4, "prior", priors())
def test_every_prior_is_right_for_a_covariance_or_refuses_it(configure, prior):
    extra = [] if prior == "standard_normal" else [f"model/prior={prior}"]
    diagonal, full = (algorithm.model for algorithm in both(configure, *extra))
    noise = torch.randn(8, 3, generator=generator(2))
    if prior == "vamp":
        with pytest.raises(InputError, match=r"model/prior=vamp needs a diagonal Gaussian"):
            full(images(), noise)
        return
    same = diagonal(images(), noise)
    own = full(images(), noise)
    torch.testing.assert_close(own.bound.rate, same.bound.rate, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own.log_posterior, same.log_posterior, rtol=1e-4, atol=1e-4)

    full.encoder.tilt = 0.5
    tilted = full.encode(images())
    torch_q = distributions.MultivariateNormal(
        tilted.mean.double(), scale_tril=tilted.scale_tril.double()
    )
    # Before it has learned every prior is N(0, I).
    standard = distributions.MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    expected = distributions.kl_divergence(torch_q, standard)
    if prior in SAMPLED:
        draws = torch_q.sample((400,)).float()
        each = tree_map(lambda part: part.repeat(400, *[1] * (part.dim() - 1)), tilted)
        rates = rate_of(full.prior, each, draws.flatten(0, 1)).unflatten(0, draws.shape[:2])
        assert ((rates.mean(0) - expected).abs() < 5 * rates.std(0) / 400**0.5 + 1e-3).all()
    else:
        rates = rate_of(full.prior, tilted, tilted.mean)
        torch.testing.assert_close(rates.double(), expected, rtol=1e-4, atol=1e-4)


def test_learned_priors_bound_the_divergence_of_posteriors_with_a_covariance(configure):
    for prior in ("mixture", "factorised", "bayesian_mixture"):
        model = both(
            configure, f"model/prior={prior}", "model.prior.components=4", "model.prior.warmup=0"
        )[1].model
        model.encoder.tilt = 0.5
        for step in range(20):
            model.prior.update(model.encode(images()), torch.tensor(step))
        q = model.encode(images())
        torch_q = distributions.MultivariateNormal(
            q.mean.double(), scale_tril=q.scale_tril.double()
        )
        draws = torch_q.sample((20_000,))
        p = model.prior.distribution()
        sampled = torch_q.log_prob(draws) - p.log_prob(draws.flatten(0, 1)).unflatten(
            0, draws.shape[:2]
        )
        error = 5 * sampled.std(0) / 20_000**0.5
        excess = rate_of(model.prior, q, q.mean) - sampled.mean(0)
        assert (excess > -error).all(), prior
        assert (excess < 1.0).all(), prior


@pytest.mark.parametrize("diagnostic", ["decomposition", "decomposition_full", "estimator_audit"])
def test_a_diagnostic_of_diagonal_posteriors_is_refused_before_the_first_step(
    configure, tmp_path, diagnostic
):
    with pytest.raises(
        InputError,
        match=r"diagnostics holds \w+, and model\.encoder gives a FullGaussian: expected a Gaussian",
    ):
        train(configure(*QUICK, OWN, f"diagnostics=[{diagnostic}]"), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("diagnostic", [partial(probabilistic_pca, variances=[1.0]), water_filling])
def test_the_oracles_of_linear_models_are_of_diagonal_posteriors(diagnostic):
    check_families({"oracle": diagnostic}, Gaussian)
    with pytest.raises(InputError, match="diagnostics holds oracle"):
        check_families({"oracle": diagnostic}, FullGaussian)


def test_a_run_of_posteriors_with_a_covariance_shows_all_the_rest(configure, tmp_path):
    shown = "rate,mixture,traversals,samples,reconstructions,codes,embedding,evidence,factor_map,mig_exact,mig_hist20"
    found = train(configure(*QUICK, OWN, f"diagnostics=[{shown}]"), tmp_path)
    model = jensen.load(tmp_path, trust="own_families").model
    with torch.no_grad():
        q = model.encode(instantiate(configure(*QUICK).data).show(60))
    torch_q = distributions.MultivariateNormal(q.mean, scale_tril=q.scale_tril)
    exact = distributions.kl_divergence(
        torch_q, distributions.MultivariateNormal(torch.zeros(3), torch.eye(3))
    ).mean()
    assert found["val/rate"] == pytest.approx(exact.item(), rel=1e-4)


def test_a_pair_of_tensors_is_no_family(configure, tmp_path):
    cfg = configure(*QUICK, "diagnostics=[]", "model.encoder._target_=own_families.Pair")
    with pytest.raises(InputError, match=r"model\.encoder gives a tuple: expected a distribution"):
        train(cfg, tmp_path)
