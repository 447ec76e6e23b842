"""Callbacks of Lightning's trainer: checkpoints, diagnostics, and how a run ends."""

from jensen.base.lazy import lazily

PLACES = {
    "Average": "average",
    "Best": "best",
    "CSV": "table",
    "Diagnose": "diagnose",
    "Events": "events",
    "HParams": "hparams",
    "Last": "last",
    "LearningRate": "rate",
    "Preempt": "preempt",
    "Progress": "progress",
    "Tell": "tell",
    "TensorBoardLogger": "tensorboard",
}
__getattr__, __dir__ = lazily(__name__, PLACES)
