"""A linear beta-VAE, trained through the whole program, lands on reverse water-filling."""

import pytest

from jensen.launch.training import train

EXPECTED = {
    0.5: (5.756463, 0.50, 5),
    1: (4.023595, 1.00, 5),
    2: (2.525729, 1.85, 4),
    4: (1.374417, 3.15, 3),
    8: (0.569717, 4.95, 2),
}
"""beta: rate, squared error, active latents, of the reference."""

QUIET = (
    "callbacks=[diagnose]",
    "diagnostics=[water_filling]",
    "+trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
)


def trained(configure, folder, *overrides):
    found = train(configure("experiment=water_filling", *QUIET, *overrides), folder)
    return tuple(
        found[f"water_filling/{name}"] for name in ("rate", "squared_error", "active")
    ), found


@pytest.mark.slow
def test_a_thousand_steps_reach_the_optimum(configure, tmp_path):
    small = (
        "data.size=1000",
        "data.batch_size=1000",
        "trainer.max_steps=1000",
        "trainer.val_check_interval=1000",
    )
    (rate, error, active), found = trained(configure, tmp_path, "objective.beta=2", *small)
    assert rate == pytest.approx(EXPECTED[2][0], abs=5e-3)
    assert error == pytest.approx(EXPECTED[2][1], abs=5e-3)
    assert active == EXPECTED[2][2]
    assert found["water_filling/rate_excess"] == pytest.approx(rate - EXPECTED[2][0], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("beta", EXPECTED)
def test_every_beta_reaches_the_optimum(configure, tmp_path, beta):
    (rate, error, active), _ = trained(configure, tmp_path, f"objective.beta={beta}")
    assert rate == pytest.approx(EXPECTED[beta][0], abs=1e-3)
    assert error == pytest.approx(EXPECTED[beta][1], abs=1e-3)
    assert active == EXPECTED[beta][2]
