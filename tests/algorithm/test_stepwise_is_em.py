"""A stepwise step of length 1 on all data is a step of EM, of every kind of component."""

import pytest
import torch

from jensen.algorithm.e_step import e_step
from jensen.algorithm.fate import Fate
from jensen.algorithm.m_step import MStep, Rule
from jensen.base.tree import tree_map
from jensen.family.mixture import shift
from jensen.model.bayesian_gmm import BayesianGMM
from jensen.model.gmm import GMM
from jensen.model.mixture_model import MixtureModel
from jensen.model.points import Points

STRUCTURES = ("full", "tied", "diag", "spherical")
SPREAD = torch.randn(90, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
REAL = SPREAD + 1.5 * (torch.arange(90) % 3).unsqueeze(1)
BITS = (REAL > 1).double()
COUNTS = REAL.abs().round()
GROUPS = {"normal": [0], "bernoulli": [1], "poisson": [2], "categorical": [3]}
TABLE = torch.cat([REAL[:, :1], BITS[:, 1:2], COUNTS[:, 2:3], COUNTS[:, 3:].clamp(max=2)], 1)
NO_END = {"tolerance": 0.0, "seed": 1}

CASES = {
    **{f"normal, {name}": (lambda m, s=name: GMM(3, s, accelerate=False, max_iter=m, **NO_END), REAL)
       for name in STRUCTURES},
    **{f"bayesian, {name}, {weights}": (
        lambda m, s=name, w=weights: BayesianGMM(3, s, weights=w, max_iter=m, **NO_END), REAL)
       for name in STRUCTURES for weights in ("dirichlet", "stick")},
    **{f"{name}": (
        lambda m, n=name: MixtureModel(3, n, accelerate=False, max_iter=m, **NO_END), x)
       for name, x in (("bernoulli", BITS), ("poisson", COUNTS), ("categorical", COUNTS.clamp(max=2)))},
    "columns": (lambda m: MixtureModel(3, GROUPS, accelerate=False, max_iter=m, **NO_END), TABLE),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_stepwise_step_of_length_one_on_all_data_is_em(case):
    """Whatever the sums were before, it ends where a fit of one step more does; half a step does not."""
    make, x = CASES[case]
    before, after = make(1).fit(x), make(2).fit(x)
    ordered = before.in_order(x)
    survey = Points(ordered).survey(torch.Generator().manual_seed(0), False)
    origin = before.origin_of(survey)
    prior = before.belief(survey.mean, survey.var, origin)
    p = tree_map(torch.clone, shift(before.state, -origin.double()))
    seen = e_step(ordered, origin, p, 1.0, False)
    other = shift(make(0).fit(x).state, -origin.double())
    stale = e_step(ordered, origin, other, 1.0, False)

    def stepped(decay):  # of length 2^-decay
        rule = MStep([torch.zeros(())], Rule(decay, 0.0, 0, 0, len(x)), Fate(0))
        rule.remember(stale, other, 1.0)
        following, _ = rule.maximise(seen, p, 1.0, prior, 0)
        before.assign(shift(following, origin.double()))
        return {name: value.clone() for name, value in before.state_dict().items()}

    whole = stepped(0.0)
    part = stepped(0.6)
    expected = after.state_dict()
    apart = []
    for name, value in expected.items():
        if name not in ("elbo", "log_likelihood"):
            torch.testing.assert_close(whole[name], value, rtol=1e-10, atol=1e-10)
            apart.append(not torch.allclose(part[name], value, rtol=1e-6, atol=1e-6))
    assert any(apart)
