"""Entropies and mutual information of codes and factors, in nats: what most scores are made of.

Natural logarithms throughout. Plug-in estimates count, and are biased up: by about (bins -
1)(classes - 1) / (2 N) nats for a mutual information (Miller 1955), which is .035 for 20 bins, 40
classes and 10,000 points, and .37 for 1,000.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jensen.scores.constant import DOUBLE, constant, settled
from jensen.scores.inputs import Floats, Labels, numbered, standardised

ROUNDING = 32 * np.finfo(float).eps
"""Nats below which a plug-in information is the rounding of 0: one count of 10 million moved is
worth more.
"""


def divide(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Floats:
    """`numerator / denominator` with x / 0 := 0: where there is nothing to share, nothing has a
    share of it.
    """
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, float), np.asarray(denominator, float)
    )
    return np.divide(
        numerator, denominator, out=np.zeros(denominator.shape), where=denominator != 0
    )


class Top(NamedTuple):
    """The largest entry along an axis, where it is, and the second largest (0 where there is no
    second).
    """

    first: Floats
    place: npt.NDArray[np.int64]
    second: Floats


def top(values: Floats, axis: int) -> Top:
    """The two largest of non-negative `values` along `axis`; of equal ones the first counts as the
    largest.
    """
    order = np.sort(values, axis)
    first = np.take(order, -1, axis)
    second = np.take(order, -2, axis) if values.shape[axis] > 1 else np.zeros_like(first)
    return Top(first, values.argmax(axis), second)


def discretise(codes: Floats, bins: int) -> Labels:
    """`codes` `(N, D)` to the numbers of `bins` equally wide intervals over each latent's range,
    `(N, D)`.

    As `numpy.digitize(z, numpy.histogram(z, bins)[1][:-1]) - 1`, written so that a constant latent,
    or one whose range is a few float spacings, is no error.
    """
    low, high = codes.min(0), codes.max(0)
    place = divide(codes - low, high - low)
    found = np.minimum((place * bins).astype(np.int64), bins - 1)
    edges = np.linspace(low, high, bins + 1)
    below = np.take_along_axis(edges, found, 0)
    above = np.take_along_axis(edges, found + 1, 0)
    # a place on an edge, as of codes on a grid, is rounded otherwise than the edge
    found -= codes < below
    found += (codes >= above) & (above > below) & (found < bins - 1)
    return found


def contingency(first: Labels, second: Labels) -> Floats:
    """Counts of each pair of labels, `(A, B)`, for labels `(N,)` numbered from 0."""
    shape = first.max() + 1, second.max() + 1
    return (
        np.bincount(first * shape[1] + second, minlength=shape[0] * shape[1])
        .reshape(shape)
        .astype(np.float64)
    )


def entropy(counts: npt.NDArray[np.floating | np.integer]) -> float:
    """Plug-in entropy of `counts` of any shape."""
    share = counts[counts > 0] / counts.sum()
    return float(max(-(share * np.log(share)).sum(), 0.0))


def entropies(labels: Labels) -> Floats:
    """H of each column, `(N, F)` to `(F,)`."""
    return np.array([entropy(np.bincount(column)) for column in numbered(labels).T])


def mutual_information(counts: Floats) -> float:
    """Plug-in mutual information of the pairs counted in `(A, B)`."""
    joint = counts / counts.sum()
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    held = joint > 0
    nats = float((joint[held] * np.log(joint[held] / independent[held])).sum())
    return nats if nats > ROUNDING else 0.0


def informations(discrete: Labels, factors: Labels) -> Floats:
    """Plug-in I(z_j; v_k) of discrete codes `(N, D)` and factors `(N, F)`: `(D, F)`."""
    discrete = numbered(discrete)
    factors = numbered(factors)
    return np.array(
        [[mutual_information(contingency(z, v)) for v in factors.T] for z in discrete.T]
    )


def binned_informations(codes: Floats, factors: Labels, bins: int) -> Floats:
    """Plug-in I(z_j; v_k) of codes `(N, D)` in equally wide `bins` and factors `(N, F)`: `(D, F)`;
    0 of constants.
    """
    return informations(discretise(settled(codes), bins), factors)


def neighbour_informations(codes: Floats, factors: Labels, neighbours: int) -> Floats:
    """I(z_j; v_k) of continuous codes `(N, D)` by nearest neighbours: `(D, F)`.

    Ross 2014 ("Mutual information between discrete and continuous data sets"), the estimator of
    Kraskov et al. 2004 for a discrete partner, as in scikit-learn's `mutual_info_classif`, which
    clamps it at 0. Its standard deviation on independent data is about 0.7 / sqrt(N) nats. No bins,
    so no ceiling: a perfect code reaches H(v_k).

    Scikit-learn asks for the points within the rounded distance of the furthest neighbour by a tree
    that rounds otherwise, so whether that neighbour counts hangs on the last bit of the codes, and
    it breaks ties by noise. Here it always counts, and equal distances do, among the neighbours of
    one value as well (Gao et al. 2017, arXiv 1709.06212).
    """
    scaled = standardised(codes)
    labels = numbered(factors)
    found = np.zeros((codes.shape[1], factors.shape[1]))
    for k, column in enumerate(labels.T):
        shared = np.bincount(column)[column] > 1  # a value that one point has tells it nothing
        for j in np.flatnonzero(~constant(codes)) if shared.any() else ():
            found[j, k] = _neighbour_information(scaled[shared, j], column[shared], neighbours)
    return np.minimum(found, entropies(factors))


def _neighbour_information(z: Floats, labels: Labels, neighbours: int) -> float:
    """The information of one latent `(N,)` on labels `(N,)`, each of which at least two points have."""
    from scipy.special import digamma

    order = np.argsort(z, kind="stable")
    z = z[order]
    labels = labels[order]
    near = np.empty(len(z))
    among_all = np.empty(len(z))
    for value in np.unique(labels):
        own = z[labels == value]
        radius = _radius(own, min(neighbours, len(own) - 1))
        near[labels == value] = _within(own, own, radius)
        among_all[labels == value] = _within(z, own, radius)
    counts = np.bincount(labels)[labels]
    nats = digamma(len(z)) + (digamma(near) - digamma(counts) - digamma(among_all)).mean()
    return float(max(nats, 0.0))


def _radius(z: Floats, neighbours: int) -> Floats:
    """The distance of each of sorted `z` `(N,)` to its nearest neighbours' furthest, `(N,)`."""
    beyond = np.full(neighbours, np.inf)
    padded = np.concatenate([-beyond, z, beyond])
    found = np.full(len(z), np.inf)
    for below in range(neighbours + 1):  # so many of the neighbours are below
        low = padded[neighbours - below : neighbours - below + len(z)]
        high = padded[2 * neighbours - below : 2 * neighbours - below + len(z)]
        found = np.minimum(found, np.maximum(z - low, high - z))
    return found


def _within(z: Floats, centres: Floats, radius: Floats) -> Labels:
    """Number of others of sorted `z` `(N,)` are within `radius` of each of `centres` `(M,)`, to
    rounding: `(M,)`.
    """
    reach = radius + DOUBLE * np.abs(z).max()
    return (
        np.searchsorted(z, centres + reach, "right")
        - np.searchsorted(z, centres - reach, "left")
        - 1
    )
