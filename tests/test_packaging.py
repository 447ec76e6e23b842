"""What an installation gets: a wheel, its metadata, its programs, and the names that an editor
sees.
"""

import ast
import importlib
import re
import runpy
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

import jensen
from jensen.launch.commands import COMMANDS, purpose
from jensen.launch.console import program

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    (built,) = builder.build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])
    with zipfile.ZipFile(built) as archive:
        yield {name: archive.read(name) for name in archive.namelist()}


def of_wheel(wheel, name):
    (found,) = (text for file, text in wheel.items() if file.endswith(f".dist-info/{name}"))
    return found.decode()


def test_a_wheel_holds_the_package_its_types_its_choices_and_nothing_else(wheel):
    assert {"jensen/py.typed", "jensen/conf/train.yaml", "hydra_plugins/jensen_plugins.py"} <= {
        *wheel
    }
    source = {
        f"jensen/{file.relative_to(ROOT / 'src' / 'jensen')}"
        for file in (ROOT / "src" / "jensen").rglob("*.py")
    }
    choices = {f"jensen/{file.relative_to(ROOT)}" for file in (ROOT / "conf").rglob("*.yaml")}
    assert source | choices <= {*wheel}
    suffixes = {Path(name).suffix for name in wheel if ".dist-info" not in name}
    assert suffixes <= {".py", ".yaml", ".typed", ".md", ".html", ".js"}


def test_its_metadata_say_what_it_is(wheel):
    found = message_from_string(of_wheel(wheel, "METADATA"))
    assert found["Name"] == "jensen"
    assert found["Version"] == jensen.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", jensen.__version__)
    assert found["License-Expression"] == "Apache-2.0"
    assert found["Description-Content-Type"] == "text/markdown"
    assert found.get_payload() == (ROOT / "README.md").read_text()
    assert "Typing :: Typed" in found.get_all("Classifier")
    assert len(found["Keywords"].split(",")) > 4
    assert len(found["Summary"]) > 40
    assert not [host for host in ("pypi.", "index-url") if host in of_wheel(wheel, "METADATA")]


def test_each_command_is_a_program(wheel):
    entries = re.findall(
        r"^jensen-(\w+) = ([\w.]+):(\w+)$", of_wheel(wheel, "entry_points.txt"), re.M
    )
    assert [name for name, *_ in sorted(entries)] == sorted(COMMANDS)
    for name, module, function in entries:
        assert function == name
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_program_says_its_version(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"jensen-{command}", "--version"])
    getattr(importlib.import_module("jensen.launch.commands"), command)()
    assert capsys.readouterr().out == f"jensen {jensen.__version__}\n"


def test_python_dash_m_says_its_version_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jensen.train", "--version"])
    program("train")(lambda cfg: pytest.fail("it ran"))()
    assert capsys.readouterr().out == f"jensen {jensen.__version__}\n"


def test_a_program_is_the_command(tmp_path, monkeypatch, capsys):
    """To the sentence about what it was not given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["jensen-encode"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "jensen.encode", raising=False)
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit):
        importlib.import_module("jensen.launch.commands").encode()
    assert "run is not set: expected run=FOLDER" in capsys.readouterr().err
    assert sys.path[0] == str(tmp_path)  # modules of one's own are found, as by python -m


def test_a_word_is_completed_without_the_seconds_of_importing_torch(monkeypatch, capsys):
    before = {*sys.modules}
    monkeypatch.setattr(sys, "argv", ["jensen-train", "-sc", "query=bash"])
    monkeypatch.setenv("COMP_LINE", "jensen-train objective=b")
    GlobalHydra.instance().clear()
    for name in [name for name in sys.modules if name.startswith("jensen.train")]:
        monkeypatch.delitem(sys.modules, name)
    importlib.import_module("jensen.launch.commands").train()
    assert capsys.readouterr().out.split() == [
        "objective=beta",
        "objective=beta_tcvae",
        "objective=beta_tcvae_12",
    ]
    assert "jensen.train" not in sys.modules
    assert "torch" not in {*sys.modules} - before


def listed(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["-m", *words])
    runpy.run_module("jensen", run_name="__main__", alter_sys=True)


def test_the_package_lists_its_commands_with_a_line_each(monkeypatch, capsys):
    listed(monkeypatch)
    said = capsys.readouterr().out
    for command in COMMANDS:
        assert f"python -m jensen.{command}" in said
        assert 10 < len(purpose(command)) < 90
        assert purpose(command) in said
    listed(monkeypatch, "--version")
    assert capsys.readouterr().out == f"jensen {jensen.__version__}\n"
    with pytest.raises(SystemExit, match=r"'train' is no option: .* python -m jensen.train --help"):
        listed(monkeypatch, "train")


def test_an_editor_sees_the_public_names_where_they_are():
    (block,) = (
        node
        for node in ast.parse(Path(jensen.__file__).read_text()).body
        if isinstance(node, ast.If)
    )
    seen = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen.pop("data") == seen.pop("scores") == "jensen"
    assert seen == {name: f"jensen.{place}" for name, place in jensen.PLACES.items()}
