"""The doctor: healthy here, and it notices what is broken."""

import math

import pytest
import torch

from jensen import doctor
from jensen.doctor import CHECKS
from jensen.launch import known
from jensen.launch.known import Check

QUICK = [checks for checks in CHECKS if checks is not doctor.training]


def by_name(checks):
    return checks.__name__


@pytest.mark.parametrize("checks", QUICK, ids=by_name)
def test_quick_checks_pass(checks):
    found = [*checks()]
    assert found
    for check in found:
        assert isinstance(check, Check)
        assert all(math.isfinite(number) for number in check[1:])
        assert check.tolerance >= 0
        assert check.passed, check
    assert len({check.name for check in found}) == len(found)


@pytest.mark.slow
def test_trained_models_reach_their_optimum():
    found = [*doctor.training()]
    assert [check.name for check in found if not check.passed] == []
    assert len(found) == 5


@pytest.mark.parametrize(
    ("expected", "got", "tolerance", "passed"),
    [
        (1.0, 1.0, 0.0, True),
        (1.0, 1.5, 0.5, True),
        (1.0, 0.4, 0.5, False),
        (1.0, 1.6, 0.5, False),
        (1.0, math.nan, 9.0, False),
        (1.0, math.inf, 9.0, False),
    ],
)
def test_a_check_passes_within_its_tolerance_and_never_on_nan(expected, got, tolerance, passed):
    assert Check("some", expected, got, tolerance).passed is passed


def diagnosis(monkeypatch, capsys, *checks):
    """The exit status and the lines printed."""
    monkeypatch.setattr(doctor, "CHECKS", checks)
    with pytest.raises(SystemExit) as end:
        doctor.main()
    return int(end.value.code), capsys.readouterr().out.splitlines()


def test_all_is_well_here(monkeypatch, capsys):
    status, lines = diagnosis(monkeypatch, capsys, known.densities, known.rendering, known.extremes)
    assert status == 0
    assert "all passed" in lines[-1]
    assert not [line for line in lines if line.endswith("NO")]
    assert len([line for line in lines if line.endswith("yes")]) == len(lines) - 2


OTHER = {
    "log_normaliser": (known.densities, lambda real: torch.zeros_like),
    "kl": (known.densities, lambda real: lambda q, p: real(q, p) * 1.001),
    "render": (known.rendering, lambda real: lambda latents: 1 - real(latents)),
    "shared_out": (known.linear_gaussian, lambda real: lambda *given: real(*given) + 0.1),
    "aggregate_log_density": (known.extremes, lambda real: lambda *given: real(*given) - 1),
    "decompose": (
        known.two_points,
        lambda real: lambda *given, **named: real(*given, **named, dataset_size=3),
    ),
}


@pytest.mark.parametrize("name", OTHER)
def test_what_is_broken_is_found(monkeypatch, capsys, name):
    checks, broken = OTHER[name]
    monkeypatch.setattr(known, name, broken(getattr(known, name)))
    status, lines = diagnosis(monkeypatch, capsys, checks)
    assert status == 1
    failed = [line for line in lines if line.endswith("NO")]
    assert failed
    assert f"{len(failed)} FAILED" in lines[-1]


def test_training_is_among_the_checks():
    assert doctor.training in CHECKS
    assert len(QUICK) == len(CHECKS) - 1
