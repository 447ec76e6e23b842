"""The examples in docstrings are true."""

import doctest
import importlib
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
FILES = [file for file in sorted(SOURCE.rglob("*.py")) if ">>> " in file.read_text()]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_the_examples_of_a_module_are_true(file):
    module = importlib.import_module(
        ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    )
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed
