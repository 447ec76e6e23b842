"""Data sets, one file each. One that is named as its file is found in it:
`jensen.data.sprites.sprites`.
"""

from jensen.base.lazy import lazily

PLACES = {
    "DataModule": "module",
    "binarise": "transform",
    "colour": "transform",
    "described": "incomplete",
    "emnist": "nist",
    "fashion_mnist": "idx",
    "mnist": "idx",
    "noise": "transform",
    "qmnist": "nist",
    "threshold": "transform",
}
__getattr__, __dir__ = lazily(__name__, PLACES, ("sprites",))
