"""The networks of several modalities: an encoder and a decoder of each, and the latents they share."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jensen.base.errors import InputError, check_count
from jensen.family.gaussian import Gaussian, bounded
from jensen.model.likelihood import Likelihood
from jensen.model.modalities import Modalities, Rows, filled, repeated

Part = nn.Module | Callable[..., nn.Module]
"""A module, or what makes one of `x_shape` and `latent_dim`."""


class Latents(NamedTuple):
    """D latents: those that are `shared`, and then those that are of one modality alone.

    private: how many, by name, in the order of the modalities.
    """

    shared: int
    private: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(
        cls, shared: int, private: Mapping[str, int] | None, modalities: Modalities
    ) -> "Latents":
        """The latents of modalities.

        Raises:
            InputError: counts below 1, or names that are none of the modalities'.
        """
        check_count("latent_dim", shared)
        given = {} if private is None else private
        if not isinstance(given, Mapping):
            raise InputError(
                f"latent_private is {private!r}: expected a number by modality, such as {{image: 5}}"
            )
        modalities.check_keys("latent_private", given, all_of_them=False)
        for name, count in given.items():
            check_count(f"latent_private of {name}", count)
        own = tuple((name, given[name]) for name in modalities.modelled if name in given)
        return cls(shared, own)

    @property
    def size(self) -> int:
        """D."""
        return self.shared + sum(count for _, count in self.private)

    def span(self, name: str) -> tuple[int, int]:
        """The first private latent of a modality, and the one after its last; equal if it has
        none.
        """
        start = self.shared
        for other, count in self.private:
            if other == name:
                return start, start + count
            start += count
        return self.shared, self.shared

    def count(self, name: str) -> int:
        """Latents that a modality has to do with."""
        first, after = self.span(name)
        return self.shared + after - first

    def told_by(self, names: tuple[str, ...]) -> Tensor:
        """Tell of which latents each modality's expert speaks, `(M, D)` bool."""
        table = torch.zeros(len(names), self.size, dtype=torch.bool)
        table[:, : self.shared] = True
        for place, name in enumerate(names):
            first, after = self.span(name)
            table[place, first:after] = True
        return table

    def spread(self, name: str, part: Tensor) -> Tensor:
        """The word of a modality's expert, `(B, count)`, among zeros, `(B, D)`."""
        if not self.private:
            return part
        first, after = self.span(name)
        before = part.new_zeros(len(part), first - self.shared)
        rest = part.new_zeros(len(part), self.size - after)
        return torch.cat([part[:, : self.shared], before, part[:, self.shared :], rest], 1)

    def of_modality(self, name: str, z: Tensor) -> Tensor:
        """The latents that a modality has to do with, `(B, D)` to `(B, count)`."""
        if not self.private:
            return z
        first, after = self.span(name)
        return torch.cat([z[:, : self.shared], z[:, first:after]], 1)


class Senses(nn.Module):
    """The experts of all modalities, `(B, P)` to `(B, M, D)`; of a missing one, whatever its encoder
    makes of zeros, and 0 for the private latents of others.
    """

    def __init__(
        self, modalities: Modalities, latents: Latents, encoders: Mapping[str, nn.Module]
    ) -> None:
        super().__init__()
        self.modalities = modalities
        self.latents = latents
        self.each = nn.ModuleDict(encoders)

    def forward(self, x: Tensor) -> Gaussian:
        parts = self.modalities.split(filled(x))
        conditions = self.modalities.conditions(x)
        experts = [
            self._expert(name, _beside(parts[name], conditions))
            for name in self.modalities.modelled
        ]
        return bounded(
            Gaussian(
                torch.stack([each.mean for each in experts], 1),
                torch.stack([each.log_var for each in experts], 1),
            )
        )

    def _expert(self, name: str, x: Tensor) -> Gaussian:
        """The word of an encoder, among zeros for latents that it does not speak of: not yet
        `bounded`.
        """
        raw = self.each[name](x)
        if not isinstance(raw, Gaussian):
            raise InputError(
                f"model.encoders.{name} gives a {type(raw).__name__}: expected a jensen.Gaussian,"
                " since a product of experts is one in closed form; choose another encoder"
            )
        if raw.mean.shape[1:] != (count := self.latents.count(name),):
            raise InputError(
                f"model.encoders.{name} gives shape {list(raw.mean.shape[1:])}: expected [{count}],"
                " the latents that are shared and its private ones; change its latent_dim"
            )
        return Gaussian(*(self.latents.spread(name, part) for part in raw))


class Tellers(nn.Module):
    """The decoders of all modalities, `(B, D)` to `(B, P)`; conditions are as they are in x."""

    def __init__(
        self, modalities: Modalities, latents: Latents, decoders: Mapping[str, nn.Module]
    ) -> None:
        super().__init__()
        self.modalities = modalities
        self.latents = latents
        self.each = nn.ModuleDict(decoders)

    def forward(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        return self.modalities.join(self.outputs(z, x))

    def outputs(
        self, z: Tensor, x: Tensor | None = None, rows: Rows | None = None
    ) -> dict[str, Tensor]:
        """The decoders' numbers by name, `(S B, D)` to `(S B, *shape)`: rows i, i + B, ... are of
        example i of `x` `(B, P)`.

        Args:
            rows: those that are asked of a modality, `(R,)`, to `(R, *shape)`.

        Raises:
            InputError: x is not given, and the model has conditions; a decoder of another shape.
        """
        given = self.modalities.given
        if given and x is None:
            raise InputError(
                f"x is None and the model has the condition {', '.join(given)}: expected examples"
                " that have it, since a code alone says nothing of it; give them beside the codes"
            )
        conditions = None
        found: dict[str, Tensor] = {}
        if given and x is not None:
            times = len(z) // len(x)
            conditions = repeated(self.modalities.conditions(x), times)
            parts = self.modalities.split(x)
            found = {name: repeated(parts[name], times) for name in given}
        shape_of = self.modalities.shape_of
        for name in self.modalities.modelled:
            own = self.latents.of_modality(name, z)
            if conditions is not None:
                own = torch.cat([own, conditions.to(own)], 1)
            if rows and name in rows:
                own = own[rows[name]]
            found[name] = self.each[name](own)
            if found[name].shape[1:] != shape_of[name]:
                raise InputError(
                    f"model.decoders.{name} gives shape {list(found[name].shape[1:])}: expected"
                    f" {list(shape_of[name])}, that of data.modalities.{name}; change its sizes"
                )
        return found


def _beside(x: Tensor, conditions: Tensor | None) -> Tensor:
    """A modality `(B, *shape)` and conditions `(B, C)` as one: of an image, C channels more; else
    flattened, `(B, n + C)`.
    """
    if conditions is None:
        return x
    if x.dim() == 4:
        spread = conditions[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return torch.cat([x, spread], 1)
    return torch.cat([x.flatten(1), conditions], 1)


def _shape_beside(shape: tuple[int, ...], conditions: int) -> tuple[int, ...]:
    """The shape of `_beside`."""
    if not conditions:
        return shape
    if len(shape) == 3:
        return (shape[0] + conditions, *shape[1:])
    return (prod(shape) + conditions,)


def encoders_of(
    modalities: Modalities, latents: Latents, parts: Mapping[str, Part]
) -> dict[str, nn.Module]:
    """The encoder of each modality, as it is or made: for its shape beside the conditions."""
    conditions = sum(prod(modalities.shape_of[name]) for name in modalities.given)
    return {
        name: _made(part, _shape_beside(modalities.shape_of[name], conditions), latents.count(name))
        for name, part in _named("encoders", modalities, parts).items()
    }


def decoders_of(
    modalities: Modalities, latents: Latents, parts: Mapping[str, Part]
) -> dict[str, nn.Module]:
    """The decoder of each modality, as it is or made: of its latents and the conditions."""
    conditions = sum(prod(modalities.shape_of[name]) for name in modalities.given)
    return {
        name: _made(part, modalities.shape_of[name], latents.count(name) + conditions)
        for name, part in _named("decoders", modalities, parts).items()
    }


def likelihoods_of(modalities: Modalities, parts: Mapping[str, Any]) -> dict[str, Likelihood]:
    """The likelihood of each modality, as it is or made."""
    return {
        name: part if hasattr(part, "distortion") and not isinstance(part, type) else part()
        for name, part in _named("likelihoods", modalities, parts).items()
    }


def _made(part: Part, x_shape: tuple[int, ...], latent_dim: int) -> nn.Module:
    return part if isinstance(part, nn.Module) else part(x_shape=x_shape, latent_dim=latent_dim)


def _named(key: str, modalities: Modalities, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Parts by modality, with `each` in the place of those that are not named.

    Raises:
        InputError: names that are none of the modalities', or too few.
    """
    if not isinstance(parts, Mapping):
        raise InputError(
            f"{key} is a {type(parts).__name__}: expected one for each modality, such as {{each:"
            " ...}"
        )
    own = {name: part for name, part in parts.items() if name != "each" and part is not None}
    each = parts.get("each")
    found = own if each is None else dict.fromkeys(modalities.modelled, each) | own
    modalities.check_keys(key, found)
    if each is not None and (isinstance(each, nn.Module) or not callable(each)):
        raise InputError(
            f"{key}.each is a {type(each).__name__}: expected what makes one for each modality;"
            " set _partial_: true"
        )
    return {name: found[name] for name in modalities.modelled}
