"""Codes of a file, which may have been made under any prior: measured against N(0, I) only where
the file says it was that.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diagnostics.snapshots import randn, vector_snapshot
from hostile.commands import run_here
from scipy import integrate, stats

from jensen import evaluate, scores
from jensen.base.errors import InputError
from jensen.diagnostics.decomposition import decomposition
from jensen.diagnostics.factor_map import dead_latents
from jensen.diagnostics.from_codes import read_codes
from jensen.diagnostics.rate import rate
from jensen.diagnostics.score import score
from jensen.diagnostics.snapshot import Snapshot
from jensen.encode import write_codes
from jensen.family.gaussian import STANDARD, Gaussian, kl
from jensen.family.mixture import Mixture
from jensen.family.unknown import Unknown

MEAN = torch.tensor([[4.0, -1.0], [5.0, 0.5], [6.5, 2.0]])
LOG_VAR = torch.tensor([[-1.0, -0.5]]).expand(3, -1)
NEED_THE_PRIOR = {"rate", "marginal_kl", "dimension_wise_kl", "prior_dependence"}
FREE = {"mutual_information", "mutual_information_se", "total_correlation", "total_correlation_se"}


def mixture() -> Mixture:
    parts = Gaussian(torch.tensor([[4.0, 0.0], [6.0, 1.0]]).double(), torch.zeros(2, 2).double())
    return Mixture(torch.tensor([0.5, 0.5]).double().log(), parts)


def made_under(prior) -> Snapshot:
    """Three posteriors about 5, that a learned prior would follow there."""
    snapshot = vector_snapshot(latents=2, count=3)
    return snapshot._replace(
        posterior=Gaussian(MEAN, LOG_VAR),
        z=MEAN,
        factors=torch.arange(3)[:, None],
        names=("a",),
        prior=prior,
    )


PRIORS = {
    "standard_normal": STANDARD,
    "gaussian": Gaussian(torch.tensor([5.0, 0.0]), torch.zeros(2)),
    "mixture": mixture(),
}


@pytest.mark.parametrize("kind", PRIORS)
def test_encode_writes_the_kind_of_the_prior(tmp_path, kind):
    write_codes(made_under(PRIORS[kind]), tmp_path / "codes.npz")
    with np.load(tmp_path / "codes.npz", allow_pickle=False) as found:
        assert str(found["prior"]) == kind
    assert (read_codes(tmp_path / "codes.npz").prior == STANDARD) == (kind == "standard_normal")


def test_what_is_of_codes_under_a_standard_normal_is_right(tmp_path):
    """Dimension-wise KL by scipy's quadrature, rates by torch.distributions."""
    write_codes(made_under(STANDARD), tmp_path / "codes.npz")
    snapshot = read_codes(tmp_path / "codes.npz")
    found = decomposition(snapshot)
    std = np.exp(0.5 * LOG_VAR.double().numpy())

    def density(z, latent):
        return stats.norm.pdf(z, MEAN[:, latent].double().numpy(), std[:, latent]).mean()

    each = [
        integrate.quad(
            lambda z, d=d: density(z, d) * (np.log(density(z, d)) - stats.norm.logpdf(z)),
            -8,
            12,
            limit=400,
        )[0]
        for d in range(2)
    ]
    assert found["dimension_wise_kl"].item() == pytest.approx(sum(each), abs=1e-6)
    q = torch.distributions.Normal(MEAN.double(), torch.from_numpy(std))
    p = torch.distributions.Normal(0.0, 1.0)
    rates = torch.distributions.kl_divergence(q, p).mean(0)
    assert rate(snapshot)["by_latent"].tolist() == pytest.approx(rates.tolist(), rel=1e-6)
    assert found["rate"].item() == pytest.approx(rates.sum().item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["gaussian", "mixture", "nothing said"])
def test_under_another_prior_what_needs_it_is_absent_and_the_rest_is_the_same(tmp_path, kind):
    path = tmp_path / "codes.npz"
    write_codes(made_under(PRIORS.get(kind, STANDARD)), path)
    if kind == "nothing said":
        arrays = dict(np.load(path))
        np.savez(path, **{name: arrays[name] for name in arrays if name != "prior"})
    snapshot = read_codes(path)
    found = decomposition(snapshot)
    assert not {name.removesuffix("_se") for name in found} & NEED_THE_PRIOR
    known = decomposition(made_under(STANDARD))
    assert {name: found[name].item() for name in FREE} == {
        name: known[name].item() for name in FREE
    }
    assert set(rate(snapshot)) == {"active_units"}
    with pytest.raises(InputError, match="which are left out"):
        snapshot.prior.log_prob(MEAN)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            None,
            "does not say which prior its codes were made under: expected standard_normal for"
            " rates, dimension_wise_kl",
        ),
        (
            "mixture",
            "made under the prior 'mixture': expected standard_normal for rates, dimension_wise_kl"
            " and marginal_kl",
        ),
        ("standard_normal", None),
    ],
)
def test_evaluate_names_what_is_left_out_in_one_sentence(capsys, tmp_path, said, expected):
    path = tmp_path / "codes.npz"
    write_codes(made_under(STANDARD), path)
    arrays = dict(np.load(path)) | ({} if said is None else {"prior": np.array(said)})
    np.savez(path, **{name: array for name, array in arrays.items() if name != "prior" or said})
    ended = run_here(capsys, evaluate.main, f"codes={path}", "diagnostics=[rate,decomposition]")
    assert ended.status == 0, ended.err
    lines = [line for line in ended.out.splitlines() if "left out" in line]
    assert len(lines) == (expected is not None)
    assert expected is None or expected in lines[0]
    numbers = json.loads(path.with_suffix(".scores.json").read_text())["diagnostics"]
    assert ("dimension_wise_kl" in numbers["decomposition"]) == (expected is None)
    assert ("by_latent" in numbers["rate"]) == (expected is None)


def test_a_file_without_variances_has_nothing_that_is_left_out(capsys, tmp_path):
    np.savez(tmp_path / "codes.npz", codes=MEAN.numpy(), factors=np.arange(3)[:, None])
    ended = run_here(capsys, evaluate.main, f"codes={tmp_path / 'codes.npz'}", "diagnostics=[rate]")
    assert ended.status == 0
    assert "left out" not in ended.out


@pytest.mark.parametrize(
    "said", [np.array(1.0), np.array(["standard_normal"]), np.array(b"standard_normal")]
)
def test_a_prior_that_is_no_word_is_refused(tmp_path, said):
    np.savez(tmp_path / "codes.npz", codes=MEAN.numpy(), factors=np.arange(3)[:, None], prior=said)
    with pytest.raises(InputError, match="expected a word"):
        read_codes(tmp_path / "codes.npz")


def collapsed(prior) -> Snapshot:
    """One latent that holds the factor; one that is its prior, N(5, e^-4), 14 nats from N(0, 1)."""
    factors = torch.arange(600) % 3
    mean = torch.stack([2.0 * factors, 5 + 0.001 * randn(600)], 1)
    posterior = Gaussian(mean, torch.tensor([-4.0, -4.0]).expand(600, 2))
    z = posterior.rsample(randn(600, 2, seed=1))
    own = Gaussian(torch.tensor([2.0, 5.0]), torch.tensor([1.0, -4.0]))
    snapshot = vector_snapshot(latents=2, count=3)._replace(
        posterior=posterior, z=z, prior=prior or own
    )
    rates = kl(posterior, own) if prior is None else torch.full_like(mean, torch.nan)
    return snapshot._replace(latent_rate=rates, factors=factors[:, None], names=("a",))


@pytest.mark.parametrize("prior", [None, Unknown("")])
def test_a_latent_that_is_its_prior_is_dead_though_it_is_far_from_a_standard_normal(prior):
    snapshot = collapsed(prior)
    assert kl(snapshot.posterior, STANDARD).mean(0)[1] > 13
    assert dead_latents(snapshot).tolist() == [False, True]
    for function in (scores.infomec, scores.mig_sup, scores.modularity, scores.irs):
        assert score(snapshot, function)["active"].tolist() == [True, False], function
    assert score(snapshot, scores.mig_sup, active="kl")["active"].tolist() == [
        True,
        True,
    ]  # asked for


def test_a_home_is_the_same_home_for_what_is_read_and_what_is_written(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_codes(made_under(STANDARD), tmp_path / "codes.npz")
    assert run_here(capsys, evaluate.main, "codes='~/codes.npz'", "diagnostics=[rate]").status == 0
    assert (
        run_here(
            capsys, evaluate.main, "codes='~/codes.npz'", "diagnostics=[rate]", "out='~/mine.json'"
        ).status
        == 0
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "codes.npz",
        "codes.scores.json",
        "mine.json",
    ]


def test_the_codes_are_data_whatever_they_say_of_their_prior(tmp_path: Path):
    from jensen.data.codes import codes

    write_codes(made_under(mixture()), tmp_path / "codes.npz")
    assert codes(str(tmp_path / "codes.npz")).stored.tolist() == MEAN.tolist()
