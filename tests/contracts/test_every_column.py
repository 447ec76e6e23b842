"""The contract of `family.column.Column`: every family that columns of a `MixtureModel` may have, and
one of one's own, against torch.distributions and autograd. A family in `schema.FAMILIES` is covered.
"""

import io
import pickle
from functools import partial

import pytest
import torch
from mixtures import close, normal
from torch import distributions as other
from waiting import Rate, Waiting

import jensen
from jensen.base.errors import InputError
from jensen.base.tree import tree_map
from jensen.family.column import Sums
from jensen.family.columns import Columns
from jensen.family.moments import PseudoCounts
from jensen.model.schema import FAMILIES

K = 3
WIDTH = 4  # columns, or categories of one

every_family = pytest.mark.parametrize("family", [*FAMILIES, Waiting], ids=lambda f: f.name)

IN_TORCH = {
    "normal": lambda c: other.Normal(c.mean, (0.5 * c.log_var).exp()),
    "bernoulli": lambda c: other.Bernoulli(logits=c.logit),
    "poisson": lambda c: other.Poisson(c.log_rate.exp()),
    "categorical": lambda c: other.Categorical(logits=c.log_share.unsqueeze(-2)),
    "waiting": lambda c: other.Exponential(c.log_hazard.exp()),
}


def columns(family, lead=(), seed=0):
    parts = len(family.parameters)
    return family(*(normal(*lead, K, WIDTH, seed=seed + number) for number in range(parts)))


def drawn(c, count=50, key=0):
    """`(count, W)`, each of a component in turn."""
    index = torch.arange(count)
    return c.draw(index % K, key, index)


def statistics(c, x):
    """`(S, N)`."""
    out = torch.zeros(c.more, len(x), dtype=torch.float64)
    c.statistics(x.mT, out)
    return out


def by_natural(c, x):
    """log p(x), `(N, K)`, as the E-step has it."""
    constant, linear, more = c.natural()
    found = constant.sum(-1) + x @ linear.mT + statistics(c, x).mT @ more.mT
    base = c.log_base(x.mT)
    return found if base is None else found + base.unsqueeze(-1)


def by_torch(c, x):
    return IN_TORCH[c.name](c).log_prob(x.unsqueeze(1)).sum(-1)


@every_family
def test_natural_parameters_give_the_density_of_torch(family):
    c = columns(family)
    x = drawn(c)
    close(by_natural(c, x), by_torch(c, x), 1e-10)
    whole = Columns((c,), torch.zeros(K, 0).double())
    close(whole.log_density(x), by_torch(c, x), 1e-10)
    close(whole.log_density(x[:1]), by_torch(c, x[:1]), 1e-10)


@every_family
@pytest.mark.parametrize("credit", [0.0, 1.5])
def test_the_m_step_is_where_the_gradient_is_zero(family, credit):
    c = columns(family)
    x = drawn(c)
    r = torch.rand(len(x), K, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = r.sum(0).unsqueeze(-1).expand(K, c.width)
    sums = Sums(r.mT @ x, r.mT @ statistics(c, x).mT, seen)
    wide = torch.linspace(0.5, 2, c.width, dtype=torch.float64)
    prior = PseudoCounts(covariance=credit, values=credit, variance=wide, mean=wide)
    best = tree_map(lambda part: part.detach().requires_grad_(), c.maximise(sums, prior))
    value = (r * by_torch(best, x)).sum() + best.log_prior(prior).sum()
    for slope in torch.autograd.grad(value, best.tensors()):
        close(slope, torch.zeros_like(slope), 1e-9)


@every_family
def test_a_column_of_which_nothing_was_seen_stays(family):
    c = columns(family)
    none = Sums(*(torch.zeros(K, n).double() for n in (c.width, c.more, c.width)))
    close(c.maximise(none, PseudoCounts()).mean, c.mean, 1e-12)


@every_family
def test_draws_have_the_means_are_admitted_and_are_the_same_for_a_key(family):
    c = columns(family)
    x = drawn(c, 6000)
    assert bool(family.admits(x, WIDTH).all())
    for k in range(K):
        own = x[k::K]
        error = own.std(0) / len(own) ** 0.5
        assert bool(((own.mean(0) - c.mean[k]).abs() < 5 * error).all())
    assert torch.equal(drawn(c, 10), x[:10])
    assert not torch.equal(drawn(c, 10, key=1), x[:10])


@every_family
def test_coordinates_without_constraints_name_the_columns(family):
    about, c = (columns(family, (2,), seed) for seed in (0, 5))
    free = c.free(about)
    close(about.free(about), torch.zeros_like(free), 1e-12)
    for mine, theirs in zip(about.of_free(free).natural(), c.natural(), strict=True):
        close(mine, theirs, 1e-9)


@every_family
def test_columns_are_a_value(family):
    c = columns(family, (2,))
    again = pickle.loads(pickle.dumps(c))
    assert type(again) is type(c)
    assert all(map(torch.equal, again, c))
    assert type(tree_map(torch.exp, c)) is family
    assert c.mean.shape == (2, K, c.width)
    shape = (2, K, WIDTH)
    alike = family.alike(shape, c.mean).mean
    close(alike, alike[..., :1, :].expand(2, K, c.width), 1e-12)


@every_family
@pytest.mark.parametrize("missing", [False, True])
def test_a_mixture_of_such_columns_is_fitted_saved_and_drawn_from(family, missing):
    x = drawn(columns(family), 90)
    if missing:
        x[4, 0] = torch.nan
    named = family if family is Waiting else family.name
    model = jensen.MixtureModel(1, named, missing=missing, init="random").fit(x)
    if family.name != "categorical":  # whose mean code this is too
        close(model.mixture.components.mean[0], x.nanmean(0), 1e-9)
    close(model.log_prob(x).sum().item(), model.log_likelihood, 1e-9)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    loaded = jensen.MixtureModel(1, named, missing=missing)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(loaded.log_prob(x), model.log_prob(x))
    assert torch.equal(loaded.sample(5), model.sample(5))


def test_waits_and_counts_are_one_table_and_find_their_clusters():
    draw = torch.Generator().manual_seed(0)
    one = torch.rand(800, generator=draw) < 0.4
    u = torch.rand(800, 2, generator=draw, dtype=torch.float64)
    wait = -torch.log1p(-u) * torch.where(one, 9.0, 0.5).unsqueeze(1)
    x = torch.cat([wait, torch.poisson(torch.where(one, 2.0, 9.0), generator=draw)[:, None]], 1)
    made_by_hydra = partial(Waiting)
    for waiting, own in ((Waiting, []), ("waiting", [Waiting]), ("waiting", [made_by_hydra])):
        families = {waiting: [0, 1], "poisson": [2]}
        model = jensen.MixtureModel(2, families, restarts=3, seed=1, own=own).fit(x)
        found = model.predict(x) == model.predict(x[one][:1])
        assert (found == one).float().mean() > 0.95
        means = model.as_given(model.mixture.components.mean)
        assert means.amax(0)[:2] == pytest.approx([9, 9], rel=0.2)


@pytest.mark.parametrize(
    ("families", "said"),
    [
        (Waiting, "row 3, column 0 of x holds -1 and its family is waiting: expected a number of"),
        (
            {"waiting": [0]},
            "families is 'waiting': expected one of normal, bernoulli, poisson, cat",
        ),
        ({Rate: [0]}, "Rate'>, which is no jensen.family.column.Column"),
        (type("Mine", (Waiting,), {"name": "poisson"}), "Mine and PoissonColumns, both called"),
    ],
)
def test_a_family_that_is_none_and_a_value_of_none_are_refused(families, said):
    x = torch.ones(20, 1).double()
    x[3] = -1
    with pytest.raises(InputError, match=said):
        jensen.MixtureModel(2, families).fit(x)
