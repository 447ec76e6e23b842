"""A sweep at a glance: tables, figures, and which setting each criterion would choose.

python -m jensen.report sweep=DIR
"""

if __name__ == "__main__":
    from jensen.base import signals
    from jensen.launch import early

    early.answer("report")
    signals.end_at_interrupt()

import shlex
from pathlib import Path

from omegaconf import DictConfig

from jensen.base.errors import InputError, check_flag, check_path
from jensen.base.files import target_folder
from jensen.launch import threads
from jensen.launch.console import program
from jensen.reports.criteria import chosen
from jensen.reports.document import CAUTION, EXPLAINED, document, keep, missing, show
from jensen.reports.evidence import criteria
from jensen.reports.models import Strip, look, same_reason
from jensen.reports.page import page, rendered
from jensen.reports.pictures import draw
from jensen.reports.read import read
from jensen.reports.sections import Section, sections
from jensen.reports.table import as_csv, measured
from jensen.reports.text import one_line
from jensen.run.words import say


@program("report")
def main(cfg: DictConfig) -> None:
    threads.take()
    if cfg.sweep is None:
        raise InputError(
            "sweep is not given: expected sweep=FOLDER, the folder of a sweep of jensen.train -m"
        )
    check_path("sweep", cfg.sweep)
    check_flag("models", cfg.models)
    check_flag("warned", cfg.warned)
    folder = Path(cfg.sweep).expanduser()
    out = folder if cfg.out is None else target_folder("out", cfg.out)
    sweep = read(folder)
    values = measured(sweep)
    strips: dict[int, Strip] = {}
    more: list[Section] = []
    if cfg.models:
        say(
            f"encoding the held-out set with {len(sweep.runs)} models (models=false leaves UDR and"
            " traversals out)"
        )
        agreement, strips, failed, codes = look(sweep, folder, cfg.trust, cfg.download)
        more = sections(sweep, codes)
        values |= agreement | criteria(sweep, folder, cfg.trust, cfg.download)
        for why, names in same_reason(failed).items():
            say(one_line(f"neither UDR nor traversals of {', '.join(names)}: {why}"))
    found = chosen(sweep, values, cfg.warned)
    lines = missing(sweep, folder)
    pictures = draw(sweep, folder, values, found, strips)
    drawings = {name: rendered(figure, "svg") for name, figure in pictures.items()}
    keep(
        out,
        document(sweep, folder, values, found, lines, [*pictures], more),
        as_csv(sweep, values),
        page(sweep, folder.name, EXPLAINED, CAUTION, values, found, lines, drawings, strips, more),
        pictures,
        drawings,
    )
    show(sweep, values, found, lines, more)
    say(f"open {out / 'report.html'} in a browser: it holds all")
    say(
        f"{out / 'report.md'}, {out / 'report.csv'}, {len(pictures)} pictures in {out / 'report'}, each"
        " as PNG, PDF and SVG"
    )
    say(f"tensorboard --logdir {shlex.quote(str(out))}")


if __name__ == "__main__":
    main()
