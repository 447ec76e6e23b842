"""Diagnostics, one file each. One that is named as its file is found in it:
`jensen.diagnostics.rate.rate`.
"""

from jensen.base.lazy import lazily

PLACES = {
    "components": "mixture",
    "two_normals": "em_slides",
}
__getattr__, __dir__ = lazily(__name__, PLACES)
