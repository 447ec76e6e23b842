"""A diffusion as a value: the distribution that a denoiser stands for (Kingma et al. 2021, arXiv
2107.00630; Song et al. 2021, arXiv 2011.13456).

    z_gamma = alpha z + sigma eps,   alpha^2 = sigmoid(-gamma),   sigma^2 = sigmoid(gamma)

for gamma from where nearly nothing is noise to where nearly all is. A denoiser guesses eps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor
from torch.func import vjp, vmap
from torch.nn.functional import softplus

from jensen.base.errors import InputError
from jensen.base.random import normal, uniform
from jensen.base.ranks import world
from jensen.family import gaussian
from jensen.family.diffuse import diffuse, score
from jensen.family.mixture import Mixture
from jensen.model.schedules import Monotone, Schedule, linear

Denoise = Callable[[Tensor, Tensor], Tensor]
"""z_gamma `(N, D)` and gamma `(N,)` to the guess of eps, `(N, D)`."""

SAMPLERS = ("ancestral", "ddim")
MOST = 64
"""Latents for which the trace of a Jacobian is taken exactly, one direction after another."""
_ROWS = 1024
"""Points whose path is followed together."""


class Diffusion(NamedTuple):
    """The distribution of z, with its bound, the density of its probability flow, and its draws.

    denoise: the guess of eps.
    gamma: `(2,)`, its ends, rising.
    dim: D.
    steps, sampler: of a draw, see `rsample`.
    draws: noise levels at which the bound is taken for each point, where `start` is None.
    start: `()` in [0, 1), of the noise levels of a whole minibatch, at which each point has one.
    schedule: of the noise levels of the bound, whose mean is the same under each.
    """

    denoise: Denoise
    gamma: Tensor
    dim: int
    steps: int = 100
    sampler: str = "ddim"
    draws: int = 16
    start: Tensor | None = None
    schedule: Schedule = linear

    def log_bound(self, z: Tensor, noise: Tensor, examples: int | None = None) -> Tensor:
        """A lower bound of log p(z) on average, `(N, D)` to `(N,)`, nats: Kingma et al. 2021, eq.
        11-18, continuous in time,

            log p(z) >= -E[-log p(z|z_0) + KL(q(z_1|z) || N(0, I)) + 1/2 (gamma_1 - gamma_0) E_t
            |eps - guess|^2]

        in which the first two are exact, with p(z|z_0) = N(z_0 / alpha_0, exp gamma_0). So is the
        third where the guess is sigma z_t, as for N(0, I), and what is drawn is the difference from
        it: far less than the square of eps, which is most of either and teaches nothing. In
        evaluation t is stratified for each point, over `draws` values; with a `start` it is spread
        evenly over the minibatch of all ranks, one value a point.

        Args:
            noise: `(N, D)`, what a point's own t and eps are a function of, and nothing else.
            examples: of this rank's minibatch; rows i, i + examples, ... are draws of one.
        """
        low, high = self.gamma.to(z)
        key = key_of(noise)
        times = self._times(key, len(z), examples).to(z)  # (N, T)
        count = times.shape[1]
        index = torch.zeros_like(key)
        eps = normal(key, index, (count, self.dim), _drawn(z)).to(z).flatten(0, 1)
        repeated = z.repeat_interleave(count, 0)
        gamma, slope = self.schedule(times.flatten(), low, high)
        gain = _gain(self.denoise, repeated, eps, gamma, slope)
        diffusion = _plain(z, low, high) - gain.unflatten(0, (-1, count)).mean(1)
        if isinstance(self.schedule, Monotone):
            spread = self.schedule.spread(times.flatten(), gain / self.dim)
            diffusion = diffusion + spread.unflatten(0, (-1, count)).mean(1)
        reconstruction = 0.5 * self.dim * (gaussian.LOG_2PI + 1 + low)
        kept, spread = levels(high)
        last = spread.square() - 1 - 2 * spread.log() + (kept * z).square()
        return -(reconstruction + diffusion + 0.5 * last.sum(-1))

    def _times(self, key: Tensor, rows: int, examples: int | None) -> Tensor:
        """t of each point, `(N, T)` in [0, 1)."""
        if self.start is None:
            own = uniform(key + 1, torch.zeros_like(key), (1,))
            return (own + torch.arange(self.draws, device=key.device)) / self.draws
        rank, ranks = world()
        size = rows if examples is None else examples
        at = torch.arange(rows, device=key.device)
        place = ((at % size) * ranks + rank) * (rows // size) + at // size
        return ((self.start + place / (rows * ranks)) % 1)[:, None]

    @torch.no_grad()
    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), `(N, D)` to `(N,)`, nats, of the probability flow, by its ODE (Song et al.
        2021, eq. 39-40) with the exact trace, to a tolerance of 1e-5. Without gradient.

        In gamma it is dz = sigma (guess - sigma z) / 2. It is that of z_0 / alpha_0, of the first
        noise level, which is what `ddim` draws: of a density that turns within exp(gamma_0 / 2) it
        is a smooth version.

        Raises:
            InputError: more than 64 latents.
        """
        if self.dim > MOST:
            raise InputError(
                f"model.prior is a diffusion of {self.dim} latents: expected at most {MOST} where"
                " its exact density is asked for; leave out diagnostics=[evidence]"
            )
        with torch.autocast(z.device.type, enabled=False):
            return torch.cat([self._followed(part) for part in z.split(_ROWS)])

    def _followed(self, z: Tensor) -> Tensor:
        low, high = self.gamma.tolist()
        alpha, _ = levels(self.gamma[0].to(z))

        def slope(gamma: float, state: np.ndarray) -> np.ndarray:
            moved = torch.from_numpy(state).to(z).unflatten(0, (-1, self.dim + 1))
            velocity, growth = self._flow(moved[:, : self.dim], gamma)
            packed = torch.cat([velocity, growth[:, None]], 1)
            return packed.flatten().double().cpu().numpy()

        begin = torch.cat([alpha * z, torch.zeros_like(z[:, :1])], 1).flatten().double()
        ended = solve_ivp(slope, (low, high), begin.cpu().numpy(), rtol=1e-5, atol=1e-5)
        if not ended.success:
            raise InputError(
                f"the path of a latent under model.prior's diffusion cannot be followed"
                f" ({ended.message}): expected a smooth denoiser; train it longer"
            )
        last = torch.from_numpy(ended.y[:, -1]).unflatten(0, (-1, self.dim + 1))
        density = gaussian.STANDARD.log_prob(last[:, : self.dim]) + last[:, self.dim]
        return (density.to(z.device) + self.dim * alpha.log()).to(z.dtype)

    def _flow(self, z: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
        """dz/dgamma `(N, D)` and its divergence `(N,)`."""
        at = torch.full_like(z[:, 0], gamma)
        _, sigma = levels(at[0])

        def velocity(z: Tensor) -> Tensor:
            return 0.5 * sigma * (self.denoise(z, at) - sigma * z)

        found: Any = vjp(velocity, z)
        moved, pull = found

        def along(direction: Tensor) -> Tensor:
            turned: Tensor = pull(direction.expand_as(z))[0] @ direction
            return turned

        return moved, vmap(along)(torch.eye(self.dim).to(z)).sum(0)

    @torch.no_grad()
    def rsample(self, noise: Tensor) -> Tensor:
        """Draws from standard normal `noise`, `(N, D)`, in `steps` equal steps of gamma; without
        gradient.

        `ddim` goes there without noise (Song et al. 2021, arXiv 2010.02502). `ancestral` draws z_s
        given z_t and the guess of z, by noise that is a function of `noise`. Of 100 steps the draws
        of N(0, I) are 2 % too narrow by `ddim`, those of others more by `ancestral`.
        """
        grid = torch.linspace(1, 0, self.steps + 1).to(noise)
        gammas = self.gamma[0].to(noise) + (self.gamma[1] - self.gamma[0]).to(noise) * grid
        key = key_of(noise)
        z = noise
        for place in range(self.steps):
            now, then = gammas[place], gammas[place + 1]
            (alpha, sigma), (less, left) = levels(now), levels(then)
            guess = self.denoise(z, now.expand(len(z)))
            clean = (z - sigma * guess) / alpha
            if self.sampler == "ddim":
                z = less * clean + left * guess
                continue
            share = -torch.expm1(then - now)
            fresh = normal(key + place + 2, torch.zeros_like(key), (self.dim,), _drawn(z)).to(z)
            z = less * torch.lerp(z / alpha, clean, share) + left * share.sqrt() * fresh
        alpha, sigma = levels(gammas[-1])
        if self.sampler == "ancestral":
            z = z + sigma * normal(key + 1, torch.zeros_like(key), (self.dim,), _drawn(z)).to(z)
        return z / alpha

    def marginal(self, latent: int) -> "Diffusion | None":
        """Itself where there is one coordinate; of more it is unknown."""
        return self if self.dim == 1 else None


def levels(gamma: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma, of the shape of gamma: the parts of signal and of noise."""
    return torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()


def _gain(denoise: Denoise, z: Tensor, eps: Tensor, gamma: Tensor, slope: Tensor) -> Tensor:
    """1/2 gamma' (|eps - sigma z_gamma|^2 - |eps - guess|^2), `(N, D)`, ..., `(N,)` to `(N,)`."""
    alpha, sigma = levels(gamma)
    noisy = alpha[:, None] * z + sigma[:, None] * eps
    plain = eps - sigma[:, None] * noisy
    moved = denoise(noisy, gamma) - sigma[:, None] * noisy
    return 0.5 * slope * (moved * (2 * plain - moved)).sum(-1)


def _plain(z: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """1/2 E of the integral over gamma of |eps - sigma z_gamma|^2, `(N, D)` to `(N,)`: the integral
    of (1 - s)^2 D + s (1 - s) |z|^2, s = sigmoid(gamma).
    """
    rise = high.sigmoid() - low.sigmoid()
    fall = softplus(-low) - softplus(-high) - rise
    return 0.5 * (z.shape[-1] * fall + rise * z.square().sum(-1))


def exact(p: Mixture) -> Denoise:
    """The denoiser of a mixture, E[eps | z_gamma] = -sigma times the score of the diffused
    mixture: the best there is, and so what EM gives a diffusion.
    """

    def denoise(z: Tensor, gamma: Tensor) -> Tensor:
        alpha, sigma = levels(gamma)
        noisy = diffuse(p, alpha, sigma)
        return -sigma[:, None] * score(z.unsqueeze(1), noisy).squeeze(1)

    return denoise


def key_of(noise: Tensor) -> Tensor:
    """A key for each row of standard normal `noise`, `(N, D)` to `(N,)` int64: the same for the
    same noise.
    """
    words = (noise.double() * (1 << 24)).long()
    odd = 2 * torch.arange(noise.shape[1], device=noise.device) + 1
    return (words * (odd * 0x9E3779B97F4A7C1)).sum(-1)


def _drawn(z: Tensor) -> torch.dtype:
    return torch.float64 if z.dtype == torch.float64 else torch.float32
