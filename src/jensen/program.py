"""How a command starts: where its configuration lies, and bad input as one sentence instead of a traceback."""

import functools
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.errors import CompactHydraException, InstantiationException
from omegaconf import DictConfig
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from jensen.core.errors import InputError


def conf_folder() -> Path:
    """`conf/` inside the installed package, else beside `src/` in a checkout."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def program(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Makes `main(cfg)` a command whose configuration is `conf/<config_name>.yaml` with the command line's overrides."""

    def wrap(main: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(main)
        def job(cfg: DictConfig) -> None:
            try:
                main(cfg)
            except (InputError, InstantiationException) as error:
                sentence = explain(error)
                if sentence is None:
                    raise
                # Hydra prints this class without a traceback (with one under HYDRA_FULL_ERROR=1) and exits with status 1.
                raise CompactHydraException(sentence) from error

        return hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)(job)

    return wrap


def quieten() -> None:
    """Silences what Lightning says that is no news or does not hold here."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # batches are gathered from memory: workers would only copy them
        "Checkpoint directory .* exists and is not empty.*",  # it is being continued
        ".*your dataloader is not resumable.*",  # it is: the order of the data follows from the step (data/order.py)
        ".*sync_dist=True.*",  # what is logged is the same on all ranks already
        ".*smaller than the logging interval.*",  # that is of an epoch; logging goes by steps
        ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning 2.6 under torch 2.15
    ):
        warnings.filterwarnings("ignore", message)


def explain(error: BaseException) -> str | None:
    """The sentence of the InputError that `error` is or was caused by; a parameter in front gets its whole key."""
    if isinstance(error, InputError):
        return str(error)
    cause = error.__cause__
    sentence = explain(cause) if cause is not None else None
    if sentence is None or not isinstance(error, InstantiationException):
        return sentence
    key = str(error).partition("full_key: ")[2].strip().removeprefix("algorithm.")
    return f"{key}.{sentence}" if key and sentence.split(" ")[0].isidentifier() else sentence


@rank_zero_only
def say(line: str) -> None:
    """One line for the person at the terminal, from one rank."""
    print(f"jensen: {line}", flush=True)
