"""A Gaussian that an invertible map has moved: a posterior that need not be a Gaussian."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jensen.family.flow import with_stretch
from jensen.family.gaussian import Gaussian


class FlowedGaussian(NamedTuple):
    """z = f(u; context) of u ~ `base`, log q(z) = log N(u; base) - log |det df/du|, an inverse
    autoregressive flow (Kingma et al. 2016, arXiv 1606.04934, eq. 9-11), whose context is the
    base's mean and log-variance.

    A draw and its density are one pass, `rsample_and_log_prob`. The density of any other point is D
    of them, exact all the same.

    base: `(B, D)`.
    flow: a context `(B, 2 D)` to f, a `torch.distributions.Transform` of events `(D,)`.

    >>> from torch.distributions.transforms import AffineTransform
    >>> base = Gaussian(torch.zeros(1, 2), torch.zeros(1, 2))
    >>> q = FlowedGaussian(base, lambda context: AffineTransform(1.0, 2 * torch.ones(2), event_dim=1))
    >>> q.mean, q.rsample_and_log_prob(torch.ones(1, 2))
    (tensor([[1., 1.]]), (tensor([[3., 3.]]), tensor([-4.2242])))
    """

    base: Gaussian
    flow: Callable[[Tensor], Any]

    @property
    def mean(self) -> Tensor:
        """The code `(B, D)`: where the flow takes the base's mean. E[z] has no closed form."""
        with torch.autocast(self.base.mean.device.type, enabled=False):
            moved: Tensor = self._transform()(self.base.mean)
            return moved

    def log_prob(self, x: Tensor) -> Tensor:
        """log q(x), `(B, D)` to `(B,)`, nats, exact."""
        with torch.autocast(x.device.type, enabled=False):
            transform = self._transform()
            u = transform.inv(x)
            _, stretch = with_stretch(transform, u)
            return self.base.log_prob(u) - stretch

    def rsample(self, noise: Tensor) -> Tensor:
        """A draw from standard normal `noise`, `(B, D)`."""
        return self.rsample_and_log_prob(noise)[0]

    def rsample_and_log_prob(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """A draw z from standard normal `noise`, `(B, D)`, and log q(z), `(B,)`, nats."""
        with torch.autocast(noise.device.type, enabled=False):
            u = self.base.rsample(noise)
            z, stretch = with_stretch(self._transform(), u)
            return z, self.base.log_prob(u) - stretch

    def _transform(self) -> Any:
        return self.flow(torch.cat([*self.base], -1))
