"""The figures of a report, and the theory that some of them show."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from jensen.diagnostics.water_filling import optimum
from jensen.family.gaussian import LOG_2PI
from jensen.reports import figures
from jensen.reports.choice import Choice
from jensen.reports.cue_weights import cue_weights
from jensen.reports.evidence import evidence
from jensen.reports.models import Strip
from jensen.reports.sweep import Run, Sweep
from jensen.reports.table import Values, columns
from jensen.run.reading import configuration
from jensen.run.targets import short

LINEAR = {
    "data.source._target_": "jensen.data.gaussian.gaussian",
    "model.encoder._target_": "jensen.model.LinearEncoder",
    "model.likelihood._target_": "jensen.model.Normal",
}
"""Settings of a run whose optimum is known."""


def theory(run: Run, folder: Path) -> list[tuple[float, float]]:
    """(rate, distortion) of the optimal linear VAE for ever larger beta, where the data are
    Gaussian and the model linear.
    """
    if any(short(str(run.settings.get(key))) != value for key, value in LINEAR.items()):
        return []
    cfg = configuration(folder / run.name)
    variances = [*cfg.data.variances]
    noise = float(cfg.model.likelihood.variance)
    constant = len(variances) / 2 * (LOG_2PI + math.log(noise))
    betas = np.geomspace(min(variances) / 4, max(variances), 200) / noise
    best = [optimum(variances, beta, noise, cfg.latent_dim) for beta in betas.tolist()]
    return [(point.rate, point.squared_error / (2 * noise) + constant) for point in best]


def draw(
    sweep: Sweep,
    folder: Path,
    values: Mapping[str, Values],
    found: Mapping[str, Choice],
    strips: Mapping[int, Strip],
) -> dict[str, Figure]:
    """The figures by name; those that these runs have nothing for are left out."""
    measures = ["elbo", *(name for name in columns(sweep, values) if "/" in name)]
    curves = [theory(run, folder) for run in sweep.runs]
    pictures = {
        "rate_distortion": figures.rate_distortion(
            sweep, values, curves[0] if all(each == curves[0] for each in curves) else ()
        ),
        "scores": figures.scores(sweep, values, measures),
        "evidence": evidence(sweep, values),
        "cue_weights": cue_weights(sweep),
        "kl_spectrum": figures.kl_spectrum(sweep),
        "choices": figures.choices(sweep, found),
        "traversals": figures.traversals(sweep, strips),
    }
    return {name: figures.fit(figure) for name, figure in pictures.items() if figure is not None}
