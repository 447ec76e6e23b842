"""The closed forms of linear models on Gaussian data against numpy, scipy and each other; PCA by
scikit-learn.
"""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy import optimize, stats
from sklearn.decomposition import PCA
from snapshots import exact_posterior, linear_vae, randn, random_matrices, snapshot_of

from jensen.diagnostics import water_filling as water_filling_module
from jensen.diagnostics.linear import LinearModel, linear_model
from jensen.diagnostics.probabilistic_pca import best_evidence, probabilistic_pca
from jensen.diagnostics.water_filling import optimum, water_filling

VARIANCES = (4.0, 2.0, 1.0, 0.5, 0.25)
NOISE = 0.2
UNEVEN = (5.0, 3.0, 1.0, 0.5, 0.1)
"""Unlike VARIANCES no geometric series, of which the best evidence with the smallest kept is that
with the largest kept.
"""
REFERENCE = {  # beta: rate, squared error, active
    0.5: (5.7565, 0.50, 5),
    1.0: (4.0236, 1.00, 5),
    2.0: (2.5257, 1.85, 4),
    4.0: (1.3744, 3.15, 3),
    8.0: (0.5697, 4.95, 2),
}


def model_of(matrices, noise) -> LinearModel:
    return LinearModel(
        *(matrices[name].double() for name in LinearModel._fields[:-1]),
        torch.tensor(noise, dtype=torch.float64),
    )


def random_covariance(dim, seed=0):
    root = randn(dim, dim, seed=seed + 500).double()
    return root @ root.T / dim + 0.1 * torch.eye(dim).double()


# ---- the matrices of a model


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(
    ("dim", "latents", "noise"), [(5, 3, 0.2), (3, 3, 1.0), (2, 4, 2.5), (8, 1, 0.01), (1, 2, 0.7)]
)
def test_probing_recovers_the_matrices_and_the_noise(dim, latents, noise, learned):
    matrices = random_matrices(dim, latents, seed=dim)
    snapshot = snapshot_of(linear_vae(**matrices, noise=noise, learned=learned), randn(6, dim))
    found = linear_model(snapshot)
    for name, matrix in matrices.items():
        assert found._asdict()[name].numpy() == pytest.approx(matrix.numpy(), rel=1e-4, abs=1e-5), (
            name
        )
    assert found.noise.item() == pytest.approx(noise, rel=1e-3)
    assert all(part.dtype == torch.float64 for part in found)


# ---- what they imply


@pytest.mark.parametrize("seed", range(3))
def test_rate_squared_error_and_elbo_are_those_of_a_simulation(seed):
    """Many draws in numpy; log-densities by scipy."""
    dim = 4
    latents = 2
    noise = 0.3
    count = 300_000
    model = model_of(random_matrices(dim, latents, seed), noise)
    sigma = random_covariance(dim, seed)
    a, offset, variance, w, start = (part.numpy() for part in model[:5])
    rng = np.random.default_rng(seed)
    x = rng.multivariate_normal(np.zeros(dim), sigma.numpy(), count)
    mean = x @ a.T + offset
    z = mean + np.sqrt(variance) * rng.standard_normal((count, latents))
    left = x - z @ w.T - start
    rate = (stats.norm.logpdf(z, mean, np.sqrt(variance)) - stats.norm.logpdf(z)).sum(1)
    log_likelihood = stats.norm.logpdf(left, scale=math.sqrt(noise)).sum(1)
    truth = {"rate": rate, "squared_error": (left**2).sum(1), "elbo": log_likelihood - rate}
    for name, values in truth.items():
        slack = 5 * values.std() / math.sqrt(count)
        assert getattr(model, name)(sigma).item() == pytest.approx(values.mean(), abs=slack), name


@pytest.mark.parametrize("seed", range(3))
def test_the_evidence_is_that_of_a_multivariate_normal(seed):
    dim = 4
    noise = 0.3
    count = 400_000
    model = model_of(random_matrices(dim, 2, seed), noise)
    sigma = random_covariance(dim, seed)
    covariance = model.decoder @ model.decoder.T + noise * torch.eye(dim).double()
    p = torch.distributions.MultivariateNormal(model.start, covariance)
    data = torch.distributions.MultivariateNormal(torch.zeros(dim).double(), sigma)
    expected = -(data.entropy() + torch.distributions.kl_divergence(data, p)).item()
    assert model.evidence(sigma).item() == pytest.approx(expected, rel=1e-9)
    x = np.random.default_rng(seed).multivariate_normal(np.zeros(dim), sigma.numpy(), count)
    log_p = stats.multivariate_normal(model.start.numpy(), covariance.numpy()).logpdf(x)
    assert model.evidence(sigma).item() == pytest.approx(
        log_p.mean(), abs=5 * log_p.std() / math.sqrt(count)
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_elbo_is_below_the_evidence_and_meets_it_at_the_exact_posterior(seed):
    sigma = random_covariance(4, seed)
    loose = model_of(random_matrices(4, 2, seed), 0.4)
    assert loose.elbo(sigma) < loose.evidence(sigma)
    columns = torch.linalg.qr(randn(4, 2, seed=seed)).Q * torch.tensor([1.5, 0.7])
    tight = model_of(exact_posterior(columns, 0.3 * randn(4, seed=seed), 0.4), 0.4)
    assert tight.elbo(sigma).item() == pytest.approx(tight.evidence(sigma).item(), abs=1e-5)


# ---- water filling


def minimised(variance: float, beta: float) -> tuple[float, float, float]:
    """Rate, squared error and variance of the code of one dimension, by direct minimisation over
    gains and noise.
    """

    def terms(parameters):
        encode, decode, log_var = parameters
        code = encode**2 * variance
        rate = 0.5 * (code + math.exp(log_var) - 1 - log_var)
        return rate, variance * (1 - decode * encode) ** 2 + decode**2 * math.exp(log_var), code

    def loss(parameters):
        rate, error, _ = terms(parameters)
        return error / (2 * NOISE) + beta * rate

    starts = ([0.5, 0.5, -1.0], [1.0, 1.0, -3.0], [0.01, 0.01, 0.0])
    runs = [
        optimize.minimize(loss, start, method="BFGS", options={"gtol": 1e-9}) for start in starts
    ]
    return terms(min(runs, key=lambda run: run.fun).x)


@pytest.mark.parametrize("beta", [0.3, *REFERENCE, 30.0])
def test_the_optimum_is_that_of_direct_minimisation(beta):
    rates, errors, codes = zip(*(minimised(variance, beta) for variance in VARIANCES), strict=True)
    best = optimum(VARIANCES, beta, NOISE)
    assert best.rate == pytest.approx(sum(rates), abs=1e-4)
    assert best.squared_error == pytest.approx(sum(errors), abs=1e-4)
    assert best.active == sum(code > 1e-3 for code in codes)


@pytest.mark.parametrize("beta", REFERENCE)
def test_the_optimum_is_the_references(beta):
    best = optimum(VARIANCES, beta, NOISE)
    rate, error, active = REFERENCE[beta]
    assert best.rate == pytest.approx(rate, abs=5e-5)
    assert best.squared_error == pytest.approx(error, abs=1e-12)
    assert best.active == active


@pytest.mark.parametrize("latents", [1, 2])
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_the_optimum_of_fewer_latents_is_that_of_direct_minimisation(latents, beta):
    """Over all encoders, variances and decoders of three dimensions, from several starts."""
    variances = [4.0, 1.5, 0.6]
    sigma = torch.tensor(variances).double().diag()
    sizes = (latents * 3, latents, 3 * latents)

    def split(numbers):
        encoder, log_var, decoder = torch.split(torch.as_tensor(numbers), sizes)
        return {
            "encoder": encoder.reshape(latents, 3),
            "offset": torch.zeros(latents),
            "variance": log_var.exp(),
            "decoder": decoder.reshape(3, latents),
            "start": torch.zeros(3),
        }

    def terms(numbers):
        model = model_of(split(numbers), NOISE)
        return model.rate(sigma), model.squared_error(sigma)

    def loss(numbers):
        numbers = torch.from_numpy(numbers).requires_grad_()
        rate, error = terms(numbers)
        found = error / (2 * NOISE) + beta * rate
        (slope,) = torch.autograd.grad(found, numbers)
        return found.item(), slope.numpy()

    starts = np.random.default_rng(0).normal(size=(6, sum(sizes)))
    runs = [optimize.minimize(loss, start, jac=True, method="BFGS") for start in starts]
    rate, error = terms(min(runs, key=lambda run: run.fun).x)
    best = optimum(variances, beta, NOISE, latents)
    assert best.rate == pytest.approx(rate.item(), abs=1e-3)
    assert best.squared_error == pytest.approx(error.item(), abs=1e-3)
    assert best.active == latents


def test_no_random_linear_model_beats_the_optimum():
    sigma = torch.tensor(VARIANCES).double().diag()
    for beta in REFERENCE:
        best = optimum(VARIANCES, beta, NOISE)
        least = best.squared_error / (2 * NOISE) + beta * best.rate
        for seed in range(50):
            model = model_of(random_matrices(5, 5, seed), NOISE)
            assert model.squared_error(sigma) / (2 * NOISE) + beta * model.rate(sigma) > least


def at_the_optimum(beta):
    """A model with water filling's gains: per dimension the code N(x sqrt(s / lambda), 1 - s), s =
    1 - theta / lambda.
    """
    variances = torch.tensor(VARIANCES)
    theta = beta * NOISE
    share = (1 - theta / variances).clamp(min=0)
    gain = (share / variances).sqrt()
    zero = torch.zeros(5)
    return {
        "encoder": gain.diag(),
        "offset": zero,
        "variance": 1 - share,
        "decoder": (variances * share).sqrt().diag(),
        "start": zero,
    }


@pytest.mark.parametrize("beta", REFERENCE)
def test_a_model_at_the_optimum_has_no_excess(beta):
    snapshot = snapshot_of(linear_vae(**at_the_optimum(beta), noise=NOISE), randn(6, 5))
    found = water_filling(snapshot, VARIANCES, beta, NOISE)
    rate, error, active = REFERENCE[beta]
    assert found["rate"].item() == pytest.approx(rate, abs=1e-4)
    assert found["squared_error"].item() == pytest.approx(error, abs=1e-4)
    assert found["active"].item() == active
    assert (
        max(abs(found[f"{name}_excess"].item()) for name in ("rate", "squared_error", "active"))
        < 1e-4
    )


def test_another_model_has_what_its_matrices_say_and_the_table_says_it():
    matrices = random_matrices(5, 4)
    snapshot = snapshot_of(linear_vae(**matrices, noise=NOISE), randn(6, 5))
    found = water_filling(snapshot, VARIANCES, 2.0, NOISE)
    model = model_of(matrices, NOISE)
    sigma = torch.tensor(VARIANCES).double().diag()
    assert found["rate"].item() == pytest.approx(model.rate(sigma).item(), rel=1e-4)
    assert found["squared_error"].item() == pytest.approx(
        model.squared_error(sigma).item(), rel=1e-4
    )
    assert found["rate_excess"].item() == pytest.approx(model.rate(sigma).item() - 2.5257, abs=1e-3)
    assert found["active_excess"] == found["active"] - 4
    assert all(found[name].dim() == 0 for name in found if name not in ("curve", "table"))
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in found["table"].strip().splitlines()
    ]
    assert [len(line) for line in lines] == [3] * 5
    assert {line[0]: float(line[1]) for line in lines[2:]} == {
        "rate": 2.5257,
        "squared_error": 1.85,
        "active": 4,
    }
    for name, _, trained in lines[2:]:
        assert float(trained) == pytest.approx(found[name].item(), abs=1e-4)


def test_the_curve_is_shannons_and_the_trained_point_stands_on_it(monkeypatch):
    snapshot = snapshot_of(linear_vae(**at_the_optimum(2.0), noise=NOISE), randn(6, 5))
    assert water_filling(snapshot, VARIANCES, 2.0, NOISE)["curve"].shape == (3, 400, 700)
    axes = Figure().add_subplot()
    monkeypatch.setattr(water_filling_module, "chart", lambda draw: draw(axes))
    water_filling(snapshot, VARIANCES, 2.0, NOISE)
    shannon, trained = (line.get_xydata() for line in axes.lines)
    order = np.argsort(shannon[:, 0])
    assert np.interp(trained[0, 0], shannon[order, 0], shannon[order, 1]) == pytest.approx(
        trained[0, 1], abs=0.01
    )
    assert (np.diff(shannon[order, 1]) <= 0).all()


# ---- probabilistic PCA


@pytest.mark.parametrize("variances", [VARIANCES, UNEVEN])
@pytest.mark.parametrize("latents", [1, 2, 3, 4])
def test_the_best_evidence_is_scikit_learns(latents, variances):
    """PCA.score on points whose covariance (with n - 1) is exact; its own moment, with n, is
    smaller: P / (2 n) better.
    """
    count = 3000
    x = np.random.default_rng(0).standard_normal((count, 5))
    x -= x.mean(0)
    x = np.linalg.solve(np.linalg.cholesky(np.cov(x.T)), x.T).T * np.sqrt(variances)
    x = x @ np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))[0]
    score = PCA(latents, svd_solver="full").fit(x).score(x)
    assert best_evidence(variances, latents) == pytest.approx(score - 5 / (2 * count), abs=1e-9)


@pytest.mark.parametrize("variances", [VARIANCES, UNEVEN])
@pytest.mark.parametrize("latents", [1, 3])
def test_the_best_evidence_is_scipys_mean_log_density_and_no_noise_is_better(latents, variances):
    x = randn(4000, 5).double()
    x = x - x.mean(0)
    x = (
        torch.linalg.solve_triangular(torch.linalg.cholesky(x.T @ x / len(x)), x.T, upper=False).T
        * torch.tensor(variances).sqrt()
    )

    def evidence(noise):
        kept = [value if rank < latents else noise for rank, value in enumerate(variances)]
        return stats.multivariate_normal(np.zeros(5), np.diag(kept)).logpdf(x.numpy()).mean()

    best = optimize.minimize_scalar(
        lambda noise: -evidence(noise), bounds=(1e-3, 4), method="bounded", options={"xatol": 1e-9}
    )
    assert best_evidence(variances, latents) == pytest.approx(-best.fun, abs=1e-6)
    shuffled = [variances[place] for place in (3, 0, 4, 1, 2)]
    assert best_evidence(shuffled, latents) == best_evidence(variances, latents)


def test_a_model_at_the_maximum_likelihood_solution_falls_short_of_nothing():
    noise = (0.5 + 0.25) / 2
    decoder = torch.zeros(5, 3)
    decoder[[0, 1, 2], [0, 1, 2]] = (torch.tensor(VARIANCES[:3]) - noise).sqrt()
    matrices = exact_posterior(decoder, torch.zeros(5), noise)
    found = probabilistic_pca(
        snapshot_of(linear_vae(**matrices, noise=noise, learned=True), randn(6, 5)), VARIANCES
    )
    assert found["noise"].item() == pytest.approx(noise, rel=1e-4)
    assert found["gap"].item() == pytest.approx(0, abs=1e-5)
    assert found["shortfall"].item() == pytest.approx(0, abs=1e-5)
    assert found["elbo"].item() == pytest.approx(best_evidence(VARIANCES, 3), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_any_other_model_falls_short_and_its_gap_is_the_divergence_from_the_true_posterior(seed):
    matrices = random_matrices(5, 3, seed)
    noise = 0.5
    found = probabilistic_pca(
        snapshot_of(linear_vae(**matrices, noise=noise), randn(6, 5)), VARIANCES
    )
    assert found["shortfall"] > 0
    assert found["gap"] > 0
    model = model_of(matrices, noise)
    precision = model.decoder.T @ model.decoder / noise + torch.eye(3).double()
    true_gain = torch.linalg.solve(precision, model.decoder.T) / noise
    x = torch.from_numpy(
        np.random.default_rng(seed).standard_normal((200_000, 5)) * np.sqrt(VARIANCES)
    )
    p = torch.distributions.MultivariateNormal(
        (x - model.start) @ true_gain.T, precision_matrix=precision
    )
    q = torch.distributions.MultivariateNormal(
        x @ model.encoder.T + model.offset, model.variance.diag()
    )
    divergence = torch.distributions.kl_divergence(q, p)
    slack = 5 * divergence.std().item() / math.sqrt(len(x))
    assert found["gap"].item() == pytest.approx(divergence.mean().item(), abs=slack)
    assert found["evidence"].item() - found["elbo"].item() == pytest.approx(
        found["gap"].item(), abs=1e-9
    )
