"""Tables of a report that are about pairs: of runs, or of a run's codes and its prior."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jensen.reports.aggregates import Codes, distances
from jensen.reports.alignment import matched
from jensen.reports.comparable import held_out
from jensen.reports.sweep import Group, Sweep
from jensen.reports.text import one_line


class Section(NamedTuple):
    """A heading, what its tables say, and for each setting a label and rows of cells, heads first."""

    title: str
    explained: str
    tables: list[tuple[str, list[list[str]]]]


ALIGNMENT = (
    "Which latent of one run is which of another: a row a latent of the first run, and in each other run"
    " the one that is it, the information that the two share in nats, and how much that is of what they"
    " could. Matched so that the sum is largest (Hungarian); latents that are not used are left out."
)
AGGREGATES = (
    "q(z) is the mean of all posteriors. KL(q to p) and JS(q, p): how far the KL term has brought it to the"
    " prior, at most log 2 = 0.693 for JS. KL to the others, row to column, is of the coordinates as they"
    " are: runs that differ by an order of their latents are far apart. Nats, with standard errors."
)


def sections(sweep: Sweep, codes: Mapping[str, Codes]) -> list[Section]:
    """The sections that there is something for; `codes` by the runs' names."""
    found = [
        Section("Alignment across seeds", ALIGNMENT, []),
        Section("Aggregate posteriors", AGGREGATES, []),
    ]
    for group in sweep.groups:
        for runs in _same(group, codes):
            names = [f"seed {run}" for run in runs]
            own = [runs[run] for run in runs]
            label = one_line(group.label)
            if len(own) > 1:
                found[0].tables.append((label, matched(names, own)))
            found[1].tables.append((label, distances(names, own)))
    return [each for each in found if each.tables]


def _same(group: Group, codes: Mapping[str, Codes]) -> Sequence[dict[int, Codes]]:
    """The codes of a group's runs by their seed, of each held-out set."""
    sets: dict[str, dict[int, Codes]] = {}
    for run in group.runs:
        if run.name in codes:
            sets.setdefault(held_out(run), {}).setdefault(run.seed, codes[run.name])
    return [*sets.values()]
