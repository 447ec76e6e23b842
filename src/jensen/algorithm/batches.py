"""Batches as an algorithm sees them, of jensen's `DataModule` or of a Lightning user's own
loaders.
"""

from collections.abc import Mapping

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from jensen.base.batch import Batch
from jensen.base.errors import InputError
from jensen.data.module import DataModule


def own_data(trainer: Trainer) -> DataModule | None:
    """jensen's DataModule, if it is what the trainer was given; of other data less is known
    (`observed`).
    """
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, DataModule) else None


def train_size(trainer: Trainer) -> int:
    """Examples that are trained on; 0 where that is not known, as of a stream."""
    data = own_data(trainer)
    return 0 if data is None else data.train_size


def validate_by_steps(trainer: Trainer) -> None:
    """Count `val_check_interval` in steps on jensen's data; on others in batches, as Lightning."""
    if own_data(trainer) is None or trainer.check_val_every_n_epoch is not None:
        return
    if trainer.val_check_batch is not None:
        trainer.val_check_batch *= trainer.accumulate_grad_batches


def needed_data(trainer: Trainer, what: str, instead: str) -> DataModule:
    """jensen's DataModule.

    Raises:
        InputError: the trainer was given other data.
    """
    if (data := own_data(trainer)) is None:
        found = (
            type(trainer.datamodule).__name__ if getattr(trainer, "datamodule", None) else "loaders"
        )
        raise InputError(
            f"{what} with {found} of your own: expected a jensen.data.module.DataModule; use that,"
            f" or {instead}"
        )
    return data


def observed(given: object, first: int, rank: int, world: int) -> Batch:
    """A batch of any loader, as a `Batch`: a tensor x, a pair (x, factors), or a dict with x and
    perhaps factors and row.

    Args:
        given: x is `(B, *event)`, factors are integers `(B,)` or `(B, F)`, row `(B,)` the place of
            each example in its data.
        first: place of the batch's first example over all ranks, for batches that hold no `row`:
            its examples then count as those that a `DistributedSampler` has dealt out.

    Raises:
        InputError: anything else.
    """
    if isinstance(given, Batch):
        return given
    x, factors, row = _parts(given)
    if not isinstance(x, Tensor):
        raise _unknown(given)
    if row is None:
        row = first + rank + world * torch.arange(len(x), device=x.device)
    return Batch(
        x, _integers("factors", factors, x, (1, 2)), _integers("row", row, x, (1,)).squeeze(1)
    )


def _parts(given: object) -> tuple[object, object, object]:
    """x, factors and row; None for what is not there."""
    if isinstance(given, Mapping) and "x" in given:
        return given["x"], given.get("factors"), given.get("row")
    if isinstance(given, tuple | list) and len(given) in (1, 2):
        return given[0], given[1] if len(given) == 2 else None, None
    return given, None, None


def _integers(name: str, value: object, x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """`(B, F)` int64; F = 0 of None."""
    if value is None:
        return torch.empty(len(x), 0, dtype=torch.int64, device=x.device)
    whole = isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex())
    if (
        not isinstance(value, Tensor)
        or not whole
        or value.dim() not in dims
        or len(value) != len(x)
    ):
        found = (
            f"{value.dtype} of shape {list(value.shape)}"
            if isinstance(value, Tensor)
            else f"a {type(value).__name__}"
        )
        shapes = " or ".join(("(B,)", "(B, F)")[: len(dims)])
        raise InputError(
            f"{name} of a batch of {len(x)} examples is {found}: expected integers {shapes}; leave"
            " it out in the loader's collate_fn, or number its values"
        )
    return value.long().reshape(len(x), -1)


def _unknown(given: object) -> InputError:
    parts = (
        f" of {', '.join(type(part).__name__ for part in given)}"
        if isinstance(given, tuple | list)
        else ""
    )
    keys = f" with {', '.join(map(str, given))}" if isinstance(given, Mapping) else ""
    return InputError(
        f"a batch is a {type(given).__name__}{parts}{keys}: expected a tensor x, a pair (x,"
        " factors) or a dict with x, and with"
        " row where noise is to follow an example; have the loader's collate_fn give one"
    )
