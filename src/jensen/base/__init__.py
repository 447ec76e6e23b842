"""Things without any mathematics of the field: errors, random keys, ranks, signals; and the
schedules.
"""

from jensen.base.lazy import lazily

PLACES = {
    "Constant": "schedule",
    "Cyclic": "schedule",
    "Geometric": "schedule",
    "Linear": "schedule",
}
__getattr__, __dir__ = lazily(__name__, PLACES)
