"""Where EM starts: greedy k-means++, against scikit-learn's; weights, copies, and starts at
different points.
"""

import pytest
import torch
from mixtures import STRUCTURES, every_structure
from sklearn.cluster import kmeans_plusplus
from sklearn.datasets import make_blobs
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from jensen.base.errors import InputError
from jensen.em.start import Sample, _of_cells, kmeans, kmeans_plus_plus, scattered
from jensen.family.full import full as whole

BLOBS, LABEL = make_blobs(1500, 5, centers=8, random_state=5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sample(x, weights=None):
    x = torch.as_tensor(x, dtype=torch.float64)
    weights = (
        torch.ones(len(x), dtype=torch.float64)
        if weights is None
        else torch.as_tensor(weights, dtype=torch.float64)
    )
    return Sample(x, weights, x.mean(0), x.var(0))


def cost(x, centre):
    """Mean squared distance from the nearest centre."""
    return torch.cdist(torch.as_tensor(x), torch.as_tensor(centre)).amin(-1).square().mean(-1)


def test_centres_cost_what_scikit_learns_do():
    """9.64 and 9.70 on average over 1,000 starts; with one candidate for each centre 18.4."""
    x = torch.as_tensor(BLOBS)
    ours = cost(x, kmeans_plus_plus(x, torch.ones(1500).double(), 8, 400, generator()))
    theirs = torch.stack(
        [cost(x, kmeans_plusplus(BLOBS, 8, random_state=seed)[0]) for seed in range(100)]
    )
    error = (ours.var() / 400 + theirs.var() / 100).sqrt()
    assert abs(ours.mean() - theirs.mean()) < 3 * error
    assert ours.mean() < 11


def test_a_point_of_great_weight_is_a_centre_and_one_of_none_never():
    x = torch.as_tensor(BLOBS)
    weights = torch.ones(1500).double()
    weights[7] = 1e9
    weights[LABEL == 3] = 0
    centre = kmeans_plus_plus(x, weights, 8, 20, generator())
    assert (centre == x[7]).all(-1).any(-1).all()
    hidden = x[LABEL == 3]
    assert not (centre.unsqueeze(2) == hidden).all(-1).any()
    mean = scattered(
        STRUCTURES[0], sample(x, weights.clamp(min=1e-9)), 1, 20, generator()
    ).components.mean
    assert (mean == x[7]).all()


@every_structure
@pytest.mark.parametrize("make", [kmeans, scattered])
def test_copies_are_one_point_of_their_weight(structure, make):
    """No two components start alike, whatever stands twice in the data."""
    x = torch.arange(6).double().repeat(50).unsqueeze(1) * torch.tensor([1.0, -2.0]).double()
    mean = make(structure, sample(x), 6, 10, generator()).components.mean
    assert mean.shape == (10, 6, 2)
    torch.testing.assert_close(
        mean.sort(1).values, x[:6].sort(0).values.expand_as(mean), rtol=0, atol=0.3
    )
    with pytest.raises(
        InputError,
        match="x has only 6 different points: expected at least 7, one for each component",
    ):
        make(structure, sample(x), 7, 10, generator())


@every_structure
def test_a_start_is_the_most_probable_of_five_whatever_others_there_are(structure):
    """By the density in torch.distributions; others of the same draws are less probable."""
    data = sample(torch.randn(200, 3, generator=generator()))
    found = kmeans(structure, data, 8, 4, generator())
    every = _of_cells(structure, data, 8, 20, generator())

    def value(p, row):
        full = whole(structure(*(part[row] for part in p.components)))
        parts = MultivariateNormal(full.mean, scale_tril=full.scale_tril)
        mixed = MixtureSameFamily(Categorical(logits=p.log_weight[row]), parts)
        return mixed.log_prob(data.x).sum().item()

    values = [value(every, row) for row in range(20)]
    expected = [max(values[5 * row : 5 * row + 5]) for row in range(4)]
    assert [value(found, row) for row in range(4)] == pytest.approx(expected, rel=1e-9)
    assert min(expected) > min(values)
