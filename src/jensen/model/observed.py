"""Examples that a person gives a model to look at, as its networks take it, or refused in the sentences of a
fit.

A training step asks for none of this: its data were looked at before the first one.
"""

from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from jensen.base.errors import InputError
from jensen.base.plain import check_unmasked
from jensen.model.arrays import as_array, as_tensor

if TYPE_CHECKING:
    from jensen.model.vae import VAE


def observed(model: "VAE", x: Any) -> Tensor:
    """Observations `(N, *event)`, in the precision of the model, and where it is.

    >>> import jensen
    >>> model = jensen.VAE("mlp", "mlp", latent_dim=2, x_shape=[1, 2, 3])
    >>> observed(model, np.zeros((4, 1, 2, 3))).dtype
    torch.float32

    Raises:
        InputError: x is not what this model could have been trained on.
    """
    if _is_traced(x):
        return x  # type: ignore[no-any-return]
    check_unmasked("x", x)  # as_array has a remedy that is a mixture's
    values = as_array("x", x)
    if not _is_float_or_bool(values):
        raise InputError(
            f"x is {str(values.dtype).removeprefix('torch.')}: expected floating-point numbers, as the"
            " model was trained on; convert it, grey levels of 0 to 255 by dividing by 255, or call"
            " encode of the run, which reads bytes as a fit does"
        )
    found = _beside(model, as_tensor("x", values))
    _check_shape(model, found)
    if found.numel():
        # of several modalities a look may be at an example that has none of them
        check = getattr(model.likelihood, "check_given", model.likelihood.check)
        check(found.detach())
    return found


def codes(model: "VAE", z: Any) -> Tensor:
    """Codes `(N, D)`, in the precision of the model, and where it is.

    Raises:
        InputError: z has another shape, or is no numbers.
    """
    if _is_traced(z):
        return z  # type: ignore[no-any-return]
    found = _beside(model, as_tensor("z", z))
    if found.dim() != 2 or found.shape[1] != model.latent_dim:
        one = "; give one code as z[None]" if found.shape == (model.latent_dim,) else ""
        raise InputError(
            f"model.latent_dim is {model.latent_dim} but z has the shape {list(found.shape)}: expected"
            f" [N, {model.latent_dim}]{one}"
        )
    return found


def check_key(key: Any) -> int:
    """The key of draws, an integer of 64 bits.

    Raises:
        InputError: it is none.
    """
    if hasattr(key, "__index__") and not isinstance(key, bool):
        found = index(key)
        if -(1 << 63) <= found < 1 << 63:
            return found
    raise InputError(f"key is {key!r}: expected an integer of 64 bits")


def _is_traced(x: Any) -> bool:
    """Tell whether the numbers of x cannot be looked at: a program is being made of what is done with
    it.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return True
    if not isinstance(x, Tensor):
        return False
    if x.is_cuda and torch.cuda.is_current_stream_capturing():
        return True
    return x.is_meta or hasattr(x, "fake_mode")


def _is_float_or_bool(values: Tensor | np.ndarray) -> bool:
    if isinstance(values, Tensor):
        return values.is_floating_point() or values.dtype == torch.bool
    return values.dtype.kind in "fb"


def _beside(model: nn.Module, values: Tensor) -> Tensor:
    like = next(model.parameters(), None)
    return values if like is None else values.to(like)


def _check_shape(model: "VAE", x: Tensor) -> None:
    found = list(x.shape)
    if x.dim() < 2:
        raise InputError(f"x has the shape {found}: expected [N, *event], N examples")
    parts = {f"model.{name}": part for name, part in model.named_children()}
    for name, part in ({"model": model} | parts).items():
        if name == "model.decoder" and hasattr(model.likelihood, "output_shape"):
            continue  # its own shape is that of what it gives
        shape = getattr(part, "x_shape", None)
        if shape is None or found[1:] == [*shape]:
            continue
        sides = ", ".join(map(str, shape))
        raise InputError(
            f"{name}.x_shape is {[*shape]} but x has the shape {found}: expected [N, {sides}];"
            f" {_remedy(found, [*shape])}"
        )


def _remedy(found: list[int], shape: list[int]) -> str:
    if found == shape:
        return "give one example as x[None]"
    if sorted(found[1:]) == sorted(shape):
        return "put its axes in that order, by permute"
    return "reshape it"
