"""The identity of a run: the keys that can change its numbers."""

import hashlib
import json
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from jensen.run.targets import one_spelling, short

LOCATION = ("data.root", "data.path")
"""Keys that say where data are. What is there is hashed (`fingerprint`): of two places with the
same data a run is one and the same.
"""

WITHOUT_EFFECT = (
    *("diagnostics", "callbacks", "logger", "maximise"),
    *("data.device", "data.workers", "data.download", *LOCATION),
    *(
        f"trainer.{key}"
        for key in (
            *(
                "accelerator",
                "devices",
                "num_nodes",
                "strategy",
                "use_distributed_sampler",
                "plugins",
                "benchmark",
            ),
            *(
                "logger",
                "callbacks",
                "log_every_n_steps",
                "default_root_dir",
                "profiler",
                "detect_anomaly",
                "max_time",
            ),
            *(
                "enable_checkpointing",
                "enable_progress_bar",
                "enable_model_summary",
                "num_sanity_val_steps",
            ),
        )
    ),
)
"""Whatever else there is in a configuration, a key that you added too, makes another run; so does a
`CHANGING` callback."""

CHANGING = "jensen.callbacks.Average"
"""The target of callbacks that change what a run ends with."""
AVERAGES = ("ema", "swa")
"""The choices of conf/callbacks that have it."""

NEUTRAL = {
    "algorithm.compile": False,
    "algorithm.encoder_steps": 1,
    "data.condition": [],
    "data.of.condition": [],
    "model.condition": [],
    "model.latent_private": None,
    "model.prior.train": "joint",
    "model.prior.path": None,
}
"""Keys that came after runs were made, with the value that changes nothing; a run at that value is the
one that did not know the key.
"""

LENGTH = tuple(
    f"trainer.{key}"
    for key in ("max_steps", "max_epochs", "val_check_interval", "check_val_every_n_epoch")
)
"""Keys that say how far a run goes and how often it is looked at: a single run may be continued
with others.
"""
VALIDATION = "trainer.limit_val_batches"
"""Keys that say how much is validated on: a single run may turn that on or off, by 0; other values
would not compare.
"""


@cache
def has_effect(key: str) -> bool:
    if key.startswith(tuple(f"callbacks.{name}." for name in AVERAGES)):
        return True
    return not any(key == name or key.startswith(f"{name}.") for name in WITHOUT_EFFECT)


def affecting(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as dotted keys, in its order, of all keys that can change a
    number.
    """
    tree = one_spelling(OmegaConf.to_container(cfg, resolve=True))
    assert isinstance(tree, dict)
    found = {
        key: value
        for key, value in leaves(tree)
        if has_effect(key) and not key.startswith("callbacks.")
        if not _changes_nothing(key, value)
    }
    callbacks = tree.get("callbacks")
    for name, part in callbacks.items() if isinstance(callbacks, dict) else ():
        if isinstance(part, dict) and _changes(part):
            found |= dict(leaves({f"callbacks.{name}": part}))
    return found


def _changes_nothing(key: str, value: Any) -> bool:
    name = key.removeprefix("algorithm.") if key.startswith("algorithm.model.") else key
    return name in NEUTRAL and value == NEUTRAL[name]


def _changes(callback: dict[str, Any]) -> bool:
    """Tell whether a callback, by its target or as it was given in Python, is `CHANGING`."""
    return CHANGING in (callback.get("_target_"), short(str(callback.get("kind"))))


def leaves(tree: dict[Any, Any], before: str = "") -> list[tuple[str, Any]]:
    """Lists, and mappings without a key, stay as they are."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        path = f"{before}{key}"
        found += leaves(value, f"{path}.") if isinstance(value, dict) and value else [(path, value)]
    return found


def identity(cfg: DictConfig) -> str:
    """SHA-256 of `affecting`."""
    return hashlib.sha256(
        json.dumps(affecting(cfg), sort_keys=True, default=str).encode()
    ).hexdigest()


def written(cfg: DictConfig) -> str:
    """SHA-256 of the whole resolved configuration, keys without effect too.

    Resolved, because making objects of a part resolves that part in place: before and after it must
    be the same.
    """
    tree = OmegaConf.to_container(cfg, resolve=True)
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()


def difference(there: DictConfig, here: DictConfig) -> str:
    """The first key in which a run that is being continued may not differ, with both values; empty
    if there is none.
    """
    old = affecting(there)
    new = affecting(here)
    for key in [*new, *(key for key in old if key not in new)]:
        if key in LENGTH or (key == VALIDATION and 0 in (old.get(key), new.get(key))):
            continue
        if key not in old or key not in new or old[key] != new[key]:
            common = next((part for part in _above(key) if part in old or part in new), key)
            return f"{common} is {_said(common, new)} here and {_said(common, old)} there"
    return ""


def _above(key: str) -> list[str]:
    """The keys that a key is part of, the outermost first."""
    parts = key.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _said(key: str, side: dict[str, Any]) -> str:
    """The value of a key, of which one configuration may have parts where another has a number."""
    if key in side:
        return repr(side[key])
    start = f"{key}."
    parts = {name.removeprefix(start): side[name] for name in side if name.startswith(start)}
    if parts:
        return repr(parts)
    return repr(NEUTRAL[key]) if key in NEUTRAL else "absent"
