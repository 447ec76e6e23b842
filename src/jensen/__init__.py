"""Variational autoencoders and Gaussian mixtures.

The public names are found when they are first asked for, so that `import jensen` stays light.
"""

from jensen.base.lazy import lazily

PLACES = {
    "Bound": "bound.bound",
    "EMLayer": "model.em_layer",
    "FullGaussian": "family.full",
    "GMM": "model.gmm",
    "Gaussian": "family.gaussian",
    "Inference": "bound.bound",
    "Mixture": "family.mixture",
    "VAE": "api.vae",
    "decompose": "bound.decomposition",
    "fit": "api.fit",
    "kl": "family.family",
    "load": "api.run",
}
__getattr__, __dir__ = lazily(__name__, PLACES, ("data", "scores"))
