"""What E-steps of many small sets are made of, against torch's own."""

import pytest
import torch
from mixtures import normal

from jensen.em.sets import Space, log_of_products, responsibilities


@pytest.mark.parametrize("components", [1, 2, 3, 7])
def test_responsibilities_are_a_softmax_of_log_odds(components):
    log_odds = 5 * normal(4, components - 1, 50)
    if components > 1:
        log_odds[0, 0, :4] = torch.tensor([800.0, -800.0, 0.0, 40.0])
    joint = torch.cat([torch.zeros(4, 1, 50).double(), log_odds], 1)
    r, value = responsibilities(Space(log_odds), log_odds)
    torch.testing.assert_close(r, joint.softmax(1), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(value, joint.logsumexp(1).sum(-1), rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("most", [1.0, 2.0, 1e3])
def test_the_logarithm_of_a_product_is_the_sum_of_logarithms_however_many(most):
    value = (
        1 + (most - 1) * torch.rand(3, 9001, generator=torch.Generator().manual_seed(0)).double()
    )
    value[1] = most
    value[2] = 1 / most
    torch.testing.assert_close(
        log_of_products(value, most), value.log().sum(-1), rtol=1e-11, atol=0
    )


def test_space_is_written_over_and_never_too_small():
    space = Space(torch.zeros(1).double())
    first = space("a", 2, 3).fill_(1.0)
    second = space("a", 3)
    assert second.data_ptr() == first.data_ptr()
    assert space("a", 5, 5).shape == (5, 5)
    assert space("b", 3).data_ptr() != space("a", 3).data_ptr()
