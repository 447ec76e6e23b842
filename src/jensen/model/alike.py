"""Components that have ended as one: a mixture of fewer, which no likelihood can tell from that of as many."""

import torch
from torch import Tensor

from jensen.family.mixture import Mixture

_ALIKE = 0.05
"""Deviations, of mean and of covariance, below which two components are one: to tell them apart takes 1 / 0.05^4 points."""


def alike(p: Mixture) -> list[tuple[int, int]]:
    """The pairs `(i, j)`, i < j, of components of `p` `(K,)` with the same mean and covariance, whatever their units."""
    mean, factor = p.components.full()
    pairs = []
    for first in range(len(mean) - 1):
        moved = _whitened(factor[first], (mean[first + 1 :] - mean[first]).mT).norm(dim=0)
        for place in (moved < _ALIKE).nonzero().flatten().tolist():
            second = first + 1 + place
            shape = _whitened(factor[first], factor[second])
            if float((shape @ shape.mT - torch.eye(len(shape)).to(shape)).norm()) < _ALIKE:
                pairs.append((first, second))
    return pairs


def _whitened(factor: Tensor, columns: Tensor) -> Tensor:
    solved: Tensor = torch.linalg.solve_triangular(factor, columns, upper=False)
    return solved
