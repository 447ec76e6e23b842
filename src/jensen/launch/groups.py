"""The jobs of a sweep that can be trained as one program, and how many of them at a time."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Timer
from torch import Tensor, nn

from jensen.algorithm import optimiser
from jensen.algorithm.alike import structure
from jensen.algorithm.gradient import Gradient
from jensen.algorithm.stacked_layers import has_convolutions
from jensen.algorithm.step import loss_of
from jensen.base.errors import InputError
from jensen.base.memory import memory
from jensen.launch.job import Job
from jensen.launch.kinds import Kind
from jensen.run.words import explain

CACHE = 24 << 20
"""Bytes of a model's parameters, gradients and optimiser state up to which it pays to train several
together on a CPU, and then all of them: of larger ones each step leaves the caches (measured on 32
MiB of them: 15 models of 10 MiB 1.21 times as fast, two of them .95; five of 53 MiB .80).
"""

SPARE = 0.8
"""The part of the free memory that a stack may take."""

_TENSORS = 4
"""A parameter, its gradient and what Adam keeps of it."""

_SAID = 3
"""The most differences of a job that is trained alone that are told."""

_STACKABLE = ("model", "objective", "optimizer", "seed", "lr_scale")
"""Keys of the algorithm that `structure` speaks for, or that may differ."""


class _UnmadeError(InputError):
    """No algorithm of a job can be made."""


@dataclass
class Group:
    """Jobs of one architecture. algorithm: of one of them, if it can be made. why: the reason to train
    them one after another, in words; empty if it is together.
    """

    jobs: list[Job]
    algorithm: Gradient | None
    why: str = ""

    def said(self) -> str:
        names = ", ".join(job.folder.name for job in self.jobs)
        if not self.why:
            return f"{len(self.jobs)} jobs together: {names}"
        many = f"{len(self.jobs)} jobs one after another" if len(self.jobs) > 1 else "1 job alone"
        return f"{many} ({self.why}): {names}"


def plan(jobs: Sequence[Job], trainers: dict[str, Trainer], members: str | int) -> list[Group]:
    """Jobs in the groups that are trained together, in the order of the first of each.

    Args:
        trainers: by their configuration.
        members: the most of a group, or `auto`.

    A job that no model or optimiser can be made for comes last, alone, to fail by itself.

    Raises:
        InputError: a job of another algorithm, or that has no room, by its folder.
    """
    alike: dict[Kind, Group] = {}
    unmade = []
    for job in jobs:
        try:
            algorithm = _algorithm(job)
        except _UnmadeError as error:
            unmade.append(Group([job], None, str(error)))
            continue
        kind = Kind(
            structure(algorithm.model),
            structure(algorithm.objective),
            str(job.cfg.optimizer.get("_target_")),
            _other_settings(job.cfg),
        )
        alike.setdefault(kind, Group([], algorithm)).jobs.append(job)
    found = []
    for kind, group in alike.items():
        if len(group.jobs) == 1:
            group.why = _unlike(kind, alike)
            found.append(group)
        else:
            found += _parted(group, trainers[str(group.jobs[0].cfg.trainer)], members)
    return found + unmade


def _unlike(kind: Kind, alike: Mapping[Kind, Group]) -> str:
    """In what the one job of a kind differs from the nearest of another."""
    others = {other: kind.unlike(other) for other in alike if other != kind}
    if not others:
        return "there is no other"
    nearest = min(others, key=lambda other: len(others[other]))
    said = [*others[nearest][:_SAID], *["..."][: len(others[nearest]) > _SAID]]
    return f"{'; '.join(said)}, unlike {alike[nearest].jobs[0].folder.name}"


def _algorithm(job: Job) -> Gradient:
    """The algorithm of a job, whose tensors hold no values.

    Raises:
        InputError: it is no `Gradient`.
        _UnmadeError: none can be made.
    """
    try:
        algorithm = _made(job.cfg)
        if isinstance(algorithm, Gradient):
            optimiser.make(algorithm.optimizer, algorithm.model, algorithm.objective)
            return algorithm
    except (InputError, InstantiationException) as error:
        if (sentence := explain(error)) is None:
            raise
        raise _UnmadeError(sentence) from error
    raise InputError(
        f"{job.folder.name}: algorithm is {type(algorithm).__name__}: expected algorithm=gradient, of"
        " which hydra/launcher=stacked trains several at once; use hydra/launcher=sequential"
    )


def _made(cfg: DictConfig) -> nn.Module:
    """The algorithm on "meta"; made with values, and moved there, if a module asks for them."""
    try:
        with torch.device("meta"):
            made: nn.Module = instantiate(cfg.algorithm)
    except Exception:  # whatever a module of somebody's own may raise
        made = instantiate(cfg.algorithm)
    return made.to("meta")


def _other_settings(cfg: DictConfig) -> str:
    """The settings that models trained together have in common besides their structure, as JSON."""
    tree: Any = OmegaConf.to_container(cfg, resolve=True)
    data = _without_seeds(tree["data"])
    own = {key: value for key, value in tree["algorithm"].items() if key not in _STACKABLE}
    callbacks = {
        name: part.get("_target_") if isinstance(part, dict) else None
        for name, part in tree["callbacks"].items()
    }
    found = {"data": data, "algorithm": own, "trainer": tree["trainer"], "callbacks": callbacks}
    return json.dumps(found, sort_keys=True, default=str)


def _without_seeds(tree: Any) -> Any:
    """Settings of data, which each model has of its own, but for the seeds of them and of their parts."""
    if isinstance(tree, dict):
        return {key: _without_seeds(value) for key, value in tree.items() if key != "seed"}
    return [_without_seeds(each) for each in tree] if isinstance(tree, list) else tree


def _parted(group: Group, trainer: Trainer, members: str | int) -> list[Group]:
    """The group, in parts that can be trained together; with the reason where that is one job."""
    group.why = _reason(group, trainer)
    if group.why:
        return [group]
    room, paying = fitting(group, trainer.strategy.root_device)
    most = min(room, paying) if members == "auto" else min(room, int(members))
    if most < 2:
        alone = "each fills the caches of a CPU" if members == "auto" else f"members={members}"
        group.why = alone if room > 1 else "two of them do not fit in memory"
        return [group]
    count = math.ceil(len(group.jobs) / most)
    size = math.ceil(len(group.jobs) / count)
    return [
        Group(part, group.algorithm, "" if len(part) > 1 else "no other job is left for it")
        for part in (group.jobs[at : at + size] for at in range(0, len(group.jobs), size))
    ]


def _of_all(group: Group) -> Gradient:
    assert group.algorithm is not None
    return group.algorithm


def _reason(group: Group, trainer: Trainer) -> str:
    cfg = group.jobs[0].cfg
    if cfg.algorithm.non_finite == "skip":
        return "algorithm.non_finite=skip looks at each step"
    if clock := _clock(cfg):
        return f"{clock} counts the time of all of them"
    algorithm = _of_all(group)
    if cfg.algorithm.get("compile") and has_convolutions(algorithm.model):
        return "algorithm.compile makes kernels of the convolutions of one model"
    if (count := algorithm.encoder_steps) > 1:
        return f"algorithm.encoder_steps={count} leaves the decoder out of most steps"
    if trainer.accumulate_grad_batches != 1:
        return "trainer.accumulate_grad_batches is not 1"
    if trainer.precision == "16-mixed":
        return "trainer.precision=16-mixed scales each loss"
    on_cpu = trainer.strategy.root_device.type == "cpu"
    if on_cpu and has_convolutions(algorithm.model):
        return "convolutions on a CPU are faster so"
    return ""


def _clock(cfg: DictConfig) -> str:
    """The key of what ends a job by the time that passes, which in a stack the others take too."""
    if cfg.trainer.get("max_time") is not None:
        return "trainer.max_time"
    for name, part in cfg.callbacks.items():
        if part is not None and _is_timer(part.get("_target_")):
            return f"callbacks.{name}"
    return ""


def _is_timer(target: object) -> bool:
    try:
        found = get_object(str(target))
    except Exception:  # whatever an import of someone's module may raise; the job says so itself
        return False
    return isinstance(found, type) and issubclass(found, Timer)


def fitting(group: Group, device: torch.device) -> tuple[int, int]:
    """Number of the group's models that can be trained at a time, and that pays.

    Raises:
        InputError: not even one.
    """
    state, each = needed(_of_all(group), group.jobs[0].cfg)
    if device.type == "cpu":
        room = memory() // 2
        paying = len(group.jobs) if state <= CACHE else 1
    else:
        room = int(SPARE * torch.cuda.mem_get_info(device)[0])
        paying = len(group.jobs)
    if each > room:
        raise InputError(
            f"{group.jobs[0].folder.name} takes about {each / 1e9:.3g} GB and {device} has"
            f" {room / 1e9:.3g} GB for it: expected room for one model at least; lower"
            " data.batch_size, or take a smaller model"
        )
    return min(len(group.jobs), room // max(each, 1)), paying


def needed(algorithm: Gradient, cfg: DictConfig) -> tuple[int, int]:
    """Bytes of the state of a model in training, and of all that one step of it holds."""
    parameters = [*algorithm.model.parameters(), *algorithm.objective.parameters()]
    state = _TENSORS * sum(each.numel() * each.element_size() for each in parameters)
    kept = [0]

    def count(tensor: Tensor) -> Tensor:
        kept[0] += tensor.numel() * tensor.element_size()
        return tensor

    batch = int(cfg.data.batch_size)
    x = torch.empty(batch, *cfg.data.x_shape, device="meta")
    size = (algorithm.objective.samples * batch, algorithm.model.noise_dim)
    algorithm.objective.dataset_size = algorithm.objective.dataset_size or batch
    try:
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            inference = algorithm.model(x, torch.empty(size, device="meta"))
            loss_of(
                algorithm.objective, inference, torch.zeros((), dtype=torch.long, device="meta")
            )
    except (RuntimeError, NotImplementedError, InputError):
        # A module that asks for values, which "meta" has none of: a guess by the size of its input.
        kept[0] = max(kept[0], 8 * x.numel() * x.element_size())
    return state, state + 2 * kept[0]
