"""Folders of a sweep, named so that TensorBoard's list of runs reads as the sweep:
`runs/beta_sprites/beta=4_seed=0`.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from omegaconf import OmegaConf

from jensen.run.identity import AVERAGES, LOCATION, has_effect

_LONGEST = 150


def run_name(overrides: Sequence[str], excluded: Sequence[str] = (*LOCATION, "experiment")) -> str:
    """Name a run by the overrides that make another one, their keys by the last part where that
    names only one.

    A place of data (`identity.LOCATION`) makes another run where other data lie: it is named unless
    it is `excluded`.
    """
    unnamed = {"trainer", *excluded}
    pairs = [override.lstrip("+~").partition("=") for override in overrides]
    pairs = [
        pair
        for pair in pairs
        if pair[0] not in unnamed
        and (pair[0] in LOCATION or has_effect(pair[0]) or _averages(*pair))
    ]
    last = {key: key if "@" in key else re.split("[./]", key)[-1] for key, _, _ in pairs}
    count = Counter(last.values())
    words = [
        f"{last[key] if count[last[key]] == 1 else key}{eq}{value}" for key, eq, value in pairs
    ]
    name = re.sub(r"[^\w.,=+@\[\]-]+", "-", "_".join(words)) or "run"
    return (
        name
        if len(name) <= _LONGEST
        else f"{name[:_LONGEST]}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    )


def _averages(key: str, _: str, value: str) -> bool:
    return key == "callbacks" and bool({*re.findall(r"\w+", value)} & {*AVERAGES})


def sweep_name(experiment: str | None) -> str:
    """Name of the folder: one experiment each. (Of a sweep over experiments, each job has the
    folder of its own.)
    """
    return experiment if experiment and "," not in experiment else "sweep"


def register() -> None:
    """For `hydra.sweep` in conf/train.yaml."""
    OmegaConf.register_new_resolver("jensen.run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("jensen.sweep_name", sweep_name, replace=True)
