"""The variational autoencoder: an encoder, a decoder, a likelihood and a prior, and the bound they
give.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import index
from typing import cast

import torch
from torch import Tensor, nn

from jensen.base.errors import InputError, check_choice, check_count, check_list
from jensen.base.random import fold, normal
from jensen.base.tree import tree_map
from jensen.bound.bound import Bound, Inference
from jensen.bound.rate import log_density, rate
from jensen.family.draw import draw
from jensen.family.family import DrawnWithDensity, Family, Posterior
from jensen.family.gaussian import Gaussian, bounded
from jensen.model.arrays import as_tensor
from jensen.model.kept import Kept
from jensen.model.likelihood import Likelihood
from jensen.model.observed import check_key, codes, observed
from jensen.model.prior import Prior


class VAE(Kept):
    """Kingma & Welling 2014 (arXiv 1312.6114).

    `elbo`, `reconstruct`, `sample` and `traverse` are for looking at a model: they compute without
    gradients and in evaluation mode, and leave the model as it was. All draws are by keys: the same
    call gives the same numbers, another `key` gives others.

    >>> import jensen
    >>> model = jensen.VAE("mlp", "mlp", likelihood="normal", latent_dim=3, x_shape=[4])
    >>> x = torch.zeros(5, 4)
    >>> model(x).bound.elbo.shape, model.elbo(x, samples=8).requires_grad
    (torch.Size([5]), False)
    >>> model.reconstruct(x).shape, model.sample(2).shape, model.traverse(x, 0).shape
    (torch.Size([5, 4]), torch.Size([2, 4]), torch.Size([5, 11, 4]))

    Args:
        encoder: `(B, *event)` to the unbounded mean and log_var of q(z|x), a `Gaussian` of `(B,
            D)`; or to another `family.family.Posterior`, which is taken as it is.
        decoder: `(B, D)` to one unbounded number for each element of the observation, `(B,
            *event)`.
        likelihood: what those numbers mean.
        prior: p(z).
        latent_dim: D.
        posterior: what is made of the encoder's Gaussian, such as a `FlowPosterior`; None for that
            Gaussian.

    Raises:
        InputError: a prior or likelihood without a part of its protocol, `model.prior.Prior` or
            `model.likelihood.Likelihood`.
    """

    x_shape: tuple[int, ...] | None = None
    """`event` of the examples that it was trained on, where that is known: `jensen.fit` and
    `jensen.load` say it.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        prior: Prior,
        latent_dim: int,
        posterior: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_count("latent_dim", latent_dim)
        _check_prior(prior)
        _check_parts(
            "likelihood", likelihood, ("distortion", "mean", "sample", "check"), "Likelihood"
        )
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.prior = prior
        self.latent_dim = latent_dim
        self.posterior = posterior
        _check_encode(type(self))
        self.keep()
        if hasattr(prior, "bind"):
            prior.bind(self.encoded)

    @property
    def noise_dim(self) -> int:
        """Standard normal draws that each row of a `forward` takes."""
        return self.latent_dim

    def encode(self, x: Tensor) -> Posterior:
        """q(z|x), `(B, *event)` to `(B, D)`; a Gaussian is finite for any encoder output
        (`family.gaussian.bounded`).

        Raises:
            InputError: x is not what this model could be trained on; the encoder gives no
                distribution.
        """
        return self.encoded(observed(self, x))

    def encoded(self, x: Tensor) -> Posterior:
        """`encode` as a training step calls it, of x that was looked at before; a model of another
        posterior has its own.
        """
        raw = self.encoder(x)
        if isinstance(raw, Gaussian):
            return bounded(raw) if self.posterior is None else self.posterior(bounded(raw))
        if self.posterior is not None:
            raise InputError(
                f"model.posterior is a {type(self.posterior).__name__} and model.encoder gives a"
                f" {type(raw).__name__}: expected a jensen.Gaussian, which it makes another"
                " distribution of; choose another encoder, or leave model.posterior out"
            )
        if isinstance(raw, tuple) and isinstance(raw, Posterior):
            return raw
        raise InputError(
            f"model.encoder gives a {type(raw).__name__}: expected a distribution, such as"
            " jensen.family.gaussian.Gaussian(mean, log_var); name the family, since a pair of"
            " tensors could be any"
        )

    def decode(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """E[x|z], `(B, D)` to `(B, *event)`.

        Args:
            x: examples of these codes, for what a model is given beside them; rows i, i + len(x),
                ... are of example i.
        """
        return self.likelihood.mean(self.decoded(codes(self, z), x))

    def decoded(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """The decoder's numbers for codes of examples x, `(B, D)` to `(B, *event)`."""
        return cast(Tensor, self.decoder(z))

    def prior_of(self, x: Tensor) -> Family:
        """The prior of the codes of examples x: p(z), whatever x is."""
        return self.prior.distribution()

    def forward(self, x: Tensor, noise: Tensor | None = None, *, key: int = 0) -> Inference:
        """The bound at a sample of q(z|x) for each row of standard normal `noise`, `(B, *event)`
        and `(S B, D)`; without noise, at one sample an example, drawn by `key`.

        With S > 1 samples an example, rows i, i + B, i + 2 B, ... of the inference are those of
        example i.

        Raises:
            InputError: there is no noise, and x is not what this model could be trained on.
        """
        if noise is None:  # a person asks; a step would wait for the answer of a look at x
            x = observed(self, x)
            noise = noise_by(check_key(key), self, x)
        posterior = self.encoded(x)
        examples = len(x)
        if len(noise) > len(x):
            times = len(noise) // len(x)
            posterior, x = tree_map(
                lambda part: part.repeat(times, *[1] * (part.dim() - 1)), (posterior, x)
            )
        log_q: Tensor | None = None
        # Of a Gaussian that is known; to ask a protocol takes as long as a small network's product.
        if not isinstance(posterior, Gaussian) and isinstance(posterior, DrawnWithDensity):
            z, log_q = posterior.rsample_and_log_prob(noise)
        else:
            z = posterior.rsample(noise)
        distortion = self.likelihood.distortion(self.decoder(z), x)
        p = self.prior.distribution()
        log_prior = log_density(p, z, noise, examples)
        rated = rate(posterior, p, z, log_prior, self.prior.rate_is_bound, log_q)
        bound = Bound(distortion, rated)
        return Inference(bound, posterior, z, log_prior, () if log_q is None else log_q)

    def elbo(self, x: Tensor, samples: int = 1, *, key: int = 0) -> Tensor:
        """The bound on log p(x) of each example, `(B, *event)` to `(B,)`, nats: the mean over
        `samples` draws of z.
        """
        check_count("samples", samples)
        key = check_key(key)
        x = observed(self, x)
        with still(self):
            draws = [
                self(x, noise_by(fold(key, draw), self, x)).bound.elbo for draw in range(samples)
            ]
            return torch.stack(draws).mean(0)

    def reconstruct(self, x: Tensor) -> Tensor:
        """E[x|z] at the code of each example, `q(z|x).mean`, `(B, *event)`."""
        x = observed(self, x)
        with still(self):
            return self.decode(self.encoded(x).mean, x)

    def sample(self, count: int, *, key: int = 0) -> Tensor:
        """E[x|z] of `count` draws z ~ p(z), `(count, *event)`.

        Raises:
            InputError: a prior that has a density alone.
        """
        check_count("count", count)
        key = check_key(key)
        with still(self) as like:
            return self.decode(_draws(self, count, key, like))

    def traverse(
        self, x: Tensor, latent: int, values: Sequence[float] | Tensor | None = None
    ) -> Tensor:
        """E[x|z] of each example while one latent takes each of `values`, and the others stay at
        its code: `(B, *event)` to `(B, len(values), *event)`.

        Args:
            latent: its number, from 0.
            values: by default 11 equal steps from the 1 % to the 99 % quantile of the prior's
                draws; -2.3 to 2.3 of N(0, I).

        Raises:
            InputError: a latent that is not there.
        """
        if hasattr(latent, "__index__") and not isinstance(latent, bool):
            latent = index(latent)
        check_choice("latent", latent, range(self.latent_dim))
        x = observed(self, x)
        with still(self) as like:
            if values is None:
                low, high = _draws(self, 10_000, 0, like)[:, latent].quantile(
                    like.new_tensor([0.01, 0.99])
                )
                values = low + (high - low) * torch.linspace(0, 1, 11).to(like)
            check_list("values", values)
            steps = as_tensor("values", values).to(like)
            if steps.dim() != 1 or not bool(steps.isfinite().all()):
                raise InputError(
                    f"values have the shape {list(steps.shape)}: expected finite numbers in one row,"
                    " such as [-2, 0, 2]"
                )
            moved = self.encoded(x).mean.unsqueeze(1).repeat(1, len(steps), 1)
            moved[..., latent] = steps
            each = moved.transpose(0, 1)  # of each step all examples
            made = self.decode(each.flatten(0, 1), x).unflatten(0, each.shape[:2])
            return made.transpose(0, 1)

    def check_samples(self, samples: int) -> None:
        """Refuse so many draws of each example in a training step: none is refused."""

    def held_out_terms(self, x: Tensor, inference: Inference, noise: Tensor) -> dict[str, Tensor]:
        """More terms that are logged of held-out examples, `(B,)` each: nothing."""
        return {}


def noise_by(key: int, model: VAE, x: Tensor) -> Tensor:
    """Standard normal noise of one draw of each example x by a key, `(B, noise_dim)`."""
    row = torch.arange(len(x), device=x.device)
    return normal(key, row, (model.noise_dim,), torch.promote_types(x.dtype, torch.float32))


def _draws(model: VAE, count: int, key: int, like: Tensor) -> Tensor:
    """Draws of the prior, `(count, D)`, of the dtype and device of `like`."""
    index = torch.arange(count, device=like.device)
    p = model.prior.distribution()
    return draw(p, fold(key, "samples"), index, model.latent_dim, like.dtype)


@contextmanager
def still(model: nn.Module) -> Iterator[Tensor]:
    """Hold a model in evaluation mode, without gradients; gives a tensor on its device."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield next(iter(model.parameters()), torch.zeros(()))
    finally:
        for part, mode in modes:
            part.training = mode


def _check_parts(place: str, part: object, names: Sequence[str], protocol: str) -> None:
    missing = [name for name in names if not hasattr(part, name)]
    if missing:
        raise InputError(
            f"model.{place} is a {type(part).__name__} without {', '.join(missing)}, which a VAE"
            f" asks of it: expected the parts of jensen.model.{place}.{protocol}; add them"
        )


def _check_prior(prior: object) -> None:
    """Refuse a prior that the bound, or its learning, would ask for something it has not."""
    _check_parts("prior", prior, ("distribution", "update", "rate_is_bound", "warmup"), "Prior")
    if callable(getattr(prior, "rate", None)):
        raise InputError(
            f"model.prior is a {type(prior).__name__} with a rate of its own, which nothing asks:"
            " the rate is that of its distribution(); leave rate out"
        )


def _check_encode(kind: type[VAE]) -> None:
    """Refuse an `encode` of one's own, which people would call and no step."""
    if kind.encode is not VAE.encode and kind.encoded is VAE.encoded:
        raise InputError(
            f"{kind.__name__} has an encode of its own, which looks at x and then calls encoded, as a"
            " training step does: expected that one to be its own; call it encoded"
        )
