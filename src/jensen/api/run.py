"""A run, as `jensen.fit` leaves it and `jensen.load` finds it."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from jensen import evaluate
from jensen.api.vae import PARTS
from jensen.base.errors import check_list
from jensen.family.family import Posterior
from jensen.model.vae import VAE
from jensen.run import load as runs
from jensen.run.compose import chosen, compose
from jensen.run.given import giving
from jensen.run.record import get_json


class Run:
    """The folder of a run and what is in it.

    folder: what TensorBoard and every command take.
    model: the trained model, in evaluation mode.
    """

    def __init__(
        self, folder: Path, model: VAE, trust: Sequence[str] | str, objects: Mapping[str, object]
    ) -> None:
        self.folder = folder
        self.model = model
        self._trust = trust
        self._objects = dict(objects)

    @property
    def results(self) -> dict[str, float]:
        """Numbers that the run ended with, by their tags in TensorBoard: `val/elbo` and the like;
        empty until it is finished.
        """
        return dict(get_json(self.folder / "finished.json").get("results", {}))

    @property
    def scores(self) -> dict[str, Any]:
        """The numbers of each diagnostic, of the last validation and of what `diagnose` has
        added.
        """
        found = get_json(self.folder / "scores.json").get("diagnostics", {})
        return {
            name: {key: value for key, value in each.items() if key != "settings"}
            for name, each in found.items()
        }

    def diagnose(
        self, diagnostics: Sequence[str], split: str = "validation", checkpoint: str = "last"
    ) -> dict[str, Any]:
        """Run diagnostics of `conf/diagnostics` by their names, as `python -m jensen.evaluate`, and
        give the numbers of each.

        Raises:
            InputError: a name that is none, or one that failed.
        """
        check_list("diagnostics", diagnostics)
        for name in diagnostics:
            chosen("diagnostics", name, "diagnostics")
        cfg = compose(
            "evaluate",
            [
                f"diagnostics=[{','.join(diagnostics)}]",
                f"split={split}",
                f"checkpoint={checkpoint}",
            ],
        )
        cfg.run = str(self.folder)
        cfg.trust = [self._trust] if isinstance(self._trust, str) else [*self._trust]
        with giving(_copies(self._objects)):
            entry = evaluate.evaluate(cfg)
        return {
            name: {key: value for key, value in each.items() if key != "settings"}
            for name, each in entry["diagnostics"].items()
        }

    def encode(self, x: Tensor) -> Posterior:
        """q(z|x), `(B, *event)` to `(B, D)`."""
        return self.model.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """E[x|z], `(B, D)` to `(B, *event)`."""
        return self.model.decode(z)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"


def load(
    run: str | Path,
    checkpoint: str = "last",
    trust: str | Sequence[str] = (),
    *,
    model: VAE | None = None,
    objective: nn.Module | None = None,
    data: Any = None,
    validation: Any = None,
) -> Run:
    """A run and its trained model: `jensen.load("runs/...").encode(x)`; one of your own code with
    `trust="my"`.

    Of `trainer.precision=64-true` it computes in float64.

    Args:
        model, objective, data, validation: those objects that `jensen.fit` was given and no name
            could be written down for. The model that is given is not changed.
    """
    from jensen.api.data import source

    objects = objects_of(model, objective)
    if data is not None:
        objects["data"] = source(data, validation)
    with giving(_copies(objects)):
        found = runs.load(run, checkpoint, trust)
    return Run(Path(run).expanduser(), found, trust, objects)


def objects_of(model: VAE | None, objective: object) -> dict[str, object]:
    """Stand-ins for the parts of a model, and for it."""
    found: dict[str, object] = (
        {} if model is None else {name: getattr(model, name) for name in PARTS} | {"model": model}
    )
    return found if objective is None else found | {"objective": objective}


def _copies(objects: Mapping[str, object]) -> dict[str, object]:
    """Modules that a checkpoint may be loaded into."""
    return {
        name: deepcopy(each) if isinstance(each, nn.Module) else each
        for name, each in objects.items()
    }
