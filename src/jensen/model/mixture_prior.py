"""p(z) = sum_k weight_k N(z; mean_k, diag var_k): a mixture of Gaussians as the prior of a VAE,
learned along with it.

For a fixed encoder the best prior is the aggregate posterior q(z) itself, and all that any prior
can gain is KL(q(z) || p) (Hoffman & Johnson 2016; Tomczak & Welling 2018, section 2). A mixture can
come near it, in closed form, by expectation-maximisation on the encoder's distributions; they enter
whole, with their variances, not as samples.

The functions here take mixtures with leading axes: a prior that factorises is D mixtures of one
dimension.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from jensen.base.errors import check_choice, check_number
from jensen.bound.rate import diagonal_components, responsibilities
from jensen.em import steps as em
from jensen.family.family import Posterior, marginals
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture
from jensen.family.moments import Moments, PseudoCounts
from jensen.model.online_mixture import OnlineMixture, average, gathered, mean_moments

FITS = ("em", "gradient", "both")


def em_step(
    p: Mixture, posterior: Gaussian, rate: Tensor | float = 1.0, floor: Tensor | float = 0.0
) -> Mixture:
    """A step of EM on the N distributions of `posterior` `(..., N, D)`, from `p` in float64.

    E-step: `responsibilities`. M-step: the moments of component k are sums of r_k, r_k E z = r_k
    mean and r_k E zz' = r_k (mean mean' + diag var). At `rate` 1 it is a full step, which never
    raises the mean `divergence`: both steps lower E_r [log r - log weight_k - E_q log p_k], whose
    least value over r it is. (The KL that it bounds may move either way.)

    At a lower `rate` it is stepwise EM (Cappe & Moulines 2009, eq. 10-11): the moments are averages
    that decay by 1 - rate, s <- (1 - rate) s + rate * (those of this minibatch, an example). They
    are not kept apart from the parameters: a mixture and its moments determine each other.
    """
    components = diagonal_components(p)
    now = mean_moments(posterior, components, responsibilities(posterior, p))
    weight = p.log_weight.exp()
    centred = components.mean - now.origin
    first = weight.unsqueeze(-1) * centred
    second = first * centred + weight.unsqueeze(-1) * components.log_var.exp()
    before = Moments(now.origin, weight, first, second)
    return em.m_step(p, average(before, now, rate), PseudoCounts(floor=floor))


class LearnedMixture(OnlineMixture):
    """A mixture of diagonal Gaussians, its state, and how it is learned from minibatches of
    posteriors.

    Up to step `warmup` all components are N(0, I), and so is the mixture, exactly. After the loss
    of that step they start at the means of examples of the minibatch, chosen by `base.random`, with
    equal weights; each variance is the minibatch's (of means, plus the mean of variances) times
    K^(-2/D), so that together they fill its volume, or the mean posterior variance if that is more.
    From then on

        fit="em"        a stepwise EM step (`em_step`) after the loss of each training step. The
        state is buffers, float64. fit="gradient"  parameters, trained with the rest of the model on
        the objective. fit="both"      parameters too; the EM steps move them as well, between each
        loss and the optimiser's step. EM leads
                        at first, its steps being large; they then fall to `forget`.

    The step size of EM t steps after the start is (t + delay)^-power, and at least `forget`: Cappe
    & Moulines 2009, section 3, who show convergence for power in (0.5, 1] and recommend 0.6; the
    least value is because the encoder never stands still, and a mixture that is to follow it must
    forget. power=0 is a full EM step on each minibatch.

    A component whose weight falls below `dead` / K begins again, after any step, at the mean of an
    example of the minibatch, with weight 1/K and the mean of the variances within components.

    Nothing here waits for the device. Under distributed training each rank takes the same steps on
    the minibatch of all.

    Args:
        shape: `(..., K, D)`.
        fit: one of `FITS`.
        warmup: as above; at least 0.
        floor: the least variance of a component, in (0, 1].
        dead: in [0, 1); 0 lets components die.
        power, delay, forget: the step size.
    """

    told_by_buffers = ("warmup", "floor", "dead", "power", "delay", "forget")
    log_weight: Tensor
    mean: Tensor
    log_var: Tensor
    log_least: Tensor
    log_dead: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        fit: str = "em",
        warmup: int = 200,
        floor: float = 1e-4,
        dead: float = 0.05,
        power: float = 0.6,
        delay: float = 20.0,
        forget: float = 0.01,
    ) -> None:
        check_choice("fit", fit, FITS)
        check_number("floor", floor, low=1e-12, high=1)
        check_number("dead", dead, low=0, high=1)
        super().__init__(shape, warmup, floor, power, delay, forget)
        components = shape[-2]
        self.fit = fit
        self.floor = floor
        self.dead = dead
        dtype = torch.float64 if fit == "em" else torch.get_default_dtype()
        standard = {
            "log_weight": torch.full(shape[:-1], -math.log(components), dtype=dtype),
            "mean": torch.zeros(shape, dtype=dtype),
            "log_var": torch.zeros(shape, dtype=dtype),
        }
        for name, value in standard.items():
            if fit == "em":
                self.register_buffer(name, value)
            else:
                setattr(self, name, nn.Parameter(value))
        self._hold(
            log_least=math.log(floor),
            log_dead=math.log(max(dead, 1e-300) / components),
        )

    def mixture(self) -> Mixture:
        """In float64, with gradient from the start on."""
        started = (
            self.started.clone()
        )  # copies, as torch.where's: update changes all state between a loss and its gradient
        log_weight, mean, log_var = (
            torch.where(started, part, part.detach()).double()
            for part in (self.log_weight, self.mean, self.log_var)
        )
        return Mixture(
            log_weight.log_softmax(-1), Gaussian(mean, log_var.clamp(min=self.log_least))
        )

    @torch.no_grad()
    def update(self, posterior: Gaussian, step: Tensor) -> None:
        """Learn from the whole minibatch, `(..., N, D)` in float64, after the loss of `step`."""
        p = self.mixture()
        rows = self._rows(posterior, step)
        if self.fit != "gradient":
            p = em_step(p, posterior, self._size(step), self.least)
        fresh = self._start(posterior, rows, step, self.shape[-1])
        own = (self.log_weight, self.mean, self.log_var)
        self._take(own, _parts(fresh), _parts(self._revived(p, posterior, rows)), step)

    def _revived(self, p: Mixture, posterior: Gaussian, rows: Tensor) -> Mixture:
        components = p.log_weight.shape[-1]
        dead = p.log_weight < self.log_dead
        mean, log_var = diagonal_components(p)
        within = (p.log_weight.exp().unsqueeze(-1) * log_var.exp()).sum(-2, keepdim=True).log()
        return Mixture(
            p.log_weight.masked_fill(dead, -math.log(components)).log_softmax(-1),
            Gaussian(
                torch.where(dead.unsqueeze(-1), posterior.mean.index_select(-2, rows), mean),
                torch.where(dead.unsqueeze(-1), within, log_var),
            ),
        )


class LearnedPrior(nn.Module):
    """A prior that is made of one learned mixture; see `LearnedMixture` for what learning takes."""

    rate_is_bound = True
    told_by_buffers = ("warmup",)

    def __init__(self, learned: OnlineMixture) -> None:
        super().__init__()
        self.learned = learned
        self.warmup = learned.warmup


class MixturePrior(LearnedPrior):
    """A mixture of K diagonal Gaussians over all D latents; the rate is the bound `divergence`, in
    training and evaluation.

    The rate is at least the KL, so -(distortion + rate) is a lower bound of the evidence like any
    other; the log_prior of an inference is exact, and so is what importance sampling makes of it.

    Args:
        components: K.
        latent_dim: D.
        learning: see `LearnedMixture`.
    """

    learned: LearnedMixture

    def __init__(self, components: int, latent_dim: int, **learning: Any) -> None:
        super().__init__(LearnedMixture((components, latent_dim), **learning))
        self.latent_dim = latent_dim

    def update(self, posterior: Posterior, step: Tensor) -> None:
        self.learned.update(gathered(marginals(posterior, "model/prior=mixture")), step)

    def distribution(self) -> Mixture:
        return self.learned.mixture()


def _parts(p: Mixture) -> tuple[Tensor, Tensor, Tensor]:
    mean, log_var = diagonal_components(p)
    return p.log_weight, mean, log_var
