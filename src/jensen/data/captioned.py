"""Images with what is known of them as modalities of their own, each one-hot."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from jensen.data.examples import Decode, Examples


def captioned(examples: Examples, places: Sequence[int]) -> Examples:
    """Examples whose observations are image and factors `places` in one, `(B, P)`: the image
    flattened, then each of these factors one-hot. The factors stay what they are.

    The stored rows are uint8, an image's and then a number for each factor.
    """
    stored = examples.stored.flatten(1)
    labels = examples.factors[:, list(places)].to(stored)
    sizes = tuple(examples.sizes[place] for place in places)
    return replace(
        examples,
        stored=torch.cat([stored, labels], 1),
        decode=partial(_decode, examples.decode, tuple(examples.stored.shape[1:]), sizes),
        bytewise=False,
    )


def _decode(decode: Decode, width: tuple[int, ...], sizes: tuple[int, ...], rows: Tensor) -> Tensor:
    image = decode(rows[:, : prod(width)].reshape(-1, *width)).flatten(1)
    labels = rows[:, prod(width) :].long()
    hot = [one_hot(label, size) for label, size in zip(labels.T, sizes, strict=True)]
    return torch.cat([image, *(each.to(image) for each in hot)], 1)
