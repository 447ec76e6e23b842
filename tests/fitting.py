"""A training in a `Trainer` of one's own, without a folder."""

import torch
from composing import composed
from hydra.utils import instantiate
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import BaseFinetuning

from jensen.algorithm import graph
from jensen.algorithm.gradient import Gradient

BASE = (
    "data=blobs",
    "data.size=350",
    "data.validation=50",
    "data.batch_size=20",  # 15 steps an epoch, no multiple of 10
    "model=mlp",
    "model/likelihood=normal",
    "model.encoder.hidden=[8]",
    "model.decoder.hidden=[8]",
    "model.decoder.activation=relu",
    "latent_dim=2",
    "trainer.max_steps=40",
    "trainer.val_check_interval=20",
    "trainer.log_every_n_steps=10",
)
ONE = "algorithm.steps_per_call=1"


class Unfreezing(BaseFinetuning):
    """The encoder learns from the second epoch on."""

    def freeze_before_training(self, module):
        self.freeze(module.model.encoder)

    def finetune_function(self, module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(module.model.encoder, optimizer)


class Cycling(Gradient):
    """One whose scheduler moves the betas of Adam too."""

    def configure_optimizers(self):
        made = torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(made, 1e-2, 40)
        return {"optimizer": made, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def fitted(*overrides, base=BASE, capture=None, callbacks=(), checkpoint=None, **options):
    """An algorithm that was trained, its trainer, and what was logged."""
    cfg = composed(*base, *overrides)
    seed_everything(0, verbose=False)
    algorithm = instantiate(cfg.algorithm)
    data = instantiate(cfg.data)
    if capture is not None:
        algorithm.calls._chosen = lambda: graph.Graphed(algorithm, capture)
    logged = []
    algorithm._terms.log = lambda trainer, terms, x_shape: logged.append(
        (trainer.global_step, {name: value.item() for name, value in terms.items()})
    )
    settings = {
        "max_steps": cfg.trainer.max_steps,
        "val_check_interval": cfg.trainer.val_check_interval,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": cfg.trainer.log_every_n_steps,
        "gradient_clip_val": cfg.trainer.gradient_clip_val,
        "precision": cfg.trainer.precision,
    }
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = Trainer(
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[*callbacks],
        **({"accelerator": "cpu"} | settings | quiet | options),
    )
    trainer.fit(algorithm, data, ckpt_path=checkpoint)
    return algorithm, trainer, logged
