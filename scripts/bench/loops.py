"""The VAEs that the benchmarks of training share, their images, and the loop one would write by hand."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Kind(NamedTuple):
    """A model: its minibatch, the side of its images, and the overrides of `conf/train.yaml` that
    give it.
    """

    batch: int
    side: int
    overrides: tuple[str, ...]


_SMALL = ("data=torch_dataset", "data.validation=100", "data.x_shape=[1,28,28]", "model=mlp")
KINDS = {
    "conv": Kind(64, 64, ("data=sprites", "model=conv", "latent_dim=10")),
    "mlp": Kind(128, 28, (*_SMALL, "latent_dim=20")),
    "tiny": Kind(64, 28, (*_SMALL, "latent_dim=2", "model.encoder.hidden=[32]")),
}
"""The convolutional VAE of 64 x 64, the MLP 784-400-20, and 784-32-2."""


def examples(kind: Kind, count: int) -> Any:
    """`count` sprites as jensen stores them: packed, or at 28 x 28 a byte a pixel."""
    from jensen.api.data import examples as of_tensor
    from jensen.data.sprites import sprites

    found = sprites(size=count)
    if kind.side == 64:
        return found
    return of_tensor(images(kind, found, "cpu"))


def images(kind: Kind, found: Any, device: str) -> Tensor:
    """Examples as `(N, 1, S, S)` of 0 and 1, uint8, on a device."""
    parts = []
    for part in found.stored.split(4096):
        x = found.decode(part.to(device))
        if x.shape[-1] != kind.side:
            x = (functional.interpolate(x, (kind.side, kind.side), mode="area") > 0.5).float()
        parts.append(x.to(torch.uint8))
    return torch.cat(parts)


def networks(kind: Kind) -> tuple[nn.Module, nn.Module]:
    """The layers of jensen's own networks: `(B, *event)` to `(B, 2 D)`, and `(B, D)` back; kernels lie
    in memory as torch lays them.
    """
    from hydra.utils import instantiate

    from jensen.run.compose import compose

    torch.manual_seed(0)
    model = instantiate(compose("train", kind.overrides).model)
    order = torch.contiguous_format
    return model.encoder.body.to(memory_format=order), model.decoder.to(memory_format=order)


def loss(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The negative bound and its parts, `()` each, as a tutorial has them."""
    mean, log_var = encoder(x).chunk(2, -1)
    z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
    logit = decoder(z)
    distortion = functional.binary_cross_entropy_with_logits(logit, x, reduction="sum") / len(x)
    rate = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum() / len(x)
    return distortion + rate, distortion, rate


def raw_step(
    kind: Kind, x: Tensor, device: str, capturable: bool = False
) -> Callable[[Tensor], Tensor]:
    """A step of the loop one would write by hand, of the rows `index` `(B,)`: fused Adam."""
    encoder, decoder = (part.to(device) for part in networks(kind))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=1e-3, fused=True, capturable=capturable)

    def step(index: Tensor) -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        found = loss(encoder, decoder, x[index].float())[0]
        found.backward()
        optimiser.step()
        return found

    return step


def tutorial(kind: Kind, log: str = "tensors") -> Any:
    """A LightningModule that logs three numbers a step: on the progress bar, or, as PyTorch-VAE
    has them, as Python numbers.
    """
    from pytorch_lightning import LightningModule

    encoder, decoder = networks(kind)

    class Tutorial(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.decoder = decoder

        def training_step(self, batch: Sequence[Tensor], index: int) -> Tensor:
            found, distortion, rate = loss(self.encoder, self.decoder, batch[0])
            terms = {"loss": found, "distortion": distortion, "rate": rate}
            if log == "tensors":
                self.log_dict(terms, prog_bar=True)
            else:
                self.log_dict({name: term.item() for name, term in terms.items()}, sync_dist=True)
            return found

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    return Tutorial()


def after_each_call(function: Callable[[Any], None]) -> Any:
    """A callback that has `function` called with the trainer after each of Lightning's batches.

    By the module's own hook: a callback's would have jensen take one step at a time.
    """
    from pytorch_lightning import Callback

    class Hook(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            pl_module.on_train_batch_end = lambda *_: function(trainer)

    return Hook()


def train(overrides: Sequence[str], folder: Path, found: Any, hook: Any) -> None:
    """A run of jensen as its command has it, on examples that are there, with a callback more."""
    from omegaconf import open_dict

    from jensen.launch.training import train as run
    from jensen.run.compose import compose
    from jensen.run.given import giving, node

    cfg = compose("train", [*overrides, "diagnostics=[]", "+trainer.limit_val_batches=0"])
    with open_dict(cfg):
        cfg.callbacks["hook"] = node("hook", "Hook")
        cfg.data.source = node("data", "Examples")
    with giving({"hook": hook, "data": lambda **_: found}):
        run(cfg, folder)


def absent(overrides: Sequence[str]) -> list[str]:
    """The overridden keys of `algorithm` that this version does not have."""
    from jensen.run.compose import compose

    known = compose("train", []).algorithm
    keys = [word.partition("=")[0] for word in overrides]
    return [key for key in keys if key.startswith("algorithm.") and key[10:] not in known]
