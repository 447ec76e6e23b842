"""The sentence on a loss that is NaN or infinite, and the record of it."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from jensen.algorithm.batches import own_data
from jensen.base.batch import Batch
from jensen.base.errors import InputError
from jensen.base.ranks import gather_rows
from jensen.bound.bound import Bound, Inference

if TYPE_CHECKING:
    from jensen.algorithm.gradient import Gradient


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Name those that hold NaN or infinity."""
    return [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]


@torch.no_grad()
def first_module(root: nn.Module, compute: Callable[[], object]) -> str | None:
    """The first module inside `root`, by name, of which `compute` gets an output that is not
    finite; None if there is none.
    """
    found: list[str] = []

    def look_at(name: str) -> Callable[[nn.Module, object, object], None]:
        def look(module: nn.Module, inputs: object, output: object) -> None:
            if not all(bool(tensor.isfinite().all()) for tensor in _tensors(output)):
                found.append(name)

        return look

    hooks = [
        module.register_forward_hook(look_at(name)) for name, module in root.named_modules() if name
    ]
    try:
        compute()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list)):
        for part in output:
            yield from _tensors(part)


def record(path: Path, facts: Mapping[str, object]) -> None:
    """Write facts as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.partial")
    unfinished.write_text(json.dumps(facts) + "\n")
    unfinished.replace(path)


def report(algorithm: "Gradient") -> Path:
    """The file of facts."""
    return Path(algorithm.trainer.default_root_dir) / "non_finite.json"


def end_at_step(
    algorithm: "Gradient",
    found: tuple[int, list[int]],
    now: int,
    batch: Batch | None = None,
    inference: Inference | None = None,
) -> NoReturn:
    """End the run, on all ranks, for the step `found` and which of its values, the loss and the
    parts of its bound, were not finite. `batch` and `inference` are those of the step under way.
    """
    step, places = found
    terms = [("loss", *Bound._fields)[place] for place in places]
    module = None
    parameters = not_finite(dict(algorithm.named_parameters()))
    if step == now and batch is not None and inference is not None:
        count = torch.tensor(step, device=algorithm.device)
        terms += not_finite(algorithm.objective.terms(inference, count))
        infer = partial(algorithm.infer, batch, step)
        module = _of_any_rank(algorithm, None if parameters else first_module(algorithm, infer))
    rows = record_step(algorithm, step, terms=terms, module=module, parameters=parameters)
    where = _where(step, now, module, parameters)
    raise InputError(
        f"training stopped at step {step}, where {' and '.join(terms)} became NaN or"
        f" infinite,{where}: {report(algorithm)} names {rows}, and the last checkpoint, which is"
        " from before, is kept; lower optimizer.lr, set trainer.gradient_clip_val or"
        " algorithm.non_finite=skip"
    )


def record_step(algorithm: "Gradient", step: int, **facts: Any) -> str:
    """Write down the facts of a step, and its rows where they are known; the word for what the
    file names.
    """
    data = own_data(algorithm.trainer)
    _record(
        algorithm,
        report(algorithm),
        {"step": step, **facts, "rows": None if data is None else data.rows(step)},
    )
    return "its step" if data is None else "its batch"


def end_at_held_out(algorithm: "Gradient") -> NoReturn:
    """End the run for a validation that is not finite."""
    module, rows = _held_out_fault(algorithm)
    parameters = not_finite(dict(algorithm.named_parameters()))
    step = algorithm.global_step
    facts = {
        "step": step,
        "module": module,
        "parameters": parameters,
        "held_out_rows": rows.tolist(),
    }
    _record(algorithm, report(algorithm), facts)
    where = (
        f", because {parameters[0]} is"
        if parameters
        else f", first in the output of {module}"
        if module
        else ""
    )
    named = "the examples" if len(rows) else "the step"
    raise InputError(
        f"the held-out loss is NaN or infinite after step {step}{where}: {report(algorithm)} names"
        f" {named}, and the last"
        " checkpoint is kept; mend them, lower optimizer.lr or set trainer.gradient_clip_val"
    )


def check_parameters(algorithm: "Gradient") -> None:
    """Refuse to save parameters that are not finite."""
    if names := not_finite(dict(algorithm.named_parameters())):
        raise InputError(
            f"{names[0]} is NaN or infinite after step {algorithm.global_step}: expected"
            " finite parameters to save, so the last checkpoint is kept; lower optimizer.lr"
            " or set trainer.gradient_clip_val"
        )


def _where(step: int, now: int, module: str | None, parameters: list[str]) -> str:
    """The end of a sentence about a step that was found `now`."""
    if module:
        return f" first in the output of {module}"
    if step < now:
        return f" as was found at step {now}; trainer.log_every_n_steps=1 finds the module"
    if parameters:
        return f" because {parameters[0]} is, after the update before"
    return " though the output of every module is finite"


def least(algorithm: "Gradient", values: Tensor) -> Tensor:
    """The least of each value over the ranks."""
    least: Tensor = algorithm.trainer.strategy.reduce(values, reduce_op="min")
    return least


def _of_any_rank(algorithm: "Gradient", module: str | None) -> str | None:
    """The module that a rank has named; None if none has."""
    names: list[str | None] = [*(name for name, _ in algorithm.named_modules()), None]
    return names[int(least(algorithm, torch.tensor(names.index(module), device=algorithm.device)))]


def _held_out_fault(algorithm: "Gradient") -> tuple[str | None, Tensor]:
    """The first module whose output is not finite in a validation, and the rows it is of, over all
    ranks.
    """
    module = None
    rows = torch.empty(0, dtype=torch.long, device=algorithm.device)
    finite = torch.stack(algorithm.held_out.batches).isfinite().all(1).tolist()
    data = own_data(algorithm.trainer)
    if data is not None and not all(finite):
        loader = islice(data.val_dataloader(), finite.index(False), None)
        batch = algorithm.trainer.strategy.batch_to_device(next(loader))
        infer = partial(algorithm.infer, batch)
        with torch.no_grad():
            bound = infer().bound
        rows = batch.row[~(bound.distortion + bound.rate).isfinite()[: len(batch.row)]]
        module = first_module(algorithm, infer)
    return _of_any_rank(algorithm, module), gather_rows(rows)


def _record(algorithm: "Gradient", path: Path, facts: Mapping[str, object]) -> None:
    if algorithm.trainer.is_global_zero:
        record(path, {**facts, "seed": algorithm.seed})
