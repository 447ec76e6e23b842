"""Variational Bayes of mixtures: EM with a belief in the place of each parameter.

    log p(x) >= elbo = sum_n log sum_k exp(E log weight_k + E log p(x_n; k)) - KL(q(weights) || p) - KL(q(components) || p)

The E-step is EM's, with expected coefficients (`family.believed`); the M-step adds its sums to the
prior (Attias 2000; Bishop 2006, section 10.2). An M-step from running averages of sums is stochastic
variational inference, a step along the natural gradient (Hoffman et al. 2013, eq. 22-26).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from jensen.family import exponential
from jensen.family.beta import Beta
from jensen.family.dirichlet import Dirichlet
from jensen.family.mixture import Mixture


class Sticks(NamedTuple):
    """Weights by breaking a stick: the k-th is a part ~ Beta(a_k, b_k) of what those before it left, the
    last all the rest (Blei & Jordan 2006); `a` and `b` are `(..., K - 1)`.
    """

    a: Tensor
    b: Tensor

    def updated(self, total: Tensor) -> "Sticks":
        """With the counts `(..., K)`."""
        after = total.flip(-1).cumsum(-1).flip(-1)[..., 1:]
        return Sticks(self.a + total[..., :-1], self.b + after)

    def expected_logs(self) -> Tensor:
        """E log weight, `(..., K)`."""
        broken, left = Beta(*self).mean_parameters().unbind(-1)
        none = torch.zeros_like(self.a[..., :1].sum(-1, keepdim=True))
        before = torch.cat([none, left.cumsum(-1)], -1)
        return before + torch.cat([broken, none], -1)

    def mean(self) -> Tensor:
        """E weight, `(..., K)`."""
        part = self.a / (self.a + self.b)
        one = torch.ones_like(part[..., :1].sum(-1, keepdim=True))
        before = torch.cat([one, (1 - part).cumprod(-1)], -1)
        return before * torch.cat([part, one], -1)

    def cost(self, prior: "Sticks") -> Tensor:
        """KL to the prior, `(...)`."""
        return exponential.kl(Beta(*self), Beta(*prior)).sum(-1)

    def drawn(self, draws: int, generator: torch.Generator) -> Tensor:
        """Weights `(draws, K)`."""
        parts = [
            torch._standard_gamma(each.expand(draws, *each.shape).contiguous(), generator=generator)
            for each in self
        ]
        share = parts[0] / (parts[0] + parts[1])
        one = torch.ones_like(self.a.sum(-1)).expand(draws, 1)
        before = torch.cat([one, (1 - share).cumprod(-1)], -1)
        return before * torch.cat([share, one], -1)


class Shares(NamedTuple):
    """Weights ~ Dirichlet(concentration), `(..., K)`."""

    concentration: Tensor

    def updated(self, total: Tensor) -> "Shares":
        return Shares(self.concentration + total)

    def expected_logs(self) -> Tensor:
        return Dirichlet(self.concentration).mean_parameters()

    def mean(self) -> Tensor:
        return self.concentration / self.concentration.sum(-1, keepdim=True)

    def cost(self, prior: "Shares") -> Tensor:
        return exponential.kl(Dirichlet(self.concentration), Dirichlet(prior.concentration))

    def drawn(self, draws: int, generator: torch.Generator) -> Tensor:
        shape = self.concentration.expand(draws, *self.concentration.shape).contiguous()
        found = torch._standard_gamma(shape, generator=generator)
        return found / found.sum(-1, keepdim=True)


class Belief(NamedTuple):
    """The conjugate prior of a mixture, which `em.steps.m_step` adds moments to; its components are of
    `family.believed`, `(K, ...)`.

    A posterior's counts are those of its means less the prior's: they say what its weights are.
    """

    weights: Any
    components: Any

    @property
    def has_floor(self) -> bool:
        return False

    @property
    def believes(self) -> bool:
        return True

    def log_weight(self, total: Tensor) -> Tensor:
        """E log weight of counts `(..., K)`."""
        found: Tensor = self.weights.updated(total).expected_logs()
        return found

    def counts(self, components: Any) -> Tensor:
        """The points that each component of a posterior has, `(..., K)`."""
        found: Tensor = components.mean_count - self.components.mean_count
        return found.clamp(min=0.0)

    def log_density(self, log_weight: Tensor, components: Any) -> Tensor:
        """-KL of the posterior, `(...)`, with all constants."""
        posterior = self.weights.updated(self.counts(components))
        found: Tensor = components.log_prior(self) - posterior.cost(self.weights)
        return found

    def shifted(self, offset: Tensor) -> "Belief":
        """The belief of points moved by `offset` `(D,)`."""
        moved = self.components._replace(mean=self.components.mean + offset)
        return self._replace(components=moved)


def expected(p: Mixture) -> Mixture:
    """The mixture of Gaussians whose E-step is that of the beliefs `p`, with weights that need not add up to
    1; other mixtures as they are.
    """
    if not hasattr(p.components, "expected"):
        return p
    components, constant = p.components.expected()
    return Mixture(p.log_weight + constant, components)
