"""Components of columns: densities against torch.distributions, sums against direct ones, the M-step
against natural gradients, EM against the digits of the theory reference.
"""

import itertools
import math

import pytest
import torch
from mixtures import close, normal, weights
from torch import distributions as other

from jensen.em import steps, stream
from jensen.em.coordinates import coordinates, mixture_at
from jensen.em.stream import Stream
from jensen.family.bernoulli_columns import BernoulliColumns
from jensen.family.categorical_column import CategoricalColumn
from jensen.family.columns import Columns
from jensen.family.mixture import Mixture
from jensen.family.moments import PseudoCounts, add
from jensen.family.normal_columns import NormalColumns
from jensen.family.poisson_columns import PoissonColumns


def columns(n=2, b=2, p=1, sizes=(3, 2), gaps=False, k=3, seed=0, lead=()):
    def random(width, number):
        return normal(*lead, k, width, seed=seed + number)

    shares = [
        CategoricalColumn(random(size, 10 + place).log_softmax(-1))
        for place, size in enumerate(sizes)
    ]
    groups = (
        NormalColumns(random(n, 1), random(n, 2)),
        BernoulliColumns(random(b, 3)),
        PoissonColumns(random(p, 4)),
        *shares,
    )
    return Columns(groups, torch.zeros(*lead, k, int(gaps), dtype=torch.float64))


def points(count=40, gaps=False, seed=1):
    draw = torch.Generator().manual_seed(seed)
    x = torch.cat(
        [
            torch.randn(count, 2, generator=draw),
            torch.randint(2, (count, 2), generator=draw),
            torch.randint(6, (count, 1), generator=draw),
            torch.randint(3, (count, 1), generator=draw),
            torch.randint(2, (count, 1), generator=draw),
        ],
        1,
    ).double()
    x[torch.rand(x.shape, generator=draw) < 0.3 * gaps] = math.nan
    return x


def of_each_column(c, x):
    """log p of each column by torch.distributions, `(N, K, D)`; 0 where it is missing."""
    there = ~x.isnan()
    x = x.nan_to_num(0.0).unsqueeze(1)
    real, ones, counts, *categories = c.groups
    parts = [
        other.Normal(real.mean, (0.5 * real.log_var).exp()).log_prob(x[..., :2]),
        other.Bernoulli(logits=ones.logit).log_prob(x[..., 2:4]),
        other.Poisson(counts.log_rate.exp()).log_prob(x[..., 4:5]),
        *(
            other.Categorical(logits=each.log_share).log_prob(x[..., 5 + place]).unsqueeze(-1)
            for place, each in enumerate(categories)
        ),
    ]
    return torch.cat(parts, -1).where(there.unsqueeze(1), 0.0)


every_gaps = pytest.mark.parametrize("gaps", [False, True])


@every_gaps
def test_the_density_is_that_of_torch_and_groups_are_independent(gaps):
    c = columns(gaps=gaps)
    x = points(gaps=gaps)
    close(c.log_density(x), of_each_column(c, x).sum(-1), 1e-12)


@every_gaps
def test_the_stream_has_the_sums_of_direct_ones(gaps):
    p = Mixture(normal(3, seed=9).log_softmax(-1), columns(gaps=gaps))
    x = points(gaps=gaps)
    w = torch.rand(len(x), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    origin = torch.tensor([0.3, -0.2, 0, 0, 0, 0, 0]).double()
    about = p._replace(components=p.components.shifted(-origin))

    def chunks(size):
        yield from ((x[rows], w[rows]) for rows in (slice(15), slice(15, None)))

    found = Stream(chunks, len(x), origin)(about)
    joint = p.log_weight + of_each_column(p.components, x).sum(-1)
    close(found.log_likelihood, joint.logsumexp(-1) @ w)
    mine = about.components.maximise(stream.moments(about, found)).shifted(origin)
    r = joint.softmax(-1) * w.unsqueeze(1)
    direct = p.components.maximise(p.components.moments(x, r))
    close(mine.log_density(x), direct.log_density(x), 1e-9)
    q = stream.expected_log_joint(about, stream.coefficients(about), found)
    close(q, (r * joint).sum())


@every_gaps
@pytest.mark.parametrize("credit", [0.0, 1.5])
def test_the_m_step_is_the_maximum_of_each_column(gaps, credit):
    """By the family's own: the weighted mean of what is there, with the pseudo-counts."""
    x = points(gaps=gaps)
    r = weights(40)
    prior = PseudoCounts(values=credit, mean=2.0)
    old = columns(gaps=gaps)
    new = old.maximise(old.moments(x, r), prior)
    there = ~x.isnan()
    seen = r.T @ there.double()
    sums = r.T @ x.nan_to_num(0.0)
    real, ones, counts, *categories = new.groups
    close(real.mean, (sums / seen)[:, :2])
    close(ones.logit.sigmoid(), ((sums + credit / 2) / (seen + credit))[:, 2:4])
    close(counts.log_rate.exp(), ((sums + credit * 2) / (seen + credit))[:, 4:5])
    for code in range(3):
        share = (r.T @ (x[:, 5] == code).double() + credit / 3) / (seen[:, 5] + credit)
        close(categories[0].log_share.exp()[:, code], share)
    deviations = (x[:, None, :2] - real.mean).nan_to_num(0.0).square()
    close(real.log_var.exp(), (r[..., None] * deviations).sum(0) / seen[:, :2])


def test_moments_of_parts_are_those_of_the_whole():
    c = columns()
    x = points()
    r = weights(40)
    parts = add([c.moments(x[rows], r[rows]) for rows in (slice(7), slice(7, None))])
    for found, expected in zip(parts, c.moments(x, r), strict=True):
        close(found, expected, 1e-12)


def test_probabilities_of_all_zeros_and_ones_add_up_to_one():
    c = columns(n=0, b=5, p=0, sizes=())
    p = Mixture(normal(3, seed=9).log_softmax(-1), c)
    every = torch.tensor([*itertools.product([0.0, 1.0], repeat=5)]).double()
    close(p.log_prob(every).exp().sum(), torch.tensor(1.0).double(), 1e-12)


def test_coordinates_name_a_mixture_of_columns():
    about, other = (
        Mixture(normal(3, seed=9 + seed).log_softmax(-1), columns(seed=seed)) for seed in (0, 5)
    )
    theta = coordinates(other, about)
    x = points()
    close(mixture_at(theta, about).log_prob(x), other.log_prob(x))


BITS = torch.tensor(
    [
        [int(bit) for bit in row]
        for row in ["1100", "1110", "1000", "1101", "0011", "0111", "0001", "0010"]
    ]
).double()
COUNTS = torch.tensor([0, 1, 1, 2, 2, 3, 5, 6, 7, 7, 8, 9, 12]).double().unsqueeze(1)


@pytest.mark.parametrize(
    ("x", "start", "path", "end"),
    [
        (
            BITS,
            {
                "b": 4,
                "start": BernoulliColumns(
                    torch.tensor(
                        [[0.6, 0.6, 0.4, 0.4], [0.4, 0.4, 0.6, 0.6]], dtype=torch.float64
                    ).logit()
                ),
            },
            (-2.719689466, -2.627498614, -2.509701789),
            -2.380152614,
        ),
        (
            COUNTS,
            {"p": 1, "start": PoissonColumns(torch.tensor([[2.0], [6.0]]).double().log())},
            (-2.602988749, -2.49319214, -2.490080706),
            -2.489978938,
        ),
    ],
    ids=["bernoulli", "poisson"],
)
def test_em_has_the_digits_of_the_reference(x, start, path, end):
    sizes = {"n": 0, "b": start.get("b", 0), "p": start.get("p", 0), "sizes": (), "k": 2}
    c = columns(**sizes)
    own = start["start"]
    groups = tuple(own if isinstance(own, type(each)) else each for each in c.groups)
    c = c._replace(groups=groups)
    p = Mixture(torch.full((2,), -math.log(2), dtype=torch.float64), c)
    for expected in path:
        assert p.log_prob(x).mean().item() == pytest.approx(expected, abs=6e-10)
        p = steps.fit(x, p, 1)
    p = steps.fit(x, p, 1000)
    assert p.log_prob(x).mean().item() == pytest.approx(end, abs=6e-10)
