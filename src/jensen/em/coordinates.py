"""A mixture as a vector without constraints or units, about another: one parametrisation for all
that needs one.

SQUAREM extrapolates in it, implicit gradients are taken in it, and how far a step moves is said in
it.
"""

import torch
from torch import Tensor

from jensen.family.mixture import Mixture


def coordinates(p: Mixture, about: Mixture) -> Tensor:
    """`p` as a vector `(..., F)`, zero where `p` is `about`; a linear map of the data does not
    change it.

    Centred log-weights, and the components' own coordinates (`Components.free`): means in
    deviations of `about`, and logarithms of widths.
    """
    weight = p.log_weight - about.log_weight
    weight = weight - weight.mean(-1, keepdim=True)
    return torch.cat([weight, p.components.free(about.components)], -1)


def mixture_at(theta: Tensor, about: Mixture) -> Mixture:
    """The mixture with the `coordinates` theta `(..., F)`."""
    count = about.log_weight.shape[-1]
    log_weight = (about.log_weight + theta[..., :count]).log_softmax(-1)
    return Mixture(log_weight, about.components.of_free(theta[..., count:]))


def reach(theta: Tensor) -> Tensor:
    """The farthest that any parameter is moved, `(...)`: in deviations of its component, or as a
    logarithm.
    """
    return theta.abs().amax(-1)
