"""What the READMEs say to type, typed; what they say to write, written.

No command line is altered, by no word. What a mark before a block of commands means:

    run           a block is typed line by line in a folder of its own. What trains ends early: see
                  `shortly`, which changes no configuration and no data.
    run on a run  the same, where RUN is the folder of a run.
    run with the files above   the same to its own end, in a folder that holds the files of that
                  README.
    compose       the overrides of each line are composed, and none is refused: of commands that need
                  files of yours, a cluster, several processes or minutes. Of a sweep, the first
                  point.

A block of Python is run as it stands.
"""

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
import shell
from cases import some
from hydra.core.override_parser.overrides_parser import OverridesParser

from jensen.launch.console import readable
from jensen.run.compose import compose

ROOT = Path(__file__).parents[1]
SKIPPED = {".venv", "runs", "build", "dist"}
FILES = [
    file
    for pattern in ("README.md", "*/README.md", "*/*/README.md", "*/*/*/README.md")
    for file in sorted(ROOT.glob(pattern))
    if not SKIPPED & {*file.relative_to(ROOT).parts}
]
FRONT = ROOT / "README.md"
COMMANDS = ("train", "evaluate", "encode", "report", "doctor")


def named(file: Path) -> str:
    return str(file.relative_to(ROOT).parent)


def blocks(file: Path, mark: str) -> list[list[str]]:
    """The bash blocks behind `<!-- mark -->`, each its lines, without their comments."""
    found = re.findall(rf"<!-- {mark} -->\n```bash\n(.*?)```", file.read_text(), re.DOTALL)
    lines = ([re.sub(r"\s+#.*", "", line) for line in block.splitlines()] for block in found)
    return [[line for line in block if line.strip()] for block in lines]


def of_all(mark: str) -> list[object]:
    return [
        pytest.param(line, id=f"{named(file)}: {line}")
        for file in FILES
        for block in blocks(file, mark)
        for line in block
        if not line.startswith("docker build")
    ]


def taken_apart(line: str) -> tuple[str, list[str]]:
    """The command of jensen that a line runs, whatever starts it, and its words."""
    words = shlex.split(line)
    for place, word in enumerate(words):
        command = word.removeprefix("jensen.").removeprefix("jensen-")
        if word != command and command in COMMANDS:
            return command, words[place + 1 :]
        if word.endswith("train.sbatch") or (
            word == "jensen" and words[0] == "docker" and "-m" not in words
        ):
            return "train", words[place + 1 :]
    raise AssertionError(f"{line} runs no command of jensen")


def typed(line: str, folder: Path, shorter: bool = False) -> subprocess.CompletedProcess[str]:
    """The line, in `folder`."""
    command, words = taken_apart(line)
    words = [f"jensen.{command}", *words]
    done = shell.run(*(["shortly", *words] if shorter else words), cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


def runs() -> list[object]:
    return [
        pytest.param(block, id=f"{named(file)}-{place}")
        for file in FILES
        for place, block in enumerate(blocks(file, "run"))
    ]


@pytest.mark.parametrize("block", runs())
def test_commands_train(block, tmp_path):
    for line in block:
        if line.startswith("tensorboard"):
            assert list(tmp_path.joinpath(line.split()[-1]).rglob("events*"))
            continue
        said = typed(line, tmp_path, shorter=True).stdout
        if "jensen.train" in line:
            assert "tensorboard --logdir" in said
    assert list(tmp_path.rglob("last.ckpt"))
    assert list(tmp_path.rglob("finished.json"))


@pytest.mark.parametrize("line", of_all("compose"))
def test_a_command_is_taken(line):
    command, words = taken_apart(line)
    if command == "doctor":
        assert not words
        return
    options = {"-m", "--multirun"}
    overrides = [readable(word) for word in words if word not in options]
    for place, word in enumerate(OverridesParser.create().parse_overrides(overrides)):
        if word.is_sweep_override():
            assert options & {*words}
            first = next(iter(word.sweep_string_iterator()))
            overrides[place] = f"{word.get_key_element()}={first}"
    compose(command, [word for word in overrides if not word.startswith("hydra")])
    for word in overrides:
        if word.startswith("hydra/"):
            group, _, choice = word.partition("=")
            assert (ROOT / "conf" / group / f"{choice}.yaml").exists(), word


@some(1, "file", [file for file in FILES if blocks(file, "run on a run")], ids=named)
def test_the_commands_for_a_finished_run(file, tmp_path):
    size = "data.size=400 data.validation=100 model=mlp 'diagnostics=[rate]'"
    typed(f"python -m jensen.train {size} hydra.run.dir=RUN", tmp_path, shorter=True)
    for block in blocks(file, "run on a run"):
        for line in block:
            typed(line, tmp_path)
    assert list(tmp_path.rglob("*scores.json"))


WITH_FILES = [file for file in FILES if blocks(file, "run with the files above")]


@some(1, "file", WITH_FILES, ids=named)
def test_extensions_work_as_written(file, tmp_path):
    files = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", file.read_text(), re.DOTALL)
    assert files
    for name, text in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    ((line,),) = blocks(file, "run with the files above")
    typed(line, tmp_path)
    events = b"".join(found.read_bytes() for found in tmp_path.rglob("events*"))
    for tag in re.findall(r"<!-- leaves: (\S+) -->", file.read_text()):
        assert tag.encode() in events, tag


def pythons() -> list[object]:
    return [
        pytest.param(block, id=f"{named(file)}-{place}")
        for file in FILES
        for place, block in enumerate(
            re.findall(r"<!-- python -->\n```python\n(.*?)```", file.read_text(), re.DOTALL)
        )
    ]


@pytest.mark.parametrize("block", pythons())
def test_python_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(block, {})


@pytest.mark.slow
def test_scripts_train_runs_in_an_environment_that_is_set_up(tmp_path):
    if not (Path(sys.prefix) / ".jensen-setup").exists():
        pytest.skip(
            "this environment was not made by scripts/test, and setting it up takes minutes"
        )
    url = distribution("jensen").read_text("direct_url.json") or ""
    if ROOT.as_uri() not in url:
        pytest.skip("this environment has another checkout, which setting it up would replace")
    environment = os.environ | {"JENSEN_VENV": sys.prefix}
    small = ["trainer.max_steps=2", "trainer.accelerator=cpu", "data.size=200", "model=mlp"]
    small += ["data.validation=40"]
    line = [str(ROOT / "scripts" / "train"), *small, "hydra.run.dir=here"]
    done = subprocess.run(
        line, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here" / "checkpoints" / "best.ckpt").exists()


def test_every_bash_block_of_jensens_commands_is_tried():
    """But for those that install, set up or show a shell's own words."""
    for file in FILES:
        for before, block in re.findall(
            r"([^\n]*)\n```bash\n(.*?)```", file.read_text(), re.DOTALL
        ):
            if re.search(r"jensen\.(train|evaluate|encode|report)\b", block):
                assert re.fullmatch(r"<!-- (run|compose|sweep table).* -->", before), (file, block)


@pytest.mark.parametrize("file", FILES, ids=named)
def test_links_lead_somewhere(file):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", file.read_text()):
        assert (file.parent / target).exists(), target


@pytest.mark.parametrize("file", FILES, ids=named)
def test_a_readme_opens_with_what_it_is_and_its_lines_are_not_long(file):
    title, empty, first, *rest = file.read_text().splitlines()
    assert re.fullmatch(r"# \S.*", title)
    assert not empty
    assert re.match(r"[A-Z`!]", first)
    inside = False
    for line in (first, *rest):
        inside ^= line.startswith("```")
        free = inside or line.startswith(("|", "```", "    ", "!["))
        assert free or len(line) <= 140, line


def test_the_front_page_is_read_in_five_minutes():
    assert len(FRONT.read_text().splitlines()) <= 250
