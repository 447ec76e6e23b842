"""The groups whose numbers compare: those of one held-out set, and the elbos of them that are in
one unit.
"""

from collections.abc import Callable, Sequence

from jensen.reports.sweep import Group, Run, Sweep, shown

_PROBABILITIES = (
    "Bernoulli",
    "CrossEntropy",
)  # one formula, and one number wherever both take the data
_DENSITIES = ("ContinuousBernoulli", "Normal", "LearnedNormal", "OptimalNormal")
_ORDER = ("data.batch_size", "data.shuffle", "data.seed")
"""Keys by which the order of training changes, and no example."""


def held_out(run: Run) -> str:
    """The makings of the examples that the run was judged on: the data, by their fingerprint, how
    many, and the transform.

    Of a run without a fingerprint, all settings of its data.
    """
    settings = {
        key: value
        for key, value in run.settings.items()
        if key.startswith("data.") and key not in _ORDER
    }
    if run.data:
        settings = {
            key: value
            for key, value in settings.items()
            if key.startswith(("data.validation", "data.transform"))
        }
    if run.data and run.held_out and settings.get("data.validation"):  # 0 is another split
        settings["data.validation"] = run.held_out  # auto is a number of them
    return repr((run.data, sorted(settings.items(), key=repr)))


def unit(run: Run) -> str:
    """The thing that the run's elbo is the logarithm of: a probability, a density, or whatever a
    likelihood of one's own says.
    """
    likelihood = str(run.settings.get("model.likelihood._target_", _DENSITIES[0])).rsplit(".", 1)[
        -1
    ]
    if likelihood in _PROBABILITIES:
        return "probability"
    return "density" if likelihood in _DENSITIES else likelihood


class Family:
    """Groups whose numbers compare.

    members: their places in the sweep. label: by what they differ from the others.
    """

    def __init__(self, sweep: Sweep, members: Sequence[int], among: str) -> None:
        self.members = members
        groups = [sweep.groups[member] for member in members]
        told = [
            name
            for name, key in sweep.keys.items()
            if key.startswith(among) and _is_one(groups, name)
        ]
        named = [
            f"{name} = {shown(groups[0].values[name])}" for name in told if name in groups[0].values
        ]
        self.label = ", ".join(named) or " and ".join(group.label for group in groups)


def _is_one(groups: Sequence[Group], name: str) -> bool:
    return len({repr(group.values.get(name)) for group in groups}) == 1


def families(sweep: Sweep, elbo: bool = False) -> list[Family]:
    """The groups by held-out set, and for their elbos by unit too; groups whose runs differ in it
    by all that they have.
    """
    same_data = _families(sweep, range(len(sweep.groups)), held_out, "data.")
    if not elbo:
        return same_data
    return [each for family in same_data for each in _by_unit(sweep, family)]


def _by_unit(sweep: Sweep, family: Family) -> list[Family]:
    parts = _families(sweep, family.members, unit, "model.likelihood.")
    if len(parts) == 1:
        return [family]
    if len(family.members) < len(sweep.groups):
        for part in parts:
            part.label = f"{family.label}, {part.label}"
    return parts


def _families(
    sweep: Sweep, members: Sequence[int], kind: Callable[[Run], str], among: str
) -> list[Family]:
    found: dict[tuple[str, ...], list[int]] = {}
    for member in members:
        kinds = tuple(sorted({kind(run) for run in sweep.groups[member].runs}))
        found.setdefault(kinds, []).append(member)
    return [Family(sweep, same, among) for same in found.values()]


def apart(sweep: Sweep) -> list[str]:
    """A sentence where groups do not compare, and for each run that something ails: which, why, and
    what would help.
    """
    sentences = []
    if len(different := families(sweep)) > 1:
        names = "; ".join(family.label for family in different)
        sentences.append(
            f"nothing is chosen across different data ({names}): numbers of different held-out"
            " examples do not compare; train on the same data, data.validation and data.transform"
        )
    kinds = {unit(run) for run in sweep.runs}
    if len(kinds) > 1:
        sentences.append(
            f"no elbo is chosen across different units ({'; '.join(sorted(kinds))}): logarithms of"
            " a probability, a density and another formula do not compare; train with likelihoods"
            " of one kind, or choose by a score"
        )
    return sentences + [
        f"{run.name} ended with a warning, so it is not chosen unless warned=true: {sentence}"
        for run in sweep.runs
        for sentence in run.ills
    ]
