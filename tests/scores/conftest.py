"""The golden codes, made once; and every score, called alike."""

from functools import partial

import numpy as np
import pytest
from cases import slow

from jensen import scores
from jensen.scores.synthetic import CODES, synthetic_codes, uniform_factors


@pytest.fixture(scope="session")
def golden():
    """The factors `(15,000, 5)` and the eight codes `(15,000, 10)` of the golden table, by name."""
    factors = uniform_factors(15_000)
    return factors, {name: synthetic_codes(name, factors) for name in CODES}


def with_variance(score):
    """The score as a function of codes and factors, given a posterior of standard deviation 0.1."""
    return lambda codes, factors: score(codes, factors, np.full(np.shape(codes), 2 * np.log(0.1)))


SMALL = {"train": 200, "test": 100}
BY_NAME = {
    "mig_hist20": scores.mig_hist20,
    "mig_exact": with_variance(partial(scores.mig_exact, samples=200)),
    "mig_knn": scores.mig_knn,
    "mig_sup": scores.mig_sup,
    "dci_boost20": partial(
        scores.dci_boost20, **SMALL
    ),  # and so dci, which differs in the number of trees alone
    "dcimig": scores.dcimig,
    "jemmig": scores.jemmig,
    "sap_svc": partial(scores.sap_svc, **SMALL),
    "sap_r2": scores.sap_r2,
    "factor_vae": partial(scores.factor_vae, **SMALL),
    "beta_vae": partial(scores.beta_vae, **SMALL),
    "modularity": scores.modularity,
    "explicitness": partial(scores.explicitness, **SMALL),
    "irs": scores.irs,
    "infomec": partial(scores.infomec, **SMALL),
}
"""Every score of codes against factors, at sizes that take a moment."""


@pytest.fixture(params=[slow(name) if name == "dci_boost20" else name for name in BY_NAME])
def name(request):
    return request.param


@pytest.fixture
def score(name):
    return BY_NAME[name]


HEADLINES = {
    "infomec": ("infom", "infoc", "infoe", "infom_floored", "infoc_floored"),
    "dci_boost20": ("dci_boost20", "completeness", "informativeness"),
}


@pytest.fixture
def headlines(name):
    """The keys of the numbers that the score reports, the first one first."""
    return HEADLINES.get(name, (name,))
