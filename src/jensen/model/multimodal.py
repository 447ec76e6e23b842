"""The multimodal VAE: one latent for several modalities, any of which may be missing."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from jensen.base.errors import InputError, check_choice, check_count, check_flag
from jensen.base.random import fold, normal
from jensen.base.tree import tree_map
from jensen.bound.bound import Bound, Inference
from jensen.bound.rate import log_density, rate
from jensen.family.family import Family
from jensen.family.gaussian import Gaussian
from jensen.model.conditional_normal import ConditionalNormal
from jensen.model.fusion import Fusion, for_each
from jensen.model.likelihood import Likelihood
from jensen.model.modal_parts import (
    Latents,
    Part,
    Senses,
    Tellers,
    decoders_of,
    encoders_of,
    likelihoods_of,
)
from jensen.model.modalities import JointLikelihood, Modalities, repeated, rows_of
from jensen.model.observed import check_key, observed
from jensen.model.prior import Prior, StandardNormal
from jensen.model.vae import VAE, noise_by, still

_DRAWS = 1 << 16
"""Rows that are decoded at a time where many are drawn."""

_log = logging.getLogger(__name__)


class Evidence(NamedTuple):
    """log p(x) of each example, `(B,)`, nats, and its standard error."""

    log_p: Tensor
    standard_error: Tensor


class MultimodalVAE(VAE):
    """One z for several modalities of x: each has an encoder, a decoder and a likelihood.

    An observation is one tensor `(B, P)`, the modalities flattened one after another, NaN where one
    is missing (`model.modalities`). An encoder gives an expert; what is known of z from several of
    them is their product with the prior, which is an expert too (Wu & Goodman 2018, arXiv
    1802.05335):

        q(z | x_S)  ~  p(z) prod_{m in S} N(z; mean_m(x_m), var_m(x_m))

    In training, `product` is the bound at q of all that an example has; `mixture` (Shi et al. 2019,
    arXiv 1911.03393) the mean of the bounds at q of each of them alone; `subsets` (Sutter et al.
    2021, arXiv 2105.02470) of each subset. An example's draws take its subsets in turn, from one
    that is drawn, so each subset has an equal share in expectation, exactly where `objective.samples`
    is a multiple of their number. In evaluation it is always q of all that an example has: val/elbo
    is a bound on log p(x) whatever the fusion.

    A modality may have latents of its own beside those that are shared (Palumbo et al. 2023, MMVAE+):
    its encoder alone speaks of them, its decoder alone hears of them, and where it is not seen they
    are of their prior N(0, I).

    A condition (Sohn et al. 2015) is given and not modelled: encoders and decoders see it beside
    what they take, it has no distortion, and all densities are given it. With one modality besides,
    that is the conditional VAE.

    Args:
        modalities: names and shapes.
        encoders: by name, modules from `(B, *shape)` to a `Gaussian` `(B, D)`, or what makes them;
            under `each`, what makes those that are not named.
        decoders: the same, from `(B, D)` to `(B, *shape)`.
        likelihoods: by name, or under `each` what makes one.
        prior: p(z), or p(z | conditions): a `ConditionalNormal`.
        latent_dim: latents that are shared.
        fusion: `product`, `mixture` or `subsets`.
        subsets: of the last: `all`, or lists of names; an example has those that it has all of, or
            failing these all of it.
        reconstruct: `all` modalities of an example in each subset's bound, which bounds log p(x); or
            `given`, those that the subset saw, which bounds log p of these.
        weights: times the distortion of each modality in training; other than 1, train/elbo is no
            bound.
        prior_expert: whether the prior is an expert; null: where there are two modalities or more.
            Of a prior that is no Gaussian, N(0, I) is the expert.
        condition: names of modalities that are given. What makes an encoder gets the shape with
            them: of an image a channel more for each of their numbers, else all in one vector; what
            makes a decoder so many latents more.
        latent_private: how many latents of its own a modality has, by name.

    Raises:
        InputError: names that differ, subsets that are none, weights that are not above 0, a
            condition that is modelled, private latents under another prior than N(0, I).

    >>> from jensen.model import MLPDecoder, MLPEncoder, Normal, StandardNormal
    >>> model = MultimodalVAE(
    ...     {"see": [3], "hear": [2]}, {"each": MLPEncoder}, {"each": MLPDecoder},
    ...     {"each": Normal}, StandardNormal(), latent_dim=2)
    >>> x = torch.zeros(4, 5)
    >>> x[0, 3:] = torch.nan  # the first is not heard
    >>> model(x).bound.elbo.shape, model.generate(x).isnan().any()
    (torch.Size([4]), tensor(False))
    """

    def __init__(
        self,
        modalities: Mapping[str, Sequence[int]],
        encoders: Mapping[str, Part],
        decoders: Mapping[str, Part],
        likelihoods: Mapping[str, Likelihood | Callable[[], Likelihood]],
        prior: Prior,
        latent_dim: int,
        fusion: str = "product",
        subsets: str | Sequence[Sequence[str]] = "all",
        reconstruct: str = "all",
        weights: Mapping[str, float] | None = None,
        prior_expert: bool | None = None,
        condition: Sequence[str] = (),
        latent_private: Mapping[str, int] | None = None,
    ) -> None:
        parts = Modalities.of(modalities, condition)
        latents = Latents.of(latent_dim, latent_private, parts)
        check_choice("reconstruct", reconstruct, ("all", "given"))
        many = len(parts.modelled) > 1
        if prior_expert is not None:
            check_flag("prior_expert", prior_expert)
        fuse = Fusion(
            parts, latents, fusion, subsets, many if prior_expert is None else prior_expert
        )
        if latents.private and not isinstance(prior, StandardNormal):
            raise InputError(
                f"latent_private is {latent_private} and model.prior a {type(prior).__name__}:"
                " expected model/prior=standard_normal, of which a part is private; choose that"
            )
        if isinstance(prior, ConditionalNormal):
            prior.condition_on(parts)
        super().__init__(
            Senses(parts, latents, encoders_of(parts, latents, encoders)),
            Tellers(parts, latents, decoders_of(parts, latents, decoders)),
            JointLikelihood(parts, likelihoods_of(parts, likelihoods), weights),
            prior,
            latents.size,
        )
        self.modalities = parts
        self.fusion = fusion
        self.reconstruct_given = reconstruct == "given"
        self.fuse = fuse
        if any(weight != 1 for weight in self.likelihood.weights.values()):
            _log.info(
                "model.weights are %s: train/elbo is no bound of log p(x); val/elbo, without them,"
                " is",
                self.likelihood.weights,
            )

    likelihood: JointLikelihood
    encoder: Senses
    decoder: Tellers

    @property
    def noise_dim(self) -> int:
        """Normal draws that a row takes: those of z, and one for the subset that is first."""
        return self.latent_dim + (self.fusion != "product")

    def encoded(self, x: Tensor) -> Gaussian:
        """q(z|x) of all that each example has, `(B, P)` to `(B, D)`; of nothing, the prior."""
        return self.fuse(self.encoder(x), self.modalities.present(x), self.prior_of(x))

    def encode_each(self, x: Tensor) -> dict[str, Gaussian]:
        """q(z|x_m) of each modality alone, `(B, P)` to `(B, D)`; where that is missing, the
        prior.
        """
        x = observed(self, x)
        experts = self.encoder(x)
        present = self.modalities.present(x)
        p = self.prior_of(x)
        alone = torch.eye(present.shape[1], dtype=torch.bool, device=x.device)
        return {
            name: self.fuse(experts, present & only, p)
            for name, only in zip(self.modalities.modelled, alone, strict=True)
        }

    def prior_of(self, x: Tensor) -> Family:
        """p(z), or p(z | conditions) of each example of `x` `(B, P)`, a Gaussian `(B, D)`."""
        conditions = self.modalities.conditions(x)
        if conditions is None or not isinstance(self.prior, ConditionalNormal):
            return self.prior.distribution()
        return self.prior.given(conditions)

    def decoded(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        return cast(Tensor, self.decoder(z, x))

    def sample(self, count: int, *, key: int = 0) -> Tensor:
        if self.modalities.given:
            raise InputError(
                f"sample was called and the model has the condition"
                f" {', '.join(self.modalities.given)}: expected `generate`, of examples that have it"
                " and NaN elsewhere; call that"
            )
        return super().sample(count, key=key)

    def forward(self, x: Tensor, noise: Tensor | None = None, *, key: int = 0) -> Inference:
        """The bound for each row of standard normal `noise`, `(B, P)` and `(S B, noise_dim)`; rows
        i, i + B, i + 2 B, ... are of example i. In training each is at q of one of its subsets.
        """
        if noise is None:  # a person asks
            x = observed(self, x)
            noise = noise_by(check_key(key), self, x)
        experts = self.encoder(x)
        present = self.modalities.present(x)
        p = self.prior_of(x)
        times = len(noise) // len(x)
        if self.training and len(self.fuse.table):
            self.check_samples(times)
            first = noise[: len(x), -1] if noise.shape[1] > self.latent_dim else None
            posterior, seen = self.fuse.in_turn(experts, present, times, first, p)
        else:
            posterior = repeated(self.fuse(experts, present, p), times)
            seen = repeated(present, times)
        counted = seen if self.reconstruct_given else repeated(present, times)
        return self._bound(posterior, x, p, noise[:, : self.latent_dim], counted)

    def _bound(
        self,
        posterior: Gaussian,
        x: Tensor,
        p: Family,
        noise: Tensor,
        counted: Tensor,
    ) -> Inference:
        """The inference of draws of the posterior `(S B, D)`, of examples `x` `(B, P)` under p, and
        of the modalities that are counted, `(S B, M)` bool.
        """
        z = posterior.rsample(noise)
        distortion = self.likelihood.total(self._distortions(z, x, counted))
        p = for_each(p, len(z) // len(x))
        log_prior = log_density(p, z, noise)
        rated = rate(posterior, p, z, log_prior, bounded=self.prior.rate_is_bound)
        return Inference(Bound(distortion, rated), posterior, z, log_prior)

    def _distortions(self, z: Tensor, x: Tensor, counted: Tensor) -> Tensor:
        """-log p(x_m | z) of each modality, of codes `(S B, D)` of examples `x` `(B, P)`, to
        `(S B, M)`: 0 where it is not counted, `(S B, M)` bool.
        """
        rows = rows_of(counted, self.modalities.modelled)
        outputs = self.decoder.outputs(z, x, rows)
        return self.likelihood.distortions_of(outputs, x, counted, rows)

    # ---- for looking at a model -----------------------------------------------------------------

    def evidence(self, x: Tensor, samples: int = 100, *, key: int = 0) -> Evidence:
        """log p(x) of what each example has, `(B, P)` to `(B,)`, by importance sampling.

        The draws come from every subset of the fusion in equal shares, and their density is the
        mixture of these shares, so that each stratum counts as it was drawn:

            log (1/S) sum_s p(x, z_s) / sum_k (S_k / S) q_k(z_s),   z_s ~ q_k for S_k of the draws

        Burda et al. 2016 (arXiv 1509.00519), eq. 8; stratified as in Owen & Zhou 2000 ("Safe and
        effective importance sampling"). The standard error is that of the mean within strata, by
        the delta method; where a subset has one draw it is too large rather than too small.

        The estimate is below log p(x) in expectation. Where a posterior is far narrower than p(z|x), or
        far from it, few draws have most of the weight, and the standard error is too small as well: more
        draws tell, whose estimate is then higher by more than it.
        """
        check_count("samples", samples, least=2)
        key = check_key(key)
        x = observed(self, x)
        with still(self):
            present = self.modalities.present(x)
            subsets, count = self.fuse.strata(present)
            experts = self.encoder(x)
            p = self.prior_of(x)
            width = subsets.shape[1]
            each = [self.fuse(experts, subsets[:, place], p) for place in range(width)]
            place = torch.arange(samples, device=x.device).unsqueeze(1) % count
            drawn = torch.stack([(place == k).sum(0) for k in range(width)])
            share = (drawn.double() / samples).log()  # (K, B), -inf for those that are not its own
            block = max(1, _DRAWS // len(x))
            log_weight = torch.cat(
                [
                    self._log_weights(x, p, each, share, chosen, fold(key, "evidence", at))
                    for at, chosen in enumerate(place.split(block))
                ]
            )
            return _estimate(log_weight, place, width)

    def _log_weights(
        self,
        x: Tensor,
        p: Family,
        each: Sequence[Gaussian],
        share: Tensor,
        place: Tensor,
        key: int,
    ) -> Tensor:
        """log p(x, z) - log q(z) of draws of the posteriors at `place` `(S, B)`, float64."""
        times, size = place.shape
        index = torch.arange(times * size, device=x.device)
        noise = normal(key, index, (self.latent_dim,), torch.promote_types(x.dtype, torch.float32))
        stacked = tree_map(lambda *parts: torch.stack(parts), *each)
        row = torch.arange(size, device=x.device).expand_as(place)
        z = tree_map(lambda part: part[place, row], stacked).rsample(
            noise.unflatten(0, (times, size))
        )
        log_q = torch.stack([q.log_prob(z).double() for q in each]) + share.unsqueeze(1)
        flat = z.flatten(0, 1)
        present = repeated(self.modalities.present(x), times)
        distortion = self.likelihood.total(self._distortions(flat, x, present)).double()
        log_p = for_each(p, times).log_prob(flat).double() - distortion
        return log_p.unflatten(0, (times, size)) - log_q.logsumexp(0)

    def generate(
        self, x: Tensor, *, key: int = 0, index: Tensor | None = None, samples: int = 1
    ) -> Tensor:
        """`x` `(B, P)` with each missing modality filled by E[x_m|z] at a draw of z given the
        others and the conditions: `(samples, B, P)`.

        What follows x is named, so that no number of samples is taken for a key.

        Args:
            key: of the draws; another gives others.
            index: `(B,)`, places of the examples in their data set, which the draws belong to.
        """
        check_count("samples", samples)
        key = check_key(key)
        x = observed(self, x)
        with still(self):
            index = torch.arange(len(x), device=x.device) if index is None else index
            noise = normal(key, index, (samples, self.latent_dim)).to(x.dtype).transpose(0, 1)
            q = self.encoded(x)
            z = q.rsample(noise).flatten(0, 1)
            made = self.decode(z, x).unflatten(0, (samples, len(x)))
            return torch.where(x.isnan(), made.to(x.dtype), x)

    def check_samples(self, samples: int) -> None:
        """Refuse so many draws of each example where its subsets cannot share them equally."""
        if len(self.fuse.table):
            self.fuse.check_samples(samples)

    def held_out_terms(self, x: Tensor, inference: Inference, noise: Tensor) -> dict[str, Tensor]:
        """Terms of a validation of each modality, `(B,)` each, nats: its distortion, 0 where it is
        missing, so that they add up; the bound of log p(x_m) at q(z|x_m), 0 where it is missing;
        and the rate of each subset.

        Args:
            inference: of all that each example has, at its first draw.
            noise: `(B, noise_dim)`, of that draw.
        """
        names = self.modalities.modelled
        experts = self.encoder(x)
        present = self.modalities.present(x)
        each = self._distortions(inference.z, x, present)
        terms = {f"distortion_{name}": each[:, place] for place, name in enumerate(names)}
        p = self.prior_of(x)
        own_noise = noise[:, : self.latent_dim]
        alone = torch.eye(len(names), dtype=torch.bool, device=x.device)
        subsets: dict[tuple[str, ...], Tensor]
        subsets = {(name,): only for name, only in zip(names, alone, strict=True)}
        for row in self.fuse.table:
            subsets[tuple(name for name, has in zip(names, row.tolist(), strict=True) if has)] = row
        for subset, row in subsets.items():
            if len(subset) == len(names) > 1:
                continue  # that is the inference
            seen = present & row
            own = self._bound(self.fuse(experts, seen, p), x, p, own_noise, seen).bound
            if len(subset) == 1:
                terms[f"elbo_{subset[0]}"] = own.elbo.where(seen.any(1), 0.0)
            terms[f"rate_{'_'.join(subset)}"] = own.rate
        return terms


def _estimate(log_weight: Tensor, place: Tensor, strata: int) -> Evidence:
    """The logarithm of the mean weight, `(S, B)` to `(B,)`, and its standard error from the
    variance within strata; of a stratum of one draw, which tells none, that of all draws.
    """
    most = log_weight.amax(0)
    weight = (log_weight - most).exp()
    mean = weight.mean(0)
    variance = torch.zeros_like(mean)
    of_all = weight.var(0)
    for k in range(strata):
        own = (place == k).to(weight)
        count = own.sum(0)
        centre = (own * weight).sum(0) / count.clamp(min=1)
        squares = (own * (weight - centre).square()).sum(0)
        within = squares * count / (count - 1).clamp(min=1)
        variance = variance + torch.where(count == 1, of_all, within)
    return Evidence(most + mean.log(), variance.sqrt() / (len(weight) * mean))
