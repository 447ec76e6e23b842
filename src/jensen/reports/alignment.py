"""A table of which latent of one run is which of another."""

from collections.abc import Sequence

from jensen.reports.aggregates import Codes
from jensen.scores.alignment import LEAST, alignment


def matched(names: Sequence[str], runs: Sequence[Codes]) -> list[list[str]]:
    """Rows of cells, heads first, a row a latent of the first run and a column each other run; last the
    mean share. A pair that shares next to nothing is left over of the matching, and none.
    """
    first, *others = runs
    found = [alignment(first.posterior, each.posterior) for each in others]
    rows = [[names[0], *names[1:]]]
    by_latent = [{match.latent: match for match in matches} for matches in found]
    for latent in sorted({latent for each in by_latent for latent in each}):
        cells = []
        for each in by_latent:
            match = each.get(latent)
            cells.append(
                f"z{match.other}: {match.information:.2f} ({match.share:.0%})"
                if match and match.information > LEAST
                else "none"
            )
        rows.append([f"z{latent}", *cells])
    shares = [
        f"{sum(match.share for match in each) / len(each):.0%}" if each else "none"
        for each in found
    ]
    return [*rows, ["mean share", *shares]]
