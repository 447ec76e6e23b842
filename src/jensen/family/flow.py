"""A flow: the distribution whose points an invertible map takes to N(0, I)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from jensen.family import gaussian


class Flow(NamedTuple):
    """log p(x) = log N(f(x); 0, I) + log |det df/dx| (Rezende & Mohamed 2015, arXiv 1505.05770).

    transform: f, events `(D,)` to `(D,)`, a `torch.distributions.Transform`; its inverse makes
        draws. With `call_and_ladj(x)` it gives f(x) and the logarithm of the determinant at once.
    dim: D.

    >>> from torch.distributions.transforms import AffineTransform
    >>> twice = Flow(AffineTransform(torch.zeros(2), 0.5 * torch.ones(2), event_dim=1), 2)
    >>> twice.log_prob(torch.zeros(1, 2)), twice.rsample(torch.ones(1, 2))
    (tensor([-3.2242]), tensor([[2., 2.]]))
    """

    transform: Any
    dim: int

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), `(N, D)` to `(N,)`, nats, exact."""
        with torch.autocast(x.device.type, enabled=False):
            u, stretch = with_stretch(self.transform, x)
            return gaussian.STANDARD.log_prob(u) + stretch

    def rsample(self, noise: Tensor) -> Tensor:
        """Draws from standard normal `noise`, `(N, D)`."""
        with torch.autocast(noise.device.type, enabled=False):
            drawn: Tensor = self.transform.inv(noise)
            return drawn

    def marginal(self, latent: int) -> "Flow | None":
        """Itself where there is one coordinate; of more it is unknown."""
        return self if self.dim == 1 else None


def with_stretch(transform: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """f(x) `(N, D)` and log |det df/dx| `(N,)`."""
    if hasattr(transform, "call_and_ladj"):
        both: tuple[Tensor, Tensor] = transform.call_and_ladj(x)
        return both
    u = transform(x)
    return u, transform.log_abs_det_jacobian(x, u)
