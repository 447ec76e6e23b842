"""Objectives: what is minimised, one file each."""

from jensen.base.lazy import lazily

PLACES = {
    "Beta": "beta",
    "Capacity": "capacity",
    "Control": "control",
    "DIP": "dip",
    "Decomposed": "decomposed",
    "Factor": "factor",
    "FreeBits": "free_bits",
    "Importance": "importance",
    "MMD": "mmd",
    "Objective": "objective",
    "Renyi": "renyi",
}
__getattr__, __dir__ = lazily(__name__, PLACES)
