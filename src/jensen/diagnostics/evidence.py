"""log p(x) of held-out examples by importance sampling, and how loose the bound is."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from jensen.base.errors import check_count, check_seed
from jensen.base.random import fold, normal
from jensen.bound.rate import BoundedBelow
from jensen.diagnostics.snapshot import Snapshot, needs_density


@needs_density
def evidence(
    snapshot: Snapshot, samples: int = 64, count: int = 64, seed: int = 0
) -> Mapping[str, Tensor]:
    """log p(x) of `count` held-out examples, always the same, by `samples` draws each, with the standard
    error over examples.

    log (1/S) sum_s p(x, z_s) / q(z_s|x), Burda et al. 2016 (arXiv 1509.00519), eq. 8: below log
    p(x) in expectation, and nearer the more draws. `gap` is what it exceeds the mean elbo of the
    same draws by, at most KL(q(z|x) || p(z|x)). log p(z) is exact, also of a diffusion.
    """
    check_count("count", count, least=2)
    check_count("samples", samples)
    check_seed("seed", seed)
    x = snapshot.images[:count]
    log_weights = []
    for draw in range(samples):
        noise = normal(
            fold(seed, "evidence", draw),
            torch.arange(len(x), device=x.device),
            (snapshot.z.shape[1],),
        )
        inference = snapshot.infer(x, noise)
        log_prior = inference.log_prior
        if isinstance(snapshot.prior, BoundedBelow):
            log_prior = snapshot.prior.log_prob(inference.z)
        log_weights.append(
            (log_prior - inference.bound.distortion - inference.log_posterior).double()
        )
    log_weight = torch.stack(log_weights)
    bound = log_weight.logsumexp(0) - math.log(samples)
    return {
        "log_p": bound.mean(),
        "log_p_se": bound.std() / math.sqrt(len(x)),
        "gap": (bound - log_weight.mean(0)).mean(),
    }
