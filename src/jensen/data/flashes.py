"""Flashes and beeps: counts that two noisy senses measure, and what they were."""

import torch
from torch.nn.functional import one_hot

from jensen.base.errors import check_count, check_number, check_seed
from jensen.base.random import fold, normal, uniform
from jensen.data.examples import Examples, identity


def flashes(
    size: int = 20_000,
    counts: int = 5,
    flash_sd: float = 0.8,
    beep_sd: float = 0.3,
    common: float = 0.5,
    seed: int = 0,
    split: str = "train",
) -> Examples:
    """`size` observations `(N, 2 + 2 C)`: a count of flashes as it looks, a count of beeps as it
    sounds, and both as they were, one-hot.

    Counts are 0..C - 1, all alike; with the chance `common` both have one cause and so one count,
    else one each (Shams et al. 2005). They are the factors, as is the cause.
    """
    check_count("size", size)
    check_count("counts", counts, least=2)
    check_number("flash_sd", flash_sd, low=1e-6)
    check_number("beep_sd", beep_sd, low=1e-6)
    check_number("common", common, low=0, high=1)
    check_seed("seed", seed)
    index = torch.arange(size)
    own = (uniform(fold(seed, "counts", split), index, (2,), torch.float64) * counts).long()
    one = uniform(fold(seed, "cause", split), index, (1,), torch.float64) < common
    shown = torch.where(one, own[:, :1], own)
    scatter = normal(fold(seed, "noise", split), index, (2,), torch.float64)
    measured = shown + scatter * torch.tensor([flash_sd, beep_sd]).double()
    labels = one_hot(shown, counts).flatten(1)
    points = torch.cat([measured, labels.to(measured)], 1).float()
    factors = torch.cat([shown, one.long()], 1)
    return Examples(points, identity, factors, ("flashes", "beeps", "common"), (counts, counts, 2))
