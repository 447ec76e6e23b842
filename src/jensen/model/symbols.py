"""p(x|z) of symbols: one of V, and grey levels by a discretised logistic."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from jensen.base.errors import InputError, check_count, check_number
from jensen.model.choice import choose, sharpened


class Categorical(nn.Module):
    """Symbols, one of V `classes` in each place; the output is their logits, `(B, V, *places)`.

    x is one-hot, `(B, V, *places)`, or numbered, `(B, *places)`; the decoder then gives V times as
    many numbers: model.decoder.x_shape=[V,*places].

    >>> x = torch.tensor([[0.0, 3.0, 1.0]])
    >>> round(Categorical(4).distortion(torch.zeros(1, 4, 3), x).item(), 4)  # 3 log 4
    4.1589
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        check_count("classes", classes, least=2)
        self.classes = classes

    def output_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the decoder's output for observations of a shape."""
        return x_shape if self._one_hot(x_shape) else (self.classes, *x_shape)

    def symbols(self, x_shape: tuple[int, ...]) -> int:
        """The number of symbols of an observation of that shape."""
        return math.prod(x_shape[1:] if self._one_hot(x_shape) else x_shape)

    def _one_hot(self, x_shape: tuple[int, ...]) -> bool:
        return bool(x_shape) and x_shape[0] == self.classes

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        log_p = _wide(output).log_softmax(1)
        if x.dim() == output.dim():
            return -(x * log_p).flatten(1).sum(1)
        return -log_p.gather(1, x.long().unsqueeze(1)).flatten(1).sum(1)

    def mean(self, output: Tensor) -> Tensor:
        """The probabilities of the classes, `(B, V, *places)`."""
        return _wide(output).softmax(1)

    def sample(
        self,
        output: Tensor,
        key: int,
        index: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Symbols by number, `(B, *places)`."""
        log_p = sharpened(_wide(output).movedim(1, -1), temperature, top_k, top_p)
        return choose(log_p, key, index).to(log_p.dtype)

    def check(self, x: Tensor) -> None:
        if self._one_hot(tuple(x.shape[1:])):
            fits = ((x == 0) | (x == 1)).all() and (x.sum(1) == 1).all()
        else:
            fits = ((x == x.round()) & (x >= 0) & (x < self.classes)).all()
        if not bool(fits):
            raise InputError(
                f"model/likelihood=categorical takes symbols 0 to {self.classes - 1}, or one-hot in"
                f" {self.classes} channels, but the data hold others, up to"
                f" {x.max().item():.3g}: set model.likelihood.classes, or number them"
            )


class DiscretisedLogistic(nn.Module):
    """Grey levels, 256 say in [0, 1]: a logistic density, integrated over each level's own interval,
    to infinity at both ends (Salimans et al. 2017, arXiv 1701.05517, eq. 2); of `components` > 1
    their mixture, with offsets, scales and weights that all pixels share.

    The output is the logit of the mean's place in (0, 1); the scales, on the range [-1, 1] of the
    paper, are learned from `scale`.

    Args:
        levels: of grey. components: L. scale: at the start.
    """

    def __init__(self, levels: int = 256, components: int = 1, scale: float = 0.1) -> None:
        super().__init__()
        check_count("levels", levels, least=2)
        check_count("components", components)
        check_number("scale", scale, low=1e-4, high=1e4)
        self.levels = levels
        self.log_scale = nn.Parameter(torch.full((components,), math.log(scale)))
        self.log_weight = nn.Parameter(torch.zeros(components))
        spread = scale * torch.linspace(-1, 1, components) if components > 1 else torch.zeros(1)
        self.offset = nn.Parameter(spread)

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        level = (x * (self.levels - 1)).round()
        return -self._log_p(output, level).flatten(1).sum(1)

    def log_levels(self, output: Tensor) -> Tensor:
        """log p of every level, `(B, *event)` to `(B, *event, levels)`."""
        level = torch.arange(self.levels, device=output.device).to(_wide(output))
        return self._log_p(output.unsqueeze(-1), level)

    def _log_p(self, output: Tensor, level: Tensor) -> Tensor:
        """log p of a level, elementwise, broadcast."""
        centre = (2 * _wide(output).sigmoid() - 1).unsqueeze(-1) + self.offset
        inverse = (-self.log_scale.clamp(min=-9)).exp()
        half = 1 / (self.levels - 1)
        place = (2 * half * level - 1).unsqueeze(-1) - centre
        above, below = (place + half) * inverse, (place - half) * inverse
        # log [sigmoid(a) - sigmoid(b)] = log sigmoid(a) + log sigmoid(-b) + log(1 - exp(b - a))
        within = logsigmoid(above) + logsigmoid(-below) + (-torch.expm1(below - above)).log()
        first = (level == 0).unsqueeze(-1)
        last = (level == self.levels - 1).unsqueeze(-1)
        each = torch.where(first, -softplus(-above), torch.where(last, -softplus(below), within))
        return (each + self.log_weight.log_softmax(0)).logsumexp(-1)

    def mean(self, output: Tensor) -> Tensor:
        """E[x | output], `(B, *event)`: the sum over levels above 0 of p(that or a higher one)."""
        flat = _wide(output).flatten()
        found = [self._mean(part) for part in flat.split(max(1, (1 << 20) // self.levels))]
        return torch.cat(found).view(output.shape)

    def _mean(self, output: Tensor) -> Tensor:
        """For numbers `(N,)`, `(N,)`."""
        centre = (2 * output.sigmoid() - 1)[:, None] + self.offset  # (N, L)
        inverse = (-self.log_scale.clamp(min=-9)).exp()
        level = torch.arange(1, self.levels).to(output)
        below = (2 * level - 1) / (self.levels - 1) - 1
        above = ((centre[..., None] - below) * inverse[:, None]).sigmoid().mean(-1)
        return (above * self.log_weight.softmax(0)).sum(-1)

    def sample(
        self,
        output: Tensor,
        key: int,
        index: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Grey levels in [0, 1], `(B, *event)`."""
        log_p = sharpened(self.log_levels(output), temperature, top_k, top_p)
        return choose(log_p, key, index).to(log_p.dtype) / (self.levels - 1)

    def check(self, x: Tensor) -> None:
        level = x.double() * (self.levels - 1)
        off = ~((level - level.round()).abs() < 1e-3) | (x < 0) | (x > 1)
        if bool(off.any()):
            raise InputError(
                f"model/likelihood=discretised_logistic takes {self.levels} levels in [0, 1] but the"
                f" data hold {x[off][0].item():.4g}: set model.likelihood.levels, or use"
                " model/likelihood=normal"
            )


def _wide(output: Tensor) -> Tensor:
    return output.to(torch.promote_types(output.dtype, torch.float32))
