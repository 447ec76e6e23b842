"""The covariance structures by the names that people give."""

from jensen.family.full import FullGaussian
from jensen.family.gaussian import Gaussian
from jensen.family.spherical import SphericalGaussian
from jensen.family.tied import TiedGaussian

Structure = type[FullGaussian] | type[TiedGaussian] | type[Gaussian] | type[SphericalGaussian]

STRUCTURES: dict[str, Structure] = {
    "full": FullGaussian,
    "tied": TiedGaussian,
    "diag": Gaussian,
    "spherical": SphericalGaussian,
}


def structure_of(components: object) -> str:
    """The name of the structure that `components` have."""
    return next(name for name, structure in STRUCTURES.items() if isinstance(components, structure))
