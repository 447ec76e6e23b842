"""The one LightningDataModule: splits, batches fetched in bulk, data on the device, shapes
checked.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from jensen.base.batch import Batch
from jensen.base.errors import InputError, check_count, check_flag, check_list, check_seed
from jensen.base.random import fold, permutation
from jensen.data.domain import Check, check_bytes, check_rows, chunks
from jensen.data.examples import Examples, Rows
from jensen.data.order import InTurn, Keyed, Shuffled
from jensen.data.torch_dataset import Items, Loader, Stream, given
from jensen.data.transform import Transform, is_pointwise


class DataModule(LightningDataModule):
    """Serves `Batch`es of the examples of a source.

    Args:
        source: gives the examples, or a torch `Dataset` of them (`data.torch_dataset`). Downloads
            and caches are made in it, on one process per machine first.
        splits: what the source has: `[train]`, and then it is called without saying which, or
            `[train, test]`.
        x_shape: `event` shape of an observation as the model sees it, `[C, H, W]` or `[D]`;
            checked.
        validation: how many training examples are held out, the same ones for every seed; 0
            validates on the test split.
        batch_size: examples per optimiser step over all ranks, so that more ranks change no number.
        seed: of the order of the batches and of the transform.
        shuffle: trains in an order of its own each epoch, leaving out what fills no last batch;
            otherwise every example is seen exactly once an epoch, in batches that differ in size by
            at most one.
        device: where the stored examples live: `auto` (where the model is), `cpu`, or a torch
            device.
        workers: processes that fetch; 0 is fastest for data in memory.
        transform: applied to the decoded observations on the model's device.
        survey: whether all items of a torch `Dataset` are read once before training, to hash and
            check them; else each batch is checked as it comes. Streams cannot be.
        options: every other key, passed to the source.

    Raises:
        InputError: a count below its minimum, sizes that do not fit the data or the ranks, a shape
            that the data contradict.
    """

    def __init__(
        self,
        source: Callable[..., Examples | Dataset[Any]],
        x_shape: Sequence[int],
        batch_size: int,
        seed: int,
        splits: Sequence[str] = ("train",),
        validation: int = 0,
        shuffle: bool = True,
        device: str = "auto",
        workers: int = 0,
        transform: Transform | None = None,
        survey: bool = True,
        **options: object,
    ) -> None:
        super().__init__()
        check_count("batch_size", batch_size)
        check_count("validation", validation, least=0)
        check_count("workers", workers, least=0)
        check_seed("seed", seed)
        check_flag("shuffle", shuffle)
        check_flag("survey", survey)
        check_list("x_shape", x_shape)
        for side in x_shape:
            check_count("x_shape", side)
        if transform is not None and not callable(transform):
            raise InputError(
                f"transform is {transform!r}: expected null, or +transform=... with a choice of"
                " conf/transform"
            )
        if not validation and "test" not in splits:
            raise InputError(
                "validation is 0 but these data have no test split: expected the number of"
                " examples to hold out"
            )
        if not isinstance(device, str | torch.device):
            raise InputError(
                f"device is {device!r}: expected auto, cpu or a device of this machine"
            )
        if workers and device not in ("auto", "cpu"):
            raise InputError(
                f"workers is {workers} and device is {device}: expected workers=0, or device=cpu"
            )
        self.x_shape = tuple(x_shape)
        self.batch_size = batch_size
        self.seed = seed
        self.validation = validation
        self.shuffle = shuffle
        self.device = device
        self.workers = workers
        self.transform = transform
        self.source = source
        self.splits = tuple(splits)
        self.options = options
        self.survey = survey
        self.evaluated = "validation"
        self._examples: dict[str, Examples | Items | Stream] = {}
        self._check: Check | None = None

    def examples(self, split: str) -> Examples | Items | Stream:
        """The examples of `train` or `test`, read when first asked for."""
        if split not in self._examples:
            if split not in self.splits:
                raise InputError(
                    f"these data have no {split} split: expected data that have one, such as"
                    " data=mnist"
                )
            examples = self._read(split)
            shape = self._observe(examples, examples.first(), key=0).x.shape[1:]
            if shape != self.x_shape:
                raise InputError(
                    f"data.x_shape is {list(self.x_shape)} but the first {split} example has shape"
                    f" {list(shape)}: set data.x_shape to that, or choose other data"
                )
            _say(examples.note)
            self._examples[split] = examples
        return self._examples[split]

    def _read(self, split: str) -> Examples | Items | Stream:
        options = self.options | ({"split": split} if len(self.splits) > 1 else {})
        try:
            signature(self.source).bind(**options)
        except TypeError as error:
            raise InputError(
                f"data has {', '.join(options)} for its source: expected other keys ({error})"
            ) from error
        try:
            found = given(self.source(**options), self.survey)
        except InputError as error:
            if str(error).partition(" ")[0] in options:
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

    @property
    def _validation_split(self) -> str:
        return "train" if self.validation else "test"

    def _evaluated(self) -> tuple[str, Tensor]:
        """The split, and its rows, that a validation goes over: the held-out ones, or those that
        `evaluated` names.
        """
        if self.evaluated == "test":
            return "test", torch.arange(len(self._stored("test")))
        return (
            (self._validation_split, self._rows[0])
            if self.evaluated == "validation"
            else ("train", self._rows[1])
        )

    @cached_property
    def _rows(self) -> tuple[Tensor, Tensor]:
        """Rows to validate on, in random order, and rows to train on.

        The key is fixed: runs that differ in seed are judged on the same examples.
        """
        size = len(self._stored(self._validation_split))
        if self.validation >= size:
            raise InputError(
                f"data.validation is {self.validation}: expected fewer than the {size} examples"
                " there are"
            )
        order = permutation(fold(0, "held out"), size)
        if self.validation:
            return order[: self.validation], order[self.validation :]
        train = self.examples("train")
        return order, torch.arange(0 if isinstance(train, Stream) else len(train))

    def _stored(self, split: str) -> Examples | Items:
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

    @property
    def train_size(self) -> int:
        """Examples that are trained on; 0 of a stream, whose number is not known."""
        return len(self._rows[1])

    def show(self, count: int) -> Tensor:
        """`(count, *event)` of the observations to evaluate on, the same ones every time."""
        return self._first(*self._evaluated(), count)

    def sample(self, count: int) -> Tensor:
        """`(count, *event)` of the observations that are trained on, or all of them if there are
        fewer; drawn by the seed.
        """
        rows = self._rows[1]
        return self._first("train", rows[permutation(fold(self.seed, "sample"), len(rows))], count)

    def _first(self, split: str, rows: Tensor, count: int) -> Tensor:
        examples = self._stored(split)
        return self._observe(examples, examples[rows[:count]], key=0).x

    def check_values(self, check: Check) -> None:
        """Has `check` look at every value of every split, as the model will see it; of what is not
        read whole, batch by batch.

        Raises:
            InputError: it refuses some.
        """
        self._check = check
        for split in self.splits:
            examples = self.examples(split)

            def observe(rows: Rows, examples: Examples | Items | Stream = examples) -> Tensor:
                return self._observe(examples, rows, key=0).x

            one_by_one = examples.bytewise and (
                self.transform is None or is_pointwise(self.transform)
            )
            if isinstance(examples, Examples) and one_by_one:
                check_bytes(examples, observe, check, split)
            elif examples.whole:
                most = 0
                for rows in self.read(split):
                    check_rows(rows, observe, check, split)
                    most = (
                        max(most, int(rows.stored.amax()))
                        if rows.stored.dtype == torch.uint8
                        else 2
                    )
                if isinstance(examples, Items) and most <= 1:
                    raise InputError(
                        f"the items of {examples.name} are uint8 and none is above 1: expected"
                        " grey levels up to 255; make zeros and ones bool or float"
                    )

    def read(self, split: str) -> Iterator[Rows]:
        """All examples of a split, in their order, a part at a time."""
        examples = self._stored(split)
        order = chunks(len(examples), self._observe(examples, examples.first(), key=0).x.numel())
        workers = 0 if isinstance(examples, Examples) else self.workers
        yield from Loader(examples, sampler=order, batch_size=None, num_workers=workers)

    def prepare_data(self) -> None:
        """Downloads and fills caches; Lightning calls it on one process per machine while the
        others wait.
        """
        self.examples("train")

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        where = self.trainer.strategy.root_device if self.device == "auto" else self.device
        for split in {"fit": {"train", self._validation_split}, "test": {"test"}}.get(
            stage, {self._evaluated()[0]}
        ):
            examples = self.examples(split)
            try:
                self._examples[split] = examples if self.workers else examples.to(where)
            except (
                RuntimeError,
                AssertionError,
                TypeError,
            ) as error:  # no such device, or too small a one
                raise InputError(
                    f"data.device is {self.device!r} ({error}): expected auto, cpu or a device of"
                    " this machine with room for the data"
                ) from error

    def train_dataloader(self) -> DataLoader[Rows]:
        rows = self._rows[1]
        trainer = self.trainer
        assert trainer is not None
        if isinstance(examples := self.examples("train"), Stream):
            return self._passes(examples)
        if not self.shuffle:
            return self._loader("train", InTurn(rows, self.batch_size, *self._ranks()))
        together = trainer.accumulate_grad_batches
        if len(rows) < self.batch_size * together:
            times = f" times trainer.accumulate_grad_batches {together}" if together > 1 else ""
            raise InputError(
                f"data.batch_size is {self.batch_size}{times}: expected at most {len(rows)}, the"
                " number of training examples"
            )
        order = self._shuffled()
        return self._loader("train", order if isinstance(examples, Examples) else Keyed(order))

    def _passes(self, stream: Stream) -> DataLoader[Rows]:
        """A stream's batches."""
        assert self.trainer is not None
        for key, found in (
            ("data.workers", self.workers),
            ("the number of ranks", self._ranks()[1]),
        ):
            if found > 1:
                raise InputError(
                    f"{key} is {found} and the train split is {stream.name}, a stream, which is"
                    " read by one process: expected 1; make it a map-style Dataset to have several"
                )
        if step := self.trainer.global_step:
            _say(
                f"{stream.name} is a stream: from step {step} on it is read from its beginning, so"
                " this run is no longer the one that it would have been without a stop"
            )
        stream.batch_size = self.batch_size
        stream.together = self.trainer.accumulate_grad_batches
        return Loader(
            stream, batch_size=None, num_workers=self.workers, pin_memory=torch.cuda.is_available()
        )

    def _shuffled(self) -> Shuffled:
        trainer = self.trainer
        assert trainer is not None
        together = trainer.accumulate_grad_batches

        def position() -> int:
            return trainer.global_step * together

        return Shuffled(
            self._rows[1], self.batch_size, self.seed, *self._ranks(), position, together
        )

    def rows(self, step: int) -> list[int]:
        """The rows, of all ranks, that an optimiser step of training goes over; none of a
        stream.
        """
        if isinstance(self.examples("train"), Stream):
            return []
        order = self._shuffled()
        return torch.cat(order.batches(step * order.together)[: order.together]).tolist()

    def batch(self, rows: Sequence[int], step: int) -> Batch:
        """Training examples as the model sees them at an optimiser step."""
        examples = self._stored("train")
        index = torch.tensor(rows)
        found = (
            examples[index]
            if isinstance(examples, Examples)
            else examples[fold(self.seed, "item", step), index]
        )
        return self._observe(examples, found, fold(self.seed, "transform", step))

    def val_dataloader(self) -> DataLoader[Rows]:
        split, rows = self._evaluated()
        return self._loader(split, InTurn(rows, self.batch_size, *self._ranks()))

    def test_dataloader(self) -> DataLoader[Rows]:
        rows = torch.arange(len(self._stored("test")))
        return self._loader("test", InTurn(rows, self.batch_size, *self._ranks()))

    def _ranks(self) -> tuple[int, int]:
        assert self.trainer is not None
        world = self.trainer.world_size
        if self.batch_size % world:
            raise InputError(
                f"data.batch_size is {self.batch_size} over all ranks: expected a multiple of the"
                f" {world} ranks"
            )
        return self.trainer.global_rank, world

    def _loader(self, split: str, order: Sampler[Any]) -> DataLoader[Rows]:
        examples = self.examples(split)
        # batch_size=None: the sampler names whole batches, and the data set gathers each in one
        # call.
        pinned = torch.cuda.is_available() and examples.device.type == "cpu"
        return Loader(
            examples, sampler=order, batch_size=None, num_workers=self.workers, pin_memory=pinned
        )

    def on_after_batch_transfer(self, batch: Rows, dataloader_idx: int) -> Batch:
        """Decodes and transforms, on the model's device; what was not read before is checked."""
        trainer = self.trainer
        assert trainer is not None
        key = fold(self.seed, "transform", trainer.global_step) if trainer.training else 0
        split = "train" if trainer.training else self._evaluated()[0]
        examples = self._examples.get(split) or next(
            iter(self._examples.values())
        )  # all splits of a source decode alike
        observed = self._observe(examples, batch, key)
        if self._check is not None and not examples.whole:
            check_rows(batch, lambda rows: self._observe(examples, rows, key).x, self._check, split)
        return observed

    def _observe(self, examples: Examples | Items | Stream, rows: Rows, key: int) -> Batch:
        x = examples.decode(rows.stored)
        return Batch(
            x if self.transform is None else self.transform(x, key, rows.row),
            rows.factors,
            rows.row,
        )


@rank_zero_only
def _say(note: str) -> None:
    if note:
        logging.getLogger(__name__).info(note)
