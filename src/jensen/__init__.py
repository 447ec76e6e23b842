"""Variational autoencoders and Gaussian mixtures.

`jensen.GMM`, `jensen.EMLayer` and `jensen.load` are found when they are first asked for, so that `import jensen` stays light.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "GMM":
        from jensen.model.gmm import GMM

        return GMM
    if name == "EMLayer":
        from jensen.model.em_layer import EMLayer

        return EMLayer
    if name == "load":
        from jensen.run.load import load

        return load
    raise AttributeError(f"module 'jensen' has no attribute {name!r}")
