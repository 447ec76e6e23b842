"""Several modalities in one tensor: one flattened after the other, NaN where one is missing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from jensen.base.errors import InputError, check_choices, check_counts, check_number
from jensen.base.random import fold
from jensen.base.tree import tree_map
from jensen.model.likelihood import Likelihood, drawn

T = TypeVar("T")

Rows = Mapping[str, Tensor]
"""Places `(R,)` among draws, by modality; one that is not named has all of them."""


class Modalities(NamedTuple):
    """Names and shapes of the parts of an observation `(B, P)`.

    given: those that are conditions, which a model is given and does not model; M are modelled.

    >>> two = Modalities.of({"image": [1, 2, 2], "label": [3]})
    >>> two.size, {name: list(part.shape) for name, part in two.split(torch.zeros(5, 7)).items()}
    (7, {'image': [5, 1, 2, 2], 'label': [5, 3]})
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    given: tuple[str, ...] = ()

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]], condition: Sequence[str] = ()) -> "Modalities":
        """The modalities of `shapes` by name, of which those of `condition` are given.

        Raises:
            InputError: none, a name that no attribute can have, or a shape that is none; conditions
                that are no modalities, or all of them.
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
        check_choices("condition", condition, [*shapes])
        if len(condition) == len(shapes):
            raise InputError(
                f"condition is {[*condition]}, all of the modalities: expected one that is modelled"
                " at least; remove one"
            )
        return cls(
            tuple(shapes), tuple(tuple(shape) for shape in shapes.values()), tuple(condition)
        )

    @property
    def modelled(self) -> tuple[str, ...]:
        """Names of the M that are no conditions."""
        return tuple(name for name in self.names if name not in self.given)

    @property
    def shape_of(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name."""
        return dict(zip(self.names, self.shapes, strict=True))

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
        return {
            name: part if len(shape) == 1 else part.unflatten(1, shape)
            for name, part, shape in parts
        }

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """`(B, *shape)` of each to `(B, P)`."""
        return torch.cat([parts[name].flatten(1) for name in self.names], 1)

    def present(self, x: Tensor) -> Tensor:
        """Tell which of the modelled ones each example of `x` `(B, P)` has, `(B, M)` bool, by the
        first number of each: one is missing as a whole (`JointLikelihood.check`).
        """
        firsts = []
        start = 0
        for name, size in zip(self.names, self.sizes, strict=True):
            if name not in self.given:
                firsts.append(x.select(1, start))
            start += size
        return ~torch.stack(firsts, 1).isnan()

    def columns(self, chosen: Tensor) -> Tensor:
        """A flag of each modelled one as one of each number, `(B, M)` to `(B, P)`; of conditions,
        true.
        """
        if self.given:
            flag = dict(zip(self.modelled, chosen.unbind(1), strict=True))
            always = torch.ones_like(chosen[:, 0])
            chosen = torch.stack([flag.get(name, always) for name in self.names], 1)
        sizes = torch.tensor(self.sizes, device=chosen.device)
        return chosen.repeat_interleave(sizes, 1, output_size=self.size)

    def conditions(self, x: Tensor) -> Tensor | None:
        """The conditions of `x` `(B, P)`, one after another, `(B, C)`; None where there are none."""
        if not self.given:
            return None
        parts = zip(self.names, x.split(self.sizes, 1), strict=True)
        return torch.cat([part for name, part in parts if name in self.given], 1)

    def check_keys(self, key: str, given: Mapping[str, object], all_of_them: bool = True) -> None:
        """Refuse settings by modality, of the key `key`, that name others than those modelled."""
        modelled = self.modelled
        for name in given:
            if name in self.given:
                raise InputError(
                    f"{key} has {name!r}, and data.condition too: expected a condition to be given"
                    " and not modelled; leave it out of one of the two"
                )
        unknown = [name for name in given if name not in modelled]
        lacking = [name for name in modelled if name not in given] if all_of_them else []
        if unknown or lacking:
            has = f"has {unknown[0]!r}" if unknown else f"lacks {lacking[0]!r}"
            raise InputError(
                f"{key} {has} and modalities are {', '.join(modelled)}: expected the same names"
                " in data, encoders, decoders and likelihoods; rename one"
            )


def filled(x: Tensor) -> Tensor:
    """0 in the place of NaN."""
    return x.nan_to_num(0.0, torch.inf, -torch.inf)


def rows_of(counted: Tensor, names: Sequence[str]) -> Rows:
    """The draws of which each modality counts, `counted` `(S B, M)` bool, so that no decoder works
    for the others; one draw at least.

    All of them where that is not to be asked: of a device, which the host would wait for, and of
    models that are one program.
    """
    if counted.device.type != "cpu" or torch.compiler.is_compiling():
        return {}
    if torch._C._are_functorch_transforms_active():
        return {}
    rows = {}
    for place, (name, total) in enumerate(zip(names, counted.sum(0).tolist(), strict=True)):
        if total < len(counted):
            rows[name] = counted[:, place].nonzero()[:, 0] if total else torch.zeros(1).long()
    return rows


def repeated(tree: T, times: int) -> T:
    """Each tensor `times` over along its first axis."""
    if times == 1:
        return tree
    found: T = tree_map(lambda part: part.repeat(times, *[1] * (part.dim() - 1)), tree)
    return found


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
            check_number(f"weights of {name}", weight)
            if weight <= 0:
                raise InputError(
                    f"weights of {name} is {weight}: expected a number above 0; give a small one, or"
                    " leave the modality out of data.modalities"
                )

    def distortions(self, output: Tensor, x: Tensor) -> Tensor:
        """-log p(x_m | output) of each modality, `(B, P)`, `(B, P)` to `(B, M)`, nats: 0 where it
        is missing.
        """
        return self.distortions_of(self.modalities.split(output), x, self.modalities.present(x), {})

    def distortions_of(
        self, outputs: Mapping[str, Tensor], x: Tensor, counted: Tensor, rows: Rows
    ) -> Tensor:
        """The same of outputs by name, `(R, *shape)` each, those of the `rows` of a modality alone
        where these are named, and `x` `(B, P)`: of S B draws, draws i, i + B, ... are of example i.

        Args:
            counted: `(S B, M)` bool; of what is not, 0.
        """
        times = len(counted) // len(x)
        seen = self.modalities.split(filled(x))
        each = []
        for name in self.modalities.modelled:
            if name in rows:
                own = seen[name][rows[name] % len(x)]
                found = self.each[name].distortion(outputs[name], own)
                found = found.new_zeros(len(counted)).index_copy(0, rows[name], found)
            else:
                found = self.each[name].distortion(outputs[name], repeated(seen[name], times))
            each.append(found)
        return torch.stack(each, 1).masked_fill(~counted, 0.0)

    def distortion(self, output: Tensor, x: Tensor) -> Tensor:
        """-log p(x | output), `(B, P)`, `(B, P)` to `(B,)`, nats."""
        return self.total(self.distortions(output, x))

    def total(self, each: Tensor) -> Tensor:
        """The distortion of all modalities, `(B, M)` to `(B,)`; in training each by its weight."""
        if self.training and self.weights:
            weight = [self.weights.get(name, 1.0) for name in self.modalities.modelled]
            each = each * each.new_tensor(weight)
        return each.sum(1)

    def mean(self, output: Tensor) -> Tensor:
        """E[x | output], `(B, P)`."""
        outputs = self.modalities.split(output)
        made = {name: self.each[name].mean(outputs[name]) for name in self.modalities.modelled}
        return self.modalities.join(outputs | made)

    def sample(
        self,
        output: Tensor,
        key: int,
        index: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """x ~ p(x | output), `(B, P)`, each modality by its own likelihood; conditions are as they
        are.
        """
        outputs = self.modalities.split(output)
        made = {
            name: drawn(
                self.each[name], outputs[name], fold(key, name), index, temperature, top_k, top_p
            )
            for name in self.modalities.modelled
        }
        return self.modalities.join(outputs | made)

    def check(self, x: Tensor) -> None:
        """Refuse observations that it is no density of, or that lack all of x or a part of a
        modality.
        """
        self.check_given(x)
        if not bool(self.modalities.present(x).any(1).all()):
            raise InputError(
                "an example has none of the modalities"
                f" {', '.join(self.modalities.modelled)}: expected one at least; leave it out"
            )

    def check_given(self, x: Tensor) -> None:
        """Refuse observations that it is no density of, or that lack a part of a modality."""
        if x.dim() != 2 or x.shape[1] != self.modalities.size:
            raise InputError(
                f"modalities have {self.modalities.size} numbers and examples the shape"
                f" {list(x.shape[1:])}: expected shapes that add up; set data.modalities"
            )
        present = self.modalities.present(x)
        parts = self.modalities.split(x)
        for name in self.modalities.given:
            if not bool(parts[name].isfinite().all()):
                raise InputError(
                    f"condition {name} of an example holds NaN or infinite numbers: expected it to"
                    " be known of each; leave that example out, or leave it out of data.condition"
                )
        for place, name in enumerate(self.modalities.modelled):
            part = parts[name]
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
