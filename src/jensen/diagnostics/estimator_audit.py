"""Minibatch estimates of the rate's parts, beside the exact values."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from jensen.base.errors import check_count, check_list, check_seed
from jensen.base.random import fold, normal, permutation
from jensen.base.tree import tree_map
from jensen.bound.decomposition import decompose
from jensen.bound.minibatch import ESTIMATORS, log_weight, minibatch_parts
from jensen.diagnostics.decomposition import shared_out
from jensen.diagnostics.snapshot import Snapshot, takes
from jensen.family import gaussian
from jensen.family.family import Family, diagonal
from jensen.family.gaussian import Gaussian

PARTS = ("mutual_information", "total_correlation", "dimension_wise_kl")


@takes(Gaussian)
def estimator_audit(
    snapshot: Snapshot,
    sizes: Sequence[int] = (64, 256, 1024),
    batches: int = 10,
    samples: int = 4096,
    seed: int = 0,
) -> Mapping[str, Tensor | str]:
    """Each estimator of `bound.minibatch` on batches of the held-out set, the first of `sizes` as
    scalars, all as a table.

    Mean over `batches` batches of each size, without repetition within a batch; the N of the
    estimators is that of the held-out set, so the exact decomposition of it is what they should
    give. The estimates of a batch add up to its rate whatever the estimator: that they do says
    nothing. DWKL is what is left of the rate, KL(q(z) || p(z)) - TC, as in `objective.decomposed`:
    for a prior that factorises it is the dimension-wise KL.
    """
    check_list("sizes", sizes)
    for size in sizes:
        check_count("sizes", size, least=2)
    check_count("batches", batches)
    check_count("samples", samples, least=2)
    check_seed("seed", seed)
    q = tree_map(Tensor.double, diagonal(snapshot.posterior, "diagnostics=[estimator_audit]"))
    generator = torch.Generator().manual_seed(seed)
    exact = decompose(
        q, samples=samples, generator=generator, prior=snapshot.prior, log_density=shared_out
    )
    truth = [
        exact.mutual_information,
        exact.total_correlation,
        exact.marginal_kl - exact.total_correlation,
    ]
    sizes = [size for size in sizes if size <= len(q.mean)]
    like = snapshot.z.dtype
    found = {
        (name, size): _mean(q, snapshot.prior, name, size, batches, seed, like)
        for name in ESTIMATORS
        for size in sizes
    }

    results: dict[str, Tensor | str] = {
        f"{part}_exact": value for part, value in zip(PARTS, truth, strict=True)
    }
    for name in ESTIMATORS if sizes else ():
        results |= {
            f"{part}_{name}": value
            for part, value in zip(PARTS, found[name, sizes[0]], strict=True)
        }
    head = f"Bias of MI / TC / DWKL against the exact {' / '.join(f'{value:.2f}' for value in truth)} nats, N = {len(q.mean)}"
    rows = [["estimator", *(f"M = {size}" for size in sizes)], ["---"] * (1 + len(sizes))]
    for name in ESTIMATORS:
        biases = ((found[name, size] - torch.stack(truth)).tolist() for size in sizes)
        rows.append([name, *(" / ".join(f"{bias:+.2f}" for bias in three) for three in biases)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return results | {"table": f"{head}\n\n{table}"}


def _mean(
    q: Gaussian,
    prior: Family,
    estimator: str,
    size: int,
    batches: int,
    seed: int,
    dtype: torch.dtype,
) -> Tensor:
    """MI, TC and DWKL, `(3,)`, averaged over the batches, which are the same for every
    estimator.
    """
    weight = log_weight(estimator, size, len(q.mean), like=q.mean)
    total = torch.zeros(3).to(q.mean)
    for batch in range(batches):
        row = permutation(fold(seed, "batch", size, batch), len(q.mean))[:size].to(q.mean.device)
        some = Gaussian(q.mean[row], q.log_var[row])
        z = gaussian.sample(
            some, normal(fold(seed, "noise", size, batch), row, (q.mean.shape[1],), torch.float64)
        )
        log_prior = prior.log_prob(z.to(dtype)).to(z)
        total += minibatch_parts(z, some, weight, log_prior) / batches
    return total
