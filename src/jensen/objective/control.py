"""A beta that a controller sets, so that the rate stays at a target."""

import torch
from torch import Tensor

from jensen.base.errors import InputError
from jensen.base.schedule import Schedule, as_schedule
from jensen.bound.bound import Inference
from jensen.bound.minibatch import gather_minibatch
from jensen.objective.objective import Objective


class Control(Objective):
    """distortion + beta(t) * rate, mean over the batch, nats per example, with beta(t) from a PI
    controller.

    ControlVAE: Shao et al. 2020 (arXiv 2004.05988), eq. 5-7 and algorithm 1. With e(t) = target -
        mean rate of step t,

        beta(t) = beta_min + kp / (1 + exp(e(t))) + I(t),    I(t) = I(t-1) - ki * e(t)

    within [beta_min, beta_max]. I itself is kept within [0, beta_max - beta_min], so it winds up at
    neither end and turns round with the error (the paper keeps I as it was while beta is out of
    bounds).

    The one objective with a state: I and the last beta, which are in its checkpoints, change in
    training mode only, and are the same on all ranks, because the mean is over the whole minibatch.
    No gradient passes through beta.

    Args:
        target: rate to hold, nats, a number or a schedule of the optimiser's step, at least 0.
        kp, ki: gains, likewise.
        beta_min, beta_max: bounds, likewise.
    """

    of_minibatch = True
    integral: Tensor
    beta: Tensor

    def __init__(
        self,
        target: float | Schedule,
        kp: float | Schedule = 0.01,
        ki: float | Schedule = 0.001,
        beta_min: float | Schedule = 1.0,
        beta_max: float | Schedule = 100.0,
    ) -> None:
        super().__init__()
        self.target = as_schedule("target", target, low=0)
        self.kp = as_schedule("kp", kp, low=0)
        self.ki = as_schedule("ki", ki, low=0)
        self.beta_min = as_schedule("beta_min", beta_min, low=0)
        self.beta_max = as_schedule("beta_max", beta_max, low=0)
        least = self.beta_min.bounds[1]
        most = self.beta_max.bounds[0]
        if most < least:
            raise InputError(
                f"beta_max is {most:g}: expected at least beta_min, which is {least:g}"
            )
        self.register_buffer("integral", torch.zeros(()))
        self.register_buffer("beta", torch.tensor(self.beta_min.bounds[0]))

    def forward(self, inference: Inference, step: Tensor) -> Tensor:
        distortion, rate = inference.bound
        beta = self.beta
        if self.training:
            beta = self._update(gather_minibatch(rate.detach()).mean(), step)
        return (distortion + beta * rate).mean()

    def terms(self, inference: Inference, step: Tensor) -> dict[str, Tensor]:
        return {"beta": self.beta}

    @torch.no_grad()
    def _update(self, rate: Tensor, step: Tensor) -> Tensor:
        """Takes the mean rate of a step into the state; beta, `()`."""
        error = self.target(step) - rate
        low = self.beta_min(step)
        high = self.beta_max(step)
        integral = (self.integral - self.ki(step) * error).clamp(torch.zeros_like(low), high - low)
        beta = (low + self.kp(step) * torch.sigmoid(-error) + integral).clamp(max=high)
        self.integral.copy_(integral)
        self.beta.copy_(beta)
        return beta
