"""Distributions as values: what a configuration names of them."""

from jensen.base.lazy import lazily

PLACES = {"PseudoCounts": "moments"}
__getattr__, __dir__ = lazily(__name__, PLACES)
