"""Variational autoencoders and Gaussian mixtures.

The public names are found when they are first asked for, so that `import jensen` stays light.
"""

from typing import TYPE_CHECKING

from jensen.base.lazy import lazily

__version__ = "0.1.0"

PLACES = {
    "BayesianGMM": "model.bayesian_gmm",
    "Bound": "bound.bound",
    "EMLayer": "model.em_layer",
    "FullGaussian": "family.full",
    "GMM": "model.gmm",
    "Gaussian": "family.gaussian",
    "Inference": "bound.bound",
    "Mixture": "family.mixture",
    "PseudoCounts": "family.moments",
    "MixtureModel": "model.mixture_model",
    "VAE": "api.vae",
    "compare": "model.compare",
    "decompose": "bound.decomposition",
    "fit": "api.fit",
    "kl": "family.family",
    "load": "api.run",
}
__getattr__, __dir__ = lazily(__name__, PLACES, ("data", "scores"))

if TYPE_CHECKING:  # what an editor and a type checker read; never run
    from jensen import data as data
    from jensen import scores as scores
    from jensen.api.fit import fit as fit
    from jensen.api.run import load as load
    from jensen.api.vae import VAE as VAE
    from jensen.bound.bound import Bound as Bound
    from jensen.bound.bound import Inference as Inference
    from jensen.bound.decomposition import decompose as decompose
    from jensen.family.family import kl as kl
    from jensen.family.full import FullGaussian as FullGaussian
    from jensen.family.gaussian import Gaussian as Gaussian
    from jensen.family.mixture import Mixture as Mixture
    from jensen.family.moments import PseudoCounts as PseudoCounts
    from jensen.model.bayesian_gmm import BayesianGMM as BayesianGMM
    from jensen.model.compare import compare as compare
    from jensen.model.em_layer import EMLayer as EMLayer
    from jensen.model.gmm import GMM as GMM
    from jensen.model.mixture_model import MixtureModel as MixtureModel
