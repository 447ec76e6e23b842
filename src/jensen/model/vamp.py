"""p(z) = (1/K) sum_k q(z|u_k): the mixture of the encodings of learned pseudo-inputs u_k, the
VampPrior.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from jensen.base.errors import InputError, check_count, check_counts, check_flag
from jensen.base.tree import tree_map
from jensen.family.family import Posterior, diagonal
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture


class VampPrior(nn.Module):
    """Tomczak & Welling 2018 (arXiv 1705.07120), eq. 9: the aggregate posterior of K observations
    that are learned.

    The rate is that of the sample, log q(z|x) - log p(z): right on average, and below 0 where the
    sample happens to be likelier under the prior. The pseudo-inputs are parameters, trained with
    the model; each step encodes them anew.

    Args:
        pseudo_inputs: K.
        x_shape: of an observation.
        unit: keep them in (0, 1), as images are, by a sigmoid; false for data on all of R.
    """

    rate_is_bound = False
    warmup = 0

    def __init__(self, pseudo_inputs: int, x_shape: Sequence[int], unit: bool = True) -> None:
        super().__init__()
        check_count("pseudo_inputs", pseudo_inputs)
        check_counts("x_shape", x_shape)
        check_flag("unit", unit)
        self.x_shape = tuple(x_shape)
        self.unit = unit
        self.raw = nn.Parameter(torch.randn(pseudo_inputs, *x_shape))
        self._encode: Callable[[Tensor], Posterior] | None = None

    def bind(self, encode: Callable[[Tensor], Posterior]) -> None:
        """The VAE gives its `encode`. A method is no submodule: the encoder stays the VAE's
        alone.
        """
        self._encode = encode

    def pseudo_inputs(self) -> Tensor:
        """u, `(K, *event)`."""
        return self.raw.sigmoid() if self.unit else self.raw

    def update(self, posterior: Posterior, step: Tensor) -> None:
        pass

    def distribution(self) -> Mixture:
        """In float64, with gradient to the pseudo-inputs and the encoder."""
        if self._encode is None:
            raise InputError(
                "model.prior is a VampPrior without an encoder: expected a VAE around it; call"
                " bind(encode)"
            )
        mean, log_var = tree_map(
            Tensor.double, diagonal(self._encode(self.pseudo_inputs()), "model/prior=vamp")
        )
        return Mixture(mean.new_full((len(mean),), -math.log(len(mean))), Gaussian(mean, log_var))
