"""The decomposition as a diagnostic, and the minibatch estimators beside it."""

import math
import re

import numpy as np
import pytest
import torch
from snapshots import generator, image_snapshot, randn, vector_snapshot, with_posterior

from jensen.bound.decomposition import decompose
from jensen.bound.minibatch import ESTIMATORS
from jensen.diagnostics.decomposition import decomposition, gaussian_total_correlation
from jensen.diagnostics.estimator_audit import PARTS, estimator_audit

COUNT = 120
DIM = 3


def codes_of(mean, log_var):
    return with_posterior(vector_snapshot(), mean, log_var)


@pytest.fixture
def saturated():
    """Posteriors that do not overlap in any latent: the exact MI is log N."""
    mean = torch.stack(
        [100.0 * torch.randperm(COUNT, generator=generator(latent)) for latent in range(DIM)], 1
    )
    return codes_of(mean, torch.zeros(COUNT, DIM))


@pytest.fixture
def overlapping():
    return codes_of(
        randn(COUNT, DIM), torch.full((COUNT, DIM), -0.5) + 0.3 * randn(COUNT, DIM, seed=1)
    )


# ---- the exact parts


@pytest.mark.parametrize("make", [image_snapshot, vector_snapshot])
def test_the_scalars_are_those_of_the_core(make):
    snapshot = make()
    found = decomposition(snapshot, samples=600, seed=3)
    core = decompose(snapshot.posterior, samples=600, generator=generator(3))
    scalars = {name: value for name, value in core._asdict().items() if value.dim() == 0}
    for name in ("prior_dependence", "prior_dependence_se"):
        assert scalars.pop(name) == 0  # which a curve need not show
    assert {name: found[name] for name in scalars} == scalars
    added = {"mi_plus_tc", "mi_over_log_n", "gaussian_tc_code", "gaussian_tc_z"}
    assert set(found) - set(scalars) == added
    assert found["mi_plus_tc"] == core.mutual_information + core.total_correlation
    assert all(value.dim() == 0 for value in found.values())
    assert found["mi_over_log_n"].item() == pytest.approx(
        core.mutual_information.item() / math.log(101)
    )


def test_gaussian_total_correlations_are_those_of_the_sample_correlations():
    mean = randn(500, 3) @ randn(3, 3, seed=2)
    log_var = -1 + 0.5 * randn(500, 3, seed=3)
    found = decomposition(codes_of(mean, log_var), samples=50)
    covariance = np.cov(mean.double().numpy().T, ddof=0)
    for name, c in (
        ("code", covariance),
        ("z", covariance + np.diag(np.exp(log_var.double().numpy()).mean(0))),
    ):
        std = np.sqrt(np.diag(c))
        expected = -0.5 * np.log(np.linalg.det(c / np.outer(std, std)))
        assert found[f"gaussian_tc_{name}"].item() == pytest.approx(expected, rel=1e-6), name


def test_a_pair_of_latents_has_the_total_correlation_of_its_correlation():
    for rho in (0.0, 0.5, -0.9):
        covariance = torch.tensor([[4.0, 2 * 3 * rho], [2 * 3 * rho, 9.0]], dtype=torch.float64)
        assert gaussian_total_correlation(covariance).item() == pytest.approx(
            -0.5 * math.log(1 - rho**2), abs=1e-12
        )


def test_the_codes_own_scale_and_place_do_not_matter():
    mean = randn(300, 3) @ randn(3, 3, seed=2)
    log_var = torch.full((300, 3), -2.0)
    first = decomposition(codes_of(mean, log_var), samples=50)["gaussian_tc_code"]
    moved = decomposition(
        codes_of(mean * torch.tensor([0.01, 1.0, 30.0]) + 5, log_var), samples=50
    )["gaussian_tc_code"]
    assert moved.item() == pytest.approx(first.item(), rel=1e-3)


def test_constant_latents_are_left_out():
    mean = randn(200, 2) @ randn(2, 2, seed=4)
    both = decomposition(codes_of(mean, torch.zeros(200, 2)), samples=50)
    with_constant = torch.stack([mean[:, 0], torch.full((200,), 0.7), mean[:, 1]], 1)
    found = decomposition(codes_of(with_constant, torch.zeros(200, 3)), samples=50)
    assert found["gaussian_tc_code"].item() == pytest.approx(
        both["gaussian_tc_code"].item(), rel=1e-9
    )
    assert found["gaussian_tc_z"].item() == pytest.approx(both["gaussian_tc_z"].item(), rel=1e-9)


def test_a_collapsed_encoder_has_no_gaussian_total_correlation():
    found = decomposition(codes_of(torch.zeros(50, 3), torch.zeros(50, 3)), samples=50)
    assert found["gaussian_tc_code"] == 0
    assert found["gaussian_tc_z"].item() == pytest.approx(0, abs=1e-12)


def test_one_latent_has_no_total_correlation():
    found = decomposition(codes_of(randn(300, 1), torch.full((300, 1), -1.0)), samples=2000)
    assert found["gaussian_tc_code"].item() == pytest.approx(0, abs=1e-12)
    assert found["gaussian_tc_z"].item() == pytest.approx(0, abs=1e-12)
    assert abs(found["total_correlation"]) < 4 * found["total_correlation_se"] + 1e-9


def test_gaussian_codes_have_the_total_correlation_of_their_covariance():
    """Where q(z) is nearly Gaussian the exact TC and the Gaussian one agree."""
    mean = randn(4000, 2) @ torch.tensor([[0.9, 0.3], [0.0, 0.7]])
    found = decomposition(codes_of(mean, torch.full((4000, 2), -0.5)), samples=4000)
    assert found["gaussian_tc_z"].item() == pytest.approx(
        found["total_correlation"].item(), abs=0.02
    )


# ---- the estimators


def test_where_the_exact_information_saturates_each_estimator_has_its_ceiling(saturated):
    size = 16
    found = estimator_audit(saturated, sizes=(size,), batches=4, samples=600)
    assert found["mutual_information_exact"].item() == pytest.approx(math.log(COUNT), abs=1e-6)
    assert found["mutual_information_plain"].item() == pytest.approx(math.log(size), abs=1e-6)
    assert found["mutual_information_stratified"].item() == pytest.approx(math.log(COUNT), abs=1e-6)
    assert found["mutual_information_mss"].item() == pytest.approx(math.log(COUNT), abs=1e-6)
    assert found["mutual_information_mws"].item() == pytest.approx(math.log(size * COUNT), abs=1e-6)


@pytest.mark.parametrize("which", ["saturated", "overlapping"])
@pytest.mark.parametrize("size", [2, 16, 64])
def test_ceilings_hold_and_mws_is_plain_and_log_n_off_for_each_density(which, size, request):
    found = estimator_audit(request.getfixturevalue(which), sizes=(size,), batches=3, samples=200)
    assert found["mutual_information_plain"].item() <= math.log(size) + 1e-9
    assert found["mutual_information_stratified"].item() <= math.log(COUNT) + 1e-9
    off = math.log(COUNT)
    for part, times in (
        ("mutual_information", 1),
        ("total_correlation", DIM - 1),
        ("dimension_wise_kl", -DIM),
    ):
        assert found[f"{part}_mws"].item() == pytest.approx(
            found[f"{part}_plain"].item() + times * off, rel=1e-12, abs=1e-9
        ), part


def test_whatever_the_estimator_its_parts_add_up_to_the_same(overlapping):
    found = estimator_audit(overlapping, sizes=(32,), batches=20, samples=200)
    sums = [sum(found[f"{part}_{name}"].item() for part in PARTS) for name in ESTIMATORS]
    assert sums == pytest.approx([sums[0]] * 4, abs=1e-9)
    assert sums[0] == pytest.approx(overlapping.latent_rate.sum(1).mean().item(), abs=0.2)


@pytest.mark.parametrize("name", ["plain", "stratified"])
def test_a_minibatch_of_everything_has_no_bias(overlapping, name):
    found = estimator_audit(overlapping, sizes=(COUNT,), batches=60, samples=20_000)
    for part in PARTS:
        assert found[f"{part}_{name}"].item() == pytest.approx(
            found[f"{part}_exact"].item(), abs=0.06
        ), part


def test_the_exact_parts_are_those_of_the_core(overlapping):
    found = estimator_audit(overlapping, sizes=(), samples=400, seed=5)
    core = decompose(overlapping.posterior, samples=400, generator=generator(5))
    assert [found[f"{part}_exact"] for part in PARTS] == [getattr(core, part) for part in PARTS]


def test_estimates_are_reproducible_and_do_not_depend_on_the_other_sizes(overlapping):
    first, again = (
        estimator_audit(overlapping, sizes=(16, 64), batches=3, samples=100) for _ in range(2)
    )
    assert first == again
    alone = estimator_audit(overlapping, sizes=(16,), batches=3, samples=100)
    scalars = {key: value for key, value in first.items() if key != "table"}
    assert scalars == {key: value for key, value in alone.items() if key != "table"}
    other = estimator_audit(overlapping, sizes=(16, 64), batches=3, samples=100, seed=1)
    assert other["mutual_information_plain"] != first["mutual_information_plain"]


def table_of(text: str) -> tuple[str, list[list[str]]]:
    head, empty, *lines = text.splitlines()
    assert empty == ""
    assert all(line.startswith("|") and line.endswith("|") for line in lines)
    return head, [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def test_the_table_is_markdown_of_the_biases(overlapping):
    found = estimator_audit(overlapping, sizes=(16, 64), batches=3, samples=100)
    head, rows = table_of(found["table"])
    assert f"N = {COUNT}" in head
    assert rows[0] == ["estimator", "M = 16", "M = 64"]
    assert all(re.fullmatch("-{3,}", cell) for cell in rows[1])
    assert [row[0] for row in rows[2:]] == list(ESTIMATORS)
    assert {len(row) for row in rows} == {3}
    for row in rows[2:]:
        biases = [
            found[f"{part}_{row[0]}"].item() - found[f"{part}_exact"].item() for part in PARTS
        ]
        assert [float(number) for number in row[1].split("/")] == pytest.approx(biases, abs=0.00501)
    second = estimator_audit(overlapping, sizes=(64,), batches=3, samples=100)
    for row in rows[2:]:
        biases = [
            second[f"{part}_{row[0]}"].item() - second[f"{part}_exact"].item() for part in PARTS
        ]
        assert [float(number) for number in row[2].split("/")] == pytest.approx(biases, abs=0.00501)


def test_sizes_above_the_held_out_set_are_left_out(overlapping):
    found = estimator_audit(overlapping, sizes=(1000, 16, COUNT + 1), batches=2, samples=100)
    assert table_of(found["table"])[1][0] == ["estimator", "M = 16"]
    assert "mutual_information_plain" in found


def test_if_no_size_fits_the_exact_values_stay_and_the_table_is_still_a_table(overlapping):
    found = estimator_audit(overlapping, sizes=(1000,), samples=100)
    assert {key for key in found if key != "table"} == {f"{part}_exact" for part in PARTS}
    _, rows = table_of(found["table"])
    assert len({len(row) for row in rows}) == 1
