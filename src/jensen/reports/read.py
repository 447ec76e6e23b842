"""The runs of a sweep's folder, and why some are not counted."""

import shlex
from pathlib import Path
from typing import Any, cast

from jensen.base.errors import InputError, check_seed
from jensen.base.files import within
from jensen.reports.sweep import Run, Sweep, Whole, flat, grouped, odd, shown, told_apart
from jensen.run.folder import DATA, FINISHED, HELD_OUT, WARNINGS, incomplete
from jensen.run.identity import LOCATION, has_effect
from jensen.run.reading import Parse, read_tree, saved_step, written_tree
from jensen.run.record import get_json
from jensen.run.targets import one_spelling
from jensen.run.templates import Templates

SAME = ("data.source._target_", "data.x_shape", "data.factors", "data.values")
"""Keys that runs must share for their numbers to be comparable."""


def read(folder: Path) -> Sweep:
    """The finished runs below `folder`.

    Raises:
        InputError: no such folder, the folder of a run, one that holds no runs or none that is
            finished, or runs of several experiments.
    """
    if not folder.is_dir():
        raise InputError(
            f"sweep={folder} is no folder: expected the folder of a sweep of jensen.train -m"
        )
    if (folder / ".hydra").is_dir():
        raise InputError(
            f"sweep={folder} is the folder of a run: expected the folder above, of all runs of its"
            " sweep"
        )
    places = sorted(path.parents[1] for path in folder.rglob(".hydra/config.yaml"))
    if not places:
        raise InputError(
            f"sweep={folder} holds no runs (.hydra/config.yaml): expected the folder of a sweep of"
            " jensen.train -m"
        )
    parse = Templates().parse
    runs = []
    left_out = {}
    experiments: dict[tuple[str, str], str] = {}
    for place in places:
        name = str(place.relative_to(folder))
        try:
            run = _read_run(place, name, parse)
            experiment = _experiment(place, run, parse)
        except (_LeftOutError, InputError) as reason:
            left_out[name] = str(reason)
            continue
        runs.append(run)
        experiments.setdefault(experiment, name)
    if not runs:
        first, why = next(iter(left_out.items()))
        raise InputError(
            f"sweep={folder} has no finished run among {len(places)} ({first}: {why}): expected at"
            " least one"
        )
    if len(experiments) > 1:
        (one, here), (other, there) = [*experiments.items()][:2]
        differ = 0 if one[0] != other[0] else 1
        what = ("experiments", "data")[differ]
        raise InputError(
            f"sweep={folder} mixes {what} ({here} is of {one[differ]}, {there} of"
            f" {other[differ]}): expected runs whose numbers"
            " compare; give each a folder of its own"
        )
    return grouped(told_apart(runs), left_out)


class _LeftOutError(Exception):
    """The reason why a run is not counted."""


def _read_run(place: Path, name: str, parse: Parse) -> Run:
    if why := incomplete(place):
        raise _LeftOutError(why)
    finished = get_json(place / FINISHED)
    if (place / "checkpoints").exists():  # a folder may be copied without them
        saved = saved_step(place)
        if saved is None:
            raise _LeftOutError(
                "its checkpoints/ holds no last.ckpt that can be read; restore it, or the sweep's"
                " command again trains it"
            )
        if saved != finished.get("step", saved):
            raise _LeftOutError(
                f"its last.ckpt holds step {saved} of {finished['step']}; the sweep's command"
                " again continues it"
            )
    tree = cast(dict[str, Any], one_spelling(written_tree(place, parse)))
    settings = flat(tree)
    seed = tree.get("seed", 0)
    check_seed("seed", seed)
    found = get_json(place / "scores.json")
    if why := odd(found):
        again = f"python -m jensen.evaluate {shlex.quote(f'run={place}')}"
        raise _LeftOutError(f"scores.json is torn, missing or odd ({why}); {again} writes it anew")
    kept = {key: value for key, value in settings.items() if key != "seed" and has_effect(key)}
    places = {key: Whole(settings[key]) for key in LOCATION if key in settings}
    ills = finished.get(WARNINGS)
    sentences = tuple(map(str, ills.values())) if isinstance(ills, dict) else ()
    mark = get_json(place / DATA)
    count = mark.get(HELD_OUT)
    return Run(
        name,
        seed,
        kept | places,
        found,
        data=str(mark.get("data", "")),
        ills=sentences,
        held_out=count if type(count) is int else 0,
    )


def _experiment(place: Path, run: Run, parse: Parse) -> tuple[str, str]:
    """Facts that must be one for the whole folder: the experiment it was started as, and what its
    numbers are of.
    """
    path = place / ".hydra" / "hydra.yaml"
    within(place, path)
    started = _started_as(path, parse) if path.exists() else None
    split = run.scores.get("split")
    checkpoint = run.scores.get("checkpoint")
    data = ", ".join(f"{key} {shown(run.settings[key])}" for key in SAME if key in run.settings)
    return (
        "no experiment" if started is None else f"experiment={started}",
        f"{data}, judged on {split} with {checkpoint}.ckpt",
    )


def _started_as(path: Path, parse: Parse) -> Any:
    """The experiment that a run's hydra.yaml names; None where none was chosen."""
    tree: Any = read_tree(path, parse)
    for key in ("hydra", "runtime", "choices"):
        tree = tree.get(key) if isinstance(tree, dict) else None
    if not isinstance(tree, dict):
        raise _LeftOutError(
            f"{path} names no hydra.runtime.choices: expected what jensen.train wrote"
        )
    return tree.get("experiment")
