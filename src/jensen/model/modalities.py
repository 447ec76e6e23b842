"""Several modalities in one tensor: one flattened after the other, NaN where one is missing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jensen.base.errors import InputError, check_counts, check_number
from jensen.base.random import fold
from jensen.model.likelihood import Likelihood


class Modalities(NamedTuple):
    """Names and shapes of the M parts of an observation `(B, P)`.

    >>> two = Modalities.of({"image": [1, 2, 2], "label": [3]})
    >>> two.size, {name: list(part.shape) for name, part in two.split(torch.zeros(5, 7)).items()}
    (7, {'image': [5, 1, 2, 2], 'label': [5, 3]})
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]]) -> "Modalities":
        """The modalities of `shapes` by name.

        Raises:
            InputError: none, a name that no attribute can have, or a shape that is none.
        """
        if not isinstance(shapes, Mapping) or not shapes:
            raise InputError(
                f"modalities is {shapes!r}: expected names with their shapes, such as"
                " {image: [1, 28, 28], label: [10]}"
            )
        for name, shape in shapes.items():
            if not isinstance(name, str) or not name.isidentifier() or hasattr(nn.ModuleDict, name):
                raise InputError(
                    f"modalities holds the name {name!r}: expected letters, digits and _, and no"
                    " method of torch's ModuleDict; rename it"
                )
            check_counts(f"modalities.{name}", shape)
        return cls(tuple(shapes), tuple(tuple(shape) for shape in shapes.values()))

    @property
    def sizes(self) -> list[int]:
        """Numbers that each has."""
        return [math.prod(shape) for shape in self.shapes]

    @property
    def size(self) -> int:
        """P, the numbers of all."""
        return sum(self.sizes)

    def split(self, x: Tensor) -> dict[str, Tensor]:
        """`(B, P)` to `(B, *shape)` of each."""
        parts = zip(self.names, x.split(self.sizes, 1), self.shapes, strict=True)
        return {name: part.unflatten(1, shape) for name, part, shape in parts}

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """`(B, *shape)` of each to `(B, P)`."""
        return torch.cat([parts[name].flatten(1) for name in self.names], 1)

    def present(self, x: Tensor) -> Tensor:
        """Tell which modalities each example of `x` `(B, P)` has, `(B, M)` bool, by the first number
        of each: one is missing as a whole (`JointLikelihood.check`).
        """
        return ~torch.stack([part[:, 0] for part in x.split(self.sizes, 1)], 1).isnan()

    def columns(self, chosen: Tensor) -> Tensor:
        """A flag of each modality as one of each number, `(B, M)` to `(B, P)`."""
        sizes = torch.tensor(self.sizes, device=chosen.device)
        return chosen.repeat_interleave(sizes, 1, output_size=self.size)

    def check_keys(self, key: str, given: Mapping[str, object], all_of_them: bool = True) -> None:
        """Refuse settings by modality, of the key `key`, that name others than these."""
        unknown = [name for name in given if name not in self.names]
        lacking = [name for name in self.names if name not in given] if all_of_them else []
        if unknown or lacking:
            has = f"has {unknown[0]!r}" if unknown else f"lacks {lacking[0]!r}"
            raise InputError(
                f"{key} {has} and modalities are {', '.join(self.names)}: expected the same names"
                " in data, encoders, decoders and likelihoods; rename one"
            )


def filled(x: Tensor) -> Tensor:
    """0 in the place of NaN."""
    return x.nan_to_num(0.0, torch.inf, -torch.inf)


class JointLikelihood(nn.Module):
    """p(x|z) = prod_m p(x_m|z) of several modalities, of those that an example has.

    Args:
        modalities: the parts of x.
        likelihoods: of each, by name.
        weights: times the distortion of each while the model is in training.
    """

    def __init__(
        self,
        modalities: Modalities,
        likelihoods: Mapping[str, Likelihood],
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        modalities.check_keys("likelihoods", likelihoods)
        self.modalities = modalities
        self.each: Any = dict(likelihoods)
        if all(isinstance(each, nn.Module) for each in likelihoods.values()):
            self.each = nn.ModuleDict(self.each)
        self.weights = dict(weights or {})
        modalities.check_keys("weights", self.weights, all_of_them=False)
        for name, weight in self.weights.items():
            check_number(f"weights.{name}", weight, low=0)
            if not weight:
                raise InputError(
                    f"weights.{name} is {weight}: expected a number above 0; give a small one, or"
                    " leave the modality out of data.modalities"
                )

    def distortions(self, output: Tensor, x: Tensor) -> Tensor:
        """-log p(x_m | output) of each modality, `(B, P)`, `(B, P)` to `(B, M)`, nats: 0 where it
        is missing.
        """
        present = self.modalities.present(x)
        outputs = self.modalities.split(output)
        seen = self.modalities.split(filled(x))
        each = [
            self.each[name].distortion(outputs[name], seen[name]) for name in self.modalities.names
        ]
        return torch.stack(each, 1).masked_fill(~present, 0.0)

    def distortion(self, output: Tensor, x: Tensor, counted: Tensor | None = None) -> Tensor:
        """-log p(x | output), `(B, P)`, `(B, P)` to `(B,)`, nats; of the modalities that are
        `counted`, `(B, M)` bool, all by default.
        """
        each = self.distortions(output, x)
        if counted is not None:
            each = each.masked_fill(~counted, 0.0)
        if self.training and self.weights:
            weight = [self.weights.get(name, 1.0) for name in self.modalities.names]
            each = each * each.new_tensor(weight)
        return each.sum(1)

    def mean(self, output: Tensor) -> Tensor:
        """E[x | output], `(B, P)`."""
        outputs = self.modalities.split(output)
        return self.modalities.join(
            {name: self.each[name].mean(outputs[name]) for name in self.modalities.names}
        )

    def sample(
        self,
        output: Tensor,
        key: int,
        index: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """x ~ p(x | output), `(B, P)`, each modality by its own likelihood."""
        outputs = self.modalities.split(output)
        return self.modalities.join(
            {
                name: self.each[name].sample(
                    outputs[name], fold(key, name), index, temperature, top_k, top_p
                )
                for name in self.modalities.names
            }
        )

    def check(self, x: Tensor) -> None:
        """Refuse observations that it is no density of, or that lack all of x or a part of a
        modality.
        """
        if x.dim() != 2 or x.shape[1] != self.modalities.size:
            raise InputError(
                f"modalities have {self.modalities.size} numbers and examples the shape"
                f" {list(x.shape[1:])}: expected shapes that add up; set data.modalities"
            )
        present = self.modalities.present(x)
        parts = self.modalities.split(x)
        for place, (name, part) in enumerate(parts.items()):
            missing = part.isnan().flatten(1)
            if bool((missing.any(1) & ~missing.all(1)).any()):
                raise InputError(
                    f"modality {name} of an example is NaN in a part: expected all of a modality or"
                    " none of it; fill it in, or make it NaN as a whole"
                )
            rows = part[present[:, place]]
            if len(rows):
                try:
                    self.each[name].check(rows)
                except InputError as error:
                    raise InputError(f"modality {name}: {error}") from error
        if not bool(present.any(1).all()):
            raise InputError(
                "an example has none of the modalities"
                f" {', '.join(self.modalities.names)}: expected one at least; leave it out"
            )
