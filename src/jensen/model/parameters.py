"""A mixture's parameters as the buffers of a module."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributions

from jensen.base.errors import InputError
from jensen.family.mixture import Mixture
from jensen.family.structures import Structure
from jensen.model import interop
from jensen.model.scored import Scored

_COVARIANCES = {
    "full": lambda components, dim: components * dim * (dim + 1) // 2,
    "tied": lambda components, dim: dim * (dim + 1) // 2,
    "diag": lambda components, dim: components * dim,
    "spherical": lambda components, dim: components,
}
"""Free numbers of a structure's covariances."""


class Parameters(Scored):
    """A mixture in float64 buffers, of which there are none before the first `keep`: a `state_dict`
    holds plain tensors, and one of any D can be loaded.

    Args:
        components: K.
        covariance: the name of the structure.
        structure: the family of the components.
    """

    log_weight: Tensor
    mean: Tensor
    _place: Tensor

    def __init__(self, components: int, covariance: str, structure: Structure) -> None:
        super().__init__()
        self._count = components
        self._covariance = covariance
        self._structure = structure
        self._names = ("log_weight", *structure._fields)
        for name in self._names:
            self.register_buffer(name, None)
        # Follows `.to(device)` before there are parameters.
        self.register_buffer("_place", torch.empty(0), persistent=False)

    @property
    def mixture(self) -> Mixture:
        """The parameters as a value, for the functions of `family.mixture` and `em.steps`."""
        if self.log_weight is None:
            raise InputError(
                "this GMM has no parameters: call fit, load_state_dict or GMM.of first"
            )
        log_weight, *parameters = (getattr(self, name) for name in self._names)
        return Mixture(log_weight, self._structure(*parameters))

    def as_distribution(self) -> distributions.MixtureSameFamily:
        """The same density in `torch.distributions`."""
        return interop.as_distribution(self.mixture)

    @property
    def parameter_count(self) -> int:
        """Free parameters, for `bic` and `aic`."""
        components, dim = self.mixture.components.mean.shape[-2:]
        return components - 1 + components * dim + _COVARIANCES[self._covariance](components, dim)

    def assign(self, p: Mixture) -> None:
        """Take the parameters of `p`, in place."""
        for name, value in zip(self._names, (p.log_weight, *p.components), strict=True):
            self.get_buffer(name).copy_(value)

    def keep(self, p: Mixture) -> None:
        """Take a copy of the parameters of `p`, whatever there was before."""
        for name, value in zip(self._names, (p.log_weight, *p.components), strict=True):
            setattr(self, name, value.detach().double().clone())
        self._place = self._place.to(self.log_weight.device)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Take the shapes from the checkpoint, since D is not known before."""
        for name in self._names:
            value = state_dict.get(prefix + name)
            if value is None:
                continue
            if name in ("log_weight", "mean"):
                count = value.shape[-1 if name == "log_weight" else -2]  # of any number of fits
                if count != self._count:
                    raise InputError(
                        f"the checkpoint has {count} components: expected {self._count}; make"
                        f" GMM({count})"
                    )
            setattr(self, name, torch.empty_like(value, device=self._place.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[arg-type]
