"""p(z) by a diffusion: latents as what is left when noise is taken away step by step."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from jensen.base.errors import InputError, check_choice, check_count, check_counts, check_number
from jensen.base.random import fold, uniform
from jensen.family.family import Posterior
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture
from jensen.model.diffusion import SAMPLERS, Denoise, Diffusion, exact, levels
from jensen.model.prior import check_trained
from jensen.model.schedules import Monotone, Schedule, linear, logistic

DENOISERS = ("residual", "mlp", "mixture")
GAMMAS: dict[str, Schedule] = {"logistic": logistic, "linear": linear}
_WAVES = 6
_TOLD = 64
"""Numbers that a noise level becomes."""
_LEVELS = fold(0, "diffusion prior")
"""The key of all noise levels. Not made at each step: torch.compile knows no hash."""


class DiffusionPrior(nn.Module):
    """A variational diffusion on z, continuous in time (Kingma et al. 2021, arXiv 2107.00630; on
    latents Vahdat et al. 2021, arXiv 2106.05931). With a network it is N(0, I) until it has
    learned: the guess of the noise is sigma z, which is right for N(0, I), and a network that is 0
    (Vahdat et al. 2021, eq. 9).

    The rate is -H(q(z|x)) plus the bound of the cross-entropy (`Diffusion.log_bound`), an upper
    bound of the KL on average over its noise; a minibatch of training takes one noise level an
    example, evenly spread, evaluation `draws` levels. The log_prior of an inference is that bound
    too. `distribution().log_prob` is the density of the probability flow, by an ODE, which
    `diagnostics=[evidence]` asks for. Its marginals are unknown: the rate of a latent is NaN.

    Args:
        latent_dim: D.
        denoiser: `residual`, a network whose layers the noise level scales and moves; `mlp`, one
            that is told the noise level as it is told z; or `mixture`, the exact denoiser of a
            mixture of `components` diagonal Gaussians, whose parameters are learned: what EM would
            find.
        hidden: widths of the network.
        components: of the mixture.
        gamma: between gamma_min and gamma_max `logistic` or `linear` in time (`schedules`), or
            `learned`: a monotone network between them, for the least variance, and both ends, on
            which alone the bound depends.
        gamma_min, gamma_max: minus the log of the signal-to-noise ratio at both ends, rising.
        steps, sampler: of a draw: `ancestral` or `ddim`.
        draws: noise levels an example in evaluation.
        train: `joint`, with the VAE, or `after` it: all else is frozen, and is that of the run in
            the folder `path`.
    """

    rate_is_bound = True
    warmup = 0
    count: Tensor
    ends: Tensor

    def __init__(
        self,
        latent_dim: int,
        denoiser: str = "residual",
        hidden: Sequence[int] = (128, 128),
        components: int = 10,
        gamma: str = "logistic",
        gamma_min: float = -10.0,
        gamma_max: float = 10.0,
        steps: int = 100,
        sampler: str = "ddim",
        draws: int = 16,
        train: str = "joint",
        path: str | None = None,
    ) -> None:
        super().__init__()
        check_trained(train, path)
        self.trained = train
        self.path = path
        check_count("latent_dim", latent_dim)
        check_choice("denoiser", denoiser, DENOISERS)
        check_counts("hidden", hidden)
        check_count("components", components)
        check_choice("gamma", gamma, (*GAMMAS, "learned"))
        check_number("gamma_min", gamma_min, low=-30, high=30)
        check_number("gamma_max", gamma_max, low=-30, high=30)
        if not gamma_min < gamma_max:
            raise InputError(
                f"gamma_max is {gamma_max:g}: expected more than gamma_min, {gamma_min:g}, since"
                " the noise rises from the one to the other; exchange them"
            )
        check_count("steps", steps)
        check_choice("sampler", sampler, SAMPLERS)
        check_count("draws", draws)
        self.latent_dim = latent_dim
        self.steps = steps
        self.sampler = sampler
        self.draws = draws
        self.denoiser: nn.Module
        if denoiser == "mixture":
            self.denoiser = LearnedComponents(components, latent_dim)
        else:
            network = Residual if denoiser == "residual" else Network
            self.denoiser = network(latent_dim, hidden)
        ends = torch.tensor([gamma_min, math.log(gamma_max - gamma_min)])
        self.schedule: Schedule = Monotone() if gamma == "learned" else GAMMAS[gamma]
        if gamma == "learned":
            self.ends = nn.Parameter(ends)
        else:
            self.register_buffer("ends", ends, persistent=False)
        self.register_buffer("count", torch.tensor(0))

    @torch.no_grad()
    def update(self, posterior: Posterior, step: Tensor) -> None:
        """Go on to the next minibatch's noise levels."""
        self.count.copy_(step + 1)

    def gamma(self) -> Tensor:
        """Both ends, `(2,)`."""
        return torch.stack([self.ends[0], self.ends[0] + self.ends[1].exp()])

    def distribution(self) -> Diffusion:
        start = None
        if self.training:
            start = uniform(_LEVELS, self.count.reshape(1), (1,))[0, 0]
        return Diffusion(
            self._denoise(),
            self.gamma(),
            self.latent_dim,
            steps=self.steps,
            sampler=self.sampler,
            draws=self.draws,
            start=start,
            schedule=self.schedule,
        )

    def _denoise(self) -> Denoise:
        if isinstance(self.denoiser, LearnedComponents):
            return exact(self.denoiser.mixture())
        return self.denoiser


class Network(nn.Module):
    """The guess of the noise, sigma z + f(z, gamma), for a perceptron f that begins at 0."""

    waves: Tensor

    def __init__(self, latent_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = [latent_dim + 2 * _WAVES, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.SiLU()]
        last = nn.Linear(widths[-1], latent_dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.body = nn.Sequential(*layers, last)
        waves = 0.1 * 1.7 ** torch.arange(_WAVES)
        self.register_buffer("waves", waves, persistent=False)

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        """`(N, D)`, `(N,)` to `(N, D)`."""
        _, sigma = levels(gamma)
        at = gamma[:, None] * self.waves
        seen = torch.cat([z, at.sin(), at.cos()], -1)
        guess: Tensor = self.body(seen)
        return sigma[:, None] * z + guess


class Residual(nn.Module):
    """The guess of the noise, sigma z + alpha sigma f(z, gamma), for an f that begins at 0. What is
    guessed beside sigma z vanishes with the noise, and with the signal, as that does which is
    right, -sigma (score + z).

    Each layer of f is scaled and moved by numbers of gamma (Perez et al. 2018, arXiv 1709.07871),
    and added to what it was told where the widths are the same.
    """

    waves: Tensor

    def __init__(self, latent_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        if not hidden:
            raise InputError(
                "hidden is [] and denoiser is residual: expected a width or more; set hidden=[128,128]"
                " or denoiser=mlp"
            )
        widths = [hidden[0], *hidden]
        self.told = nn.Sequential(nn.Linear(2 * _WAVES, _TOLD), nn.SiLU())
        self.begin = nn.Linear(latent_dim, widths[0])
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.turns = nn.ModuleList(nn.Linear(_TOLD, 2 * width) for width in widths)
        self.end = nn.Linear(widths[-1], latent_dim)
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)
        self.register_buffer("waves", 0.1 * 1.7 ** torch.arange(_WAVES), persistent=False)

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        """`(N, D)`, `(N,)` to `(N, D)`."""
        alpha, sigma = levels(gamma)
        at = gamma[:, None] * self.waves
        told = self.told(torch.cat([at.sin(), at.cos()], -1))
        *turns, last = (turn(told).chunk(2, -1) for turn in self.turns)
        h = self.begin(z)
        for layer, (scale, move) in zip(self.layers, turns, strict=True):
            found = layer(silu(torch.addcmul(h + move, scale, h)))
            h = found + h if found.shape == h.shape else found
        scale, move = last
        guess: Tensor = self.end(silu(torch.addcmul(h + move, scale, h)))
        return sigma[:, None] * (z + 2 * alpha[:, None] * guess)


class LearnedComponents(nn.Module):
    """A mixture of diagonal Gaussians whose parameters are learned by gradient."""

    def __init__(self, components: int, latent_dim: int) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(torch.zeros(components))
        self.mean = nn.Parameter(torch.randn(components, latent_dim))
        self.log_var = nn.Parameter(torch.zeros(components, latent_dim))

    def mixture(self) -> Mixture:
        """The mixture `(K,)`, its weights normalised."""
        return Mixture(self.log_weight.log_softmax(-1), Gaussian(self.mean, self.log_var))
