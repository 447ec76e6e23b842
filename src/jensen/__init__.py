"""Variational autoencoders and Gaussian mixtures.

The public names are found when they are first asked for, so that `import jensen` stays light.
"""

from jensen.base.lazy import lazily

PLACES = {
    "EMLayer": "model.em_layer",
    "GMM": "model.gmm",
    "load": "run.load",
}
__getattr__, __dir__ = lazily(__name__, PLACES)
