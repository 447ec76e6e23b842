"""Draws of symbols, and what makes them less random: temperature, the top k, the nucleus."""

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_count, check_float32, check_number
from jensen.base.random import uniform


def check_choosing(
    temperature: float, top_k: int | None, top_p: float | None, symbols: int | None
) -> None:
    """Refuse what no distribution over so many symbols, or over what is none, can be sharpened by."""
    check_float32("temperature", temperature)
    if not temperature > 0:
        raise InputError(
            f"temperature is {temperature:g}: expected more than 0; top_k=1 always takes the"
            " likeliest"
        )
    for name, value in (("top_k", top_k), ("top_p", top_p)):
        if value is not None and symbols is None:
            raise InputError(
                f"{name} is {value}: expected none, since this likelihood is over numbers, not"
                " symbols; leave it out, or set a temperature"
            )
    if top_k is not None and symbols is not None:
        check_count("top_k", top_k)
        if top_k > symbols:
            raise InputError(
                f"top_k is {top_k}: expected at most {symbols}, the symbols there are; leave it"
                " out to choose from all"
            )
    if top_p is not None:
        check_number("top_p", top_p)
        if not 0 < top_p <= 1:
            raise InputError(
                f"top_p is {top_p:g}: expected a probability above 0 and at most 1; leave it out to"
                " choose from all"
            )


def sharpened(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Log-probabilities `(..., V)` of symbols to choose from.

    temperature: divides the logits. top_k: of so many likeliest alone. top_p: of the fewest
    likeliest that together have that probability (the nucleus of Holtzman et al. 2020, arXiv
    1904.09751).

    >>> sharpened(torch.tensor([0.5, 0.25, 0.15, 0.1]).log(), top_k=2).exp()
    tensor([0.6667, 0.3333, 0.0000, 0.0000])
    """
    check_choosing(temperature, top_k, top_p, logits.shape[-1])
    logits = (logits / temperature).log_softmax(-1)
    falling, order = torch.sort(logits, dim=-1, descending=True, stable=True)
    left_out = torch.zeros_like(falling, dtype=torch.bool)
    if top_k is not None:
        left_out[..., top_k:] = True
    if top_p is not None:
        before = falling.exp().cumsum(-1) - falling.exp()
        left_out |= before >= top_p
    falling = falling.masked_fill(left_out, -torch.inf)
    return torch.empty_like(logits).scatter(-1, order, falling).log_softmax(-1)


def chance_of_one(
    logit: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """p(1), of the shape of the logits, of zeros and ones that are chosen so.

    >>> chance_of_one(torch.tensor([-1.0, 1.0]), top_k=1)
    tensor([0., 1.])
    """
    check_choosing(temperature, top_k, top_p, 2)
    if top_k is None and top_p is None:
        return (logit / temperature).sigmoid()
    pair = torch.stack([torch.zeros_like(logit), logit], -1)
    return sharpened(pair, temperature, top_k, top_p)[..., 1].exp()


def choose(log_p: Tensor, key: int, index: Tensor) -> Tensor:
    """A symbol `(B, ...)` int64 for each distribution `(B, ..., V)`, by inversion of its sums; an
    example's are a function of `key` and its `index` `(B,)` (`base.random`).
    """
    cumulative = log_p.exp().double().cumsum(-1)
    chance = uniform(key, index, tuple(log_p.shape[1:-1]), torch.float64)
    at = chance.unsqueeze(-1) * cumulative[..., -1:]
    return (cumulative <= at).sum(-1).clamp(max=log_p.shape[-1] - 1)
