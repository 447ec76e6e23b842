"""Distances of the runs' aggregate posteriors from their priors and from one another, as a table."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from jensen.base.random import fold, normal, permutation
from jensen.base.tree import tree_map
from jensen.bound.pairs import Pairs, Source, pairs
from jensen.bound.rate import BoundedBelow
from jensen.diagnostics.snapshot import Snapshot
from jensen.family import mixture
from jensen.family.gaussian import Gaussian
from jensen.family.unknown import Unknown

MOST = 2_000
"""Examples whose posteriors make an aggregate, and draws of each."""


class Codes(NamedTuple):
    """The marginal posteriors of some held-out examples, `(N, D)` float64, draws of the prior `(N, D)`,
    and its density; None where nobody knows it.
    """

    posterior: Gaussian
    draws: Tensor
    log_prior: Callable[[Tensor], Tensor] | None


def codes_of(snapshot: Snapshot) -> Codes | None:
    """The codes of a snapshot; None of posteriors that are not Gaussian in each latent."""
    marginals = getattr(snapshot.posterior, "marginals", None)
    own = None if marginals is None else marginals()
    if not isinstance(own, Gaussian):
        return None
    rows = permutation(fold(0, "aggregates"), len(own.mean))[:MOST].to(own.mean.device)
    posterior = tree_map(lambda part: part[rows].double().cpu(), own)
    prior = snapshot.prior
    known = not isinstance(prior, Unknown | BoundedBelow)
    device, dtype = snapshot.z.device, snapshot.z.dtype

    def log_prior(z: Tensor) -> Tensor:
        with torch.no_grad():
            return prior.log_prob(z.to(device, dtype)).double().cpu()

    draws = snapshot.draw(len(rows) + len(rows) % 2).double().cpu() if known else posterior.mean[:0]
    return Codes(posterior, draws, log_prior if known else None)


def aggregate(codes: Codes, seed: int) -> Source:
    """q(z) of the examples, with as many draws of each."""
    q = codes.posterior
    each = max(1, MOST // len(q.mean))
    many = tree_map(lambda part: part.repeat_interleave(each, 0), q)
    index = torch.arange(len(many.mean) - len(many.mean) % 2)
    noise = normal(fold(seed, "aggregates"), index, many.mean.shape[1:], torch.float64)
    draws = tree_map(lambda part: part[: len(index)], many).rsample(noise)
    return Source(draws, mixture.aggregate(q).log_prob)


def distances(names: Sequence[str], runs: Sequence[Codes]) -> list[list[str]]:
    """Rows of cells, heads first, a row a run: its q(z) to its prior, and to the q(z) of others with as
    many latents.
    """
    own = [aggregate(each, seed) for seed, each in enumerate(runs)]
    alike = len({source.draws.shape[1] for source in own}) == 1
    between = pairs(own) if alike and len(own) > 1 else None
    others = [f"KL to {name}" for name in names] + [f"JS to {name}" for name in names]
    rows = [["q(z) of", "KL(q to p)", "JS(q, p)", *(others if between else ())]]
    for at, (name, codes) in enumerate(zip(names, runs, strict=True)):
        row = [name, *_to_prior(codes, own[at])]
        if between is not None:
            each = (
                (between.kl, between.kl_error),
                (between.jensen_shannon, between.jensen_shannon_error),
            )
            for value, error in each:
                row += [_cell(value[at, to], error[at, to]) for to in range(len(own))]
        rows.append(row)
    return rows


def _to_prior(codes: Codes, q: Source) -> list[str]:
    if codes.log_prior is None:
        return ["unknown", "unknown"]
    found: Pairs = pairs([q, Source(codes.draws, codes.log_prior)])
    return [
        _cell(found.kl[0, 1], found.kl_error[0, 1]),
        _cell(found.jensen_shannon[0, 1], found.jensen_shannon_error[0, 1]),
    ]


def _cell(value: Tensor, error: Tensor) -> str:
    return f"{float(value):.3f} ± {float(error):.3f}" if error > 0 else f"{float(value):.3f}"
