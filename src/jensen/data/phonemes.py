"""Syllables that are seen and heard: six places in a plane, each measured by two noisy senses."""

import torch
from torch.nn.functional import one_hot

from jensen.base.errors import check_count, check_number, check_seed
from jensen.base.random import fold, normal, uniform
from jensen.data.examples import Examples, identity

PHONEMES = {
    "ba": (0.0, 0.0),
    "da": (1.7, 0.8),
    "ga": (2.0, 2.0),
    "pa": (0.0, 4.0),
    "ta": (1.7, 4.8),
    "ka": (2.0, 6.0),
}
"""Visual and auditory place: da looks nearly like ga and sounds nearly like ba. The voiceless ones
look as the voiced do and sound elsewhere. The places are made up, to show the mechanism."""


def phonemes(
    size: int = 20_000,
    see_sd: float = 0.5,
    hear_sd: float = 0.6,
    seed: int = 0,
    split: str = "train",
) -> Examples:
    """`size` observations `(N, 1 + 1 + 6)`: the visual place as it looks, the auditory as it
    sounds, and the syllable one-hot. All syllables are alike; the factor is the syllable.
    """
    check_count("size", size)
    check_number("see_sd", see_sd, low=1e-6)
    check_number("hear_sd", hear_sd, low=1e-6)
    check_seed("seed", seed)
    index = torch.arange(size)
    count = len(PHONEMES)
    which = (uniform(fold(seed, "phoneme", split), index, (), torch.float64) * count).long()
    places = torch.tensor([*PHONEMES.values()], dtype=torch.float64)[which]
    scatter = normal(fold(seed, "noise", split), index, (2,), torch.float64)
    measured = places + scatter * torch.tensor([see_sd, hear_sd]).double()
    points = torch.cat([measured, one_hot(which, count).to(measured)], 1).float()
    return Examples(points, identity, which[:, None], ("phoneme",), (count,))
