"""A prior that is learned after its VAE: the parts of another run, which stay as they are."""

import warnings
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from jensen.base.errors import InputError
from jensen.model.vae import VAE
from jensen.run.given import TARGET
from jensen.run.load import is_double, state
from jensen.run.reading import configuration
from jensen.run.targets import one_spelling
from jensen.run.words import say

KEPT = ("encoder", "decoder", "likelihood", "posterior")


def begin_after(algorithm: nn.Module, cfg: DictConfig, begun: bool) -> None:
    """Give a VAE whose prior is learned after it the parts of the run that `model.prior.path` names;
    any other model stays as it is, and one that has `begun`, whose own checkpoint has them.

    Raises:
        InputError: no such run, or one whose parts are others.
    """
    model = getattr(algorithm, "model", None)
    if not isinstance(model, VAE) or not model.is_kept:
        return
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")  # they are to be
    if begun:
        return
    path = str(getattr(model.prior, "path", None))
    if not (Path(path).expanduser() / ".hydra" / "config.yaml").is_file():
        raise InputError(
            f"model.prior.path is {path}, which has no .hydra/config.yaml: expected the folder of the"
            " run of jensen.train whose VAE is kept; set model.prior.path=RUN"
        )
    _check_alike(configuration(path), cfg, path)
    if is_double(cfg):
        algorithm.double()
    saved = state(path)
    weights = saved["state_dict"]
    for name in KEPT:
        part = getattr(model, name)
        if not isinstance(part, nn.Module):
            continue
        start = f"model.{name}."
        own = {
            key.removeprefix(start): each for key, each in weights.items() if key.startswith(start)
        }
        try:
            part.load_state_dict(own)
        except RuntimeError as error:
            why = str(error).strip().splitlines()[-1].strip()
            raise InputError(
                f"model.prior.path is {path}, whose model.{name} does not fit ({why}): expected the"
                " run of a VAE with the same parts; choose them as there"
            ) from error
    say(f"the VAE of {path}, of step {saved['global_step']}, is kept as it is")


def _check_alike(there: DictConfig, here: DictConfig, path: str) -> None:
    """Refuse another encoder, decoder, likelihood or posterior, of which only the weights could be
    taken over.
    """
    old, new = (_parts(each) for each in (there, here))
    for key in [*new, *(key for key in old if key not in new)]:
        found, expected = (repr(side[key]) if key in side else "absent" for side in (new, old))
        if found != expected:
            raise InputError(
                f"model.{key} is {found} and {expected} in {path}: expected the VAE of that run,"
                " which model.prior.train=after keeps; choose it as there"
            )


def _parts(cfg: DictConfig) -> dict[str, Any]:
    """The keys of the parts that are kept, resolved and dotted; of objects given in Python none."""
    model: Any = one_spelling(OmegaConf.to_container(cfg.model, resolve=True))
    found: dict[str, Any] = {}
    for name in ("latent_dim", *KEPT):
        part = model.get(name)
        if isinstance(part, dict):
            own = {} if part.get("_target_") == TARGET else part
            found |= {f"{name}.{key}": value for key, value in own.items()}
        elif part is not None:
            found[name] = part
    return found
