"""Texts of YAML are read as YAML reads them, whatever the ones before them were."""

import random

import pytest
import yaml

from jensen.run import templates
from jensen.run.reading import parse
from jensen.run.templates import Templates

TEXT = """seed: 0
latent_dim: 10
objective:
  _target_: jensen.objective.Beta
  beta: 4.0
  names:
  - a=1
  - 'b: 2'
  - [1, 2]
empty: {}
id: '3'
"""
VALUES = (
    "4",
    "4.5",
    "1e-4",
    "-1",
    ".5",
    "true",
    "null",
    "off",
    "2026-11-27",
    "a'b",
    "'it''s'",
    "''",
)
VALUES += (
    "0x1F",
    "012",
    "1_000",
    ".inf",
    "x[1]{2}(3)",
    "jensen.objective.Beta",
    "${seed}",
    "~",
    "-",
)
VALUES += (
    "a: b",
    "a #b",
    "[1",
    "'open",
    '"x"',
    "*a",
    "&a 1",
    "!!int 3",
    "|",
    "---",
    "...",
    "?",
    "a:",
)


def read(function, text):
    """What is read, with the types of what it holds; or the class of what is raised."""
    try:
        return repr(function(text))
    except (yaml.YAMLError, ValueError, TypeError) as error:
        return type(error)


@pytest.mark.parametrize("line", range(len(TEXT.splitlines())))
def test_any_value_in_any_line_is_read_as_without_a_template(line):
    know = Templates()
    lines = TEXT.splitlines()
    key = lines[line].partition(": ")[0] if ": " in lines[line] else "  -"
    before = f"{key}: " if key != "  -" else "  - "
    for value in (*VALUES, *VALUES):
        text = "\n".join([*lines[:line], before + value, *lines[line + 1 :]]) + "\n"
        assert read(know.parse, text) == read(parse, text), text


def test_texts_of_random_characters_are_read_as_without_a_template():
    draw = random.Random(0)
    know = Templates()

    for _ in range(1500):
        lines = TEXT.splitlines()
        for _ in range(draw.choice((1, 1, 2))):
            place = draw.randrange(len(lines))
            end = draw.randrange(len(lines[place]) + 1)
            more = "".join(draw.choices("ab1 .-_/=,'\"[]{}:#&*!|>~?\t", k=draw.randrange(4)))
            lines[place] = lines[place][:end] + more
        text = "\n".join(lines)
        assert read(know.parse, text) == read(parse, text), text
    filled = sum(isinstance(each, dict) for each in know._known.values())
    assert filled > 5


def test_a_value_within_another_thing_is_none():
    know = Templates()
    for text in (
        "a: |\n  b: 1\n",
        "a: |\n  b: 2\n",
        "a: |\n  b: 3\n",
        'a: "x\n  b: 1\n  y"\n',
        'a: "x\n  b: 2\n  y"\n',
        'a: "x\n  b: 3\n  y"\n',
        "a: {b: 1,\n  c: 2\n  }\n",
        "a: {b: 1,\n  c: 3\n  }\n",
        "a: {b: 1,\n  c: 4,d\n  }\n",
        "a: x\n  y\n",
        "a: 1\n  y\n",
        "a: '1'\n  y\n",
    ):
        assert read(know.parse, text) == read(parse, text), text


def test_the_third_text_is_not_parsed(monkeypatch):
    calls = []
    monkeypatch.setattr(templates, "parse", lambda text: calls.append(text) or parse(text))
    know = Templates()
    for beta in range(5):
        tree = know.parse(TEXT.replace("4.0", f"{beta}.5"))
        assert tree["objective"]["beta"] == beta + 0.5
        tree["objective"]["beta"] = "changed"  # by whoever has asked
        tree["objective"]["names"].clear()
    assert len(calls) == 2
    assert know.parse(TEXT) == parse(TEXT)
