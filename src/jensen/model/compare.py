"""Mixtures fitted to the same points, side by side."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_count
from jensen.bound.divergence import stratified
from jensen.bound.pairs import Pairs, Source, pairs
from jensen.family.family import are_gaussians
from jensen.family.mixture import Mixture, log_prob
from jensen.model.bayesian_gmm import BayesianGMM
from jensen.model.points import Points, fingerprint
from jensen.model.scored import Scored


class Row(NamedTuple):
    """A model's numbers, nats of all points; None where it has none.

    elbo: of a `BayesianGMM`.
    labelled: elbo + log K!, for each of the K! orders of its components is a maximum like it; less where
        components are alike, whose orders are one belief: see `BayesianGMM.labelled`.
    probability: p(model | points) from that, all models with an elbo being as likely beforehand.
    bic, aic, icl: of a fit by maximum likelihood; less is better.
    """

    model: str
    components: int
    elbo: float | None
    labelled: float | None
    probability: float | None
    bic: float | None
    aic: float | None
    icl: float | None


class Comparison(NamedTuple):
    """A row for each model; `print` shows a table.

    apart: how far the densities of the Gaussian mixtures among them are from one another, `compared` being
        their places; None of fewer than two.
    """

    rows: tuple[Row, ...]
    apart: Pairs | None = None
    compared: tuple[int, ...] = ()

    @property
    def best(self) -> int | None:
        """The place of the model with the highest probability; None without an elbo."""
        known = [place for place, row in enumerate(self.rows) if row.probability is not None]
        return max(known, key=lambda place: self.rows[place].probability or 0.0, default=None)

    def __str__(self) -> str:
        heads = ("model", "K", "elbo", "with labels", "p(model | x)", "bic", "aic", "icl")
        lines = [heads, *(tuple(map(_shown, row)) for row in self.rows)]
        text = _aligned(lines)
        for name, value, error in self._divergences():
            names = [f"{self.rows[at].model} {self.rows[at].components}" for at in self.compared]
            cells = [
                [f"{float(v):z.3f} ± {float(e):.3f}" for v, e in zip(*each, strict=True)]
                for each in zip(value, error, strict=True)
            ]
            head = [f"{name} of row to column, nats", *names]
            rows = [[own, *each] for own, each in zip(names, cells, strict=True)]
            text += "\n\n" + _aligned([head, *rows])
        return text

    def _divergences(self) -> list[tuple[str, Tensor, Tensor]]:
        if self.apart is None:
            return []
        kl, kl_error, js, js_error = self.apart
        return [("KL", kl, kl_error), ("JS", js, js_error)]


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            word.rjust(width) if place else word.ljust(width)
            for place, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def compare(
    x: Any, models: Sequence[Scored], weights: Any = None, samples: int = 2_000
) -> Comparison:
    """Compare models that were fitted to the points `x` `(N, D)`, with `weights` `(N,)`.

    KL and JS of each two Gaussian mixtures, at posterior means where they are Bayesian, are means over
    `samples` draws of each; 0 leaves them out.

    Raises:
        InputError: a model that was fitted to other points, or to none.

    Example:
        >>> from jensen.model.gmm import GMM
        >>> x = torch.cat([torch.linspace(-4, -2, 30), torch.linspace(2, 4, 30)]).unsqueeze(1)
        >>> models = [BayesianGMM(k, restarts=2).fit(x) for k in (1, 2, 3)]
        >>> compare(x, [*models, GMM(2).fit(x)]).best
        1
    """
    if not models:
        raise InputError("models is empty: expected at least one fitted mixture")
    for place, model in enumerate(models):
        if not isinstance(model, Scored):
            raise InputError(
                f"models[{place}] is a {type(model).__name__}: expected a GMM, MixtureModel or"
                " BayesianGMM"
            )
    missing = any(model.recipe.missing for model in models)
    survey = Points(x, weights, missing=missing).survey(torch.Generator().manual_seed(0), missing)
    mine = fingerprint(survey)
    for place, model in enumerate(models):
        if getattr(model, "data", "") != mine:
            found = "other points" if getattr(model, "data", "") else "no points"
            raise InputError(
                f"models[{place}] was fitted to {found} (data {getattr(model, 'data', '') or 'none'},"
                f" x has {mine}): expected models of the same x and weights; fit it to x"
            )
    check_count("samples", samples, least=0)
    rows = _with_probabilities([_row(model, x, weights) for model in models])
    gaussian = [at for at, each in enumerate(models) if are_gaussians(each.mixture.components)]
    if len(gaussian) < 2 or not samples:
        return Comparison(rows)
    sources = [_source(models[at].mixture, samples, at) for at in gaussian]
    return Comparison(rows, pairs(sources), tuple(gaussian))


def _source(p: Mixture, samples: int, seed: int) -> Source:
    draws = stratified(p, samples, torch.Generator().manual_seed(seed))
    return Source(draws, lambda x: log_prob(x, p))


def _row(model: Scored, x: Any, weights: Any) -> Row:
    name = type(model).__name__
    structure = getattr(model.recipe, "covariance", "")
    name = name if name == "MixtureModel" else f"{name} {structure}"
    count = len(model.mixture.log_weight)
    if isinstance(model, BayesianGMM):
        return Row(name, count, float(model.elbo), model.labelled, None, None, None, None)
    if weights is not None:
        return Row(name, count, None, None, None, None, None, None)
    return Row(name, count, None, None, None, model.bic(x), model.aic(x), model.icl(x))


def _with_probabilities(rows: list[Row]) -> tuple[Row, ...]:
    known = [row.labelled for row in rows if row.labelled is not None]
    if not known:
        return tuple(rows)
    total = torch.tensor(known, dtype=torch.float64).logsumexp(0).item()
    return tuple(
        row if row.labelled is None else row._replace(probability=math.exp(row.labelled - total))
        for row in rows
    )


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
