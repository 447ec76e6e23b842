"""A run that takes a second or two."""

TINY = (
    "data.size=300",
    "data.validation=60",
    "data.batch_size=12",
    "model=mlp",
    "latent_dim=3",
    "model.encoder.hidden=[16]",
)
"""Overrides of `conf/train.yaml`."""
