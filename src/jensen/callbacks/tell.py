"""The lines of a run: what is trained, each validation, and what ails the model."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from jensen.callbacks.health import Ills, ills
from jensen.callbacks.progress import last_step
from jensen.callbacks.words import note, numbers, say
from jensen.data.module import DataModule
from jensen.model.scored import Scored

_KEPT = 8192
"""Codes that are kept to be looked at."""


class Tell(Callback):
    """Says at the start what is trained and where, after each validation how good it is, and once
    what ails the model. Rank zero speaks; the run's log has every line.

    found: what ailed it at the last validation (`callbacks.health`).

    Args:
        choices: words for what was chosen, such as "data=sprites model=conv".
        brief: whether the lines go to the log alone, as of the runs of a sweep.
    """

    def __init__(self, choices: str = "", brief: bool = False) -> None:
        self.choices = choices
        self.line = note if brief else say
        self.found: Ills = {}
        self._told: set[str] = set()
        self._codes: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self.line(described(trainer, pl_module, self.choices))
        if trainer.strategy.root_device.type == "cpu":
            threads = torch.get_num_threads()
            why = "" if torch.cuda.is_available() else "no GPU: "
            self.line(f"{why}using the CPU, {threads} thread{'s' if threads > 1 else ''}")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        z = getattr(outputs, "z", None)
        if isinstance(z, Tensor) and sum(map(len, self._codes)) < _KEPT:
            self._codes.append(z.detach())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        codes = torch.cat(self._codes) if self._codes else None
        self._codes = []
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        last = last_step(trainer)
        again = trainer.state.fn != TrainerFn.FITTING  # of the last step
        ended = trainer.should_stop or (last is not None and trainer.global_step >= last)
        self.found = ills(trainer, pl_module, codes, ended or again)
        if again:
            return
        self.line(validated(trainer))
        for name, sentence in self.found.items():
            if name not in self._told:
                self.line(f"warning: {sentence}")
        self._told = {*self.found}


def described(trainer: Trainer, module: LightningModule, choices: str) -> str:
    """One line of what is trained: model, parameters, data, steps, device."""
    model: Any = getattr(module, "model", module)
    parameters = sum(each.numel() for each in model.parameters() if each.requires_grad)
    latents = getattr(model, "latent_dim", None)
    parts = [f"{parameters:,} parameters"] if parameters else []
    parts += [f"{latents} latents"] if latents else []
    if isinstance(model, Scored):
        parts = [f"{model.mixture.log_weight.shape[-1]} components"]
    data: Any = trainer.datamodule
    examples = getattr(data, "train_size", 0)
    where = f"{examples:,} examples" if examples else "a stream"
    if isinstance(data, DataModule):
        split, rows = data.held_out()
        where += f" ({len(rows):,} held out)" if split == "train" else ""
    steps = last_step(trainer)
    length = f"{steps:,} steps" if steps else "until something ends it"
    batches = trainer.accumulate_grad_batches
    size = f"{f'{batches} x ' if batches > 1 else ''}{getattr(data, 'batch_size', '?')}"
    device = str(trainer.strategy.root_device)
    ranks = f", {trainer.world_size} ranks" if trainer.world_size > 1 else ""
    return (
        f"{type(model).__name__} of {', '.join(parts) or 'no parameters'}"
        f"{f' ({choices})' if choices else ''} on {where}, {length} of"
        f" {size}, on {device}{ranks}"
    )


def validated(trainer: Trainer) -> str:
    """One line of a validation: the bound, active latents, and scores."""
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return f"step {trainer.global_step:,}: {numbers(metrics)}"
