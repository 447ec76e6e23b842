"""A report as Markdown, what the terminal shows of it, and its files."""

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from jensen.base.files import within, write
from jensen.reports.choice import Choice
from jensen.reports.comparable import apart
from jensen.reports.criteria import verdicts
from jensen.reports.page import KINDS, rendered
from jensen.reports.sections import Section
from jensen.reports.sweep import Sweep
from jensen.reports.table import Values, aligned, markdown, tables
from jensen.reports.text import code, one_line, plain
from jensen.run import words
from jensen.run.record import put

EXPLAINED = "Median [quartiles] over the seeds; distortion, rate, elbo, MI, TC and DWKL in nats per example, on held-out data."


CAUTION = "Shares are of 10,000 bootstrap resamples of the seeds; of fewer than 5 seeds they are too sure of themselves."


def missing(sweep: Sweep, folder: Path) -> list[str]:
    """Diagnostics that some runs have and others lack, and the commands that would add them."""
    have = {
        run.name: [name.removesuffix("_full") for name in run.scores["diagnostics"]]
        for run in sweep.runs
    }
    every = dict.fromkeys(name for run in sweep.runs for name in have[run.name])
    lines = []
    for name, found in have.items():
        if lacking := [each for each in every if each not in found]:
            lines.append(
                f"python -m jensen.evaluate {shlex.quote(f'run={folder / name}')}"
                f" 'diagnostics=[{','.join(lacking)}]'"
            )
    return lines


def document(
    sweep: Sweep,
    folder: Path,
    values: Mapping[str, Values],
    found: Mapping[str, Choice],
    lines: Sequence[str],
    drawn: Sequence[str],
    more: Sequence[Section] = (),
) -> str:
    """The report as Markdown; `lines` are the commands for what is missing, `drawn` the names of
    the pictures.
    """
    text = [
        f"# {plain(one_line(folder.name))}",
        f"{len(sweep.runs)} runs in {len(sweep.groups)} settings. {EXPLAINED}",
    ]
    text += [markdown(table) for table in tables(sweep, values)]
    if found:
        text += [
            "## Chosen by",
            "\n".join(f"- {plain(sentence)}" for sentence in verdicts(sweep, found)),
            CAUTION,
        ]
    for section in more:
        text += [f"## {section.title}", section.explained]
        for label, rows in section.tables:
            text += [plain(label), markdown(rows)]
    if different := apart(sweep):
        text += ["## Not compared", "\n".join(f"- {plain(sentence)}" for sentence in different)]
    if sweep.left_out:
        text += [
            "## Not counted",
            "\n".join(
                f"- {code(one_line(name))}: {plain(one_line(why))}"
                for name, why in sweep.left_out.items()
            ),
        ]
    if lines:
        text += ["## Missing", "```bash\n" + "\n".join(lines) + "\n```"]
    return "\n\n".join([*text, *(f"![{name}](report/{name}.png)" for name in drawn)]) + "\n"


def keep(
    out: Path,
    text: str,
    table: str,
    html: str,
    pictures: Mapping[str, Figure],
    drawings: Mapping[str, bytes],
) -> None:
    """Writes report.md, report.csv, report.html, report/'s pictures and events; those of a former
    report are replaced. `drawings` are the pictures as SVG.
    """
    within(out, out / "report")
    for name, figure in pictures.items():
        for kind in KINDS:
            content = drawings[name] if kind == "svg" else rendered(figure, kind)
            write(out / "report" / f"{name}.{kind}", partial(_put, content))
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
    put(out / "report.html", html)


def _put(content: bytes, file: Any) -> None:
    file.write(content)


def show(
    sweep: Sweep,
    values: Mapping[str, Values],
    found: Mapping[str, Choice],
    lines: Sequence[str],
    more: Sequence[Section] = (),
) -> None:
    for table in tables(sweep, values):
        words.show(f"{aligned(table)}\n")
    words.show(f"{EXPLAINED}\n")
    if found:
        words.show("\n  ".join(["chosen by", *verdicts(sweep, found)]))
        words.show(f"{CAUTION}\n")
    for section in more:
        words.show(f"{section.title}. {section.explained}\n")
        for label, rows in section.tables:
            words.show(f"{label}\n{aligned(rows)}\n")
    for sentence in apart(sweep):
        words.say(one_line(sentence))
    for name, why in sweep.left_out.items():
        words.say(one_line(f"not counted: {name}: {why}"))
    if lines:
        words.show("\n  ".join(["missing in some runs; to add it:", *lines]))
