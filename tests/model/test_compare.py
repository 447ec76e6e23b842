"""`jensen.compare`: models of the same points side by side, and none of others."""

import math

import numpy as np
import pytest
import torch

import jensen
from jensen.base.errors import InputError
from jensen.bound import divergence


def two_clusters(dim, seed):
    rng = np.random.default_rng(seed)
    return torch.tensor(
        np.concatenate([rng.normal(size=(60, dim)), 6 + rng.normal(size=(60, dim))])
    )


@pytest.mark.parametrize("dim", [1, 2, 6])
def test_the_evidence_chooses_two_clusters(dim):
    """Of which scikit-learn's lower bound, without its constants, chooses more."""
    x = two_clusters(dim, seed=dim)
    models = [jensen.BayesianGMM(k, concentration=1 / k, restarts=3).fit(x) for k in range(1, 6)]
    found = jensen.compare(x, models)
    assert found.best == 1
    assert sum(row.probability for row in found.rows) == pytest.approx(1)
    row = found.rows[2]
    assert row.labelled == pytest.approx(models[2].elbo.item() + math.log(6))


def test_criteria_of_maximum_likelihood_stand_beside_the_elbo():
    x = two_clusters(2, seed=0)
    table = jensen.MixtureModel(2, "normal").fit(x)
    gmm = jensen.GMM(2, "diag").fit(x)
    found = jensen.compare(x, [gmm, jensen.BayesianGMM(2, "diag").fit(x), table])
    assert found.rows[0].bic == pytest.approx(gmm.bic(x))
    assert found.rows[0].bic == pytest.approx(found.rows[2].bic, abs=0.1)
    assert found.rows[0].icl == pytest.approx(found.rows[0].bic, abs=1.0)  # far apart: no overlap
    assert found.rows[0].elbo is None
    assert found.rows[1].bic is None
    assert found.best == 1
    lines = str(found).splitlines()
    assert len({len(line.split("  ")[0]) for line in lines}) > 0
    assert lines[2].startswith("BayesianGMM diag")


def test_icl_is_bic_and_what_overlap_costs():
    x = two_clusters(2, seed=0)
    x[60:] -= 4.5
    gmm = jensen.GMM(2).fit(x)
    r = gmm.responsibilities(x)
    expected = gmm.bic(x) - 2 * r.amax(1).log().sum().item()
    assert gmm.icl(x) == pytest.approx(expected)
    assert gmm.icl(x) > gmm.bic(x) + 1


def test_densities_are_compared_with_one_another():
    """By the estimates of each pair alone; a table of columns, which is no Gaussian mixture, is not."""
    x = two_clusters(2, seed=0)
    models = [jensen.GMM(1).fit(x), jensen.MixtureModel(2, "normal").fit(x), jensen.GMM(2).fit(x)]
    models.append(jensen.BayesianGMM(2, "diag").fit(x))
    found = jensen.compare(x, models)
    assert found.compared == (0, 2, 3)
    for i, place in enumerate(found.compared):
        for j, other in enumerate(found.compared):
            pair = (models[place].mixture, models[other].mixture)
            for which, value, error in (
                ("kl", found.apart.kl, found.apart.kl_error),
                ("jensen_shannon", found.apart.jensen_shannon, found.apart.jensen_shannon_error),
            ):
                own = divergence.estimate(*pair, which)
                assert abs(value[i, j] - own.value) <= 4 * (error[i, j] + own.standard_error) + 1e-9
    text = str(found)
    assert "KL of row to column, nats" in text
    assert "BayesianGMM diag 2  " in text
    assert jensen.compare(x, models, samples=0).apart is None
    assert jensen.compare(x, models[:2]).apart is None


def test_models_of_other_points_are_refused_in_a_sentence():
    x = two_clusters(2, seed=0)
    model = jensen.BayesianGMM(2).fit(x)
    for models, said in (
        ([model, jensen.GMM(2).fit(x[1:])], r"models\[1\] was fitted to other points"),
        ([jensen.GMM(2)], r"models\[0\] was fitted to no points"),
        ([], "models is empty"),
        ([1], r"models\[0\] is a int"),
    ):
        with pytest.raises(InputError, match=said):
            jensen.compare(x, models)
