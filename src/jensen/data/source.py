"""The examples of a source by split: which are held out, and how the model sees them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from jensen.base.batch import Batch
from jensen.base.errors import InputError, check_count, check_flag, check_list
from jensen.base.random import fold, permutation
from jensen.data.domain import Check, check_bytes, check_rows, chunks
from jensen.data.examples import Examples, Rows
from jensen.data.torch_dataset import Items, Loader, Stream, given
from jensen.data.transform import Transform, is_pointwise

AUTO = "auto"
"""The `validation` that depends on how many examples there are."""

MOST_HELD_OUT = 8192
"""The examples that `auto` holds out of a large training split."""


_shared: dict[Any, Examples] | None = None


@contextmanager
def shared() -> Iterator[None]:
    """Within this, sources that read the same have one copy of the examples, on each device."""
    global _shared
    before = _shared
    _shared = {}
    try:
        yield
    finally:
        _shared = before


def _once(key: object, make: Callable[[], Any]) -> Any:
    """The result of `make`, now or before, under the key where sources share."""
    if _shared is None:
        return make()
    if (found := _shared.get(key)) is None:
        found = make()
        if isinstance(found, Examples):
            _shared[key] = found
    return found


class Source:
    """Reads each split when it is first asked for.

    Args:
        read: the `source` of `DataModule`, as the others are its arguments.
        say: takes a note on what was read.

    Raises:
        InputError: an argument that is none, sizes that do not fit the data, a shape that the data
            contradict.
    """

    def __init__(
        self,
        read: Callable[..., Examples | Dataset[Any]],
        options: dict[str, object],
        splits: Sequence[str],
        x_shape: Sequence[int],
        validation: int | str,
        transform: Transform | None,
        survey: bool,
        say: Callable[[str], None],
    ) -> None:
        check_count("validation", validation, least=0, other=AUTO)
        check_flag("survey", survey)
        check_list("x_shape", x_shape)
        for side in x_shape:
            check_count("x_shape", side)
        if transform is not None and not callable(transform):
            raise InputError(
                f"transform is {transform!r}: expected null, or a function of x, key and index, such"
                " as data.transform={_target_: jensen.data.noise, _partial_: true}"
            )
        if not validation and "test" not in splits:
            raise InputError(
                "validation is 0 but these data have no test split: expected the number of"
                " examples to hold out"
            )
        self.x_shape = tuple(x_shape)
        self.validation = validation
        self.transform = transform
        self.splits = tuple(splits)
        self.survey = survey
        self._read = read
        self._say = say
        self._options = options
        self._examples: dict[str, Examples | Items | Stream] = {}

    def examples(self, split: str) -> Examples | Items | Stream:
        """The examples of `train` or `test`, read when first asked for."""
        if split not in self._examples:
            if split not in self.splits:
                raise InputError(
                    f"these data have no {split} split: expected data that have one, such as"
                    " data=mnist"
                )
            examples = self._asked(split)
            shape = self.observe(examples, examples.first(), key=0).x.shape[1:]
            if shape != self.x_shape:
                raise InputError(
                    f"data.x_shape is {list(self.x_shape)} but the first {split} example has shape"
                    f" {list(shape)}: set data.x_shape to that, or choose other data"
                )
            if examples.note:
                self._say(examples.note)
            self._examples[split] = examples
        return self._examples[split]

    def _asked(self, split: str) -> Examples | Items | Stream:
        options = self._options | ({"split": split} if len(self.splits) > 1 else {})
        try:
            signature(self._read).bind(**options)
        except TypeError as error:
            raise InputError(
                f"data has {', '.join(options)} for its source: expected other keys ({error})"
            ) from error
        try:
            found = _once(self._key(options), lambda: given(self._read(**options), self.survey))
        except InputError as error:
            if str(error).partition(" ")[0].partition(".")[0] in options:
                raise InputError(f"data.{error}") from error
            raise
        if isinstance(found, Stream) and (self.validation or split != "train"):
            raise InputError(
                f"data.validation is {self.validation} and the {split} split is {found.name}, a"
                " stream, out of which no examples can be held: expected data.validation=0 and a"
                " test split that is a map-style Dataset, by data.splits=[train,test] and a"
                " source that takes split"
            )
        return found

    def _key(self, options: dict[str, object]) -> object:
        """The settings that say which examples are read."""
        read = self._read
        parts = (read.func, read.args, read.keywords) if isinstance(read, partial) else (read,)
        return repr(parts), repr(options), self.survey

    def stored(self, split: str) -> Examples | Items:
        """The examples of a split, in which each has its place.

        Raises:
            InputError: it is a stream.
        """
        examples = self.examples(split)
        if isinstance(examples, Stream):
            raise InputError(
                f"the {split} split is {examples.name}, a stream: expected a map-style Dataset, of"
                " which examples can be asked"
                " for by their place, such as those that algorithm=em starts from"
            )
        return examples

    def move(self, split: str, where: torch.device | str) -> None:
        """Hold the examples of a split on a device, of those that can be.

        Raises:
            RuntimeError, AssertionError, TypeError: there is no such device, or it is too small.
        """
        examples = self.examples(split)
        self._examples[split] = _once((id(examples), str(where)), lambda: examples.to(where))

    def decoder(self, split: str) -> Examples | Items | Stream:
        """The examples of a split, or of another that was read: all of a source decode alike."""
        return self._examples.get(split) or next(iter(self._examples.values()))

    @property
    def validation_split(self) -> str:
        return "train" if self.validation else "test"

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor]:
        """Rows to validate on, in random order, and rows to train on.

        The key is fixed: runs that differ in seed are judged on the same examples.
        """
        size = len(self.stored(self.validation_split))
        held_out = self._held_out(size)
        if held_out >= size:
            raise InputError(
                f"data.validation is {self.validation}: expected fewer than the {size} examples"
                " there are"
            )
        order = permutation(fold(0, "held out"), size)
        if held_out:
            return order[:held_out], order[held_out:]
        train = self.examples("train")
        return order, torch.arange(0 if isinstance(train, Stream) else len(train))

    def _held_out(self, size: int) -> int:
        if isinstance(self.validation, int):
            return self.validation
        return min(MOST_HELD_OUT, max(1, size // 5))

    def observe(self, examples: Examples | Items | Stream, rows: Rows, key: int) -> Batch:
        """Stored examples as the model sees them; `key` is that of a random transform."""
        x = examples.decode(rows.stored)
        return Batch(
            x if self.transform is None else self.transform(x, key, rows.row),
            rows.factors,
            rows.row,
        )

    def observe_each(
        self, examples: Examples | Items | Stream, rows: Rows, keys: Sequence[int]
    ) -> Batch:
        """A minibatch for each key, one after another in `rows`, each as `observe`
        sees it.
        """
        if self.transform is None:
            return self.observe(examples, rows, 0)
        size = len(rows.row) // len(keys)
        parts = zip(*(part.split(size) for part in rows), strict=True)
        seen = [
            self.observe(examples, Rows(*part), key) for part, key in zip(parts, keys, strict=True)
        ]
        return Batch(*(torch.cat(each) for each in zip(*seen, strict=True)))

    def at(self, split: str, rows: Tensor) -> Tensor:
        """`(n, *event)` of the observations in some rows of a split."""
        examples = self.stored(split)
        return self.observe(examples, examples[rows], key=0).x

    def read(self, split: str, workers: int) -> Iterator[Rows]:
        """All examples of a split, in their order, a part at a time."""
        examples = self.stored(split)
        order = chunks(len(examples), self.observe(examples, examples.first(), key=0).x.numel())
        by = 0 if isinstance(examples, Examples) else workers
        yield from Loader(examples, sampler=order, batch_size=None, num_workers=by)

    def check_values(self, check: Check, workers: int) -> None:
        """Have `check` look at every value of every split, as the model will see it; of what is
        not read whole, at none.

        Raises:
            InputError: it refuses some.
        """
        for split in self.splits:
            examples = self.examples(split)

            def observe(rows: Rows, examples: Examples | Items | Stream = examples) -> Tensor:
                return self.observe(examples, rows, key=0).x

            one_by_one = examples.bytewise and (
                self.transform is None or is_pointwise(self.transform)
            )
            if isinstance(examples, Examples) and one_by_one:
                check_bytes(examples, observe, check, split)
            elif examples.whole:
                most = 0
                for rows in self.read(split, workers):
                    check_rows(rows, observe, check, split)
                    grey = rows.stored.dtype == torch.uint8
                    most = max(most, int(rows.stored.amax())) if grey else 2
                if isinstance(examples, Items) and most <= 1:
                    raise InputError(
                        f"the items of {examples.name} are uint8 and none is above 1: expected"
                        " grey levels up to 255; make zeros and ones bool or float"
                    )
