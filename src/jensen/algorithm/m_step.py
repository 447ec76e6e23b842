"""M-steps as an optimiser's, with a memory of what the last one was made of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from jensen.algorithm.fate import Fate
from jensen.em.steps import Prior, log_prior, m_step
from jensen.em.stream import Statistics, coefficients, expected_log_joint, moments
from jensen.em.variational import Belief
from jensen.family.mixture import Mixture


class Rule(NamedTuple):
    """Settings of M-steps.

    decay: of the step size of stepwise EM; None for EM on all data.
    tolerance: nats per example; the M-step after one that gained less is the last. 0: none is.
    weights_first: M-steps at the beginning that change only the weights.
    annealed: the step from which on the temperature stays as it is.
    size: of the data, once it is known.
    """

    decay: float | None
    tolerance: float
    weights_first: int
    annealed: int
    size: int = 0


class Part(NamedTuple):
    """The sums of a part of the data on this rank, and of how many batches; None of none."""

    seen: Statistics | None = None
    batches: int = 0

    def with_batch(self, more: Statistics) -> "Part":
        """The part and one batch more."""
        seen = more if self.seen is None else Statistics(*map(torch.add, self.seen, more))
        return Part(seen, self.batches + 1)

    def over_ranks(self, reduce: Callable[..., Any]) -> Statistics:
        """The sums of all ranks' parts; `reduce`: the trainer's strategy's."""
        assert self.seen is not None, "no batches"
        return Statistics(*(reduce(sums.contiguous(), reduce_op="sum") for sums in self.seen))


class MStep(Optimizer):
    """M-steps, counted, continued and saved as any optimiser's; `step` is that of Lightning,
    `maximise` the mathematics.
    """

    def __init__(self, parameters: list[Tensor], rule: Rule, fate: Fate) -> None:
        super().__init__(parameters, {})
        self.rule = rule
        self.fate = fate

    def step(self, closure: Any) -> None:
        closure()

    @property
    def memory(self) -> dict[str, Tensor]:
        """The fields of the last M-step's `Statistics`, their entropy, and the objective before it;
        empty at first.
        """
        return self.state[self.param_groups[0]["params"][0]]

    @property
    def statistics(self) -> Statistics:
        """The sums that the last M-step was made of."""
        return Statistics(*(self.memory[name] for name in Statistics._fields))

    def maximise(
        self, seen: Statistics, p: Mixture, beta: float, prior: Prior, step: int
    ) -> tuple[Mixture, bool]:
        """The mixture of the next step, and whether that ends the training.

        Args:
            seen: the sums of the E-step at `p` and `beta`, over all data.
        """
        decay = self.rule.decay
        self.fate.tell_of_rounding(p, step)
        objective = seen.log_likelihood + log_prior(p, prior)
        converged = self._converged(objective, step)
        if decay is not None:
            seen = averaged(self.statistics, seen, (step + 2) ** -decay)
        found = m_step(p, moments(p, seen), prior)
        following = self.fate.reseed(found, seen, step, prior, look=converged)
        self.remember(seen, p, beta, objective)
        if step < self.rule.weights_first:
            following = following._replace(components=p.components)
        return following, converged and not self.fate.reseeded_at(step)

    def _converged(self, objective: Tensor, step: int) -> bool:
        """Tell whether the last M-step gained too little; not where no tolerance is set, since
        rounding loses nats too.
        """
        if self.rule.decay is not None or self.rule.tolerance == 0 or not self.memory:
            return False
        gain = (objective - self.memory["objective"]).item()
        changing = max(self.rule.annealed, self.rule.weights_first)
        return gain < self.rule.tolerance * self.rule.size and step > changing

    def remember(
        self, seen: Statistics, p: Mixture, beta: float, objective: Tensor | None = None
    ) -> None:
        """Keep the sums of an E-step at `p` and `beta`, and the objective there, that of the sums
        if none is given.
        """
        own = expected_log_joint(p, coefficients(p, beta), seen, beta)
        entropy = (seen.log_likelihood - own) / beta
        value = seen.log_likelihood if objective is None else objective
        self.memory.update(seen._asdict(), entropy=entropy, objective=value)

    def terms(self, seen: Statistics, p: Mixture, beta: float, prior: Prior) -> dict[str, float]:
        """The word of an E-step on the parameters, and on all data how the last M-step raised the
        bound; nats per example.

        The log-likelihood of a batch in stepwise EM is that of its examples, as if they were all
        there are. Of a Bayesian mixture there is the elbo, and no gap to an evidence that is not known.
        """
        terms = {"log_likelihood": seen.log_likelihood}
        if self.rule.decay is None and self.memory:
            q = expected_log_joint(p, coefficients(p, beta), self.statistics, beta)
            entropy = self.memory["entropy"]
            bound = q + beta * entropy
            terms |= {
                "q": q,
                "entropy": entropy,
                "bound": bound,
                "gap": seen.log_likelihood - bound,
            }
        if isinstance(prior, Belief):
            terms = {name: terms[name] for name in terms if name not in ("bound", "gap")}
            terms["elbo"] = seen.log_likelihood + log_prior(p, prior)
        values = {name: value.item() / self.rule.size for name, value in terms.items()}
        return values | {"beta": beta} if self.rule.annealed else values


def times(factor: float, seen: Statistics) -> Statistics:
    """The sums of so many times the data."""
    return Statistics(*(factor * field for field in seen))


def averaged(before: Statistics, seen: Statistics, gamma: float) -> Statistics:
    """s + gamma (seen - s): the sums of stepwise EM (Cappe & Moulines 2009, eq. 14)."""
    return Statistics(*(old + gamma * (new - old) for old, new in zip(before, seen, strict=True)))
