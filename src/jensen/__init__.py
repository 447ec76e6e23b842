"""Variational autoencoders and Gaussian mixtures.

`jensen.GMM` is found when it is first asked for, so that `import jensen` stays light.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "GMM":
        from jensen.model.gmm import GMM

        return GMM
    raise AttributeError(f"module 'jensen' has no attribute {name!r}")
