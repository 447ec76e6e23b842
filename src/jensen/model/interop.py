"""Mixtures of other libraries, and ours for them."""

import importlib
from typing import Any

import torch
from torch import distributions

from jensen.family import cholesky
from jensen.family.family import Components, gaussians
from jensen.family.full import full
from jensen.family.gaussian import Gaussian
from jensen.family.mixture import Mixture
from jensen.family.spherical import SphericalGaussian
from jensen.family.structures import STRUCTURES, structure_of


def as_distribution(p: Mixture) -> distributions.MixtureSameFamily:
    """The same density in `torch.distributions`."""
    weights = distributions.Categorical(logits=p.log_weight)
    if isinstance(p.components, Gaussian | SphericalGaussian):
        mean, log_var = gaussians(p.components).marginals()
        each = distributions.Independent(distributions.Normal(mean, (0.5 * log_var).exp()), 1)
        return distributions.MixtureSameFamily(weights, each)
    whole = full(p.components)
    return distributions.MixtureSameFamily(
        weights, distributions.MultivariateNormal(whole.mean, scale_tril=whole.scale_tril)
    )


def from_sklearn(fitted: Any) -> Mixture:
    """The mixture of a fitted `sklearn.mixture.GaussianMixture`."""
    cov = torch.as_tensor(fitted.covariances_).double()
    mean = torch.as_tensor(fitted.means_).double()
    shape = cov.log() if fitted.covariance_type in ("diag", "spherical") else cholesky.factor(cov)
    components: Components = STRUCTURES[fitted.covariance_type](mean, shape)
    return Mixture(torch.as_tensor(fitted.weights_).double().log(), components)


def to_sklearn(p: Mixture, converged: bool, iterations: int) -> Any:
    """A fitted `sklearn.mixture.GaussianMixture` with the parameters of `p`; scikit-learn must be
    installed.
    """
    count, dim = p.components.mean.shape
    # By name: scikit-learn is no dependency of this package.
    library = importlib.import_module("sklearn.mixture")
    fitted = library.GaussianMixture(count, covariance_type=structure_of(p.components))
    fitted.weights_ = p.log_weight.exp().cpu().numpy()
    fitted.means_ = p.components.mean.cpu().numpy()
    if isinstance(p.components, Gaussian | SphericalGaussian):
        fitted.covariances_ = p.components.log_var.exp().cpu().numpy()
        fitted.precisions_cholesky_ = (-0.5 * p.components.log_var).exp().cpu().numpy()
        fitted.precisions_ = fitted.precisions_cholesky_**2
    else:
        _, scale_tril = p.components
        eye = torch.eye(dim).to(scale_tril)
        upper = torch.linalg.solve_triangular(scale_tril, eye, upper=False).mT
        fitted.covariances_ = (scale_tril @ scale_tril.mT).cpu().numpy()
        fitted.precisions_cholesky_ = upper.cpu().numpy()
        fitted.precisions_ = (upper @ upper.mT).cpu().numpy()
    fitted.converged_ = converged
    fitted.n_iter_ = iterations
    fitted.n_features_in_ = dim
    return fitted
