"""p(x|z) in which each place of x is told those before it: a decoder that may need no z at all.

The decoder's output, one number a place, is the condition. `mean` is a sample, since that of all
places together says little; `mean_is_drawn` tells pictures so, which compare codes by the chances of
one draw.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from jensen.base.errors import InputError, check_count, check_counts
from jensen.base.random import uniform
from jensen.model.choice import chance_of_one, check_choosing


class MADE(nn.Module):
    """A masked perceptron over zeros and ones (Germain et al. 2015, arXiv 1502.03509): the logit of
    place i is the decoder's number there and a function of the places before i and of all of the
    decoder's numbers. It begins as the Bernoulli likelihood.

    Hidden units have degrees, spread evenly over the places; one of degree m is told places up to
    m, and tells places after m. With a `reach` r place i is told i - r to i - 1 alone.

    Args:
        x_shape: of an observation, taken in the order of its numbers.
        hidden: widths.
        reach: how far back a place looks; null: to the start.
    """

    mean_is_drawn = True

    def __init__(
        self, x_shape: Sequence[int], hidden: Sequence[int] = (256,), reach: int | None = None
    ) -> None:
        super().__init__()
        check_counts("x_shape", x_shape)
        check_counts("hidden", hidden)
        if reach is not None:
            check_count("reach", reach)
        self.x_shape = tuple(x_shape)
        self.size = math.prod(x_shape)
        place = torch.arange(self.size)
        degrees = [torch.arange(width) * self.size // width for width in hidden]
        masks = []
        before = place
        for after in degrees:
            if reach is None:
                mask = after[:, None] >= before
            elif before is place:
                mask = (after[:, None] >= place) & (after[:, None] < place + reach)
            else:
                mask = after[:, None] == before
            masks.append(mask)
            before = after
        told = place[:, None] > before if reach is None else place[:, None] == before + 1
        masks.append(told)
        self.layers = nn.ModuleList(nn.Linear(mask.shape[1], len(mask)) for mask in masks)
        self.conditions = nn.ModuleList(nn.Linear(self.size, width, bias=False) for width in hidden)
        for number, mask in enumerate(masks):
            self.register_buffer(f"mask_{number}", mask.float(), persistent=False)
        last: Any = self.layers[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def logits(self, output: Tensor, x: Tensor) -> Tensor:
        """`(B, *event)` each to `(B, P)`: place i of all before it."""
        condition = output.flatten(1).to(self._mask(0))
        h = 2 * x.flatten(1).to(condition) - 1
        for number, layer in enumerate(self.layers):
            own = cast(nn.Linear, layer)
            h = linear(h, own.weight * self._mask(number), own.bias)
            if number < len(self.conditions):
                h = (h + self.conditions[number](condition)).relu()
        return condition + h

    def _mask(self, layer: int) -> Tensor:
        mask: Tensor = getattr(self, f"mask_{layer}")
        return mask

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        logit = self.logits(output, x)
        return (softplus(logit) - x.flatten(1).to(logit) * logit).sum(1)

    def mean(self, output: Tensor) -> Tensor:
        """A sample, `(B, *event)`, the same every time."""
        return self.sample(output, 0, torch.arange(len(output), device=output.device))

    @torch.no_grad()
    def sample(
        self,
        output: Tensor,
        key: int,
        index: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Zeros and ones, `(B, *event)`, one place after another."""
        check_choosing(temperature, top_k, top_p, 2)
        chance = uniform(key, index, (self.size,)).to(output)
        x = torch.zeros_like(output.flatten(1))
        for place in range(self.size):
            logit = self.logits(output, x)[:, place]
            p = chance_of_one(logit, temperature, top_k, top_p)
            x[:, place] = (chance[:, place] < p).to(x)
        return x.view_as(output)

    def check(self, x: Tensor) -> None:
        check_binary("made", x)


def check_binary(name: str, x: Tensor) -> None:
    """Refuse observations that are not 0 or 1."""
    other = (x != 0) & (x != 1)
    if bool(other.any()):
        raise InputError(
            f"model/likelihood={name} takes x that is 0 or 1 but the data hold {x[other][0]:.3g}:"
            " binarise them, as data=mnist_binary does, or use another likelihood"
        )
