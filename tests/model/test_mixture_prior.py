"""The mixture prior, against closed forms, torch.distributions, numpy and itself: continued, on two
ranks, in a stack.
"""

import math

import numpy as np
import pytest
import torch
from cases import slow
from priors import draws_of, latent_rate_of, log_prob_of, rate_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import TINY
from torch import distributions

from jensen.base.errors import InputError
from jensen.base.random import normal
from jensen.bound.decomposition import decompose
from jensen.bound.rate import divergence, latent_divergence, latent_mixtures
from jensen.family.gaussian import Gaussian, sample
from jensen.family.mixture import Mixture
from jensen.launch.training import train
from jensen.model.factorised_prior import FactorisedMixturePrior
from jensen.model.mixture_prior import FITS, MixturePrior, em_step
from jensen.model.prior import StandardNormal

COUNT = 64
COMPONENTS = 5
DIM = 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def posteriors(count=COUNT, dim=DIM, seed=0, dtype=torch.float64):
    """Clumps of narrow and wide posteriors."""
    mean, log_var, clump = torch.randn(3, count, dim, generator=generator(seed), dtype=dtype)
    return Gaussian(mean + 3 * clump.sign(), log_var - 1)


def random_mixture(components=COMPONENTS, dim=DIM, seed=1):
    mean, log_var, weight = torch.randn(
        3, components, dim, generator=generator(seed), dtype=torch.float64
    )
    return Mixture(weight[:, 0].log_softmax(0), Gaussian(2 * mean, 0.5 * log_var))


def holding(p, prior=None):
    """A started prior with the parameters of `p`."""
    prior = prior or MixturePrior(*p.components.mean.shape)
    state = {"log_weight": p.log_weight, "mean": p.components.mean, "log_var": p.components.log_var}
    prior.learned.load_state_dict(state | {"started": torch.tensor(True)})
    return prior


def torch_mixture(p):
    components = distributions.Normal(p.components.mean, (p.components.log_var / 2).exp())
    return distributions.MixtureSameFamily(
        distributions.Categorical(logits=p.log_weight), distributions.Independent(components, 1)
    )


def torch_normal(q):
    return distributions.Normal(q.mean, (q.log_var / 2).exp())


def warmed(prior, batches=40, warmup=0, **options):
    for step in range(batches):
        prior.update(posteriors(seed=step, **options), torch.tensor(warmup + step))
    return prior


# ---- the rate


@pytest.mark.parametrize("copies", [1, 4])
def test_the_rate_against_one_component_however_often_it_is_repeated_is_the_divergence_in_closed_form(
    copies,
):
    one = random_mixture(components=1)
    q = posteriors()
    p = Mixture(
        torch.tensor([0.1, 0.2, 0.3, 0.4][:copies], dtype=torch.float64).log().log_softmax(0),
        Gaussian(*(part.expand(copies, DIM) for part in one.components)),
    )
    expected = distributions.kl_divergence(torch_normal(q), torch_normal(Gaussian(*one.components)))
    torch.testing.assert_close(
        rate_of(holding(p), q, q.mean), expected.sum(1), rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(latent_rate_of(holding(p), q), expected, rtol=1e-12, atol=1e-12)


def test_the_rate_is_a_bound_of_the_divergence_and_not_far_from_it():
    p = random_mixture()
    q = posteriors(count=40)
    draws = 20_000
    noise = torch.randn(draws, 40, DIM, generator=generator(2), dtype=torch.float64)
    z = sample(q, noise)
    values = torch_normal(q).log_prob(z).sum(-1) - torch_mixture(p).log_prob(z)
    kl = values.mean(0)
    error = values.std(0) / math.sqrt(draws)
    rate = rate_of(holding(p), q, q.mean)
    assert (rate > kl - 4 * error).all()
    assert (rate - kl).max() > 20 * error.max()  # and no estimate of it
    assert (rate - kl).max() < math.log(COMPONENTS)


def test_the_rate_of_each_latent_is_a_bound_of_the_divergence_from_the_marginal():
    p = random_mixture()
    q = posteriors(count=20)
    draws = 20_000
    z = sample(q, torch.randn(draws, 20, DIM, generator=generator(3), dtype=torch.float64))
    components = distributions.Normal(p.components.mean.T, (p.components.log_var.T / 2).exp())
    marginal = distributions.MixtureSameFamily(
        distributions.Categorical(logits=p.log_weight.expand(DIM, -1)), components
    )
    values = torch_normal(q).log_prob(z) - marginal.log_prob(z)
    assert (
        latent_rate_of(holding(p), q) > values.mean(0) - 4 * values.std(0) / math.sqrt(draws)
    ).all()


def test_the_rate_is_tight_where_components_do_not_overlap():
    p = random_mixture(seed=4)
    far = p._replace(components=Gaussian(1000 * p.components.mean, p.components.log_var))
    q = Gaussian(far.components.mean, far.components.log_var - 1)
    expected = (
        distributions.kl_divergence(torch_normal(q), torch_normal(Gaussian(*far.components))).sum(1)
        - p.log_weight
    )
    torch.testing.assert_close(divergence(q, far), expected)


def test_the_rate_of_each_latent_is_the_same_in_parts(monkeypatch):
    p = latent_mixtures(random_mixture())
    q = posteriors()
    whole = latent_divergence(q, p)
    monkeypatch.setattr("jensen.bound.rate._LIMIT", 50)
    torch.testing.assert_close(latent_divergence(q, p), whole, rtol=1e-13, atol=1e-13)


def test_the_rate_is_finite_with_finite_gradients_far_out():
    prior = holding(random_mixture())
    mean = torch.tensor([[1e6, -1e6, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    log_var = torch.tensor([[20.0, -20.0, 0.0], [-20.0, 20.0, 3.0]], requires_grad=True)
    rate = rate_of(prior, Gaussian(mean, log_var), mean)
    rate.sum().backward()
    for found in (rate, mean.grad, log_var.grad):
        assert found.dtype == torch.float32
        assert found.isfinite().all()


def test_log_prob_and_samples_are_those_of_the_mixture():
    p = random_mixture()
    prior = holding(p)
    z = 3 * torch.randn(50, DIM, generator=generator(5), dtype=torch.float64)
    torch.testing.assert_close(
        log_prob_of(prior, z), torch_mixture(p).log_prob(z), rtol=1e-12, atol=1e-12
    )
    draws = draws_of(prior, 5, torch.arange(40_000), DIM)
    assert (draws.double().mean(0) - torch_mixture(p).mean).abs().max() < 0.05
    assert (draws.double().var(0) / torch_mixture(p).variance - 1).abs().max() < 0.05
    chosen = torch_mixture(p).log_prob(draws.double())
    expected = torch_mixture(p).log_prob(torch_mixture(p).sample((40_000,)))
    assert abs(chosen.mean() - expected.mean()) < 0.05
    assert torch.equal(draws_of(prior, 5, torch.tensor([30_000, 7]), DIM), draws[[30_000, 7]])


def test_the_rate_is_at_least_the_mutual_information():
    """G11 and I4, with the prior fitted to these very posteriors."""
    q = posteriors(count=200)
    p = random_mixture(components=8)
    for _ in range(50):
        p = em_step(p, q)
    parts = decompose(q, samples=20_000, generator=generator(6), prior=p)
    rate = divergence(q, p).mean()
    assert rate > parts.rate - 4 * parts.rate_se
    assert parts.rate > parts.mutual_information - 4 * (parts.rate_se + parts.mutual_information_se)
    total = (
        parts.mutual_information
        + parts.total_correlation
        + parts.dimension_wise_kl
        - parts.prior_dependence
    )
    torch.testing.assert_close(parts.rate, total)


# ---- EM


def direct(p, q, steps_size, floor=0.0):
    """One stepwise EM step in numpy, from the definition of the moments about 0."""
    weight = p.log_weight.exp().numpy()
    mean = p.components.mean.numpy()
    var = p.components.log_var.exp().numpy()
    own = q.mean.numpy()
    own_var = q.log_var.exp().numpy()
    joint = np.log(weight) + np.stack(
        [
            -0.5 * (np.log(2 * np.pi * var[k]) + ((own - mean[k]) ** 2 + own_var) / var[k]).sum(1)
            for k in range(len(weight))
        ],
        1,
    )
    r = np.exp(joint - joint.max(1, keepdims=True))
    r /= r.sum(1, keepdims=True)
    moments = r.mean(0), r.T @ own / len(own), r.T @ (own**2 + own_var) / len(own)
    before = weight, weight[:, None] * mean, weight[:, None] * (mean**2 + var)
    total, first, second = (
        (1 - steps_size) * old + steps_size * new for old, new in zip(before, moments, strict=True)
    )
    return (
        total / total.sum(),
        first / total[:, None],
        np.maximum(second / total[:, None] - (first / total[:, None]) ** 2, floor),
    )


@pytest.mark.parametrize("size", [1.0, 0.3, 0.01])
def test_an_em_step_is_that_of_the_moments_in_numpy(size):
    p = random_mixture()
    for batch in range(5):
        q = posteriors(seed=batch)
        expected = direct(p, q, size)
        p = em_step(p, q, size)
        found = p.log_weight.exp(), p.components.mean, p.components.log_var.exp()
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-10, atol=1e-12)


def test_full_em_never_raises_the_rate_and_lowers_the_divergence_of_the_aggregate():
    q = posteriors()
    p = random_mixture()
    draws = 20_000
    z = sample(
        q, torch.randn(draws // COUNT, COUNT, DIM, generator=generator(7), dtype=torch.float64)
    ).flatten(0, 1)
    rates = []
    cross = []
    for _ in range(60):
        rates.append(divergence(q, p).mean().item())
        cross.append(-torch_mixture(p).log_prob(z).mean().item())
        p = em_step(p, q)
    assert max(np.diff(rates)) < 1e-12
    assert rates[-1] < rates[0] - 0.5
    assert max(np.diff(cross)) < 1e-3
    assert cross[-1] < cross[0] - 0.5


def test_em_ends_where_the_gradient_of_the_rate_is_zero():
    q = posteriors()
    p = random_mixture()
    for _ in range(1500):
        p = em_step(p, q)
    logit, mean, log_var = (part.clone().requires_grad_() for part in (p.log_weight, *p.components))
    divergence(q, Mixture(logit.log_softmax(0), Gaussian(mean, log_var))).mean().backward()
    assert max(part.grad.abs().max() for part in (logit, mean, log_var)) < 1e-6


def test_a_full_step_with_one_component_gives_the_moments_of_the_aggregate():
    q = posteriors()
    _, (mean, log_var) = em_step(random_mixture(components=1), q)
    torch.testing.assert_close(mean[0], q.mean.mean(0))
    torch.testing.assert_close(
        log_var[0].exp(), q.mean.var(0, correction=0) + q.log_var.exp().mean(0)
    )


def test_codes_far_from_the_origin_move_the_means_and_nothing_else():
    q = posteriors()
    p = random_mixture()
    moved = p._replace(components=Gaussian(p.components.mean + 1e6, p.components.log_var))
    for _ in range(5):
        p = em_step(p, q)
        moved = em_step(moved, Gaussian(q.mean + 1e6, q.log_var))
    torch.testing.assert_close(moved.components.mean - 1e6, p.components.mean, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(moved.components.log_var, p.components.log_var, rtol=1e-8, atol=1e-8)


def test_variances_keep_above_the_floor():
    q = Gaussian(posteriors().mean, torch.full((COUNT, DIM), -20.0, dtype=torch.float64))
    prior = MixturePrior(60, DIM, warmup=0, floor=0.01, power=0)
    for step in range(5):
        prior.update(q, torch.tensor(step))
    log_var = prior.distribution().components.log_var
    assert log_var.min() == pytest.approx(math.log(0.01))


# ---- how it is learned


def test_up_to_the_warm_up_it_is_the_standard_normal():
    prior = MixturePrior(4, DIM, warmup=3)
    q = posteriors()
    for step in range(4):
        torch.testing.assert_close(
            rate_of(prior, q, q.mean), rate_of(StandardNormal(), q, q.mean), rtol=1e-12, atol=1e-12
        )
        torch.testing.assert_close(
            log_prob_of(prior, q.mean),
            log_prob_of(StandardNormal(), q.mean),
            rtol=1e-12,
            atol=1e-12,
        )
        assert not prior.learned.started
        prior.update(q, torch.tensor(step))
    assert prior.learned.started
    assert (rate_of(prior, q, q.mean) - rate_of(StandardNormal(), q, q.mean)).abs().min() > 1e-3


@pytest.mark.parametrize("components", [5, COUNT, 100])
@pytest.mark.parametrize("fit", FITS)
def test_components_start_at_different_examples_of_the_minibatch(fit, components):
    prior = MixturePrior(components, DIM, fit=fit, warmup=0)
    q = posteriors()
    prior.update(q, torch.tensor(0))
    log_weight, (mean, log_var) = prior.distribution()
    torch.testing.assert_close(log_weight.exp(), torch.full_like(log_weight, 1 / components))
    distance = torch.cdist(mean, q.mean, compute_mode="donot_use_mm_for_euclid_dist")
    assert (distance[:COUNT].min(1).values < 1e-5).all()
    assert len(mean.unique(dim=0)) == components
    assert (log_var == log_var[0]).all()
    again = MixturePrior(components, DIM, fit=fit, warmup=0)
    again.update(q, torch.tensor(0))
    assert all(
        torch.equal(value, again.state_dict()[name]) for name, value in prior.state_dict().items()
    )


def test_one_component_starts_as_the_whole_minibatch():
    prior = MixturePrior(1, DIM, warmup=0)
    q = posteriors()
    prior.update(q, torch.tensor(0))
    variance = prior.distribution().components.log_var[0].exp()
    torch.testing.assert_close(variance, q.mean.var(0, correction=0) + q.log_var.exp().mean(0))


@pytest.mark.parametrize("fit", FITS)
def test_a_dead_component_begins_again_at_an_example(fit):
    p = random_mixture()
    weight = torch.tensor([0.4, 0.3, 0.2, 0.1 - 1e-6, 1e-6], dtype=torch.float64)
    p = Mixture(
        weight.log(),
        Gaussian(p.components.mean.index_fill(0, torch.tensor(4), 500.0), p.components.log_var),
    )
    prior = holding(p, MixturePrior(COMPONENTS, DIM, fit=fit, dead=0.05))
    q = posteriors()
    prior.update(q, torch.tensor(300))
    log_weight = prior.distribution().log_weight.detach()
    mean = prior.distribution().components.mean.detach()
    assert log_weight[4].exp() == pytest.approx(
        1 / 6, rel=1e-4
    )  # 1/K, and all are normalised again
    assert (mean[4] - q.mean).abs().amax(1).min() < 1e-5
    assert log_weight.exp().sum() == pytest.approx(1)

    left = holding(p, MixturePrior(COMPONENTS, DIM, fit=fit, dead=0.0))
    left.update(q, torch.tensor(300))
    assert left.distribution().components.mean[4].min() > 400


def test_em_has_no_parameters_and_gradient_has():
    assert not [*MixturePrior(4, DIM, fit="em").parameters()]
    for fit in ("gradient", "both"):
        prior = MixturePrior(4, DIM, fit=fit, warmup=1)
        q = posteriors(dtype=torch.float32)
        for step, moves in enumerate((False, False, True)):
            prior.zero_grad()
            rate = rate_of(prior, q, q.mean).mean()
            prior.update(q, torch.tensor(step))  # between a loss and its gradient
            rate.backward()
            assert all((part.grad != 0).any() == moves for part in prior.parameters())


def test_gradient_alone_moves_nothing_in_update():
    prior = holding(random_mixture(), MixturePrior(COMPONENTS, DIM, fit="gradient", dead=0.0))
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    prior.update(posteriors(), torch.tensor(500))
    for name, value in prior.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=1e-6, atol=1e-6)


def test_online_em_comes_near_a_fixed_point_of_full_em():
    """Minibatches of one distribution over codes; then full EM on all of them has little to
    gain.
    """
    prior = MixturePrior(COMPONENTS, DIM, warmup=0, forget=0.0)
    whole = posteriors(count=6400)
    batches = [
        Gaussian(*parts) for parts in zip(*(part.split(COUNT) for part in whole), strict=True)
    ]
    for step in range(500):
        prior.update(batches[step % len(batches)], torch.tensor(step))
    p = prior.distribution()
    for _ in range(100):
        p = em_step(p, whole)
    online, full, standard = (
        value.mean()
        for value in (
            rate_of(prior, whole, whole.mean),
            divergence(whole, p),
            rate_of(StandardNormal(), whole, whole.mean),
        )
    )
    assert full <= online < full + 0.02
    assert online < standard - 5


def test_members_of_a_stack_learn_as_they_would_alone():
    """Also that nothing asks the device: vmap refuses what depends on a value."""
    members = [MixturePrior(COMPONENTS, DIM, warmup=1) for _ in range(2)]
    state = {name: torch.stack([value] * 2) for name, value in members[0].state_dict().items()}

    def learn(state, mean, log_var, step):
        torch.func.functional_call(
            Updating(members[0]), {f"prior.{k}": v for k, v in state.items()}, (mean, log_var, step)
        )
        return state

    alone = [MixturePrior(COMPONENTS, DIM, warmup=1) for _ in range(2)]
    for step in range(5):
        each = [posteriors(seed=10 * member + step) for member in range(2)]
        both = Gaussian(*(torch.stack(parts) for parts in zip(*each, strict=True)))
        state = torch.vmap(learn, in_dims=(0, 0, 0, None))(state, *both, torch.tensor(step))
        for prior, q in zip(alone, each, strict=True):
            prior.update(q, torch.tensor(step))
    for member, prior in enumerate(alone):
        for name, value in prior.state_dict().items():
            torch.testing.assert_close(state[name][member], value, rtol=1e-10, atol=1e-10)


class Updating(torch.nn.Module):
    def __init__(self, prior):
        super().__init__()
        self.prior = prior

    def forward(self, mean, log_var, step):
        self.prior.update(Gaussian(mean, log_var), step)


REFUSED = {
    "components is 0: expected an integer of at least 1": {"components": 0},
    "components is 2.5": {"components": 2.5},
    "latent_dim is 0": {"latent_dim": 0},
    "fit is 'am': expected one of em, gradient, both": {"fit": "am"},
    "warmup is -1": {"warmup": -1},
    "floor is 0: expected a number in": {"floor": 0},
    "floor is -0.1": {"floor": -0.1},
    "floor is nan": {"floor": math.nan},
    "dead is 2": {"dead": 2},
    "power is -1": {"power": -1},
    "delay is -1": {"delay": -1},
    "forget is 1.5": {"forget": 1.5},
}


@pytest.mark.parametrize("prior", [MixturePrior, FactorisedMixturePrior])
@pytest.mark.parametrize("message", REFUSED)
def test_wrong_values_are_one_sentence(prior, message):
    with pytest.raises(InputError, match=message):
        prior(**{"components": 3, "latent_dim": 2} | REFUSED[message])


@pytest.mark.parametrize("prior", [MixturePrior, FactorisedMixturePrior])
def test_another_number_of_latents_is_one_sentence(prior):
    with pytest.raises(InputError, match=r"model\.prior\.latent_dim is 2: expected 3"):
        rate_of(prior(4, 2), posteriors(), posteriors().mean)


def test_draws_do_not_depend_on_the_batch_they_are_in():
    prior = warmed(MixturePrior(COMPONENTS, DIM, warmup=0))
    index = torch.arange(10)
    assert torch.equal(draws_of(prior, 3, index, DIM)[4:6], draws_of(prior, 3, index[4:6], DIM))
    assert not torch.equal(draws_of(prior, 3, index, DIM), normal(3, index, (DIM,)))


# ---- in a run

RUN = (
    *TINY,
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=5",
    "trainer.max_steps=24",
    "trainer.val_check_interval=12",
)
PRIORS = {
    "em": ("model/prior=mixture", "model.prior.components=4", "model.prior.warmup=5"),
    "both": (
        "model/prior=mixture",
        "model.prior.components=4",
        "model.prior.warmup=5",
        "model.prior.fit=both",
    ),
    "factorised": ("model/prior=factorised", "model.prior.components=3", "model.prior.warmup=5"),
    "bayesian": (
        "model/prior=bayesian_mixture",
        "model.prior.components=4",
        "model.prior.warmup=5",
        "model.prior.settle=3",
    ),
    "vamp": ("model/prior=vamp", "model.prior.pseudo_inputs=4"),
}


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    "prior", [slow("em"), slow("both"), "factorised", slow("bayesian"), slow("vamp")]
)
def test_a_continued_run_equals_an_uninterrupted_one(configure, tmp_path, prior):
    overrides = (*RUN, *PRIORS[prior], "diagnostics=[rate,decomposition,mixture]")
    results = train(configure(*overrides), tmp_path / "whole")
    assert results["decomposition/rate"] == pytest.approx(
        sum(results[f"decomposition/{part}"] for part in ("mutual_information", "marginal_kl"))
    )
    for steps in (7, 24):
        train(configure(*overrides, f"trainer.max_steps={steps}"), tmp_path / "parts")
    whole = weights(tmp_path / "whole")
    parts = weights(tmp_path / "parts")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert any("prior" in key for key in whole)
    assert prior == "vamp" or whole["model.prior.learned.started"]


def test_the_value_of_the_sample_is_logged_beside_a_rate_that_is_a_bound(configure, tmp_path):
    for name, overrides in {"mixture": PRIORS["em"], "standard": ()}.items():
        train(configure(*RUN, *overrides, "diagnostics=[]"), tmp_path / name)
        events = EventAccumulator(str(tmp_path / name))
        events.Reload()
        assert ("train/rate_monte_carlo" in events.Tags()["scalars"]) == (name == "mixture")


def test_a_warm_up_that_outlasts_training_is_refused(configure, tmp_path):
    with pytest.raises(
        InputError,
        match=r"model\.prior\.warmup is 24 but training ends at step 24: lower it or raise",
    ):
        train(configure(*RUN, *PRIORS["em"], "model.prior.warmup=24"), tmp_path)
