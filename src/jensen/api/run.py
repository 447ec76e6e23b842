"""A run, as `jensen.fit` leaves it and `jensen.load` finds it."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from jensen import evaluate
from jensen.api.data import observations, source
from jensen.api.vae import PARTS
from jensen.base.errors import InputError, check_list, check_path
from jensen.family.family import Posterior
from jensen.model.vae import VAE, still
from jensen.run import load as runs
from jensen.run.compose import chosen, compose
from jensen.run.given import giving
from jensen.run.record import get_json
from jensen.run.words import say


class Run:
    """The folder of a run and what is in it.

    folder: what TensorBoard and every command take.
    model: the trained model, in evaluation mode.
    checkpoint: the one that the model is of: last, best or last.previous.
    """

    def __init__(
        self,
        folder: Path,
        model: VAE,
        trust: Sequence[str] | str,
        objects: Mapping[str, object],
        checkpoint: str = "last",
    ) -> None:
        self.folder = folder
        self.model = model
        self.checkpoint = checkpoint
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
        self,
        diagnostics: Sequence[str],
        split: str = "validation",
        checkpoint: str | None = None,
    ) -> dict[str, Any]:
        """Run diagnostics of `conf/diagnostics` by their names, as `python -m jensen.evaluate`, and
        give the numbers of each; by default of the checkpoint that the model is of.

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
                f"checkpoint={checkpoint or self.checkpoint}",
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

    def encode(self, x: Any) -> Posterior:
        """q(z|x), `(N, *event)` to `(N, D)`, of a tensor or an array that is read as `jensen.fit`
        reads it, without gradients; `model.encode` has them.

        Raises:
            InputError: whatever `jensen.fit` would refuse, or examples of another shape.
        """
        data: Any = self._objects.get("data")
        with still(self.model) as like:
            found = observations(x, data and data("train"), self.model.likelihood)
            return self.model.encode(found.to(like.device))

    def decode(self, z: Any) -> Tensor:
        """E[x|z], `(N, D)` to `(N, *event)`, without gradients; `model.decode` has them."""
        with still(self.model):
            return self.model.decode(z)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.checkpoint})"


def load(
    run: str | Path,
    checkpoint: str | None = None,
    trust: str | Sequence[str] = (),
    *,
    model: VAE | None = None,
    objective: nn.Module | None = None,
    data: Any = None,
    validation: Any = None,
) -> Run:
    """A run and its trained model: `jensen.load("runs/...").encode(x)`; one of your own code with
    `trust="my"`. One line says which checkpoint it is, and of which step.

    Of `trainer.precision=64-true` it computes in float64.

    Args:
        run: the folder of a run, or a file of its `checkpoints/`.
        checkpoint: last, best (of `val/elbo`) or last.previous; by default the file that `run`
            names, or last.
        model, objective, data, validation: those objects that `jensen.fit` was given and no name
            could be written down for. The model that is given is not changed.

    Raises:
        InputError: no run or no such checkpoint, one of other code than `trust` names, or two
            checkpoints.
    """
    folder, checkpoint = _named(run, checkpoint)
    objects = objects_of(model, objective)
    if data is not None:
        objects["data"] = source(data, validation)
    with giving(_copies(objects)):
        found, step = runs.load(folder, checkpoint, trust)
    found.x_shape = tuple(runs.configuration(folder).data.x_shape)
    say(f"loaded {folder / 'checkpoints' / checkpoint}.ckpt, of step {step}")
    return Run(folder, found, trust, objects, checkpoint)


def _named(run: str | Path, checkpoint: str | None) -> tuple[Path, str]:
    """The folder and the checkpoint that `jensen.load` was asked for."""
    check_path("run", run)
    path = Path(run).expanduser()
    if path.suffix != ".ckpt":
        return path, checkpoint or "last"
    if checkpoint not in (None, path.stem):
        raise InputError(
            f"run={run} is a checkpoint and checkpoint is {checkpoint!r}: expected one of them;"
            " leave checkpoint out, or name the run's folder"
        )
    path = path if path.parent.name else path.absolute()
    if path.parent.name != "checkpoints" or path.stem not in runs.CHECKPOINTS:
        raise InputError(
            f"run={run} is no checkpoint of a run of jensen: expected RUN/checkpoints/NAME.ckpt,"
            f" NAME one of {', '.join(runs.CHECKPOINTS)}; the rest of the run is read beside it"
        )
    return path.parent.parent, path.stem


def objects_of(model: VAE | None, objective: object) -> dict[str, object]:
    """Stand-ins for the parts of a model, and for it."""
    found: dict[str, object] = {} if model is None else _parts(model) | {"model": model}
    return found if objective is None else found | {"objective": objective}


def _parts(model: VAE) -> dict[str, object]:
    found = {name: getattr(model, name) for name in PARTS}
    return {name: part for name, part in found.items() if part is not None}


def _copies(objects: Mapping[str, object]) -> dict[str, object]:
    """Modules that a checkpoint may be loaded into."""
    return {
        name: deepcopy(each) if isinstance(each, nn.Module) else each
        for name, each in objects.items()
    }
