"""The setting that each criterion would choose, and how sure that is."""

from collections.abc import Mapping

import numpy as np

from jensen.reports.choice import Choice, choose
from jensen.reports.comparable import families
from jensen.reports.sweep import Sweep
from jensen.reports.table import AMONG, UDR, Values, scores, title


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
            rival = max(
                (share, -place) for place, share in enumerate(choice.share) if place != choice.best
            )
            if rival[0] >= 0.05:
                sure += f", {sweep.groups[-rival[1]].label} in {rival[0]:.0%}"
        sentences.append(f"{title(name)}: {best} ({sure})")
    return sentences


def chosen(sweep: Sweep, values: Mapping[str, Values], warned: bool = False) -> dict[str, Choice]:
    """The choice of each criterion, of which larger is better: the elbo, the scores, UDR.

    Only among groups that compare; where these are not all, the criterion is followed by `AMONG`
    and what they are. Runs that ended with a warning (`Run.ills`) are left out, unless `warned`.
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
        groups = groups if warned else _well(sweep, name, groups)
        same = families(sweep, elbo=name == "elbo")
        for family in same:
            some = [group if place in family.members else [] for place, group in enumerate(groups)]
            if len(family.members) > 1 and np.isfinite(np.concatenate(some)).any():
                found[name if len(same) == 1 else f"{name}{AMONG}{family.label}"] = choose(some)
    return found


def _well(sweep: Sweep, name: str, values: Values) -> Values:
    """The values of the runs that nothing ails; of agreements, which are of pairs, those of groups
    without any other.
    """
    well = [[not run.ills for run in group.runs] for group in sweep.groups]
    if name in UDR:
        return [group if all(sound) else [] for group, sound in zip(values, well, strict=True)]
    return [
        [value for value, fine in zip(group, sound, strict=True) if fine]
        for group, sound in zip(values, well, strict=True)
    ]
