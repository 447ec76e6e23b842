"""Numbers that Lightning would take and then fail at, train for ever with, or read otherwise."""

from omegaconf import DictConfig

from jensen.core.errors import InputError, check_count, check_number, check_seed


def check(cfg: DictConfig) -> None:
    """Raises: InputError: the seed or a number of the trainer is none that a run can have."""
    check_seed("seed", cfg.seed)
    trainer = cfg.trainer
    for key in ("log_every_n_steps", "accumulate_grad_batches", "num_nodes"):
        check_count(f"trainer.{key}", trainer[key])
    if trainer.check_val_every_n_epoch is None:
        check_count("trainer.val_check_interval", trainer.val_check_interval)
    if trainer.gradient_clip_val is not None:
        check_number("trainer.gradient_clip_val", trainer.gradient_clip_val, low=0)
    if trainer.max_steps != -1:
        check_count("trainer.max_steps", trainer.max_steps)
    elif trainer.max_epochs in (None, -1) and trainer.get("max_time") is None:
        raise InputError("trainer.max_steps and trainer.max_epochs are -1: expected one that ends the training; set it")
