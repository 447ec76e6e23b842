"""The posterior of z given some of the modalities: the product of their experts, and which are taken."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from jensen.base.errors import InputError, check_choice
from jensen.family.experts import beside, pooled
from jensen.family.family import Family
from jensen.family.gaussian import STANDARD, Gaussian
from jensen.model.modal_parts import Latents
from jensen.model.modalities import Modalities, repeated

FUSIONS = ("product", "mixture", "subsets")


class Fusion(nn.Module):
    """q(z | x_S) of subsets S of M modalities, and the subsets that training goes through.

    Args:
        kind: `product`, `mixture` or `subsets`.
        subsets: of the last: `all`, or lists of names.
        prior_expert: whether the prior is an expert beside those of the modalities.

    Raises:
        InputError: subsets that are none.

    >>> two = Modalities.of({"see": [1], "hear": [1]})
    >>> fusion = Fusion(two, Latents(1), "subsets")
    >>> fusion.table.tolist()
    [[True, False], [False, True], [True, True]]
    >>> experts = Gaussian(torch.tensor([[[2.0], [0.0]]]), torch.zeros(1, 2, 1))
    >>> fusion(experts, torch.tensor([[True, True]]), STANDARD).mean  # beside N(0, 1)
    tensor([[0.6667]])
    """

    def __init__(
        self,
        modalities: Modalities,
        latents: Latents,
        kind: str = "product",
        subsets: str | Sequence[Sequence[str]] = "all",
        prior_expert: bool = True,
    ) -> None:
        super().__init__()
        check_choice("fusion", kind, FUSIONS)
        self.latents = latents
        self.prior_expert = prior_expert
        self.register_buffer("table", _subsets(modalities, kind, subsets), persistent=False)
        self.register_buffer("told", latents.told_by(modalities.modelled), persistent=False)

    table: Tensor
    """`(K, M)` bool, the subsets that are gone through in training; of a product none."""

    told: Tensor
    """`(M, D)` bool, the latents of which each modality's expert speaks."""

    def forward(self, experts: Gaussian, subset: Tensor, p: Family) -> Gaussian:
        """q(z|x_S) from the experts `(B, M, D)`, for a subset of each example, `(B, M)` bool, under
        the prior p.
        """
        own = p if isinstance(p, Gaussian) else STANDARD
        speaks = subset.unsqueeze(-1)
        if self.prior_expert and not self.latents.private:
            return beside(own, experts, speaks)
        like = experts.mean
        shape = (len(like), 1, like.shape[-1])
        mean, log_var = (_as_expert(part.to(like), shape) for part in own)
        if like.shape[1] == 1 and not self.prior_expert:  # as a VAE has it, bit for bit
            pairs = zip(experts, (mean, log_var), strict=True)
            return Gaussian(*(torch.where(speaks, one, other)[:, 0] for one, other in pairs))
        if self.latents.private:
            speaks = speaks & self.told
        said = ~speaks.any(1, keepdim=True)  # of what nobody speaks the prior does
        if self.prior_expert:
            shared = torch.arange(self.latents.size, device=like.device) < self.latents.shared
            said = said | shared
        log_var = log_var.masked_fill(~said, torch.inf)
        spoken = experts.log_var.masked_fill(~speaks, torch.inf)
        return pooled(Gaussian(torch.cat([experts.mean, mean], 1), torch.cat([spoken, log_var], 1)))

    def strata(self, present: Tensor) -> tuple[Tensor, Tensor]:
        """The subsets of each example, its own ones first: `(B, K, M)` bool, and how many are its
        own, `(B,)`, at least 1.
        """
        if not len(self.table):
            return present.unsqueeze(1), torch.ones_like(present[:, 0], dtype=torch.int64)
        has = (present.unsqueeze(1) | ~self.table).all(-1)
        order = (~has).to(torch.int8).argsort(dim=1, stable=True)
        ordered = self.table[order]
        count = has.sum(1)
        alone = (count == 0).reshape(-1, 1, 1)
        return torch.where(alone, present.unsqueeze(1), ordered), count.clamp(min=1)

    def in_turn(
        self, experts: Gaussian, present: Tensor, times: int, first: Tensor | None, p: Family
    ) -> tuple[Gaussian, Tensor]:
        """The posterior `(S B, D)` of each of `times` draws of each example, and its subset `(S B, M)`:
        they begin at the one that a normal draw `first` `(B,)` says.
        """
        subsets, count = self.strata(present)
        draw = torch.arange(times, device=present.device).unsqueeze(1)
        if first is not None:
            chance = 0.5 * (1 + torch.erf(first / 2**0.5))
            draw = draw + (chance * count).long()
        place = draw % count  # (S, B)
        row = torch.arange(len(present), device=present.device).expand_as(place)
        chosen = subsets[row, place].flatten(0, 1)
        return self(repeated(experts, times), chosen, for_each(p, times)), chosen

    def check_samples(self, times: int) -> None:
        """Refuse so many draws of each example where they give subsets unequal shares."""
        subsets = len(self.table)
        if times > subsets and times % subsets:
            raise InputError(
                f"objective.samples is {times} and model has {subsets} subsets: expected a multiple"
                " of them, or fewer samples than subsets, which are drawn then; set"
                f" objective.samples={subsets}"
            )


def for_each(p: Family, times: int) -> Family:
    """A prior of each example, `times` over; one of all as it is."""
    if isinstance(p, Gaussian) and p.mean.dim() == 2:
        return repeated(p, times)
    return p


def _as_expert(part: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A parameter of the prior, `()`, `(D,)` or `(B, D)`, as one of experts, `(B, 1, D)`."""
    return (part.unsqueeze(1) if part.dim() == 2 else part).expand(shape)


def _subsets(modalities: Modalities, fusion: str, subsets: str | Sequence[Sequence[str]]) -> Tensor:
    """`(K, M)` bool; of a product none.

    Raises:
        InputError: a subset that is empty, is there twice, or names what there is not.
    """
    names = modalities.modelled
    if subsets == "all":
        sizes = range(1, len(names) + 1)
        every = [[*each] for size in sizes for each in combinations(names, size)]
    elif fusion != "subsets":
        raise InputError(
            f"subsets is {subsets!r} and fusion is {fusion}: expected all, or fusion=subsets"
        )
    elif isinstance(subsets, str) or not isinstance(subsets, Sequence) or not subsets:
        raise InputError(
            f"subsets is {subsets!r}: expected all, or lists of modalities, such as [[{names[0]}]]"
        )
    else:
        every = [[*each] if not isinstance(each, str) else [each] for each in subsets]
    for subset in every:
        if not subset:
            raise InputError(
                "subsets holds an empty one: expected a modality at least in each; remove it"
            )
        for name in subset:
            check_choice("subsets", name, names)
    if fusion == "product":
        return torch.zeros(0, len(names), dtype=torch.bool)
    if fusion == "mixture":
        return torch.eye(len(names), dtype=torch.bool)
    if len({frozenset(subset) for subset in every}) < len(every):
        raise InputError(f"subsets is {every}: expected each subset once; remove one")
    return torch.tensor([[name in subset for name in names] for subset in every])
