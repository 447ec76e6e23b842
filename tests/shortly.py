"""A command that was typed in full and ends early: `python -m shortly jensen.train ...`.

Nothing of its line, of its configuration, of its data or of the checks before training is changed.
Training ends after `STEPS` steps, as by a callback that has seen enough, and a validation looks at
the first `BATCHES` of the held-out batches.
"""

import runpy
import sys
from functools import wraps

from pytorch_lightning import Callback, LightningModule, Trainer

STEPS = 2
BATCHES = 2


class Enough(Callback):
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: object, **__: object
    ) -> None:
        trainer.should_stop |= trainer.global_step >= STEPS


def cut() -> None:
    """Have every run of this process end early."""
    from jensen.launch import trainer, training

    make = trainer.make

    @wraps(make)
    def shorter(*given: object, **named: object) -> Trainer:
        made: Trainer = make(*given, **named)  # type: ignore[arg-type]
        made.callbacks.append(Enough())
        made.limit_val_batches = BATCHES
        made.limit_test_batches = BATCHES
        return made

    trainer.make = shorter
    training.make = shorter  # its own name for it


if __name__ == "__main__":
    cut()
    module = sys.argv.pop(1)
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
