"""A report as one HTML page that holds all: it opens without a server, and nothing is fetched.

Names and reasons come from the folders of runs, which may be a stranger's: all of them are escaped
(Jinja's autoescape), and the page's policy lets no script run but its own, by its hash.
"""

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import jinja2
import matplotlib
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from jensen.diagnostics.picture import gif
from jensen.reports.choice import Choice
from jensen.reports.comparable import apart
from jensen.reports.criteria import verdicts
from jensen.reports.models import Strip
from jensen.reports.sections import Section
from jensen.reports.sweep import Sweep, numbers, shown
from jensen.reports.table import Values, columns, tables, title
from jensen.reports.text import one_line

KINDS = ("svg", "pdf", "png")
"""The files of a figure. The page holds the first."""

TRAVERSALS = "traversals"
"""The figure that the page shows as the pictures that it is made of."""


class _Picture(NamedTuple):
    name: str
    source: str


def rendered(figure: Figure, kind: str) -> bytes:
    """A figure as a file of one of `KINDS`, the same bytes every time."""
    file = io.BytesIO()
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with matplotlib.rc_context({"svg.hashsalt": "jensen"}):
        figure.savefig(file, format=kind, metadata=undated.get(kind))
    return file.getvalue()


def page(
    sweep: Sweep,
    name: str,
    explained: str,
    caution: str,
    values: Mapping[str, Values],
    found: Mapping[str, Choice],
    missing: Sequence[str],
    drawings: Mapping[str, bytes],
    strips: Mapping[int, Strip],
    more: Sequence[Section] = (),
) -> str:
    """The page. `missing` are commands, `drawings` the figures as SVG, `strips` the traversals of
    groups by their number.
    """
    here = Path(__file__).parent
    script = (here / "page.js").read_text()
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(here),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    (settings,) = tables(sweep, values, across=len(values))
    return environment.get_template("page.html").render(
        title=one_line(name),
        counted=f"{len(sweep.runs)} runs in {len(sweep.groups)} settings",
        explained=explained,
        caution=caution,
        settings=[[one_line(cell) for cell in row] for row in settings],
        runs=_runs(sweep, values),
        verdicts=[one_line(sentence) for sentence in verdicts(sweep, found)],
        apart=[one_line(sentence) for sentence in apart(sweep)],
        left_out=[(one_line(run), one_line(why)) for run, why in sweep.left_out.items()],
        sections=more,
        missing=[one_line(line) for line in missing],
        kinds=KINDS,
        figures=[
            _Picture(each, _data("svg+xml", drawing))
            for each, drawing in drawings.items()
            if each != TRAVERSALS or not strips
        ],
        strips=[
            {
                "label": one_line(sweep.groups[group].label),
                "seed": strip.seed,
                "grid": _data("png", _png(strip.grid)),
                "film": strip.film and _data("gif", gif(strip.film)),
            }
            for group, strip in sorted(strips.items())
        ],
        script=script,
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
    )


def _runs(sweep: Sweep, values: Mapping[str, Values]) -> list[list[str]]:
    """Rows of cells, heads first, a row a run, with the quantities of the other table."""
    names = columns(sweep, values)
    rows = [["run", *map(one_line, sweep.keys), "seed", *(one_line(title(name)) for name in names)]]
    for number, group in enumerate(sweep.groups):
        setting = [shown(group.values[key]) if key in group.values else "" for key in sweep.keys]
        for place, run in enumerate(group.runs):
            own = numbers(run.scores)
            row = [own.get(name, values[name][number][place]) for name in names]
            rows.append(
                [
                    one_line(run.name),
                    *setting,
                    str(run.seed),
                    *("missing" if each != each else f"{each:.4g}" for each in row),
                ]
            )
    return rows


def _png(picture: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, format="png")
    return file.getvalue()


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"
