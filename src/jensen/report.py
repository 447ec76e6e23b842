"""A sweep at a glance: tables, figures, and which setting each criterion would choose.

python -m jensen.report sweep=DIR
"""

if __name__ == "__main__":
    from jensen.base import signals

    signals.end_at_interrupt()

import math
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from jensen.base.errors import InputError, check_flag, check_path, check_seed
from jensen.base.random import fold, permutation
from jensen.callbacks.durable import target_folder, within, write
from jensen.diagnostics.snapshot import Results, Snapshot
from jensen.diagnostics.traversals import traversals
from jensen.diagnostics.water_filling import optimum
from jensen.evaluate import on_run
from jensen.family.gaussian import LOG_2PI
from jensen.launch.console import program
from jensen.reports import figures
from jensen.reports.choice import Choice, choose
from jensen.reports.comparable import apart, families, held_out
from jensen.reports.sweep import Group, Run, Sweep, Whole, flat, grouped, odd, shown, told_apart
from jensen.reports.table import (
    AMONG,
    UDR,
    Values,
    aligned,
    as_csv,
    columns,
    markdown,
    measured,
    scores,
    tables,
    title,
)
from jensen.reports.text import code, one_line, plain
from jensen.run.folder import DATA, FAILED, FINISHED
from jensen.run.identity import LOCATION, has_effect
from jensen.run.load import configuration, read_yaml, saved_step
from jensen.run.record import get_json, put
from jensen.run.targets import one_spelling, short
from jensen.run.words import say
from jensen.scores import udr
from jensen.scores.inputs import Floats

SAME = ("data.source._target_", "data.x_shape", "data.factors")
"""Keys that runs must share for their numbers to be comparable."""
POINTS = 10_000
"""Held-out observations that UDR compares runs on, if there are more."""


def read(folder: Path) -> Sweep:
    """The finished runs below `folder`.

    Raises:
        InputError: no such folder, the folder of a run, one that holds no runs or none that is finished, or runs of several
            experiments.
    """
    if not folder.is_dir():
        raise InputError(f"sweep={folder} is no folder: expected the folder of a sweep of jensen.train -m")
    if (folder / ".hydra").is_dir():
        raise InputError(f"sweep={folder} is the folder of a run: expected the folder above, of all runs of its sweep")
    places = sorted(path.parents[1] for path in folder.rglob(".hydra/config.yaml"))
    if not places:
        raise InputError(
            f"sweep={folder} holds no runs (.hydra/config.yaml): expected the folder of a sweep of jensen.train -m"
        )
    runs, left_out = [], {}
    experiments: dict[tuple[str, str], str] = {}
    for place in places:
        name = str(place.relative_to(folder))
        try:
            run = _read_run(place, name)
            experiment = _experiment(place, run)
        except (_LeftOutError, InputError) as reason:
            left_out[name] = str(reason)
            continue
        runs.append(run)
        experiments.setdefault(experiment, name)
    if not runs:
        first, why = next(iter(left_out.items()))
        raise InputError(f"sweep={folder} has no finished run among {len(places)} ({first}: {why}): expected at least one")
    if len(experiments) > 1:
        (one, here), (other, there) = [*experiments.items()][:2]
        differ = 0 if one[0] != other[0] else 1
        what = ("experiments", "data")[differ]
        raise InputError(
            f"sweep={folder} mixes {what} ({here} is of {one[differ]}, {there} of {other[differ]}): expected runs whose numbers"
            " compare; give each a folder of its own"
        )
    return grouped(told_apart(runs), left_out)


class _LeftOutError(Exception):
    """Why a run is not counted."""


def _read_run(place: Path, name: str) -> Run:
    if not (finished := get_json(place / FINISHED)):
        if failed := get_json(place / FAILED):
            raise _LeftOutError(f"failed: {failed.get('error', 'it does not say why')}")
        raise _LeftOutError("not finished; the sweep's command again continues it")
    if (place / "checkpoints").exists():  # a folder may be copied without them
        saved = saved_step(place)
        if saved is None:
            raise _LeftOutError(
                "its checkpoints/ holds no last.ckpt that can be read; restore it, or the sweep's command again trains it"
            )
        if saved != finished.get("step", saved):
            raise _LeftOutError(
                f"its last.ckpt holds step {saved} of {finished['step']}; the sweep's command again continues it"
            )
    tree = cast(dict[str, Any], one_spelling(OmegaConf.to_container(configuration(place))))
    settings, seed = flat(tree), tree.get("seed", 0)
    check_seed("seed", seed)
    found = get_json(place / "scores.json")
    if why := odd(found):
        again = f"python -m jensen.evaluate {shlex.quote(f'run={place}')}"
        raise _LeftOutError(f"scores.json is torn, missing or odd ({why}); {again} writes it anew")
    kept = {key: value for key, value in settings.items() if key != "seed" and has_effect(key)}
    places = {key: Whole(settings[key]) for key in LOCATION if key in settings}
    return Run(name, seed, kept | places, found, str(get_json(place / DATA).get("data", "")))


def _experiment(place: Path, run: Run) -> tuple[str, str]:
    """What must be one for the whole folder: the experiment it was started as, and what its numbers are of."""
    path = place / ".hydra" / "hydra.yaml"
    within(place, path)
    started = _started_as(path) if path.exists() else None
    split, checkpoint = run.scores.get("split"), run.scores.get("checkpoint")
    data = ", ".join(f"{key} {shown(run.settings[key])}" for key in SAME if key in run.settings)
    return "no experiment" if started is None else f"experiment={started}", f"{data}, judged on {split} with {checkpoint}.ckpt"


def _started_as(path: Path) -> Any:
    """The experiment that a run's hydra.yaml names; None where none was chosen."""
    tree: Any = OmegaConf.to_container(read_yaml(path))
    for key in ("hydra", "runtime", "choices"):
        tree = tree.get(key) if isinstance(tree, dict) else None
    if not isinstance(tree, dict):
        raise _LeftOutError(f"{path} names no hydra.runtime.choices: expected what jensen.train wrote")
    return tree.get("experiment")


def look(
    sweep: Sweep, folder: Path, trust: str | Sequence[str] = (), download: bool = False
) -> tuple[dict[str, Values], dict[int, tuple[int, Tensor]], dict[str, str]]:
    """UDR of the runs of each group, the traversals of each group's first run with its seed, and the runs that have no model.

    Each run encodes its held-out set with its last checkpoint. `udr/...` is NaN where a group has fewer than two runs.
    """
    agreement: dict[str, Values] = {name: [] for name in UDR}
    strips: dict[int, tuple[int, Tensor]] = {}
    failed: dict[str, str] = {}
    for number, group in enumerate(sweep.groups):
        codes, rates = {}, {}
        for place, run in enumerate(group.runs):
            seen = Look(pictures=number not in strips)
            try:
                on_run(folder / run.name, "validation", "last", {"report": seen}, trust, download)
            except InputError as error:
                failed[run.name] = str(error)
                continue
            if np.isfinite(seen.rates).all():  # UDR weighs latents by their rates, which not every prior knows
                codes[place], rates[place] = seen.codes, seen.rates
            strips |= {number: (run.seed, seen.strip)} if seen.strip is not None else {}
        for similarity, values in agreement.items():
            values.append(_agreement(group, codes, rates, similarity.partition("/")[2]))
    known = {name: values for name, values in agreement.items() if np.isfinite(np.concatenate(values)).any()}
    return known, strips, failed


def _agreement(group: Group, codes: Mapping[int, Floats], rates: Mapping[int, Floats], similarity: str) -> list[float]:
    """UDR of each run of a group, by its place, among those that encoded the same examples; NaN where it has no partner."""
    each = [math.nan] * len(group.runs)
    same: dict[str, list[int]] = {}
    for place in codes:
        same.setdefault(held_out(group.runs[place]), []).append(place)
    for places in (places for places in same.values() if len(places) > 1):
        found = udr(
            [codes[place] for place in places], [rates[place] for place in places], similarity=similarity, points=POINTS
        )
        for place, value in zip(places, found["per_run"].tolist(), strict=True):
            each[place] = value
    return each


def same_reason(failed: Mapping[str, str]) -> dict[str, list[str]]:
    """Names by why."""
    names: dict[str, list[str]] = {}
    for name, why in failed.items():
        names.setdefault(why, []).append(name)
    return names


class Look:
    """A diagnostic that keeps what a report needs of a model: some codes, the rate of each latent, a traversal."""

    def __init__(self, pictures: bool) -> None:
        self.pictures = pictures
        self.strip: Tensor | None = None

    def __call__(self, snapshot: Snapshot) -> Results:
        if not snapshot.posterior.mean.isfinite().all():
            raise InputError("its codes are NaN or infinite: expected finite ones; restore its checkpoint, or train it again")
        rows = permutation(fold(0, "report"), len(snapshot.z))[:POINTS]
        self.codes = snapshot.posterior.mean.cpu()[rows].double().numpy()
        self.rates = snapshot.latent_rate.mean(0).cpu().double().numpy()
        if self.pictures:
            self.strip = traversals(snapshot, columns=5, images=1).get("image_0")
        return {}


def theory(run: Path) -> list[tuple[float, float]]:
    """(rate, distortion) of the optimal linear VAE for ever larger beta, where the data are Gaussian and the model linear."""
    cfg = configuration(run)
    needed = {
        "data.source._target_": "jensen.data.gaussian.gaussian",
        "model.encoder._target_": "jensen.model.LinearEncoder",
        "model.likelihood._target_": "jensen.model.Normal",
    }
    if any(short(str(OmegaConf.select(cfg, key))) != value for key, value in needed.items()):
        return []
    variances, noise = [*cfg.data.variances], float(cfg.model.likelihood.variance)
    constant = len(variances) / 2 * (LOG_2PI + math.log(noise))
    betas = np.geomspace(min(variances) / 4, max(variances), 200) / noise
    best = [optimum(variances, beta, noise) for beta in betas.tolist()]
    return [(point.rate, point.squared_error / (2 * noise) + constant) for point in best]


def missing(sweep: Sweep, folder: Path) -> list[str]:
    """Diagnostics that some runs have and others lack, and the commands that would add them."""
    have = {run.name: [name.removesuffix("_full") for name in run.scores["diagnostics"]] for run in sweep.runs}
    every = dict.fromkeys(name for run in sweep.runs for name in have[run.name])
    lines = []
    for name, found in have.items():
        if lacking := [each for each in every if each not in found]:
            lines.append(f"python -m jensen.evaluate {shlex.quote(f'run={folder / name}')} 'diagnostics=[{','.join(lacking)}]'")
    return lines


def verdicts(sweep: Sweep, found: Mapping[str, Choice]) -> list[str]:
    """A sentence a criterion."""
    sentences = []
    for name, choice in found.items():
        best = sweep.groups[choice.best].label
        if choice.share is None:
            pair = name.partition(AMONG)[0] in UDR
            sure = f"from one {'pair of seeds' if pair else 'seed'} it cannot be known how sure that is"
        else:
            sure = f"in {choice.share[choice.best]:.0%} of resamples of {choice.seeds} seeds"
            rival = max((share, -place) for place, share in enumerate(choice.share) if place != choice.best)
            if rival[0] >= 0.05:
                sure += f", {sweep.groups[-rival[1]].label} in {rival[0]:.0%}"
        sentences.append(f"{title(name)}: {best} ({sure})")
    return sentences


def chosen(sweep: Sweep, values: Mapping[str, Values]) -> dict[str, Choice]:
    """What each criterion, of which larger is better, would choose: the elbo, the scores, UDR.

    Only among groups that compare; where these are not all, the criterion is followed by `AMONG` and what they are.
    """
    if len(sweep.groups) < 2:
        return {}
    candidates = {name: values[name] for name in ("elbo", *scores(sweep)) if name in values}
    for name in (name for name in UDR if name in values):
        # Two runs agree as one number; there is nothing to resample.
        known = [[value for value in group if np.isfinite(value)] for group in values[name]]
        candidates[name] = [group if len(group) > 2 else group[:1] for group in known]
    found = {}
    for name, groups in candidates.items():
        same = families(sweep, elbo=name == "elbo")
        for family in same:
            some = [group if place in family.members else [] for place, group in enumerate(groups)]
            if len(family.members) > 1 and np.isfinite(np.concatenate(some)).any():
                found[name if len(same) == 1 else f"{name}{AMONG}{family.label}"] = choose(some)
    return found


def document(
    sweep: Sweep,
    folder: Path,
    values: Mapping[str, Values],
    found: Mapping[str, Choice],
    lines: Sequence[str],
    drawn: Sequence[str],
) -> str:
    """The report as Markdown; `lines` are the commands for what is missing, `drawn` the names of the pictures."""
    text = [f"# {plain(one_line(folder.name))}", f"{len(sweep.runs)} runs in {len(sweep.groups)} settings. {EXPLAINED}"]
    text += [markdown(table) for table in tables(sweep, values)]
    if found:
        text += ["## Chosen by", "\n".join(f"- {plain(sentence)}" for sentence in verdicts(sweep, found)), CAUTION]
    if different := apart(sweep):
        text += ["## Not compared", "\n".join(f"- {plain(sentence)}" for sentence in different)]
    if sweep.left_out:
        text += [
            "## Not counted",
            "\n".join(f"- {code(one_line(name))}: {plain(one_line(why))}" for name, why in sweep.left_out.items()),
        ]
    if lines:
        text += ["## Missing", "```bash\n" + "\n".join(lines) + "\n```"]
    return "\n\n".join([*text, *(f"![{name}](report/{name}.png)" for name in drawn)]) + "\n"


EXPLAINED = "Median [quartiles] over the seeds; distortion, rate, elbo, MI, TC and DWKL in nats per example, on held-out data."
CAUTION = "Shares are of 10,000 bootstrap resamples of the seeds; of fewer than 5 seeds they are too sure of themselves."


def draw(
    sweep: Sweep,
    folder: Path,
    values: Mapping[str, Values],
    found: Mapping[str, Choice],
    strips: Mapping[int, tuple[int, Tensor]],
) -> dict[str, Figure]:
    """The figures by name; those that these runs have nothing for are left out."""
    measures = ["elbo", *(name for name in columns(sweep, values) if "/" in name)]
    curves = [theory(folder / run.name) for run in sweep.runs]
    pictures = {
        "rate_distortion": figures.rate_distortion(
            sweep, values, curves[0] if all(each == curves[0] for each in curves) else ()
        ),
        "scores": figures.scores(sweep, values, measures),
        "kl_spectrum": figures.kl_spectrum(sweep),
        "choices": figures.choices(sweep, found),
        "traversals": figures.traversals(sweep, strips),
    }
    return {name: figures.fit(figure) for name, figure in pictures.items() if figure is not None}


def keep(out: Path, text: str, table: str, pictures: Mapping[str, Figure]) -> None:
    """Writes report.md, report.csv, report/*.png and report/'s events; those of a former report are replaced."""
    within(out, out / "report")
    for name, figure in pictures.items():
        write(out / "report" / f"{name}.png", partial(figure.savefig, format="png"))
    for old in (out / "report").glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(out / "report")) as writer:
        writer.add_text("report", text.partition("\n\n![")[0])
        for name, figure in pictures.items():
            figure.canvas.draw()
            pixels = np.array(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
            writer.add_image(f"report/{name}", torch.from_numpy(pixels).permute(2, 0, 1))
    put(out / "report.csv", table)
    put(out / "report.md", text)


@program("report")
def main(cfg: DictConfig) -> None:
    if cfg.sweep is None:
        raise InputError("sweep is not given: expected sweep=FOLDER, the folder of a sweep of jensen.train -m")
    check_path("sweep", cfg.sweep)
    check_flag("models", cfg.models)
    folder = Path(cfg.sweep).expanduser()
    out = folder if cfg.out is None else target_folder("out", cfg.out)
    sweep = read(folder)
    values = measured(sweep)
    strips: dict[int, tuple[int, Tensor]] = {}
    if cfg.models:
        say(f"encoding the held-out set with {len(sweep.runs)} models (models=false leaves UDR and traversals out)")
        agreement, strips, failed = look(sweep, folder, cfg.trust, cfg.download)
        values |= agreement
        for why, names in same_reason(failed).items():
            say(one_line(f"neither UDR nor traversals of {', '.join(names)}: {why}"))
    found = chosen(sweep, values)
    lines = missing(sweep, folder)
    pictures = draw(sweep, folder, values, found, strips)
    keep(out, document(sweep, folder, values, found, lines, [*pictures]), as_csv(sweep, values), pictures)
    _print(sweep, values, found, lines)
    say(f"{out / 'report.md'}, {out / 'report.csv'}, {len(pictures)} pictures in {out / 'report'}")
    say(f"tensorboard --logdir {shlex.quote(str(out))}")


def _print(sweep: Sweep, values: Mapping[str, Values], found: Mapping[str, Choice], lines: Sequence[str]) -> None:
    for table in tables(sweep, values):
        print(aligned(table), end="\n\n")
    print(EXPLAINED, end="\n\n")
    if found:
        print("chosen by", *verdicts(sweep, found), sep="\n  ")
        print(CAUTION, end="\n\n")
    for sentence in apart(sweep):
        say(one_line(sentence))
    for name, why in sweep.left_out.items():
        say(one_line(f"not counted: {name}: {why}"))
    if lines:
        print("missing in some runs; to add it:", *lines, sep="\n  ", flush=True)


if __name__ == "__main__":
    main()
