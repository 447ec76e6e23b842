"""Examples of any torch `Dataset`, read item by item: map-style in an order of ours, or a stream in
its own.

An item is `x`, `(x, factors)` or a mapping with `x` and `factors`; `x` a tensor or array of one
shape and dtype in all of them, `factors` an integer or `(F,)` integers. Floating-point numbers are
taken as they are, booleans as 0 and 1, bytes as grey levels 0..255.
"""

import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from jensen.base.errors import InputError
from jensen.base.plain import check_unmasked, plain
from jensen.base.random import fold
from jensen.data.examples import Examples, Rows, identity, pixels


class Loader(DataLoader[Rows]):
    """A DataLoader out of whose workers bad input comes as the one sentence that it is."""

    def __iter__(self) -> Any:
        try:
            yield from super().__iter__()
        except InputError as error:
            raise InputError(str(error).rpartition("InputError: ")[2].strip()) from error


class Layout(NamedTuple):
    """The common make of all items: the `dtype` and `shape` of x, and the number of `factors`."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    factors: int

    def __str__(self) -> str:
        return f"x of {str(self.dtype).removeprefix('torch.')} {list(self.shape)} and {self.factors} factors"


class _Given:
    """The common part of map-style data sets and streams: how an item is taken. Abstract."""

    bytewise = False
    device = torch.device("cpu")
    sizes = ()
    whole = False
    """It is read whole before training: hashed, and the domain of every value checked."""

    def __init__(self, dataset: Any, first: Any) -> None:
        self.dataset = dataset
        self.name = _name(dataset)
        self._first = _taken(first, f"item 0 of {self.name}")
        self.layout = _layout(*self._first)
        count = self.layout.factors
        self.names = (
            ("factor",) if count == 1 else tuple(f"factor_{place}" for place in range(count))
        )

    def first(self) -> Rows:
        stored, factors = self._first
        return Rows(stored[None], factors[None], torch.zeros(1, dtype=torch.long))

    def decode(self, stored: Tensor) -> Tensor:
        return (
            pixels(stored)
            if stored.dtype == torch.uint8
            else stored.float()
            if stored.dtype == torch.bool
            else identity(stored)
        )

    def to(self, device: object) -> Any:
        """Itself: nothing of it is stored."""
        return self

    def _checked(self, found: Any, index: int) -> tuple[Tensor, Tensor]:
        where = f"item {index} of {self.name}"
        stored, factors = _taken(found, where)
        if (layout := _layout(stored, factors)) != self.layout:
            raise InputError(
                f"{where} is {layout}: expected {self.layout}, as item 0; make all items alike"
            )
        return stored, factors

    @property
    def _bytes(self) -> str:
        return ", bytes read as grey levels, 255 as 1" if self.layout.dtype == torch.uint8 else ""


class Items(_Given, Dataset[Rows]):
    """A map-style data set.

    Whatever an item draws at random by torch's, numpy's or Python's own generators, such as an
    augmentation, is a function of a key and the item: of the seed and the step in training, fixed
    elsewhere.

    Args:
        dataset: `dataset[0]` to `dataset[len(dataset) - 1]`.
        survey: whether all items are read once before training, to hash and to check them.

    Raises:
        InputError: it has no length, or no items; item 0 is none.
    """

    def __init__(self, dataset: Any, survey: bool) -> None:
        self.dataset = dataset
        self.size = self._length()
        super().__init__(dataset, self._read(0, 0))
        stored, factors = self._checked(self._read(0, 0), 0)
        again = stored.equal(self._first[0]) or bool(stored.isnan().any())
        self.whole = survey and again and factors.equal(self._first[1])
        why = (
            ""
            if self.whole
            else ", not hashed" + (", since reading an item twice gives two" if survey else "")
        )
        self.note = f"{self.size:,} items of {self.name}{self._bytes}{why}"

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Tensor | tuple[int, Tensor]) -> Rows:
        """The items `(B,)`, with a key for what they draw, else 0."""
        key, rows = index if isinstance(index, tuple) else (0, index)
        if (now := self._length()) != self.size:
            raise InputError(
                f"{self.name} has {now} items and had {self.size} at first: expected a length that"
                " does not change"
            )
        found = [self._checked(self._read(row, key), row) for row in rows.tolist()]
        stored, factors = zip(*found, strict=True)
        return Rows(torch.stack(stored), torch.stack(factors), rows)

    def _read(self, row: int, key: int) -> Any:
        try:
            with drawing(fold(key, row)):
                return self.dataset[row]
        except Exception as error:  # whatever reading a file of others raises
            raise InputError(
                f"item {row} of {_name(self.dataset)} cannot be read ({type(error).__name__}:"
                f" {error}): expected items 0..{self.size - 1}, as its length says; mend it"
            ) from error

    def _length(self) -> int:
        try:
            size = len(self.dataset)
        except TypeError as error:
            raise InputError(
                f"{_name(self.dataset)} has no length: expected a map-style Dataset with __len__,"
                " or an IterableDataset, which is a stream"
            ) from error
        if not size:
            raise InputError(f"{_name(self.dataset)} has 0 items: expected at least one")
        return size


class Stream(_Given, IterableDataset[Rows]):
    """An `IterableDataset` in the order in which it gives its items, batch by batch; each pass over
    it is an epoch.

    The items that fill no last step of a pass are left out. It is read by one process: several
    would give every item several times, or leave some out of a stream that shares them out by
    itself.

    `batch_size` and `together` are set before it is read: examples of a batch, and batches of an
    optimiser step.
    """

    batch_size = 1
    together = 1

    def __init__(self, dataset: Any) -> None:
        try:
            first = next(iter(dataset))
        except StopIteration:
            raise InputError(f"{_name(dataset)} gives no item: expected at least one") from None
        super().__init__(dataset, first)
        self.note = f"a stream of {self.name}{self._bytes}, not hashed, in its own order, which a run that goes on begins anew"

    def __iter__(self) -> Iterator[Rows]:
        least = self.batch_size * self.together
        held: list[tuple[Tensor, Tensor]] = []
        given = 0
        for item in self.dataset:
            held.append(self._checked(item, given))
            given += 1
            if len(held) == least:
                rows = torch.arange(given - least, given)
                parts = (*(torch.stack(parts) for parts in zip(*held, strict=True)), rows)
                yield from (
                    Rows(*each)
                    for each in zip(*(part.split(self.batch_size) for part in parts), strict=True)
                )
                held = []
        if given < least:
            raise InputError(
                f"{self.name} gave {given} items before it ended: expected at least {least}, those"
                " of an optimiser step, each time that it is iterated; lower data.batch_size"
            )


def given(found: Any, survey: bool) -> Examples | Items | Stream:
    """Whatever a source has made, as examples.

    Raises:
        InputError: it is no data set.
    """
    if isinstance(found, Examples):
        return found
    if isinstance(found, IterableDataset):
        return Stream(found)
    if isinstance(found, Dataset) or (hasattr(found, "__getitem__") and hasattr(found, "__len__")):
        return Items(found, survey)
    raise InputError(
        f"source gives a {type(found).__name__}: expected jensen.data.examples.Examples or a torch"
        " Dataset"
    )


@contextmanager
def drawing(key: int) -> Iterator[None]:
    """Seeds torch's, numpy's and Python's own generators on the CPU by `key`; afterwards they are
    as they were.
    """
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    torch.default_generator.manual_seed(key)
    np.random.seed(key % (1 << 32))  # noqa: NPY002
    random.seed(key)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        random.setstate(before[2])


def _name(dataset: object) -> str:
    kind = type(dataset)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _layout(stored: Tensor, factors: Tensor) -> Layout:
    return Layout(stored.dtype, tuple(stored.shape), len(factors))


def _taken(found: Any, where: str) -> tuple[Tensor, Tensor]:
    """The x `(*event)` and the factors `(F,)` of an item."""
    x = found
    factors = ()
    if isinstance(found, Mapping):
        if "x" not in found:
            raise InputError(
                f"{where} has the keys {', '.join(map(str, found))}: expected x and, if they are"
                " known, factors"
            )
        x = found["x"]
        factors = found.get("factors", ())
    elif isinstance(found, tuple | list):
        if len(found) not in (1, 2):
            raise InputError(
                f"{where} has {len(found)} parts: expected x, (x, factors) or a mapping of x and"
                " factors"
            )
        x, factors = (*found, ())[:2]
    return observation(x, f"x of {where}"), integers(factors, where).reshape(-1)


def observation(x: Any, name: str) -> Tensor:
    """x of an item, or of all examples, as it is stored, on the CPU."""
    if not isinstance(x, Tensor | np.ndarray):
        raise InputError(
            f"{name} is a {type(x).__name__}: expected a tensor or an array; convert it"
        )
    try:
        tensor = plain(name, x if isinstance(x, Tensor) else _tensor(name, x))
    except TypeError as error:
        raise InputError(
            f"{name} is an array of {x.dtype}: expected floating-point numbers; convert it"
        ) from error
    if not tensor.is_floating_point() and tensor.dtype not in (torch.uint8, torch.bool):
        raise InputError(
            f"{name} is {tensor.dtype}: expected floating-point numbers, bool, or uint8 for grey"
            " levels; convert it"
        )
    return tensor.detach().cpu()


def integers(factors: Any, where: str, dims: int = 1) -> Tensor:
    """Labels, int64: of an item `(F,)`, or of all examples with `dims=2`, on the CPU."""
    name = f"factors of {where}"
    try:
        array = isinstance(factors, np.ndarray)
        labels = _tensor(name, factors) if array else torch.as_tensor(factors)
        labels = plain(name, labels).detach().cpu()
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name} are a {type(factors).__name__}: expected integers; number their values"
        ) from error
    if labels.numel() and (
        labels.is_floating_point()
        or labels.is_complex()
        or labels.dim() > dims
        or bool((labels.long() < 0).any())
    ):
        expected = "(F,)" if dims == 1 else "(N,) or (N, F)"
        raise InputError(
            f"{name} are {labels.dtype} {list(labels.shape)}: expected integers of at least 0,"
            f" {expected}; number their values"
        )
    return labels.long()


def _tensor(name: str, array: np.ndarray) -> Tensor:
    """The numbers of an array, in its own memory where torch can have them there.

    Raises:
        TypeError: they are none that torch has.
    """
    check_unmasked(name, array)
    # torch has neither another byte order nor negative strides
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    with warnings.catch_warnings():
        # of a file that is mapped for reading alone: nothing writes to what is stored
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(native)
