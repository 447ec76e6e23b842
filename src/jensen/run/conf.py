"""The place of a configuration's choices, and what its interpolations may ask for."""

from pathlib import Path

from omegaconf import OmegaConf

OmegaConf.register_new_resolver(
    "if", lambda condition, yes, no: yes if condition else no, replace=True
)  # ${if:${fast},2,9}


def conf_folder() -> Path:
    """`conf/` inside the installed package, else beside `src/` in a checkout."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "conf"
