"""EM by replay is EM: each fit again with its parts as tapes, as a GPU has them as graphs."""

import pytest
import torch
from tape import taped

import jensen
from jensen.base import replay

PRIOR = jensen.PseudoCounts(weight=1.0, covariance=5.0)


def points(dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    place = torch.randint(3, (500, 1), generator=generator)
    x = 1.5 * place + torch.randn(500, 3, generator=generator) @ torch.randn(
        3, 3, generator=generator
    )
    return x.to(dtype)


def table():
    generator = torch.Generator().manual_seed(3)
    bits = torch.randint(2, (500, 1), generator=generator)
    counts = torch.poisson(3 * torch.rand(500, 1, generator=generator), generator=generator)
    kinds = torch.randint(4, (500, 1), generator=generator)
    return torch.cat([points()[:, :2], bits, counts, kinds], 1)


def holed(x):
    x = x.clone()
    x[::7, 0] = torch.nan
    return x


def with_copies():
    return torch.cat([points(), torch.full((60, 3), 9.0).double()])


def gmm(covariance, **options):
    return lambda: jensen.GMM(3, covariance, tolerance=1e-8, **options)


def belief(covariance, weights="dirichlet"):
    return lambda: jensen.BayesianGMM(3, covariance, tolerance=1e-8, weights=weights)


FAMILIES = {"normal": [0, 1], "bernoulli": [2], "poisson": [3], "categorical": [4]}
CASES = {
    **{
        f"{covariance} {dtype}": (gmm(covariance), points(dtype))
        for covariance in ("full", "tied", "diag", "spherical")
        for dtype in (torch.float64, torch.float32)
    },
    **{
        f"belief {covariance}": (belief(covariance), points())
        for covariance in ("full", "tied", "diag", "spherical")
    },
    "sticks": (belief("full", "stick"), points(torch.float32)),
    "restarts": (gmm("full", restarts=4), points()),
    "prior": (gmm("full", prior=PRIOR), points()),
    "prior, tied": (gmm("tied", prior=PRIOR), points()),
    "missing": (gmm("full", missing=True), holed(points())),
    "far": (gmm("full"), torch.cat([points(), torch.full((2, 3), 1e9).double()])),
    "copies": (gmm("full"), with_copies()),
    "annealed": (gmm("diag", beta=(3.0, 1.0)), points()),
    "columns": (lambda: jensen.MixtureModel(3, FAMILIES, tolerance=1e-8), table()),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fit_by_replay_is_the_fit(case, monkeypatch, caplog):
    make, x = CASES[case]
    expected = make().fit(x)
    captures = []

    def capture(run):
        captures.append(run)
        return taped(run)

    monkeypatch.setitem(replay.CAPTURES, "cpu", capture)
    monkeypatch.setattr(replay, "_SOME", 1)
    found = make().fit(x)
    assert len(captures) >= 2
    assert "without a CUDA graph" not in caplog.text
    assert found.history == expected.history
    assert torch.equal(found.mixture.components.mean, expected.mixture.components.mean)


def test_a_fit_by_replay_of_few_steps_captures_nothing(monkeypatch):
    """Since a capture is several of them."""

    def capture(run):
        raise AssertionError("captured")

    monkeypatch.setitem(replay.CAPTURES, "cpu", capture)
    jensen.GMM(3, max_iter=2).fit(points())
