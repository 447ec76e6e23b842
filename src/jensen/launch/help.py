"""The screen that `--help` shows."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import yaml

from jensen.launch.commands import purpose
from jensen.run.conf import conf_folder

WIDTH = 118

EXAMPLES = {
    "train": (
        ("", "the default run"),
        ("objective=beta_tcvae objective.tc=10", "another choice, and a key of it"),
        ("+schedule@objective.beta=linear", "a number that changes in training"),
        ("-m objective.beta=1,4,16 seed=0,1,2", "a sweep: nine runs, a folder each"),
        ("hydra.run.dir=runs/mine", "its folder; the same again continues"),
    ),
    "evaluate": (
        ("run=runs/mine", "the usual ones, held-out data"),
        ("run=runs/mine split=test checkpoint=best", "on other data, at its best"),
        ("run=runs/mine diagnostics=[infomec,irs]", "these alone"),
        ("codes=codes.npz", "of another program's codes"),
        ("sweep=runs/sweep jobs=8", "of all its runs, 8 at a time"),
    ),
    "encode": (
        ("run=runs/mine", "codes.npz of the held-out data"),
        ("run=runs/mine split=test", "of the test split"),
        ("run=runs/mine split=train out=train.npz", "of what it was trained on"),
        ("run=runs/mine checkpoint=best", "with best.ckpt"),
        ("run=runs/mine trust=[my]", "of a run with your module my"),
    ),
    "report": (
        ("sweep=runs/sweep", "writes its report into that folder"),
        ("sweep=runs/sweep out=there", "elsewhere"),
        ("sweep=runs/sweep models=false", "quickly: without UDR and traversals"),
        ("sweep=runs/sweep trust=[my]", "of runs with your module my"),
        ("sweep=runs/sweep download=true", "fetches data that are missing here"),
    ),
}

MEANINGS = {
    "experiment": "a whole set of the choices below",
    "data": "the examples",
    "model": "encoder and decoder, or a mixture",
    "model/likelihood": "p(x given z)",
    "model/prior": "p(z)",
    "model/posterior": "q(z given x), where not the encoder's Gaussian",
    "objective": "the loss",
    "algorithm": "how the bound is raised",
    "optimizer": "of the gradient",
    "schedule": "one that changes: +schedule@objective.beta=linear",
    "trainer": "steps, devices, precision: Lightning's Trainer",
    "callbacks": "beside training, several, as [checkpoint,diagnose]",
    "diagnostics": "pictures and scores, several, as [rate,traversals]",
    "logger": "where curves and pictures go",
    "hydra/launcher": "how the runs of a sweep (-m) are started",
    "hydra/sweeper": "how a sweep chooses, where not by a grid",
}
"""Groups that one chooses from, with what each is."""

HIDDEN = ("loader", "start", "hydra", "hydra/job_logging")
"""Groups that other choices are made of."""


def show_help(name: str, words: Sequence[str]) -> None:
    """Prints the help of a command; with groups among `words`, the choices of these."""
    asked = [word for word in words if word in groups()]
    print("\n\n".join(map(choices, asked)) if asked else screen(name))


def screen(name: str) -> str:
    """The words on a command: what it does, examples, its keys, and its groups with their choices."""
    command = f"python -m jensen.{name}"
    examples = [(f"{command} {words}".strip(), meaning) for words, meaning in EXAMPLES[name]]
    width = max(len(line) for line, _ in examples)
    lines = [f"{purpose(name)}.", ""]
    lines += [f"  {line:{width}}  {meaning}" for line, meaning in examples]
    lines += ["", "Keys, as KEY=VALUE:", *_keys(name)]
    own = [group for group in MEANINGS if group in _used_by(name)]
    if own:
        lines += ["", "Groups, as GROUP=CHOICE (* is the default):"]
    for group in own:
        lines += _group(name, group)
    lines.append("")
    if own:
        lines.append(f"{command} --help GROUP says what each choice of a group is.")
    lines.append(f"{command} --cfg job prints all keys and their values.")
    return "\n".join(lines)


def choices(group: str) -> str:
    """A group's choices, a line each, with the first comment of its file."""
    files = sorted((conf_folder() / group).glob("*.yaml"))
    width = max(len(file.stem) for file in files)
    lines = [f"{group}: {MEANINGS.get(group, 'what other choices are made of')}"]
    for file in files:
        text = textwrap.fill(
            comment(file),
            WIDTH,
            initial_indent=f"  {file.stem:{width}}  ",
            subsequent_indent=" " * (width + 4),
        )
        lines.append(text)
    return "\n".join(lines)


def comment(file: Path) -> str:
    """The first comment of a file of `conf/`; what it makes, where it has none."""
    lines = file.read_text().splitlines()
    for line in lines:
        if line.startswith("# ") and not line.startswith("# @package"):
            return line.removeprefix("# ")
    targets = [line.partition(":")[2] for line in lines if line.lstrip().startswith("_target_:")]
    return targets[0].strip() if targets else ""


def groups() -> list[str]:
    """Every folder of `conf/` that holds choices."""
    folders = [folder for folder in conf_folder().rglob("*") if folder.is_dir()]
    return [str(folder.relative_to(conf_folder())) for folder in sorted(folders)]


def _used_by(name: str) -> list[str]:
    if name == "train":
        return [group for group in groups() if group not in HIDDEN]
    return [group for group in groups() if group in _defaults(name)]


def _defaults(name: str) -> dict[str, list[str]]:
    """The choices that a command makes where it is not told."""
    entries = yaml.safe_load((conf_folder() / f"{name}.yaml").read_text()).get("defaults", [])
    pairs = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
    return {
        key.removeprefix("override "): value if isinstance(value, list) else [str(value)]
        for key, value in pairs
    }


def _group(name: str, group: str) -> list[str]:
    default = _defaults(name).get(group, [])
    names = sorted(file.stem for file in (conf_folder() / group).glob("*.yaml"))
    text = ", ".join(f"{each}*" if each in default else each for each in names)
    body = textwrap.wrap(f"{MEANINGS[group]}: {text}", WIDTH - 19, break_on_hyphens=False)
    heads = [group, *[""] * (len(body) - 1)]
    return [f"  {head:17}{line}" for head, line in zip(heads, body, strict=True)]


def _keys(name: str) -> list[str]:
    """The lines of a command's own keys in its file of `conf/`, with what is said of them there."""
    found = []
    for line in (conf_folder() / f"{name}.yaml").read_text().splitlines():
        key, colon, rest = line.partition(":")
        value, _, said = rest.partition("#")
        if colon and key.isidentifier() and key not in ("defaults", "hydra", *groups()):
            found.append((f"{key}={value.strip()}", said.strip()))
    return [
        wrapped
        for setting, said in found
        for wrapped in textwrap.wrap(
            said, WIDTH, initial_indent=f"  {setting:18}", subsequent_indent=" " * 20
        )
        or [f"  {setting}"]
    ]
