"""Each score against an oracle that shares no code with it: loops, closed forms, quadrature,
scikit-learn, simulation.
"""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from informations import gaussian_information
from scipy import stats
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.metrics import mutual_info_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from jensen import scores
from jensen.base.errors import InputError
from jensen.scores.mig_exact import log_mixture

SIZES = (3, 4, 6)
FACTORS = np.random.default_rng(0).integers(0, SIZES, (900, 3))


def mixed(noise=0.4):
    """Five latents: factor 0, factor 1, factors 1 and 2 together, noise, little noise."""
    rng = np.random.default_rng(1)
    f = FACTORS.astype(float)
    columns = [f[:, 0], f[:, 1], f[:, 1] - f[:, 2], np.zeros(900), np.zeros(900)]
    return np.stack(columns, 1) + noise * rng.standard_normal((900, 5)) * (1, 1, 1, 1, 0.02)


CODES = mixed()


def binned(z, bins=20):
    return np.digitize(z, np.histogram(z, bins)[1][:-1])


def information(bins=20):
    return np.array([[mutual_info_score(binned(z, bins), v) for v in FACTORS.T] for z in CODES.T])


ENTROPY = np.array([stats.entropy(np.bincount(v)) for v in FACTORS.T])


@pytest.mark.parametrize("bins", [20, 100])
def test_mig_on_histograms_by_loops(bins):
    found = scores.mig_hist(CODES, FACTORS, bins=bins)
    gaps = [
        (sorted(column)[-1] - sorted(column)[-2]) / h
        for column, h in zip(information(bins).T, ENTROPY, strict=True)
    ]
    assert found[f"mig_hist{bins}"] == pytest.approx(np.mean(gaps))
    assert found["per_factor"] == pytest.approx(gaps)
    assert found["best_latent"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(found["mutual_information"], information(bins), atol=1e-12)
    if bins == 20:
        assert scores.mig_hist20(CODES, FACTORS)["mig_hist20"] == found["mig_hist20"]


def test_points_are_a_subset_and_said():
    found = scores.mig_hist20(CODES, FACTORS, points=300, seed=4)
    assert found["points"] == 300
    assert scores.mig_hist20(CODES, FACTORS)["points"] == 900
    others = {
        scores.mig_hist20(CODES, FACTORS, points=300, seed=seed)["mig_hist20"] for seed in range(5)
    }
    assert len(others) == 5


def test_mig_sup_dcimig_modularity_and_jemmig_by_loops():
    share = information() / ENTROPY
    gaps = [sorted(row)[-1] - sorted(row)[-2] for row in share]
    found = scores.mig_sup(CODES, FACTORS, active="variance")
    assert found["active"].tolist() == [True, True, True, True, False]
    assert found["mig_sup"] == pytest.approx(np.mean(gaps[:4]))
    assert scores.mig_sup(CODES, FACTORS, active=[True] * 5)["mig_sup"] == pytest.approx(
        np.mean(gaps)
    )

    best = [0.0] * 3
    for row in information():
        best[np.argmax(row)] = max(best[np.argmax(row)], sorted(row)[-1] - sorted(row)[-2])
    assert scores.dcimig(CODES, FACTORS)["dcimig"] == pytest.approx(sum(best) / sum(ENTROPY))

    modular = []
    for row in information():
        others = [m for k, m in enumerate(row) if k != np.argmax(row)]
        modular.append(1 - sum(m**2 for m in others) / (max(row) ** 2 * 2))
    assert scores.modularity(CODES, FACTORS)["per_latent"] == pytest.approx(modular)
    assert scores.modularity(CODES, FACTORS)["modularity"] == pytest.approx(np.mean(modular))

    parts = []
    for k, column in enumerate(information().T):
        pairs = binned(CODES[:, np.argmax(column)]) * 100 + FACTORS[:, k]
        nats = (
            stats.entropy(np.unique(pairs, return_counts=True)[1])
            - max(column)
            + sorted(column)[-2]
        )
        parts.append(1 - nats / (ENTROPY[k] + math.log(20)))
    assert scores.jemmig(CODES, FACTORS)["per_factor"] == pytest.approx(parts)
    assert scores.jemmig(CODES, FACTORS)["jemmig"] == pytest.approx(np.mean(parts))


def test_log_mixture_is_the_logsumexp_of_scipy(monkeypatch):
    rng = np.random.default_rng(2)
    x = rng.normal(0, 2, 30)
    mean = rng.normal(0, 2, 50)
    spread = rng.uniform(0.1, 3, 50)
    expected = np.log(stats.norm.pdf(x[:, None], mean, spread).mean(1)) + 0.5 * math.log(
        2 * math.pi
    )
    for block in (1, 120, 10**6):
        monkeypatch.setattr(
            sys.modules[log_mixture.__module__], "BLOCK", block
        )  # the package's attribute is the function
        np.testing.assert_allclose(log_mixture(x, mean, spread), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("distance", "deviation"), [(1.0, 0.1), (1.0, 0.5), (1.0, 1.0), (1.0, 2.0)]
)
def test_mig_exact_is_the_integral(distance, deviation):
    """Two values at +-distance: I(z; v) by quadrature, log 2 - E softplus (the metrics reference,
    G4).
    """
    v = np.arange(400)[:, None] % 2
    codes = np.concatenate([(2 * v - 1) * distance, np.zeros((400, 1))], 1)
    found = scores.mig_exact(codes, v, np.full((400, 2), 2 * math.log(deviation)), samples=20_000)
    expected = gaussian_information(distance, deviation)
    known = {0.1: 0.693147, 0.5: 0.632720, 1.0: 0.336831, 2.0: 0.111421}
    assert expected == pytest.approx(known[deviation], abs=1e-5)
    error = found["mutual_information_standard_error"][0, 0]
    assert error < 0.006
    assert found["mutual_information"][0, 0] == pytest.approx(expected, abs=4 * error + 1e-9)
    assert found["mutual_information"][1, 0] == pytest.approx(0, abs=1e-9)
    assert found["mig_exact"] == pytest.approx(
        expected / math.log(2), abs=4 * found["standard_error"] + 1e-9
    )


def test_mig_exact_is_the_integral_of_an_unbalanced_factor():
    """Gaussian means in each of three unequal groups: z given v is Gaussian too, and so the
    marginal a mixture.
    """
    rng = np.random.default_rng(3)
    v = np.repeat([0, 1, 2], (6000, 2500, 1500))
    z = np.array([-1.0, 0.5, 2.0])[v] + 0.4 * rng.standard_normal(10_000)
    found = scores.mig_exact(
        z[:, None], v[:, None], np.full((10_000, 1), math.log(0.09)), samples=4000
    )
    grid = np.linspace(-6, 7, 20_001)
    weight = np.array([0.6, 0.25, 0.15])
    parts = stats.norm.pdf(grid[:, None], (-1.0, 0.5, 2.0), 0.5)  # .4^2 + .09 = .5^2
    expected = np.trapezoid(
        (weight * parts * np.log(parts / (parts @ weight)[:, None])).sum(1), grid
    )
    error = found["mutual_information_standard_error"][0, 0]
    assert found["mutual_information"][0, 0] == pytest.approx(expected, abs=4 * error)
    assert found["mig_exact"] == pytest.approx(
        expected / stats.entropy(weight), abs=4 * found["standard_error"]
    )


def test_the_standard_error_of_mig_exact_is_the_spread_over_seeds():
    log_var = np.full(CODES.shape, math.log(0.04))
    runs = [scores.mig_exact(CODES, FACTORS, log_var, samples=400, seed=seed) for seed in range(30)]
    spread = np.std([run["mig_exact"] for run in runs], ddof=1)
    said = np.mean([run["standard_error"] for run in runs])
    assert 0.5 * said < spread < 1.5 * said
    assert runs[0]["samples"] == 400


@pytest.mark.slow
def test_mig_exact_never_holds_samples_by_points_by_latents():
    points = 20_000
    code = (
        "import resource, numpy as np\n"
        "from jensen import scores\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"rng = np.random.default_rng(0); z = rng.standard_normal(({points}, 2)); v ="
        f" rng.integers(0, 4, ({points}, 1))\n"
        "scores.mig_exact(z[:100], v[:100], 0 * z[:100], samples=10)\n"
        "before = peak(); scores.mig_exact(z, v, 0 * z, samples=1000); print(peak() - before)\n"
    )
    grown = int(
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout
    )  # KiB
    assert grown < 80_000 < points * 1000 * 8 / 1024


def test_a_near_perfect_code_has_a_high_mig_exact():
    """disentangling-vae mixes samples and latents up (`view` for a transpose) and finds .13 here,
    with I near -80 nats.
    """
    rng = np.random.default_rng(4)
    factors = rng.integers(0, (4, 8, 5), (2000, 3))
    codes = np.concatenate([(factors - factors.mean(0)) / factors.std(0), np.zeros((2000, 2))], 1)
    log_var = np.concatenate([np.full((2000, 3), 2 * math.log(0.08)), np.zeros((2000, 2))], 1)
    found = scores.mig_exact(codes, factors, log_var, samples=2000)
    assert found["mig_exact"] > 0.94
    assert found["best_latent"].tolist() == [0, 1, 2]
    assert np.diag(found["mutual_information"]) == pytest.approx(found["entropy"], abs=0.1)
    assert found["mutual_information"].min() > -0.05


def test_mig_exact_asks_for_a_posterior_that_fits():
    log_var = np.zeros(CODES.shape)
    for wrong, message in (
        (log_var[:, :2], r"log_var is of shape \(900, 2\): expected \(900, 5\)"),
        (log_var + np.nan, "log_var hold nan"),
        (log_var + 1000, "log_var lies in 1000..1000: expected logarithms"),
    ):
        with pytest.raises(InputError, match=message):
            scores.mig_exact(CODES, FACTORS, wrong)


def test_dci_is_scikit_learn_and_two_entropies():
    factors = FACTORS[:, :2]
    found = scores.dci(CODES, factors, train=300, test=200, seed=3)
    rows = np.random.default_rng(3).permutation(900)
    train = rows[:300]
    test = rows[300:500]
    columns = []
    accuracy = []
    for v in factors.T:
        model = GradientBoostingClassifier(random_state=0).fit(CODES[train], v[train])
        columns.append(model.feature_importances_)
        accuracy.append(np.mean(model.predict(CODES[test]) == v[test]))
    importances = np.stack(columns, 1)
    np.testing.assert_allclose(found["importances"], importances, atol=0.02)  # ties, and float32
    assert found["accuracy"] == pytest.approx(accuracy, abs=0.02)
    per_latent = 1 - stats.entropy(found["importances"], base=2, axis=1)
    share = found["importances"].sum(1) / 2
    assert found["disentanglement"] == found["dci"] == pytest.approx(share @ per_latent)
    assert found["completeness"] == pytest.approx(
        np.mean(1 - stats.entropy(found["importances"], base=5, axis=0))
    )
    assert found["informativeness"] == pytest.approx(np.mean(found["accuracy"]))
    assert found["importances"].sum(0) == pytest.approx([1, 1])


@pytest.mark.slow
def test_dci_is_the_same_in_any_number_of_processes():
    alone, together = (
        scores.dci_boost20(CODES, FACTORS, train=300, test=100, jobs=jobs) for jobs in (1, 2)
    )
    for key in alone:
        assert np.asarray(alone[key]).tobytes() == np.asarray(together[key]).tobytes(), key


@pytest.mark.slow
def test_dci_by_a_fifth_of_the_trees_agrees():
    slow, fast = (
        score(CODES, FACTORS, train=400, test=200) for score in (scores.dci, scores.dci_boost20)
    )
    for key in ("disentanglement", "completeness", "informativeness"):
        assert fast[key] == pytest.approx(slow[key], abs=0.06)


def test_a_value_that_no_training_point_holds_is_no_error():
    factors = FACTORS.copy()
    factors[:, 0] = 0
    factors[:3, 0] = (1, 2, 3)  # most of them are in no training set of ten
    for score in (scores.dci_boost20, scores.sap_svc, scores.explicitness, scores.infomec):
        for seed in range(3):
            first = next(iter(score(CODES, factors, train=10, test=300, seed=seed).values()))
            assert 0 <= first <= 1


def test_sap_r2_is_the_squared_correlation():
    found = scores.sap_r2(CODES, FACTORS)
    squared = np.array([[stats.linregress(z, v).rvalue ** 2 for v in FACTORS.T] for z in CODES.T])
    np.testing.assert_allclose(found["predictability"], squared, atol=1e-12)
    assert found["sap_r2"] == pytest.approx(
        np.mean([sorted(c)[-1] - sorted(c)[-2] for c in squared.T])
    )


def test_sap_svc_by_loops():
    found = scores.sap_svc(CODES, FACTORS, train=400, test=300, seed=1)
    rows = np.random.default_rng(1).permutation(900)
    accuracy = np.zeros((5, 3))
    for j in range(5):
        for k in range(3):
            model = LinearSVC(C=0.01, class_weight="balanced").fit(
                CODES[rows[:400], j : j + 1], FACTORS[rows[:400], k]
            )
            accuracy[j, k] = model.score(CODES[rows[400:700], j : j + 1], FACTORS[rows[400:700], k])
    np.testing.assert_allclose(found["predictability"], accuracy, atol=0.01)


def grid():
    """Every combination of SIZES, often enough that a draw of points is a draw from the grid."""
    return np.stack(
        [axis.ravel() for axis in np.meshgrid(*map(np.arange, SIZES), indexing="ij")], 1
    ).repeat(4, 0)


def encoder(factors, rng):
    columns = np.stack(
        [factors[:, 0], factors[:, 1] + 0.7 * factors[:, 2], factors[:, 2] - factors[:, 1]], 1
    )
    return columns + 0.5 * rng.standard_normal(columns.shape)


def test_factor_vae_is_its_simulation_on_the_whole_grid():
    """The paper's procedure: factors drawn independently, encoded anew for every vote."""
    rng = np.random.default_rng(5)
    scale = encoder(rng.integers(0, SIZES, (20_000, 3)), rng).std(0)
    votes = np.zeros((2, 3, 3))
    for turn in range(2):
        for _ in range(1500):
            k = rng.integers(3)
            factors = rng.integers(0, SIZES, (64, 3))
            factors[:, k] = rng.integers(SIZES[k])
            votes[turn, (encoder(factors, rng).std(0) / scale).argmin(), k] += 1
    expected = sum(votes[1, j, votes[0, j].argmax()] for j in range(3)) / 1500
    whole = grid().repeat(10, 0)
    found = scores.factor_vae(encoder(whole, rng), whole, train=5000, test=5000)
    assert found["factor_vae"] == pytest.approx(expected, abs=0.04)
    np.testing.assert_allclose(found["votes"] / 5000, votes.mean(0) / 1500, atol=0.04)
    assert found["chance"] == pytest.approx(1 / 3)


def test_a_constant_latent_does_not_win_the_votes():
    """Elsewhere its 0 / 0 is NaN, `argmin` returns it, and every vote goes to the constant."""
    for constant in (0.0, 0.1, 1e6 + 0.1):
        codes = np.concatenate([np.full((900, 1), constant), CODES[:, :3]], 1)
        found = scores.factor_vae(codes, FACTORS, threshold=0.0, train=500, test=500)
        assert found["votes"][0].sum() == 0
        assert found["active"].tolist() == [False, True, True, True]
        expected = scores.factor_vae(CODES[:, :3], FACTORS, threshold=0.0, train=500, test=500)
        assert found["factor_vae"] == expected["factor_vae"] > 0.8


def test_pruning_is_at_the_threshold():
    codes = np.stack(
        [
            CODES[:, 0],
            0.049 * CODES[:, 1] / CODES[:, 1].std(),
            0.051 * CODES[:, 2] / CODES[:, 2].std(),
        ],
        1,
    )
    assert scores.factor_vae(codes, FACTORS, train=10, test=10)["active"].tolist() == [
        True,
        False,
        True,
    ]
    assert scores.factor_vae(codes, FACTORS, train=10, test=10, threshold=0.0)["active"].all()
    none = scores.factor_vae(0.01 * codes, FACTORS, train=10, test=10)
    assert none["factor_vae"] == 0
    assert not none["active"].any()


def test_interventional_scores_take_subsets_and_held_out_combinations():
    held_out = ~((FACTORS[:, 0] == 2) & (FACTORS[:, 1] >= 2)) & (FACTORS[:, 2] < 4)
    codes = FACTORS[held_out] + 0.1 * np.random.default_rng(6).standard_normal((held_out.sum(), 3))
    for score in (scores.factor_vae, scores.beta_vae):
        assert next(iter(score(codes, FACTORS[held_out], train=1000, test=500).values())) > 0.97
    assert scores.irs(codes, FACTORS[held_out])["irs"] > 0.8


def test_beta_vae_is_its_simulation_on_the_whole_grid():
    rng = np.random.default_rng(7)

    def features(count):
        label = rng.integers(3, size=count)
        found = []
        for k in label:
            one, other = rng.integers(0, SIZES, (2, 8, 3))
            other[:, k] = one[:, k]
            found.append(np.abs(encoder(one, rng) - encoder(other, rng)).mean(0))
        return np.array(found), label

    model = LogisticRegression().fit(*features(2000))
    whole = grid().repeat(10, 0)
    found = scores.beta_vae(encoder(whole, rng), whole, train=2000, test=4000, batch=8)
    assert found["beta_vae"] == pytest.approx(model.score(*features(2000)), abs=0.04)
    assert 0.4 < found["beta_vae"] < 0.95  # that there is something to compare


def test_beta_vae_of_one_factor_is_1():
    assert scores.beta_vae(CODES, FACTORS[:, :1], train=10, test=10)["beta_vae"] == 1


@pytest.mark.parametrize("quantile", [0.99, 1.0])
def test_irs_by_loops(quantile):
    robustness = np.zeros((5, 3))
    deviation = np.abs(CODES - CODES.mean(0)).max(0)
    for k in range(3):
        held = [CODES[FACTORS[:, k] == c] for c in range(SIZES[k])]
        spread = [np.percentile(np.abs(z - z.mean(0)), 100 * quantile, axis=0) for z in held]
        robustness[:, k] = 1 - np.mean(spread, 0) / deviation
    found = scores.irs(CODES, FACTORS, quantile=quantile, bins=None)
    np.testing.assert_allclose(found["robustness"], robustness, atol=1e-12)
    assert found["irs"] == pytest.approx(np.average(robustness.max(1), weights=deviation))
    assert scores.irs(CODES, FACTORS, quantile=quantile)["irs"] == pytest.approx(
        found["irs"]
    )  # few values: a bin each


def test_irs_bins_the_labels_of_large_factors():
    factors = np.random.default_rng(8).integers(0, 40, (4000, 1))
    assert scores.irs(factors.astype(float), factors, bins=None)["irs"] == 1
    # 20 bins of two labels each: half a step from their mean, of 19.5 steps
    assert scores.irs(factors.astype(float), factors)["irs"] == pytest.approx(
        1 - 0.5 / 19.5, abs=0.003
    )


def test_explicitness_by_scikit_learn():
    found = scores.explicitness(CODES, FACTORS, train=500, test=400, seed=2)
    rows = np.random.default_rng(2).permutation(900)
    scaler = StandardScaler().fit(CODES[rows[:500]])
    areas = []
    for v in FACTORS.T:
        model = LogisticRegression().fit(scaler.transform(CODES[rows[:500]]), v[rows[:500]])
        guess = model.predict_proba(scaler.transform(CODES[rows[500:]]))
        areas.append(roc_auc_score(v[rows[500:]], guess, multi_class="ovr", average="macro"))
    assert found["per_factor"] == pytest.approx(areas, abs=1e-4)
    assert found["explicitness"] == pytest.approx(np.mean(areas), abs=1e-4)
    assert found["train_explicitness"] > 0.7


@pytest.mark.parametrize("deviation", [0.5, 1.0, 2.0])
def test_infoe_is_the_information_where_the_posterior_is_logistic(deviation):
    """Two equal Gaussians: p(v|z) is a logistic function of z, so H_V(v|z) is H(v|z)."""
    rng = np.random.default_rng(9)
    v = rng.integers(0, 2, (12_000, 1))
    z = (2 * v - 1) + deviation * rng.standard_normal((12_000, 1))
    found = scores.infomec(z, v, points=100, train=4000, test=8000)
    assert found["infoe"] == pytest.approx(
        gaussian_information(1.0, deviation) / math.log(2), abs=0.02
    )
    assert (
        found["infom"] == found["infoc"] == 0
    )  # a single factor, a single latent: nothing to be told apart


def test_infomec_reads_its_matrix():
    found = scores.infomec(
        CODES, FACTORS, active=[True, True, True, False, False], floor=0.0, train=300, test=300
    )
    share = found["normalised_information"][:3]
    modular = (share.max(1) / share.sum(1) - 1 / 3) / (1 - 1 / 3)
    compact = (share.max(0) / share.sum(0) - 1 / 3) / (1 - 1 / 3)
    assert found["infom"] == pytest.approx(modular.mean())
    assert found["infoc"] == pytest.approx(compact.mean())
    assert found["modularity"][3:].tolist() == [0, 0]
    assert (found["points"], found["train"], found["test"]) == (900, 300, 300)


def test_infomec_prunes_by_kl_where_there_is_a_posterior():
    log_var = np.zeros(CODES.shape) + 2 * np.log((0.1, 0.1, 0.1, 1.0, 1.0))
    codes = CODES * (1, 1, 1, 0, 1)
    found = scores.infomec(codes, FACTORS, log_var, train=300, test=300)
    assert found["active"].tolist() == [True, True, True, False, False]
    wide = scores.infomec(codes, FACTORS, log_var, active="range", train=300, test=300)
    assert wide["infoe"] == found["infoe"]
    with pytest.raises(InputError, match='active is "kl" but there is no log_var'):
        scores.infomec(codes, FACTORS, active="kl")


def test_noise_is_neither_modular_nor_compact():
    """Ratios of chance estimates score .4 to .7 by the published rule."""
    noise = np.random.default_rng(10).standard_normal((900, 5))
    found = scores.infomec(noise, FACTORS, train=300, test=300)
    assert (found["infom_floored"], found["infoc_floored"]) == (0, 0)
    assert found["infom"] > 0.3


def test_infom_and_infoc_are_of_the_published_rule_whatever_the_floor():
    """Ratios of neighbour estimates as they are; the floor acts on the variants that are named
    after it.
    """
    found, bare = (
        scores.infomec(CODES, FACTORS, floor=floor, train=50, test=50) for floor in (3.0, 0.0)
    )
    share = found["normalised_information"] * found["active"][:, None]
    modular = share.max(1) / share.sum(1).clip(1e-300)
    compact = share.max(0) / share.sum(0)
    active = found["active"].sum()
    for name, largest, count in (
        ("infom", modular[found["active"]], 3),
        ("infoc", compact, active),
    ):
        expected = np.mean(
            ((largest - 1 / count) / (1 - 1 / count)).clip(0)
        )  # a latent that tells nothing counts 0
        assert found[name] == bare[name] == bare[f"{name}_floored"] == pytest.approx(expected)
        assert found[f"{name}_floored"] > found[name]


def test_active_units_are_counted_by_variance_and_by_kl():
    codes = np.random.default_rng(11).standard_normal((5000, 3)) * (1.0, 0.2, 0.05)
    found = scores.active_units(codes)
    assert found["active_units"] == 2
    assert found["variance"] == pytest.approx(codes.var(0))
    assert found["active"].tolist() == [True, True, False]
    assert scores.active_units(torch.from_numpy(codes), threshold=0.001)["active_units"] == 3
    both = scores.active_units(
        codes, None, np.log(1 - np.array([1.0, 0.2, 0.05]) ** 2 + 1e-3) * np.ones((5000, 1))
    )
    assert both["active_by_kl"] == 2
    with pytest.raises(InputError, match="codes are of shape"):
        scores.active_units(codes[0])


def by_hand(similarity):
    rows = sum(max(row) ** 2 / sum(row) for row in similarity)
    columns = sum(max(column) ** 2 / sum(column) for column in similarity.T)
    return (rows + columns) / sum(similarity.shape)


RUNS = [
    CODES[:, :4],
    CODES @ np.random.default_rng(12).standard_normal((5, 3)),
    CODES[:, [2, 0, 1]] ** 3,
]
RATES = [np.array([1.0, 2.0, 0.5, 0.009]), np.ones(3), np.ones(3)]


def test_udr_by_spearman_by_loops():
    found = scores.udr(RUNS, RATES)
    informative = [run[:, rate > 0.01] for run, rate in zip(RUNS, RATES, strict=True)]
    for i, one in enumerate(informative):
        for j, other in enumerate(informative):
            matrix = np.array(
                [[abs(stats.spearmanr(a, b).statistic) for b in other.T] for a in one.T]
            )
            assert found["pairs"][i, j] == pytest.approx(0 if i == j else by_hand(matrix))
    pairs = found["pairs"]
    assert found["per_run"] == pytest.approx(
        [(pairs[0, 1] + pairs[0, 2]) / 2, (pairs[1, 0] + pairs[1, 2]) / 2, pairs[2, :2].mean()]
    )
    assert found["udr"] == np.median(found["per_run"])
    assert found["per_run"].argmin() == 1  # the rotated one


def test_udr_by_lasso_by_loops():
    found = scores.udr(RUNS, RATES, similarity="lasso")
    one, other = (
        stats.zscore(run[:, rate > 0.01]) for run, rate in zip(RUNS[:2], RATES[:2], strict=True)
    )
    matrix = np.stack([np.abs(Lasso(alpha=0.1).fit(one, b).coef_) for b in other.T], 1)
    assert found["pairs"][0, 1] == pytest.approx(by_hand(matrix), abs=1e-6)


def test_udr_of_the_same_latents_in_another_order_is_high_and_of_noise_low():
    rng = np.random.default_rng(13)
    z = rng.standard_normal((3000, 4))
    same = scores.udr([z, -2 * z[:, ::-1] + 1, z[:, [1, 0, 3, 2]] ** 3], [np.ones(4)] * 3)
    assert same["udr"] > 0.9
    assert (
        scores.udr([rng.standard_normal((3000, 4)) for _ in range(3)], [np.ones(4)] * 3)["udr"]
        < 0.05
    )
    empty = scores.udr([z, z, z], [np.ones(4), np.zeros(4), np.ones(4)])
    assert empty["per_run"][1] == 0
    assert np.isfinite(empty["pairs"]).all()


def test_udr_takes_constants_and_runs_without_latents():
    z = np.random.default_rng(14).standard_normal((50, 2))
    for similarity in ("spearman", "lasso"):
        found = scores.udr([z, 0 * z, z], [np.ones(2)] * 3, similarity=similarity)
        assert np.isfinite(found["pairs"]).all()
        assert 0 <= found["udr"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((RUNS[:1], RATES[:1]), "udr was given 1 runs: expected at least 2"),
        ((RUNS, RATES[:2]), "the codes of 3 runs and the mean KLs of 2"),
        (([RUNS[0], RUNS[1][:5]], RATES[:2]), r"codes\[1\] have 5 rows and codes\[0\] 900"),
        ((RUNS[:2], [RATES[0], np.ones(4)]), r"mean_kls\[1\] is .* expected 3 finite numbers"),
        (([run[:2] for run in RUNS], RATES), "codes hold 2 points: expected at least 3"),
        (([RUNS[0], RUNS[1] * np.nan], RATES[:2]), r"codes\[1\] hold nan"),
    ],
)
def test_udr_refuses_what_does_not_fit(arguments, message):
    with pytest.raises(InputError, match=message):
        scores.udr(*arguments)


@pytest.mark.parametrize(
    ("score", "option"),
    [
        (scores.mig_hist20, {"points": 1}),
        (scores.mig_hist, {"bins": 1}),
        (scores.mig_knn, {"neighbours": 0}),
        (scores.infomec, {"floor": -1.0}),
        (scores.infomec, {"active": "mean"}),
        (scores.factor_vae, {"threshold": -0.1}),
        (scores.factor_vae, {"batch": 1}),
        (scores.beta_vae, {"train": 0}),
        (scores.irs, {"quantile": 1.1}),
        (scores.irs, {"bins": 0}),
        (scores.dci, {"jobs": 0}),
        (scores.dci, {"seed": -1}),
    ],
)
def test_options_are_checked(score, option):
    with pytest.raises(InputError, match=f"{next(iter(option))} is .*: expected"):
        score(CODES, FACTORS, **option)


@pytest.mark.slow
def test_every_score_is_a_function_whatever_was_imported_first():
    code = (
        "import jensen.scores.dci, jensen.scores, sys\n"
        "assert all(callable(getattr(jensen.scores, name)) for name in jensen.scores.__all__)\n"
        "assert 'sklearn' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
