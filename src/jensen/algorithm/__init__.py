"""The two ways to raise a bound, for Lightning's Trainer: `Gradient` for VAEs, `EM` for
mixtures.
"""

from jensen.base.lazy import lazily

PLACES = {
    "EM": "em",
    "Gradient": "gradient",
}
__getattr__, __dir__ = lazily(__name__, PLACES)
