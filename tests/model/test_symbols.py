"""Symbols, grey levels and counts: all of their probabilities, and draws that have them."""

import math

import pytest
import torch
from composing import choices
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy import special, stats

import jensen
from jensen.algorithm.logs import derived
from jensen.base.errors import InputError
from jensen.model.choice import choose, sharpened
from jensen.model.counts import NegativeBinomial, NormalMixture, Poisson
from jensen.model.likelihood import (
    Bernoulli,
    ContinuousBernoulli,
    LearnedNormal,
    Normal,
    OptimalNormal,
    drawn,
)
from jensen.model.mlp import MLPDecoder, MLPEncoder
from jensen.model.symbols import Categorical, DiscretisedLogistic
from jensen.run.conf import conf_folder

P = torch.tensor([0.5, 0.25, 0.15, 0.1], dtype=torch.float64)


def test_perplexity_temperature_and_the_likeliest_have_the_references_digits():
    assert (-(P * P.log()).sum()).exp().item() == pytest.approx(3.346696325, abs=1e-9)
    cool = sharpened(P.log(), temperature=0.5).exp().tolist()
    assert cool == pytest.approx([0.72463768, 0.18115942, 0.06521739, 0.02898551], abs=1e-8)
    assert sharpened(P.log(), top_k=2).exp().tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert (sharpened(P.log(), top_p=0.8).exp() > 0).tolist() == [True, True, True, False]
    assert sharpened(P.log(), top_p=1.0).exp().tolist() == pytest.approx(P.tolist())
    assert (sharpened(P.flip(0).log(), top_k=1).exp() > 0).tolist() == [False] * 3 + [True]


def test_choices_have_their_probabilities():
    chosen = choose(P.log().expand(5000, 4), 3, torch.arange(5000))
    count = torch.bincount(chosen, minlength=4)
    assert stats.chisquare(count, 5000 * P).pvalue > 1e-3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"temperature": 0.0}, "temperature is 0: expected more than 0"),
        ({"temperature": -1.0}, "temperature is -1: expected more than 0"),
        ({"top_k": 5}, "top_k is 5: expected at most 4"),
        ({"top_k": 0}, "top_k is 0: expected"),
        ({"top_p": 0.0}, "top_p is 0: expected a probability"),
        ({"top_p": 1.5}, r"top_p is 1.5: expected a probability"),
    ],
)
def test_what_nothing_can_be_chosen_by_is_refused(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        sharpened(P.log(), **settings)


def test_a_discretised_logistic_has_the_references_digits_and_sums_to_one():
    likelihood = DiscretisedLogistic().double()
    torch.nn.init.constant_(likelihood.log_scale, math.log(0.1))
    output = torch.zeros(1, 1, dtype=torch.float64)
    found = {
        level: -likelihood.distortion(output, torch.tensor([[level / 255]]).double()).item()
        for level in (0, 100, 128, 255)
    }
    expected = {0: -9.960831528, 100: -4.921222257, 128: -3.932338072, 255: -9.960831528}
    assert found == pytest.approx(expected, abs=1e-8)
    for outputs in (output, torch.tensor([[4.0, -30.0, 0.3]]).double()):
        log_p = likelihood.log_levels(outputs)
        torch.testing.assert_close(log_p.exp().sum(-1), torch.ones_like(outputs))


def test_a_mixture_of_discretised_logistics_sums_to_one_and_draws_follow_it():
    torch.manual_seed(0)
    likelihood = DiscretisedLogistic(levels=8, components=3, scale=0.3)
    for parameter in likelihood.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    p = likelihood.log_levels(torch.tensor([[0.4]])).exp().detach()[0, 0].double()
    assert p.sum().item() == pytest.approx(1, abs=1e-6)
    drawn = likelihood.sample(torch.full((4000, 1), 0.4), 2, torch.arange(4000))
    count = torch.bincount((drawn[:, 0] * 7).round().long(), minlength=8)
    assert stats.chisquare(count, 4000 * p / p.sum()).pvalue > 1e-3


@pytest.mark.parametrize(("levels", "components"), [(256, 1), (5, 3), (2, 2)])
def test_the_mean_of_a_discretised_logistic_is_the_sum_over_its_levels(levels, components):
    likelihood = DiscretisedLogistic(levels, components, scale=0.3).double()
    with torch.no_grad():
        likelihood.log_weight += torch.arange(components)
        output = 3 * torch.randn(2, 3, 4, dtype=torch.float64)
        level = torch.linspace(0, 1, levels, dtype=torch.float64)
        expected = (likelihood.log_levels(output).exp() * level).sum(-1)
        torch.testing.assert_close(likelihood.mean(output), expected, rtol=0, atol=1e-12)


def test_categories_numbered_and_one_hot_are_the_same():
    likelihood = Categorical(4)
    output = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
    number = torch.randint(4, (5, 3), generator=torch.Generator().manual_seed(1))
    one_hot = torch.nn.functional.one_hot(number, 4).movedim(-1, 1).float()
    by_torch = torch.distributions.Categorical(logits=output.movedim(1, -1))
    expected = -by_torch.log_prob(number).sum(1)
    torch.testing.assert_close(likelihood.distortion(output, number.float()), expected)
    torch.testing.assert_close(likelihood.distortion(output, one_hot), expected)
    assert likelihood.output_shape((3,)) == likelihood.output_shape((4, 3)) == (4, 3)
    assert likelihood.symbols((3,)) == likelihood.symbols((4, 3)) == 3
    terms = {"loss": 6.0, "distortion": 3 * math.log(2.5), "rate": 1.0, "elbo": -4.0}
    assert derived(terms, (4, 3), likelihood.symbols((4, 3)))["perplexity"] == pytest.approx(2.5)
    likelihood.check(number.float())
    likelihood.check(one_hot)
    with pytest.raises(InputError, match="takes symbols 0 to 3"):
        likelihood.check(number.float() + 1)


@pytest.mark.parametrize("size", ["none", "library"])
def test_counts_are_the_distributions(size):
    output = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    x = torch.tensor([[2.0, 0.0, 7.0]], dtype=torch.float64)
    mean = output.exp() if size == "none" else 9 * output.softmax(1)
    found = Poisson(size).distortion(output, x).item()
    assert found == pytest.approx(-stats.poisson.logpmf(x, mean).sum())
    binomial = NegativeBinomial(2.5, size).double()
    expected = -stats.nbinom.logpmf(x, 2.5, 2.5 / (2.5 + mean)).sum()
    assert binomial.distortion(output, x).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mean", [1.0, 1e6, 1e8])
@pytest.mark.parametrize("dispersion", [1e-2, 1.0, 1e4, 1e6])
def test_counts_in_float32_keep_their_digits(mean, dispersion):
    """And their slopes, of which rounding made noise that was a million times what they are."""
    output = torch.full((1, 1000), math.log(mean), requires_grad=True)
    mean = output[0, 0].double().exp().item()
    x = torch.poisson(torch.full_like(output.detach(), mean), torch.Generator().manual_seed(0))
    counts = x.double().numpy()
    poisson = Poisson().distortion(output, x)
    assert poisson.item() == pytest.approx(-stats.poisson.logpmf(counts, mean).sum(), rel=1e-6)
    binomial = NegativeBinomial(dispersion)
    r = binomial.log_r.double().exp().item()
    found = binomial.distortion(output, x)
    expected = -stats.nbinom.logpmf(counts, r, r / (r + mean)).sum()
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=1e-6)
    slopes = torch.autograd.grad(found, (output, binomial.log_r))
    share = r / (r + mean)
    of_output = (mean - counts) * share
    each = (
        special.digamma(counts + r)
        - special.digamma(r)
        + math.log(share)
        + (mean - counts) / (r + mean)
    )
    assert slopes[0].numpy()[0] == pytest.approx(of_output[0], rel=1e-5, abs=1e-6 * mean * share)
    assert slopes[1].item() == pytest.approx(-r * each.sum(), rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("likelihood", [Poisson(), NegativeBinomial(2.0)])
def test_counts_sum_to_one_and_draws_follow_them(likelihood):
    every = torch.arange(400.0)[:, None]
    p = (-likelihood.distortion(torch.full((400, 1), 0.7), every)).exp().double().detach()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    drawn = likelihood.sample(torch.full((4000, 1), 0.7), 5, torch.arange(4000))[:, 0].long()
    count = torch.bincount(drawn.clamp(max=7), minlength=8)
    expected = torch.cat([p[:7], p[7:].sum()[None]])
    assert stats.chisquare(count, 4000 * expected / expected.sum()).pvalue > 1e-3


def of_a_step(likelihood):
    """After a step of training: until then an optimal variance is that of whatever is asked."""
    likelihood.train().distortion(torch.zeros(50, 1), torch.linspace(-2, 2, 50)[:, None])
    return likelihood.eval()


@pytest.mark.parametrize(
    "likelihood",
    [
        NormalMixture(3, 2.0),
        Normal(0.5),
        LearnedNormal(0.7),
        of_a_step(OptimalNormal()),
        ContinuousBernoulli(),
    ],
    ids=lambda each: type(each).__name__,
)
def test_densities_integrate_to_one_and_draws_follow_them(likelihood):
    if isinstance(likelihood, NormalMixture):
        torch.manual_seed(0)
        for parameter in likelihood.parameters():
            torch.nn.init.normal_(parameter)
    inside = isinstance(likelihood, ContinuousBernoulli)
    grid = torch.linspace(0 if inside else -20, 1 if inside else 20, 8001)
    output = torch.full((8001, 1), 1.7)
    density = (-likelihood.distortion(output, grid[:, None])).exp().double().detach()
    cumulative = torch.cumulative_trapezoid(density, grid.double())
    assert cumulative[-1].item() == pytest.approx(1, abs=1e-4)
    drawn = likelihood.sample(torch.full((2000, 1), 1.7), 5, torch.arange(2000)).detach()[:, 0]
    at = cumulative[torch.searchsorted(grid, drawn.contiguous()).clamp(1, 8000) - 1]
    assert stats.kstest(at.numpy(), "uniform").pvalue > 1e-3


def test_zeros_and_ones_are_drawn_with_their_probability():
    drawn = Bernoulli().sample(torch.full((4000, 1), -0.4), 5, torch.arange(4000))
    p = 1 / (1 + math.exp(0.4))
    assert stats.binomtest(int(drawn.sum()), 4000, p).pvalue > 1e-3


@pytest.mark.parametrize(
    ("make", "x", "sentence"),
    [
        (DiscretisedLogistic, 0.5, "takes 256 levels"),
        (Poisson, 0.5, "takes 0, 1, 2"),
        (NegativeBinomial, -1.0, "takes 0, 1, 2"),
        (NormalMixture, math.inf, "NaN or infinite"),
    ],
)
def test_data_that_it_is_no_density_of_are_refused(make, x, sentence):
    with pytest.raises(InputError, match=sentence):
        make().check(torch.full((2, 3), x))


@pytest.mark.parametrize("likelihood", [Poisson(), NegativeBinomial()])
def test_counts_have_no_temperature(likelihood):
    with pytest.raises(InputError, match=r"temperature is 0\.5: expected 1 of counts"):
        likelihood.sample(torch.zeros(2, 3), 0, torch.arange(2), temperature=0.5)


SUMS = {
    "bernoulli": torch.arange(2.0),
    "discretised_logistic": torch.arange(256.0) / 255,
    "poisson": torch.arange(300.0),
    "negative_binomial": torch.arange(3000.0),
}
INTEGRALS = {
    "continuous_bernoulli": (0.0, 1.0),
    **dict.fromkeys(
        ("normal", "learned_normal", "optimal_normal", "normal_mixture"), (-20.0, 20.0)
    ),
}
WHOLE = {"made", "pixelcnn"}
"""Of all places at once: `test_autoregressive.py` sums over all observations."""
NONE = {"cross_entropy"}
"""No density of grey levels: the Bernoulli's expected over what is drawn of them."""


@pytest.mark.parametrize("choice", choices("model/likelihood"))
def test_every_likelihood_is_a_density(choice):
    if choice in WHOLE | NONE:
        return
    own = OmegaConf.load(conf_folder() / "model" / "likelihood" / f"{choice}.yaml")
    made = instantiate(OmegaConf.create({"data": {"x_shape": [1]}, "own": own}).own).eval()
    if choice == "optimal_normal":
        of_a_step(made)
    if choice == "categorical":
        output = torch.tensor([[[0.3], [-1.2]]]).expand(2, 2, 1)
        p = (-made.distortion(output, torch.tensor([[0.0], [1.0]]))).exp()
        assert p.sum().item() == pytest.approx(1, abs=1e-6)
        return
    if choice in SUMS:
        x = SUMS[choice][:, None]
        whole = (-made.distortion(torch.full_like(x, 0.4), x)).double().exp().sum()
    else:
        x = torch.linspace(*INTEGRALS[choice], 20_001)[:, None]
        density = (-made.distortion(torch.full_like(x, 0.4), x)).double().exp()
        whole = torch.trapezoid(density, x[:, 0].double())
    assert whole.item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("given", ["numbered", "one-hot"])
def test_categories_are_learned_through_a_run(given, tmp_path):
    """Three symbols in four places, one of them a copy of another: a rate can pay, and does not
    have to for the bound to come below three independent symbols.
    """
    number = torch.randint(3, (400, 4), generator=torch.Generator().manual_seed(0))
    number[:, 2:] = 0
    x = number.float()
    if given == "one-hot":
        x = torch.nn.functional.one_hot(number, 3).movedim(-1, 1).float()
    torch.manual_seed(0)
    model = jensen.VAE(
        MLPEncoder(x.shape[1:], 2, [8]),
        MLPDecoder((3, 4), 2, [8]),
        likelihood=Categorical(3),
        latent_dim=2,
    )
    words = [
        "callbacks=[checkpoint]",
        "diagnostics=[]",
        "trainer.accelerator=cpu",
        "objective.beta=1",
    ]
    words += ["optimizer.lr=2e-2", "+trainer.enable_progress_bar=false", "logger=csv"]
    folder = tmp_path / "run"
    run = jensen.fit(
        model, x, max_steps=150, batch_size=40, validation=100, folder=folder, overrides=words
    )
    # Two places at random and two that never change.
    assert 1.8 * math.log(3) < -run.results["val/elbo"] < 2.4 * math.log(3)
    logged = (folder / "metrics.csv").read_text().splitlines()
    told = [line.split(",") for line in logged[1:]]
    found = [float(value) for _, tag, value in told if tag == "val/perplexity"]
    assert found[-1] == pytest.approx(math.exp(run.results["val/distortion"] / 4), rel=1e-4)
    drawn = model.likelihood.sample(model.decoder(torch.zeros(50, 2)), 1, torch.arange(50))
    assert (drawn[..., 2:] == 0).float().mean() > 0.9


class Heavy(Normal):
    """A density of its own, and the draws of a normal one."""

    def distortion(self, output, x):
        return -torch.distributions.Laplace(output, 1.0).log_prob(x).flatten(1).sum(1)


class Bare(torch.nn.Module):
    def distortion(self, output, x):
        return (output - x).abs().flatten(1).sum(1)


class Whole(Heavy):
    def sample(self, output, key, index, temperature=1.0, top_k=None, top_p=None):
        return output


class Derived(Whole):
    """Of the same density."""


class Heavier(Whole):
    def distortion(self, output, x):
        return 2 * super().distortion(output, x)


def test_a_likelihood_that_would_draw_by_anothers_density_is_refused():
    output = torch.zeros(2, 3)
    given = (output, 0, torch.arange(2))
    for likelihood in (Heavy(), Heavier()):
        with pytest.raises(InputError, match="which has a distortion of its own and would draw as"):
            drawn(likelihood, *given)
    with pytest.raises(
        InputError, match="Bare, which has a distortion of its own and has no sample"
    ):
        drawn(Bare(), *given)
    for likelihood in (Whole(), Derived()):
        assert torch.equal(drawn(likelihood, *given), output)
    assert torch.equal(drawn(Normal(), *given), Normal().sample(*given))
