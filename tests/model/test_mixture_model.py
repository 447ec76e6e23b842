"""`jensen.MixtureModel`: fits of every family, missing values, and what it refuses."""

import gzip
import io
import math

import numpy as np
import pytest
import torch
from mixtures import close
from scipy import special, stats

import jensen
from jensen.base.errors import InputError
from jensen.family.categorical_column import CategoricalColumn
from jensen.model.schema import Schema

FAMILIES = {"normal": [0, 3], "bernoulli": [1], "poisson": [2], "categorical": [4]}


def table(count=600, gaps=0.0, seed=0):
    draw = torch.Generator().manual_seed(seed)
    one = torch.rand(count, generator=draw) < 0.4
    share = torch.where(one[:, None], torch.tensor([0.1, 0.2, 0.7]), torch.tensor([0.6, 0.3, 0.1]))
    x = torch.stack(
        [
            torch.randn(count, generator=draw) + 4 * one,
            (torch.rand(count, generator=draw) < torch.where(one, 0.8, 0.2)).float(),
            torch.poisson(torch.where(one, 2.0, 9.0), generator=draw),
            2 * torch.randn(count, generator=draw) - 3 * one + 1e4,
            torch.multinomial(share, 1, generator=draw)[:, 0].float(),
        ],
        1,
    ).double()
    x[torch.rand(x.shape, generator=draw) < gaps] = math.nan
    return x, one


@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_mixed_columns_find_their_clusters(gaps):
    x, one = table(gaps=gaps)
    model = jensen.MixtureModel(2, FAMILIES, order="mean", missing=gaps > 0, tolerance=1e-9).fit(x)
    assert model.converged
    assert (model.predict(x) == one.long()).float().mean() > (0.97 if not gaps else 0.9)
    close(model.log_prob(x).sum().item(), model.log_likelihood, 1e-9)
    assert all(step.gap > -1e-9 for step in model.history)
    gains = [
        after.log_likelihood - before.log_likelihood
        for before, after in zip(model.history, model.history[1:], strict=False)
    ]
    assert min(gains, default=0) > -1e-9
    mean = model.as_given(model.mixture.components.mean)
    assert abs(mean[1, 0] - 4) < 0.4
    assert abs(mean[0, 2] - 9) < 0.5
    assert abs(mean[0, 3] - 1e4) < 0.5


@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_a_density_has_its_slope_in_the_columns_that_have_one(gaps):
    """By finite differences of it; a missing value has none."""
    x, _ = table(gaps=gaps)
    model = jensen.MixtureModel(2, FAMILIES, missing=gaps > 0).fit(x)
    few = x[:20].clone().requires_grad_()
    (slope,) = torch.autograd.grad(model.log_prob(few).sum(), few)
    assert slope.isfinite().all()
    assert slope[x[:20].isnan()].eq(0).all()
    for column in FAMILIES["normal"]:
        step = torch.zeros(5).double()
        step[column] = 1e-5
        found = (model.log_prob(x[:20] + step) - model.log_prob(x[:20] - step)) / 2e-5
        torch.testing.assert_close(slope[:, column], found, rtol=1e-6, atol=1e-7)


def test_points_with_weights_are_copies():
    x, _ = table(100)
    weights = torch.arange(100) % 3
    options = {"init": "random", "tolerance": 1e-10, "seed": 3}
    copied = x.repeat_interleave(weights, 0)
    start = jensen.MixtureModel(2, FAMILIES, **options).fit(copied)
    again = jensen.MixtureModel(2, FAMILIES, **options | {"init": start}).fit(x, weights)
    close(again.log_likelihood, start.log_likelihood, 1e-7)


def test_batches_arrays_and_a_saved_model_are_the_same():
    x, _ = table(300)
    model = jensen.MixtureModel(2, FAMILIES).fit(x)
    batches = jensen.MixtureModel(2, FAMILIES).fit(list(x.split(64)))
    close(batches.log_likelihood, model.log_likelihood, 1e-9)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    loaded = jensen.MixtureModel(2, FAMILIES)
    loaded.load_state_dict(torch.load(file))
    assert torch.equal(loaded.log_prob(x), model.log_prob(x))
    assert loaded.parameter_count == 1 + 2 * (2 * 2 + 1 + 1 + 2)
    assert model.icl(x) >= model.bic(x)


def test_draws_have_the_moments_of_the_mixture():
    x, _ = table(2000)
    model = jensen.MixtureModel(2, FAMILIES).fit(x)
    drawn = model.sample(8000, seed=1)
    assert torch.equal(drawn[:5], model.sample(5, seed=1))
    error = (drawn.mean(0) - x.mean(0)).abs() / x.std(0)
    assert error.max() < 0.07
    torch.testing.assert_close(drawn.var(0), x.var(0), rtol=0.1, atol=0.02)
    model.log_prob(drawn)  # of the families' own values


def test_annealing_pseudo_counts_and_warm_starts_work():
    x, _ = table(300)
    prior = jensen.PseudoCounts(weight=1.0, covariance=1.0, values=1.0)
    model = jensen.MixtureModel(3, FAMILIES, beta=(3, 1), prior=prior, warm_start=True).fit(x)
    before = model.log_likelihood + 300 * model.history[-1].log_prior
    model.fit(x)
    assert model.log_likelihood + 300 * model.history[-1].log_prior > before - 1e-3


@pytest.mark.slow
def test_one_component_of_mnist_has_the_digits_of_the_reference(shared_data):
    file = shared_data / "train10k-images-idx3-ubyte.gz"
    pixels = np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=16)
    pixels = pixels.reshape(10_000, 784)
    model = jensen.MixtureModel(1, "bernoulli", max_iter=3).fit(torch.tensor(pixels > 127).float())
    assert model.log_likelihood / 10_000 == pytest.approx(-205.784188, abs=2e-6)


def changed(place, value):
    x, _ = table(30)
    x[place] = value
    return x


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: jensen.MixtureModel(2, FAMILIES).fit(changed((7, 1), 0.5)),
            "row 7, column 1 of x holds 0.5",
        ),
        (
            lambda: jensen.MixtureModel(2, FAMILIES).fit(changed((7, 2), -1)),
            "row 7, column 2 of x holds -1",
        ),
        (
            lambda: jensen.MixtureModel(2, FAMILIES).fit(changed((7, 2), 2.5)),
            "column 2 of x holds 2.5",
        ),
        (
            lambda: jensen.MixtureModel(2, FAMILIES, sizes=5).fit(changed((7, 4), 7)),
            r"column 4 of x holds 7 .*expected a code of 0\.\.4; set sizes to 8",
        ),
        (
            lambda: jensen.MixtureModel(2, {"normal": [0, 1], "poisson": [1]}),
            "names column 1, which families.normal has",
        ),
        (lambda: jensen.MixtureModel(2, {"normal": [0]}).fit(table(30)[0]), "leaves out column 1"),
        (
            lambda: jensen.MixtureModel(2, {"normal": [9]}).fit(table(30)[0]),
            "names column 9 and x has 5",
        ),
        (
            lambda: jensen.MixtureModel(2, FAMILIES, covariance="full"),
            "covariance is 'full' and the columns of a MixtureModel are independent",
        ),
        (lambda: jensen.MixtureModel(2, {"normal": 3}), "expected a list of columns"),
        (lambda: jensen.MixtureModel(2, "bernouli"), "did you mean bernoulli"),
        (lambda: jensen.MixtureModel(2, "categorical", sizes=1), "sizes is 1"),
        (
            lambda: jensen.MixtureModel(40, FAMILIES).fit(table(30)[0]),
            "x has 30 points: expected at least 40",
        ),
        (
            lambda: jensen.MixtureModel(2, FAMILIES).fit(changed((slice(None), 0), 1.0)),
            "column 0 of x is 1 in every point",
        ),
        (
            lambda: jensen.MixtureModel(2, FAMILIES).fit(changed((3, 0), math.nan)),
            "row 3, column 0",
        ),
        (lambda: jensen.MixtureModel(2, FAMILIES).predict(table(30)[0]), "has no parameters"),
    ],
)
def test_what_it_cannot_take_is_refused_in_a_sentence(make, said):
    with pytest.raises(InputError, match=said) as found:
        make()
    assert "\n" not in str(found.value)


def test_a_schema_puts_columns_in_order_and_back():
    schema = Schema.of(FAMILIES, 5)
    x = torch.arange(5.0).expand(2, 5)
    assert schema.ordered(x)[0].tolist() == [0, 3, 1, 2, 4]
    assert torch.equal(schema.unordered(schema.ordered(x)), x)


@pytest.mark.parametrize("family", ["normal", "bernoulli", "poisson", "categorical"])
@pytest.mark.parametrize("missing", [False, True])
def test_columns_may_all_be_of_one_family(family, missing):
    """The two groups of rows are found, whatever the others' columns, which are none, have to say."""
    x = torch.tensor([[0.0, 0, 1], [1, 1, 0]]).repeat(30, 1)
    x[5::11, 0] = 1 - x[5::11, 0]
    if family == "normal":
        x += 0.1 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    if missing:
        x[3, 1] = math.nan
    model = jensen.MixtureModel(2, family, missing=missing, restarts=3).fit(x)
    labels = model.predict(x[:2])
    assert labels[0] != labels[1]
    assert model.sample(3).shape == (3, 3)


def test_a_code_of_which_there_would_be_millions_of_categories_is_refused_before_they_are_made():
    x = np.array([[0.0], [1.0], [700_000_000.0]])
    with pytest.raises(InputError, match=r"column 0 of x holds the code 7e.08, which would be the"):
        jensen.MixtureModel(2, "categorical").fit(x)


class Dice(CategoricalColumn):
    name = "dice"


@pytest.mark.parametrize(
    ("families", "own", "name"),
    [
        ({"normal": [0], "categorical": [4]}, [], "categorical"),
        ({"normal": [0], "dice": [4]}, [Dice], "dice"),
        ({"categorical": [0], "dice": [1]}, [Dice], "categorical and dice"),
    ],
)
def test_means_are_no_start_of_columns_that_have_a_size(families, own, name):
    x = table()[0][:, [0, 4]] if "normal" in families else table()[0][:, [4, 4]]
    places = {family: [place] for place, family in enumerate(families)}
    model = jensen.MixtureModel(2, places, own=own, init=torch.zeros(2, 2))
    with pytest.raises(InputError, match=f"x has {name} columns, of which means say nothing"):
        model.fit(x)
    wrong = jensen.MixtureModel(2, places, own=own, sizes=[3] * 5)
    with pytest.raises(InputError, match=f"5 numbers and . columns are {name}: expected"):
        wrong.fit(x)


def test_a_mapping_is_no_start():
    model = jensen.MixtureModel(2, {"poisson": [0]}, init={"rate": torch.ones(2, 1)})
    with pytest.raises(InputError, match="init is a mapping: expected kmeans"):
        model.fit(torch.poisson(3 * torch.ones(50, 1)))


def by_scipy(model, x):
    """log p(x, k) of a mixture of normal columns, then of ones and zeros, about 1.7e18 exactly."""
    real = model.mixture.components.groups[0]
    width = (0.5 * real.log_var).exp().numpy()
    mean = real.mean.numpy()
    chance = model.mixture.components.groups[1].mean.numpy()
    deviations = x[:, None, : mean.shape[1]].numpy() - mean
    joint = stats.norm.logpdf(deviations, 0, width).sum(-1) + model.log_weight.numpy()
    return joint + stats.bernoulli.logpmf(x[:, None, mean.shape[1] :].numpy(), chance).sum(-1)


@pytest.mark.parametrize("offset", [1e4, 1e8, 1e10])
@pytest.mark.parametrize("gaps", [False, True])
def test_an_offset_of_the_points_moves_the_means_and_nothing_else(offset, gaps):
    """A column of time stamps has an offset of so many deviations: nanoseconds, a second wide."""
    x, _ = table(400)
    x = x[:, :2]
    families = {"normal": [0], "bernoulli": [1]}
    options = {"order": "mean", "tolerance": 1e-10, "missing": gaps}
    moved = x + torch.tensor([offset, 0]).double()
    x[:, 0] = moved[:, 0] - offset  # as far as the sum has its digits
    if gaps:
        x[5, 0] = moved[5, 0] = math.nan
    here = jensen.MixtureModel(2, families, **options).fit(x)
    there = jensen.MixtureModel(2, families, **options).fit(moved)
    assert torch.equal(there.predict(moved), here.predict(x))
    close(there.log_prob(moved), here.log_prob(x), 1e-6)
    close(there.responsibilities(moved), here.responsibilities(x), 1e-6)
    close(there.bound(moved).elbo, here.log_prob(x), 1e-6)
    close(there.log_prob(moved).sum().item(), there.log_likelihood, 1e-9)
    for name in ("bic", "aic", "icl"):
        close(getattr(there, name)(moved), getattr(here, name)(x), 1e-6)
    close(
        there.mixture.log_prob(moved.nan_to_num(offset)),
        here.mixture.log_prob(x.nan_to_num(0.0)),
        1e-6,
    )
    if not gaps:
        joint = by_scipy(there, moved)
        close(there.log_prob(moved), torch.tensor(special.logsumexp(joint, 1)), 1e-10)


@pytest.mark.parametrize("apart", [1e4, 1e6, 1e8, 1e10])
@pytest.mark.parametrize("gaps", [False, True])
def test_clusters_far_apart_have_their_own_deviations(apart, gaps):
    """Products about one origin have no digit left of them from 1e7 deviations on."""
    draw = np.random.default_rng(0)
    x = np.r_[draw.normal(size=(60, 2)), draw.normal(size=(60, 2)) * [2, 0.1] + apart]
    counts = draw.poisson(np.r_[np.full(60, 3.0), np.full(60, 9.0)])
    x = np.c_[x, counts]
    if gaps:
        x[::7, 0] = x[::5, 2] = math.nan
    families = {"normal": [0, 1], "poisson": [2]}
    model = jensen.MixtureModel(2, families, order="mean", missing=gaps, restarts=3).fit(x)
    expected = 120 * math.log(0.5)
    for place, rows in enumerate((x[:60], x[60:])):
        real, _, often = model.mixture.components.groups
        width = (0.5 * real.log_var[place]).exp().numpy()
        found = np.nanstd(rows[:, :2], 0)
        np.testing.assert_allclose(width, found, rtol=2e-6)
        mean = np.nanmean(rows, 0)
        np.testing.assert_allclose(often.mean[place], mean[2:], rtol=1e-9)
        expected += np.nansum(stats.norm.logpdf(rows[:, :2], mean[:2], found))
        expected += np.nansum(
            np.where(
                np.isnan(rows[:, 2]), 0, stats.poisson.logpmf(np.nan_to_num(rows[:, 2]), mean[2])
            )
        )
    assert model.converged
    close(model.log_likelihood, expected, 1e-7)
    close(model.log_prob(x).sum().item(), expected, 1e-7)


def test_float32_points_of_clusters_far_apart_keep_their_deviations():
    draw = np.random.default_rng(0)
    x = np.r_[draw.normal(size=(900, 1)), draw.normal(size=(900, 1)) + 3e4].astype(np.float32)
    model = jensen.MixtureModel(2, "normal", order="mean").fit(x)
    width = (0.5 * model.mixture.components.groups[0].log_var).exp()[:, 0]
    found = [x[:900].astype(float).std(), x[900:].astype(float).std()]
    np.testing.assert_allclose(width, found, rtol=1e-5)
