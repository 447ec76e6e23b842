"""The one LightningDataModule: batches fetched in bulk, the same ones on any number of ranks."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from jensen.base.batch import Batch
from jensen.base.errors import InputError, check_count, check_flag, check_seed
from jensen.base.random import fold, permutation
from jensen.data import streaming
from jensen.data.domain import Check, check_rows
from jensen.data.examples import Examples, Rows
from jensen.data.modalities import check_modalities
from jensen.data.order import Chunked, InTurn, Keyed, Shuffled
from jensen.data.source import Source
from jensen.data.torch_dataset import Items, Loader, Stream
from jensen.data.transform import Transform


class DataModule(LightningDataModule):
    """Serves `Batch`es of the examples of a source.

    Args:
        source: gives the examples, or a torch `Dataset` of them (`data.torch_dataset`). Downloads
            and caches are made in it, on one process per machine first.
        splits: what the source has: `[train]`, and then it is called without saying which, or
            `[train, test]`.
        x_shape: `event` shape of an observation as the model sees it, `[C, H, W]` or `[D]`;
            checked.
        validation: how many training examples are held out, the same ones for every seed; `auto`
            is 8,192, or a fifth of the examples where that is less; 0 validates on the test split.
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
        modalities: names and shapes of the parts of an observation `[P]`, one flattened after
            another, which models are told; `x_shape` is their sum.
        condition: names of modalities that models are given and do not model.
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
        validation: int | str = 0,
        shuffle: bool = True,
        device: str = "auto",
        workers: int = 0,
        transform: Transform | None = None,
        survey: bool = True,
        modalities: Mapping[str, Sequence[int]] | None = None,
        condition: Sequence[str] = (),
        **options: object,
    ) -> None:
        super().__init__()
        check_count("batch_size", batch_size)
        check_count("workers", workers, least=0)
        check_seed("seed", seed)
        check_flag("shuffle", shuffle)
        check_modalities(modalities, x_shape, condition)
        if not isinstance(device, str | torch.device):
            raise InputError(
                f"device is {device!r}: expected auto, cpu or a device of this machine"
            )
        if workers and device not in ("auto", "cpu"):
            raise InputError(
                f"workers is {workers} and device is {device}: expected workers=0, or device=cpu"
            )
        self.source = Source(source, options, splits, x_shape, validation, transform, survey, _say)
        self.modalities = {name: tuple(shape) for name, shape in (modalities or {}).items()}
        self.condition = tuple(condition)
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.device = device
        self.workers = workers
        self.evaluated = "validation"
        self.minibatches = 1  # in a batch; an algorithm that takes several steps asks for more
        self._check: Check | None = None

    def examples(self, split: str) -> Examples | Items | Stream:
        """The examples of `train` or `test`, read when first asked for."""
        return self.source.examples(split)

    def held_out(self) -> tuple[str, Tensor]:
        """The split, and its rows, that a validation goes over: the held-out ones, or those that
        `evaluated` names.
        """
        if self.evaluated == "test":
            return "test", torch.arange(len(self.source.stored("test")))
        held_out, trained = self.source.rows
        return (
            (self.source.validation_split, held_out)
            if self.evaluated == "validation"
            else ("train", trained)
        )

    @property
    def train_size(self) -> int:
        """Examples that are trained on; 0 of a stream, whose number is not known."""
        return len(self.source.rows[1])

    def show(self, count: int) -> Tensor:
        """`(count, *event)` of the observations to evaluate on, the same ones every time."""
        split, rows = self.held_out()
        return self.source.at(split, rows[:count])

    def sample(self, count: int) -> Tensor:
        """`(count, *event)` of the observations that are trained on, or all of them if there are
        fewer; drawn by the seed.
        """
        rows = self.source.rows[1]
        return self.source.at(
            "train", rows[permutation(fold(self.seed, "sample"), len(rows))][:count]
        )

    def check_values(self, check: Check) -> None:
        """Has `check` look at every value of every split, as the model will see it; of what is not
        read whole, batch by batch.

        Raises:
            InputError: it refuses some.
        """
        self._check = check
        self.source.check_values(check, self.workers)

    def prepare_data(self) -> None:
        """Downloads and fills caches; Lightning calls it on one process per machine while the
        others wait.
        """
        self.examples("train")

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        where = self.trainer.strategy.root_device if self.device == "auto" else self.device
        for split in {"fit": {"train", self.source.validation_split}, "test": {"test"}}.get(
            stage, {self.held_out()[0]}
        ):
            self.examples(split)
            try:
                if not self.workers:
                    self.source.move(split, where)
            except (RuntimeError, AssertionError, TypeError) as error:
                raise InputError(
                    f"data.device is {self.device!r} ({error}): expected auto, cpu or a device of"
                    " this machine with room for the data"
                ) from error

    def train_dataloader(self) -> DataLoader[Rows]:
        rows = self.source.rows[1]
        trainer = self.trainer
        assert trainer is not None
        _check_order(trainer)
        together = trainer.accumulate_grad_batches
        if isinstance(examples := self.examples("train"), Stream):
            step = trainer.global_step
            world = _share(self)[1]
            return streaming.loader(examples, self.batch_size, self.workers, world, step, together)
        if not self.shuffle:
            return _in_turn(self, "train", rows)
        if len(rows) < self.batch_size * together:
            times = f" times trainer.accumulate_grad_batches {together}" if together > 1 else ""
            raise InputError(
                f"data.batch_size is {self.batch_size}{times}: expected at most {len(rows)}, the"
                " number of training examples"
            )
        order = _shuffled(self)
        if self.minibatches > 1:
            return _loader(examples, Chunked(order, self.minibatches), self.workers)
        keyed = order if isinstance(examples, Examples) else Keyed(order)
        return _loader(examples, keyed, self.workers)

    def rows(self, step: int) -> list[int]:
        """The rows, of all ranks, that an optimiser step of training goes over; none of a
        stream.
        """
        if isinstance(self.examples("train"), Stream):
            return []
        order = _shuffled(self)
        return torch.cat(order.batches(step * order.together, order.together)).tolist()

    def batch(self, rows: Sequence[int], step: int) -> Batch:
        """Training examples as the model sees them at an optimiser step."""
        examples = self.source.stored("train")
        index = torch.tensor(rows)
        found = (
            examples[index]
            if isinstance(examples, Examples)
            else examples[fold(self.seed, "item", step), index]
        )
        return self.source.observe(examples, found, fold(self.seed, "transform", step))

    def val_dataloader(self) -> DataLoader[Rows]:
        return _in_turn(self, *self.held_out())

    def test_dataloader(self) -> DataLoader[Rows]:
        return _in_turn(self, "test", torch.arange(len(self.source.stored("test"))))

    def on_after_batch_transfer(self, batch: Rows, dataloader_idx: int) -> Batch:
        """Decodes and transforms, on the model's device; what was not read before is checked."""
        trainer = self.trainer
        assert trainer is not None
        source = self.source
        key = fold(self.seed, "transform", trainer.global_step) if trainer.training else 0
        if trainer.training and self.minibatches > 1:
            steps = range(
                trainer.global_step, trainer.global_step + len(batch.row) // self.batch_size
            )
            keys = [fold(self.seed, "transform", step) for step in steps]
            return source.observe_each(source.decoder("train"), batch, keys)
        split = "train" if trainer.training else self.held_out()[0]
        examples = source.decoder(split)
        if self._check is not None and not examples.whole:
            check_rows(
                batch, lambda rows: source.observe(examples, rows, key).x, self._check, split
            )
        return source.observe(examples, batch, key)


def _share(data: DataModule) -> tuple[int, int]:
    """This rank and the number of ranks, each of which takes the same part of every batch."""
    assert data.trainer is not None
    world = data.trainer.world_size
    if data.batch_size % world:
        raise InputError(
            f"data.batch_size is {data.batch_size} over all ranks: expected a multiple of the"
            f" {world} ranks"
        )
    return data.trainer.global_rank, world


def _shuffled(data: DataModule) -> Shuffled:
    trainer = data.trainer
    assert trainer is not None
    together = trainer.accumulate_grad_batches

    def position() -> int:
        return trainer.global_step * together

    def limit() -> float:
        return trainer.num_training_batches  # Lightning's, by trainer.limit_train_batches

    rows = data.source.rows[1]
    share = _share(data)
    return Shuffled(rows, data.batch_size, data.seed, *share, position, together, limit)


def _in_turn(data: DataModule, split: str, rows: Tensor) -> DataLoader[Rows]:
    order = InTurn(rows, data.batch_size, *_share(data))
    return _loader(data.examples(split), order, data.workers)


def _loader(
    examples: Examples | Items | Stream, order: Sampler[Any], workers: int
) -> DataLoader[Rows]:
    pinned = torch.cuda.is_available() and examples.device.type == "cpu"
    # batch_size=None: the sampler names whole batches, and the data set gathers each in one call.
    return Loader(examples, sampler=order, batch_size=None, num_workers=workers, pin_memory=pinned)


@rank_zero_only
def _say(note: str) -> None:
    logging.getLogger(__name__).info(note)


def _check_order(trainer: Trainer) -> None:
    """Refuse what would put another order in the place of ours, and a size of a step that changes
    between epochs: the order goes by the optimiser's steps, and an epoch might not end.
    """
    if few := getattr(trainer, "overfit_batches", 0):
        raise InputError(
            f"overfit_batches of the Trainer is {few}: expected 0, since it would put another order"
            " of the data in the place of the DataModule's; for so few examples hold out the others"
            " with validation"
        )
    for each in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(each, GradientAccumulationScheduler) and {*each.scheduling.values()} != {1}:
            raise InputError(
                f"a callback is a GradientAccumulationScheduler of {dict(each.scheduling)}: expected"
                " one number of batches a step, since the order of the data goes by the steps; set"
                " accumulate_grad_batches of the Trainer"
            )
