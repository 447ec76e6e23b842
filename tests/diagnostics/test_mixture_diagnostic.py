"""Pictures and numbers of a mixture prior; the decomposition against priors that are mixtures."""

import math

import pytest
import torch
from priors import each_of, log_prob_of, rate_of
from snapshots import generator, image_snapshot, randn, vector_snapshot, with_posterior

from jensen.algorithm.snapshot import point_inference
from jensen.algorithm.snapshot import snapshot as snapshot_of
from jensen.base.errors import InputError
from jensen.bound.decomposition import decompose
from jensen.diagnostics.aggregate_posterior import aggregate_posterior
from jensen.diagnostics.bayesian_mixture import bayesian_mixture
from jensen.diagnostics.decomposition import decomposition
from jensen.diagnostics.interpolation import interpolation
from jensen.diagnostics.mixture import components, mixture
from jensen.diagnostics.reconstructions import reconstructions
from jensen.diagnostics.samples import samples
from jensen.diagnostics.traversal_film import traversal_film
from jensen.diagnostics.traversals import traversals
from jensen.family import gaussian
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture, log_prob
from jensen.family.moments import PseudoCounts
from jensen.model.bayesian_gmm import BayesianGMM
from jensen.model.factorised_prior import FactorisedMixturePrior
from jensen.model.gmm import GMM
from jensen.model.mixture_model import MixtureModel
from jensen.model.mixture_prior import MixturePrior
from jensen.reports.evidence import Criteria


def with_prior(snapshot, prior):
    """The snapshot under a prior that has learned from its posteriors."""
    for step in range(30):
        prior.update(snapshot.posterior, torch.tensor(step))
    bound = snapshot.bound._replace(rate=rate_of(prior, snapshot.posterior, snapshot.z))
    return snapshot._replace(
        bound=bound, log_prior=log_prob_of(prior, snapshot.z), prior=prior.distribution()
    )


@pytest.fixture
def images():
    return with_prior(image_snapshot(latents=4), MixturePrior(5, 4, warmup=0))


@pytest.fixture
def vectors():
    return with_prior(vector_snapshot(latents=3), MixturePrior(5, 3, warmup=0))


def test_what_it_shows_of_images(images):
    found = mixture(images, rows=3, columns=6)
    for name in ("weights", "ellipses", "samples"):
        assert found[name].dtype == torch.uint8
        assert found[name].shape[0] == 3
    width = found["samples"].shape[2]
    assert mixture(images, rows=3, columns=7)["samples"].shape[2] > width
    again = mixture(images, rows=3, columns=6)
    assert torch.equal(found["samples"], again["samples"])


def test_vectors_have_no_samples_but_all_else(vectors):
    assert mixture(vectors).keys() == mixture(
        with_prior(image_snapshot(), MixturePrior(5, 4, warmup=0))
    ).keys() - {"samples"}


def test_more_rows_than_components_are_as_many_as_there_are(images):
    assert torch.equal(mixture(images, rows=5)["samples"], mixture(images, rows=50)["samples"])


def test_the_first_column_is_the_decoded_mean_of_the_component(images):
    seen = []

    def decode(z):
        seen.append(z)
        return images.decode(z)

    mixture(images._replace(decode=decode), rows=2, columns=4)
    heaviest = images.prior.log_weight.argmax()
    torch.testing.assert_close(seen[0][0].double(), images.prior.components.mean[heaviest])
    others = (seen[0][1:4].double() - images.prior.components.mean[heaviest]) / (
        images.prior.components.log_var[heaviest] / 2
    ).exp()
    assert 0.3 < others.square().mean() < 3


def test_the_numbers_are_those_of_the_mixture(vectors):
    found = mixture(vectors)
    weight = vectors.prior.log_weight.exp()
    assert found["components_used"].item() == pytest.approx(
        torch.distributions.Categorical(weight).entropy().exp().item()
    )
    assert found["largest_weight"] == weight.max()
    assert found["smallest_weight"] == weight.min()
    assert found["rate_bound"].item() == pytest.approx(vectors.bound.rate.mean().item())
    log_q = gaussian.log_density(vectors.z, vectors.posterior).sum(1)
    assert found["rate_monte_carlo"].item() == pytest.approx(
        (log_q - vectors.log_prior).mean().item(), rel=1e-5
    )
    assert 0 <= found["responsibility_entropy"] < math.log(5)
    assert 0 <= found["component_information"] < math.log(5)


def test_components_far_apart_are_told_without_doubt():
    snapshot = vector_snapshot(latents=1, count=40)
    mean = torch.tensor([-100.0, 100.0]).repeat(20)[:, None]
    z = mean + 0.1 * randn(40, 1)
    prior = Mixture(
        torch.tensor([0.5, 0.5]).double().log(),
        Gaussian(mean[:2].double(), torch.zeros(2, 1).double()),
    )
    q = Gaussian(mean, torch.zeros(40, 1))
    found = mixture(snapshot._replace(posterior=q, z=z, log_prior=log_prob(z, prior), prior=prior))
    assert found["responsibility_entropy"].item() == pytest.approx(0, abs=1e-12)
    assert found["component_information"].item() == pytest.approx(math.log(2))
    assert found["components_used"].item() == pytest.approx(2)


@pytest.mark.parametrize("prior", [None, FactorisedMixturePrior(3, 3, warmup=0)])
def test_a_prior_that_is_no_mixture_gets_a_note(prior):
    snapshot = vector_snapshot() if prior is None else with_prior(vector_snapshot(), prior)
    assert mixture(snapshot).keys() == {"note"}


# ---- the decomposition


def test_against_a_mixture_there_are_four_parts(vectors):
    found = decomposition(vectors, samples=2000)
    expected = decompose(
        vectors.posterior, samples=2000, generator=generator(), prior=vectors.prior
    )
    for name in (
        "rate",
        "marginal_kl",
        "prior_dependence",
        "total_correlation",
        "dimension_wise_kl",
    ):
        assert found[name].item() == pytest.approx(getattr(expected, name).item())
    assert found["prior_dependence"].abs() > 1e-3
    three = found["mutual_information"] + found["total_correlation"] + found["dimension_wise_kl"]
    assert (three - found["prior_dependence"]).item() == pytest.approx(found["rate"].item())
    assert found["rate"] <= vectors.bound.rate.mean() + 4 * found["rate_se"]
    assert found["rate"] >= found["mutual_information"] - 4 * (
        found["rate_se"] + found["mutual_information_se"]
    )


def expanded(factors):
    """The product as a mixture of all K^D combinations."""
    place = torch.cartesian_prod(*[torch.arange(len(f.log_weight)) for f in factors])
    pick = [
        (f.log_weight[at], f.components.mean[at, 0], f.components.log_var[at, 0])
        for f, at in zip(factors, place.T, strict=True)
    ]
    weight, mean, log_var = (torch.stack([each[kind] for each in pick], 1) for kind in range(3))
    return Mixture(weight.sum(1), Gaussian(mean, log_var))


def overlapping():
    """Posteriors so wide that all marginals are taken by quadrature."""
    return with_posterior(
        vector_snapshot(),
        2 * randn(101, 3).sign() + randn(101, 3, seed=1),
        0.3 * randn(101, 3, seed=2) - 0.5,
    )


@pytest.mark.parametrize("make", [overlapping, vector_snapshot])
def test_against_a_product_the_parts_are_those_against_its_expansion(make):
    snapshot = with_prior(make(), FactorisedMixturePrior(3, 3, warmup=0))
    found = decomposition(snapshot, samples=4000)
    expected = decompose(
        snapshot.posterior,
        samples=4000,
        generator=generator(),
        prior=expanded(each_of(snapshot.prior)),
    )
    assert not {"prior_dependence", "prior_dependence_se"} & found.keys()  # 0, and exactly so
    assert abs(expected.prior_dependence) < 5 * expected.prior_dependence_se
    for name in (
        "mutual_information",
        "total_correlation",
        "dimension_wise_kl",
        "rate",
        "marginal_kl",
    ):
        error = (found[f"{name}_se"].square() + getattr(expected, f"{name}_se").square()).sqrt()
        assert abs(found[name] - getattr(expected, name)) < 5 * error + 1e-8, name
    three = found["mutual_information"] + found["total_correlation"] + found["dimension_wise_kl"]
    assert three.item() == pytest.approx(found["rate"].item())
    assert (found["marginal_kl"] + found["mutual_information"]).item() == pytest.approx(
        found["rate"].item()
    )
    assert (found["rate_se"] == 0) == (make is overlapping)
    assert found["rate"] <= snapshot.bound.rate.mean() + 5 * found["rate_se"]


def test_against_a_product_of_standard_normals_the_parts_are_those_of_the_standard_normal():
    plain = overlapping()
    prior = FactorisedMixturePrior(3, 3).distribution()
    found = decomposition(plain._replace(prior=prior))
    expected = decomposition(plain)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-6, abs=1e-8), name


def test_what_it_shows_of_beliefs():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(80, 2, dtype=torch.float64, generator=draw)
    x[40:] += 6
    model = BayesianGMM(3, concentration=0.1, restarts=3).fit(x)
    none = torch.zeros(80, 0, dtype=torch.long)
    shown = snapshot_of(model, point_inference(model, x), none, (), x[:4])
    found = bayesian_mixture(shown)
    assert found["used"] == 2
    assert found["labelled"] - found["elbo"] == pytest.approx(math.log(6))
    criteria = Criteria()
    criteria(shown)
    assert criteria.bic == pytest.approx(GMM.of(model.mixture).bic(x))
    assert criteria.icl == pytest.approx(GMM.of(model.mixture).icl(x))
    for picture in ("weights", "ellipses", "predictive"):
        assert found[picture].dtype == torch.uint8
        assert found[picture].float().std() > 1
    with pytest.raises(InputError, match="expected model=bayesian_gmm"):
        bayesian_mixture(shown._replace(beliefs=None))


def test_what_it_shows_of_components_that_are_not_gaussian():
    x = torch.randint(2, (60, 6), generator=torch.Generator().manual_seed(0)).double()
    model = MixtureModel(3, "bernoulli", prior=PseudoCounts(values=1.0)).fit(x)
    none = torch.zeros(60, 0, dtype=torch.long)
    chart = components(snapshot_of(model, point_inference(model, x), none, (), x[:4]))
    assert "ellipses" not in chart
    assert chart["prototypes"].float().std() > 1
    images = x[:4].reshape(4, 1, 2, 3)
    pictured = components(snapshot_of(model, point_inference(model, x), none, (), images))
    assert pictured["prototypes"].shape != chart["prototypes"].shape


def test_every_picture_of_a_mixture_of_images():
    """A mixture's points are of float64 and the images that are shown of float32, as a run's are."""
    x = torch.randint(2, (60, 6), generator=generator()).double()
    model = MixtureModel(3, "bernoulli", prior=PseudoCounts(values=1.0)).fit(x)
    none = torch.zeros(60, 0, dtype=torch.long)
    images = x.reshape(60, 1, 2, 3).float()
    shown = snapshot_of(model, point_inference(model, x), none, (), images)
    assert aggregate_posterior(shown)["density"].float().std() > 1  # without contours
    for picture in (traversals, interpolation, reconstructions, samples):
        for name, found in picture(shown).items():
            assert found.float().std() > 1, name
    assert traversal_film(shown)["film"].frames.float().std() > 1
    blank = components(shown, columns=2)["prototypes"][:, -40:, -50:]
    assert (blank == 255).all()  # 3 components in 2 x 2 places
