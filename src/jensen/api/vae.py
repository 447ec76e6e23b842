"""A VAE in one line, of modules or of the names of choices of `conf/`."""

from collections.abc import Sequence
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from jensen.base.errors import InputError, check_seed
from jensen.model import vae
from jensen.run.compose import chosen, compose
from jensen.run.words import explain

PARTS = ("encoder", "decoder", "likelihood", "prior", "posterior")


def VAE(  # noqa: N802 (it makes one)
    encoder: str | nn.Module,
    decoder: str | nn.Module,
    likelihood: str | nn.Module = "bernoulli",
    prior: str | nn.Module = "standard_normal",
    latent_dim: int = 10,
    *,
    x_shape: Sequence[int] | None = None,
    seed: int = 0,
    posterior: str | nn.Module | None = None,
) -> vae.VAE:
    """A variational autoencoder, `jensen.model.vae.VAE`, whose named parts are those of
    `conf/model`.

    >>> import jensen
    >>> model = jensen.VAE("mlp", "mlp", likelihood="normal", latent_dim=3, x_shape=[4])
    >>> type(model.likelihood).__name__, model.latent_dim
    ('Normal', 3)

    Args:
        encoder: a module from `(B, *event)` to a distribution such as `jensen.Gaussian`, or a name
            of `conf/model`: mlp, conv, linear, locatello.
        decoder: a module from `(B, D)` to `(B, *event)`, or such a name.
        likelihood, prior: objects, or names of `conf/model/likelihood` and `conf/model/prior`.
        posterior: what is made of the encoder's Gaussian, an object or a name of
            `conf/model/posterior`: flow; None for that Gaussian.
        latent_dim: D.
        x_shape: `event`, which named parts need.
        seed: of the initial weights of named parts; they are those of a command with that seed
            where all are named.

    Raises:
        InputError: a name that is none, or parts that do not fit each other.
    """
    check_seed("seed", seed)
    parts = dict(zip(PARTS, (encoder, decoder, likelihood, prior, posterior), strict=True))
    names = {part: name for part, name in parts.items() if isinstance(name, str)}
    needs = {"encoder", "decoder"} & {*names} or (
        {"prior"} if names.get("prior") == "vamp" else set()
    )
    if x_shape is None and needs:
        part = min(needs)
        raise InputError(
            f"{part} is {names[part]!r} and x_shape is None: expected the shape of an observation,"
            " x_shape=[1,28,28]"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            made = {
                name: instantiate(part)
                for name, part in _parts(names, latent_dim, x_shape or [1]).items()
            }
        except Exception as error:
            if (sentence := explain(error)) is None:
                raise
            raise InputError(sentence) from error
    model = vae.VAE(**(parts | made), latent_dim=latent_dim)
    model.chosen = names  # type: ignore[assignment]
    return model


def _parts(names: dict[str, str], latent_dim: int, x_shape: Sequence[int]) -> dict[str, DictConfig]:
    """The nodes of named parts, in the order in which a command makes them, resolved."""
    model = described(names, latent_dim, x_shape, {})
    return {name: model[name] for name in model if name in names}


def described(
    names: dict[str, str], latent_dim: int, x_shape: Sequence[int], others: dict[str, Any]
) -> DictConfig:
    """The configuration of a model of named parts and, in their places, `others`."""
    for part, name in names.items():
        chosen("model" if part in ("encoder", "decoder") else f"model/{part}", name, part)
    sizes = [f"latent_dim={latent_dim}", f"data.x_shape=[{','.join(map(str, x_shape))}]"]
    kinds = [f"model/{part}={names[part]}" for part in PARTS[2:] if part in names]
    trees = {
        part: OmegaConf.to_container(
            compose("train", ["data=torch_dataset", f"model={name}", *kinds, *sizes]).model,
            resolve=True,
        )
        for part, name in ({"encoder": "mlp", "decoder": "mlp"} | names).items()
        if part in ("encoder", "decoder")
    }
    tree: Any = trees["encoder"]
    tree["decoder"] = trees["decoder"]["decoder"]  # type: ignore[index, call-overload]
    return OmegaConf.create(tree | others)
