"""The contract of `model.prior.Prior`, for every choice of `conf/model/prior` that a plain VAE may have:
another one is covered by its conf file.
"""

import io
import pickle

import pytest
import torch
from composing import composed, priors
from hydra.utils import instantiate
from tiny import TINY

SMALL = {
    "mixture": ("model.prior.components=4", "model.prior.warmup=2"),
    "bayesian_mixture": ("model.prior.components=4", "model.prior.warmup=2"),
    "factorised": ("model.prior.components=3", "model.prior.warmup=2"),
    "diffusion": ("model.prior.hidden=[16]",),
    "vamp": ("model.prior.pseudo_inputs=5",),
}

WITHOUT_MARGINALS = {"flow", "diffusion"}
BELOW = {"diffusion"}
"""Of whose density an inference has a bound, on average."""

every_prior = pytest.mark.parametrize("choice", priors())


def build(choice, seed=0):
    """A VAE with that prior."""
    chosen = () if choice == "standard_normal" else (f"model/prior={choice}",)
    torch.manual_seed(seed)
    return instantiate(composed(*TINY, *chosen, *SMALL.get(choice, ())).model)


def learned(choice, seed=0):
    """The same after some minibatches."""
    model = build(choice, seed)
    with torch.no_grad():
        for step in range(5):
            model.prior.update(model.encode(images(16, seed=step)), torch.tensor(step))
    return model


def images(rows, seed=0):
    return torch.rand(rows, 1, 64, 64, generator=torch.Generator().manual_seed(seed)).round()


def noise(rows, seed=9):
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))


@every_prior
def test_the_bound_is_a_number_an_example_and_the_same_alone(choice):
    model = learned(choice).eval()
    whole = model(images(8), noise(8))
    assert whole.bound.rate.shape == whole.log_prior.shape == (8,)
    assert whole.bound.rate.dtype == whole.log_prior.dtype == torch.float32
    assert whole.bound.rate.isfinite().all()
    one = model(images(8)[:1], noise(8)[:1])
    torch.testing.assert_close(one.bound.rate, whole.bound.rate[:1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.log_prior, whole.log_prior[:1], rtol=1e-5, atol=1e-5)


@every_prior
def test_what_it_is_has_the_density_that_the_bound_is_of(choice):
    model = learned(choice)
    if choice in BELOW:
        with torch.no_grad():
            found = model.eval()(images(1).expand(400, -1, -1, -1), noise(400))
        excess = found.log_prior - model.prior.distribution().log_prob(found.z)
        assert excess.mean() < 4 * excess.std() / 400**0.5
        return
    found = model(images(8), noise(8))
    torch.testing.assert_close(
        found.log_prior.double(), model.prior.distribution().log_prob(found.z).double()
    )


@every_prior
def test_the_rate_is_not_below_the_divergence(choice):
    """By 4,000 draws: closed form and the sample are the divergence, a bound is above it."""
    model = learned(choice)
    with torch.no_grad():
        x = images(1).expand(4000, -1, -1, -1)
        found = model(x, noise(4000))
    sampled = found.log_posterior - found.log_prior
    each = found.bound.rate - sampled
    error = 5 * each.std() / 4000**0.5 + 1e-4
    excess = each.mean()
    assert excess > -error
    assert model.prior.rate_is_bound or excess < error


@every_prior
def test_each_marginal_has_a_density_that_integrates_to_one(choice):
    p = learned(choice).prior.distribution()
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64).unsqueeze(1)
    for latent in range(3):
        if p.marginal(latent) is None:
            assert choice in WITHOUT_MARGINALS
            continue
        density = p.marginal(latent).log_prob(grid).exp()
        assert torch.trapezoid(density.double(), grid[:, 0]).item() == pytest.approx(1, abs=1e-3)


@every_prior
def test_gradients_of_the_rate_reach_the_encoder(choice):
    model = learned(choice)
    model(images(8), noise(8)).bound.rate.sum().backward()
    slopes = [parameter.grad for parameter in model.encoder.parameters()]
    assert all(slope is not None and slope.isfinite().all() for slope in slopes)
    assert max(slope.abs().max() for slope in slopes) > 0


@every_prior
@pytest.mark.parametrize("copied", ["pickled", "loaded"])
def test_a_copy_goes_on_alike(choice, copied):
    """A pickled one, and a new one given the state that a checkpoint holds."""
    model = learned(choice)
    if copied == "pickled":
        other = pickle.loads(pickle.dumps(model))
    else:
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        other = build(choice, seed=1)
        other.load_state_dict(torch.load(file, weights_only=True))
    for each in (model, other):
        each.prior.update(each.encode(images(16, seed=7)), torch.tensor(5))
    assert torch.equal(other(images(8), noise(8)).bound.rate, model(images(8), noise(8)).bound.rate)
