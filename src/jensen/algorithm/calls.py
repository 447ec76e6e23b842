"""The choice of how many steps are taken at a time, and of what takes them."""

import logging
from typing import TYPE_CHECKING

from torch import Tensor

from jensen.algorithm import chunk, finite, graph, optimiser
from jensen.algorithm.batches import own_data
from jensen.algorithm.capture import steps_differ
from jensen.algorithm.drive import DRIVES, Drive, Eager
from jensen.base.batch import Batch
from jensen.base.errors import InputError, check_choice, check_count

if TYPE_CHECKING:
    from jensen.algorithm.gradient import Gradient

ENGINES = ("auto", "eager", "graph")
logger = logging.getLogger(__name__)


class Calls:
    """The use that `Gradient` makes of one of Lightning's batches: a step that Lightning takes, or a
    chunk of steps that a `Drive` does.

    steps: at a time. driven: whether a `Drive` takes them.

    Args:
        steps_per_call: `auto`, or a number that divides all intervals.
        engine: `graph` captures the step as a CUDA graph, `auto` does so on CUDA.
    """

    def __init__(self, algorithm: "Gradient", steps_per_call: str | int, engine: str) -> None:
        check_count("steps_per_call", steps_per_call, other=chunk.AUTO)
        check_choice("engine", engine, ENGINES)
        self.algorithm = algorithm
        self.asked = steps_per_call
        self.engine = engine
        self.steps = 1
        self.driven = False
        self._taken = 1
        self._drive: Drive | None = None

    def plan(self) -> None:
        """Choose for a training that is about to begin.

        Raises:
            InputError: what was asked for cannot be.
        """
        algorithm = self.algorithm
        trainer = algorithm.trainer
        device = trainer.strategy.root_device.type
        if self.engine == "graph" and device != "cuda":
            raise InputError(
                f"algorithm.engine is graph but the device is {device}: expected eager or auto, or"
                " trainer.accelerator=gpu on a machine that has one"
            )
        if not trainer.log_every_n_steps:
            raise InputError(
                "log_every_n_steps of the Trainer is 0, as barebones=True sets it: expected at least 1,"
                " the steps from one number of a loss to the next; logger=False writes none"
            )
        self._drive = None
        watched = isinstance(algorithm.finite, finite.Skip)
        alone = chunk.ours_to_drive(trainer)
        if watched:
            alone = "algorithm.non_finite=skip looks at each"
        elif optimiser.asks_for_the_loss(algorithm.optimizer):
            alone = "the optimizer evaluates the loss itself"
        single = alone or chunk.one_at_a_time(trainer)
        differ = alone or steps_differ(algorithm)
        graphed = self.engine != "eager" and device == "cuda" and not differ
        if differ and self.engine == "graph":
            raise _refused("engine", "graph", differ, "auto or eager")
        if self.asked not in (chunk.AUTO, 1):
            if single:
                raise _refused("steps_per_call", self.asked, single, "auto or 1")
            chunk.check_divides(int(self.asked), trainer)
        if single or self.asked == 1:
            self.steps = 1
        else:
            self.steps = chunk.most(trainer) if self.asked == chunk.AUTO else int(self.asked)
        stacked = DRIVES.get() is not None and not differ
        if differ and DRIVES.get() is not None:
            logger.warning("trained by itself: %s", differ)
        self.driven = stacked or graphed or self.steps > 1
        if (data := own_data(trainer)) is not None:
            data.minibatches = self.steps
        if single:
            logger.debug("one step at a time: %s", single)

    def take(self, batch: Batch) -> Tensor:
        """Take the steps of a batch that holds a chunk; the loss `()` of the first."""
        algorithm = self.algorithm
        trainer = algorithm.trainer
        first = trainer.global_step
        steps = self._taken = self._steps_in(batch)
        logged = first % trainer.log_every_n_steps == 0
        if self._drive is None:
            self._drive = self._chosen()
        x = batch.x.to(algorithm.dtype)
        samples = algorithm.objective.samples
        latents = algorithm.model.noise_dim
        given = chunk.chunk(batch, x, steps, first, algorithm.seed, samples, latents)
        taken = self._drive(given, logged)
        if logged:
            algorithm.log_terms(taken.terms)
        return taken.loss

    def count(self) -> None:
        """Have Lightning, which counts one, count all steps of the chunk."""
        chunk.count(self.algorithm.trainer, self._taken - 1)

    def _steps_in(self, batch: Batch) -> int:
        data = own_data(self.algorithm.trainer)
        assert data is not None
        return len(batch.row) // data.batch_size

    def _chosen(self) -> Drive:
        make = DRIVES.get()
        if make is None or steps_differ(self.algorithm):
            return self.own()
        return make(self.algorithm)

    def own(self) -> Drive:
        """The drive of an algorithm by itself."""
        on_gpu = self.algorithm.device.type == "cuda"
        if self.engine == "eager" or not on_gpu or steps_differ(self.algorithm):
            return Eager(self.algorithm)
        return graph.Graphed(self.algorithm)


def _refused(name: str, value: object, why: str, expected: str) -> InputError:
    return InputError(f"algorithm.{name} is {value} but {why}: expected {expected}")
