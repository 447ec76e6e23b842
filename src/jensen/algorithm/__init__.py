"""Algorithms: how a model is trained."""

from jensen.base.lazy import lazily

PLACES = {
    "EM": "em",
    "Gradient": "gradient",
}
__getattr__, __dir__ = lazily(__name__, PLACES)
