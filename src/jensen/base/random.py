"""Draws that are a function of what they are for, not of what was drawn before.

A generator that is advanced draw by draw gives other numbers after a resume, on two ranks, with a
larger batch or inside a stack of models. Here a draw is a hash of `(key, example, position)`, as in
counter-based generators (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), with
the finaliser of SplitMix64 (Steele, Lea & Flood 2014) as the hash. The same example at the same
step gets the same noise wherever it is computed.
"""

import hashlib
import math

import torch
from torch import Tensor

# SplitMix64's constants 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9 and 0x94D049BB133111EB as signed
# words, which torch has.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))


_BLOCK = 1 << 14
"""Draws that are made at a time on a CPU: what a core's cache holds of the words for them."""


def fold(seed: int, *words: int | str) -> int:
    """A 64-bit key for the stream that `words` name under `seed`: `fold(seed, "noise", step)`."""
    digest = hashlib.blake2b(repr((seed, *words)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def key(seed: int, *words: int | str, device: torch.device | str = "cpu") -> Tensor:
    """`fold` as a tensor, `()` int64: what a step is told of the host, filled in without waiting
    for the device.
    """
    return torch.full((), fold(seed, *words), dtype=torch.int64, device=device)


def _shift_right(word: Tensor, by: int) -> Tensor:
    """Logical shift; on int64 torch's own shift repeats the sign."""
    return (word >> by).bitwise_and_((1 << (64 - by)) - 1)


def _mix(word: Tensor) -> Tensor:
    """Hash each word, in its place."""
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        word.bitwise_xor_(_shift_right(word, shift)).mul_(multiplier)
    return word.bitwise_xor_(_shift_right(word, 31))


def bits(key: int | Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uniform int64 words, `(B, *shape)`, for examples `index` `(B,)`.

    key: may be a tensor, `()` int64 (`key`), or `(B,)`, one of each example: of several steps at
        once, say.
    """
    position = torch.arange(1, math.prod(shape) + 1, device=index.device)
    row = _mix(index.long() * _GOLDEN + key)
    word = _mix(row[:, None] + position * _GOLDEN)
    return word.reshape(index.shape[0], *shape)


def uniform(
    key: int | Tensor, index: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draws in [0, 1), `(B, *shape)`, for examples `index` `(B,)`; 24 random bits in float32, 53 in
    float64.
    """
    digits = 53 if dtype == torch.float64 else 24
    return _shift_right(bits(key, index, shape), 64 - digits).to(dtype) * 2.0**-digits


def normal(
    key: int | Tensor, index: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Standard normal draws, `(B, *shape)`, for examples `index` `(B,)`, by Box & Muller (1958).

    In float32 no draw exceeds 5.8 in magnitude, in float64 8.6.
    """
    count = math.prod(shape)
    block = max(1, _BLOCK // max(1, count))
    if index.device.type == "cpu" and len(index) > block:
        keys = torch.as_tensor(key).expand(len(index))
        parts = zip(torch.split(keys, block), torch.split(index, block), strict=True)
        return torch.cat([normal(*part, shape, dtype) for part in parts])
    first, second = uniform(key, index, (2, count), dtype).unbind(1)
    radius = first.neg().log1p_().mul_(-2).sqrt_()
    return radius.mul_((2 * math.pi * second).cos_()).reshape(index.shape[0], *shape)


def permutation(key: int, size: int) -> Tensor:
    """A random order of `range(size)`, `(size,)`, on the CPU."""
    return bits(key, torch.arange(size), (1,))[:, 0].argsort()
