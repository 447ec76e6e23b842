"""Imports point down: the rule that keeps every package readable on its own."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "jensen"
LAYERS = {
    "base": 0,
    "family": 1,
    "bound": 2,
    "em": 3,
    "data": 4,
    "model": 4,
    "objective": 4,
    "scores": 4,
    "diagnostics": 5,
    "algorithm": 6,
    "callbacks": 6,
    "run": 7,
    "launch": 8,
    "reports": 8,
}
TOP = 9
LAYERS |= {"api": TOP + 1}
COMMANDS = {"train", "evaluate", "encode", "report", "doctor"}
ALLOWED = {  # where a library may appear: packages, or single files
    "pytorch_lightning": {"algorithm", "callbacks", "run", "launch", "api", "", "data/module.py"},
    "hydra": {"run", "launch", "api", ""},
    "omegaconf": {"run", "launch", "reports", "api", ""},
    "torchvision": {"data", "model"},
    "sklearn": {"scores"},
}
MATHEMATICS = {"base", "family", "bound", "em"}
MATHEMATICS_MAY_IMPORT = {"torch", "jensen"}


@cache
def imported(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    plain = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    return plain | {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }


def package(parts: tuple[str, ...]) -> str:
    return parts[0] if len(parts) > 1 else ""


FILES = sorted(SOURCE.rglob("*.py"))
PUBLIC = SOURCE / "__init__.py"  # names of any room, found when they are asked for


def files(room: str) -> list[Path]:
    """The files of a room, and of none those at the top."""
    return [file for file in FILES if package(file.relative_to(SOURCE).parts) == room]


every_room = pytest.mark.parametrize(
    "room", sorted({package(file.relative_to(SOURCE).parts) for file in FILES})
)


@every_room
def test_imports_point_down(room):
    above = [
        f"{file.relative_to(SOURCE)} imports {name}"
        for file in files(room)
        if file != PUBLIC
        for name in imported(file)
        if name.startswith("jensen.") and not below(name.split(".")[1], room)
    ]
    assert not above


def below(there: str, here: str) -> bool:
    layer = LAYERS.get(there, TOP)
    return there == here or layer < LAYERS.get(here, TOP) or (here == "" and layer == TOP)


@every_room
def test_libraries_stay_where_they_belong(room):
    for file in files(room):
        relative = file.relative_to(SOURCE)
        libraries = {name.split(".")[0] for name in imported(file)}
        for library in libraries & ALLOWED.keys():
            assert {room, str(relative)} & ALLOWED[library], f"{relative} imports {library}"
        if room in MATHEMATICS:
            more = libraries - MATHEMATICS_MAY_IMPORT - sys.stdlib_module_names
            assert not more, f"{relative} imports {more}"


def test_every_package_has_a_layer():
    packages = {
        folder.name for folder in SOURCE.iterdir() if folder.is_dir() and list(folder.glob("*.py"))
    }
    assert packages <= LAYERS.keys()


def test_at_the_top_there_are_the_commands_and_nothing_else():
    assert {file.stem for file in SOURCE.glob("*.py")} == COMMANDS | {"__init__", "__main__"}
