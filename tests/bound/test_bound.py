"""The bound and what a model says of a minibatch: plain pytrees."""

import torch
from torch.func import vmap
from torch.utils import _pytree as pytree

from jensen.bound.bound import Bound, Inference
from jensen.family.gaussian import Gaussian


def infer(x):
    return Inference(Bound(x.sum(-1), 2 * x.sum(-1)), Gaussian(x, -x), 3 * x, x.prod(-1))


def test_elbo_is_minus_the_sum_of_its_parts():
    bound = Bound(torch.tensor([3.0, -1.0]), torch.tensor([0.5, 2.0]))
    assert bound.elbo.tolist() == [-3.5, -1.0]


def test_tree_map_keeps_the_types():
    inference = infer(torch.ones(4, 3))
    mapped = pytree.tree_map(torch.Tensor.double, inference)
    assert (type(mapped), type(mapped.bound), type(mapped.posterior)) == (
        Inference,
        Bound,
        Gaussian,
    )
    leaves = pytree.tree_leaves(mapped)
    assert len(leaves) == 6
    assert {leaf.dtype for leaf in leaves} == {torch.float64}


def test_a_function_that_returns_an_inference_can_be_vmapped():
    x = torch.arange(24.0).reshape(2, 4, 3)
    stacked = vmap(infer)(x)
    assert (type(stacked), type(stacked.bound), type(stacked.posterior)) == (
        Inference,
        Bound,
        Gaussian,
    )
    assert stacked.bound.elbo.shape == (2, 4)
    for member in range(2):
        alone = infer(x[member])
        assert all(
            torch.equal(left[member], right)
            for left, right in zip(
                pytree.tree_leaves(stacked), pytree.tree_leaves(alone), strict=True
            )
        )
