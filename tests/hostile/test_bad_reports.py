"""Damaged and odd files of one run: the report of the others stands, and says of that one why it is
not counted.
"""

import csv
import json
import os
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from cases import some
from markdown import markdown

from jensen.reports.criteria import chosen
from jensen.reports.document import document, missing, show
from jensen.reports.models import Strip
from jensen.reports.page import page
from jensen.reports.pictures import draw
from jensen.reports.read import read
from jensen.reports.sweep import shown
from jensen.reports.table import as_csv, measured
from jensen.run.folder import standing
from jensen.run.record import get_json

CONFIG = "algorithm: {}\ndata: {source: {_target_: here}, x_shape: [2]}\n"
SCORES = {
    "run": "r",
    "checkpoint": "last",
    "step": 5,
    "split": "validation",
    "bound": {"loss": 1.0, "elbo": -3.0, "distortion": 2.0, "rate": 1.0},
    "diagnostics": {
        "rate": {"settings": {"_target_": "r"}, "active_units": 5.0, "by_latent": [0.1, 0.2]},
        "mig": {
            "settings": {
                "_target_": "jensen.diagnostics.score.score",
                "function": {"path": "jensen.scores.mig"},
            },
            "mig": 0.5,
            "per_factor": [[0.1], [0.2]],
        },
    },
}
FILES = {
    ".hydra/config.yaml": CONFIG + "seed: 0\nobjective: {beta: 1}\n",
    ".hydra/hydra.yaml": "hydra: {runtime: {choices: {experiment: a}}}\n",
    ".hydra/overrides.yaml": "- seed=0\n",
    ".hydra/identity.json": '{"identity": "x", "data": "y"}',
    "scores.json": json.dumps(SCORES),
    "finished.json": '{"identity": "x", "data": "y", "step": 5, "results": {"val/elbo": -3.0}}',
}
DAMAGES = {
    "empty": b"",
    "half": None,
    "null": b"null",
    "a number": b"7",
    "a text": b'"x"',
    "a list": b"[1, [2]]",
    "an empty mapping": b"{}",
    "another mapping": b'{"x": 1}',
    "numbers as keys": b"{1: 2, x: [{1: 2, y: 3}]}",
    "NaN": b"NaN",
    "a huge number": b"1" + b"0" * 400,
    "a number of many digits": b"1" * 5000,
    "binary": bytes(range(256)),
    "not UTF-8": b'{"x": "\xff\xfe"}',
    "half a character": b'{"x": "\\ud800"}',
    "deep": b"[" * 100_000,
    "tagged": b"!!python/object/apply:os.getcwd []",
}
ODD = (
    None,
    "x",
    "",
    -1,
    2.5,
    True,
    [],
    [None],
    {},
    {"x": 1},
    float("nan"),
    float("inf"),
    10**400,
    "\ud800",
    "<script>",
)


@pytest.fixture
def sweep(tmp_path):
    """Two runs in two settings, the second of which is to be damaged."""
    for number, name in enumerate(("whole", "odd")):
        for file, content in FILES.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content.replace("beta: 1", f"beta: {number}"))
    return tmp_path


def reported(folder, capsys, pictures=False):
    """All that `jensen.report models=false` computes and says."""
    found = read(folder)
    values = measured(found)
    choices = chosen(found, values)
    lines = missing(found, folder)
    if pictures:
        draw(found, folder, values, choices, {})
    text = document(found, folder, values, choices, lines, [])
    table = as_csv(found, values)
    text.encode()
    table.encode()
    html(found, values, choices, lines).encode()
    capsys.readouterr()
    show(found, values, choices, lines)
    capsys.readouterr().out.encode()
    return found, text, table


def html(found, values, choices, lines, strips=()):
    return page(found, folder_of(found), "", "", values, choices, lines, {}, dict(strips))


def folder_of(found):
    return next(iter(found.left_out), found.runs[0].name)


def rows(table):
    return {
        (row.get("beta", ""), row["quantity"]): row["median"]
        for row in csv.DictReader(table.splitlines())
    }


def still_stands(sweep, capsys, pictures=False):
    """The whole run has its numbers, and the other one too or a reason in one line."""
    found, text, table = reported(sweep, capsys, pictures)
    names = [run.name for run in found.runs]
    assert "whole" in names
    assert {*names, *found.left_out} == {"whole", "odd"}
    medians = [group for group in rows(table) if group[1] == "elbo"]
    assert "-3.0" in [rows(table)[group] for group in medians]
    if "odd" not in names:
        (line,) = [line for line in text.splitlines() if line.startswith("- `odd`: ")]
        assert len(line) > 15
    return found


@some(2, "how", DAMAGES)
def test_any_damage_to_any_file_of_a_run_leaves_the_report_of_the_others(
    sweep, capsys, configure, how
):
    cfg = configure("data=blobs", "model=linear")
    for file, content in FILES.items():
        path = sweep / "odd" / file
        whole = content.replace("beta: 1", "beta: 1")
        damaged = DAMAGES[how] if DAMAGES[how] is not None else whole.encode()[: len(whole) // 2]
        path.write_bytes(damaged)
        found = still_stands(sweep, capsys)
        if file in (".hydra/config.yaml", "scores.json"):
            assert "odd" in found.left_out, file
        assert standing(sweep / "odd", cfg, lambda: "y") in ("new", "other")
        path.write_text(whole)


def leaves(tree, place=()):
    """The place of every value in nested mappings, of the mappings too."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield (*place, key)
            yield from leaves(value, (*place, key))


def changed(tree, place, value):
    key, *rest = place
    return {**tree, key: changed(tree[key], rest, value) if rest else value}


@some(3, "place", [*leaves(SCORES)], ids=".".join)
def test_any_odd_value_in_scores_leaves_the_report_of_the_others(sweep, capsys, place):
    for value in ODD:
        try:
            text = json.dumps(changed(SCORES, place, value))
        except ValueError:  # Python writes no integer of so many digits
            continue
        (sweep / "odd" / "scores.json").write_text(text)
        if place[0] in ("split", "checkpoint") and value != SCORES[place[0]]:
            continue  # other data: the whole sweep is refused, in a sentence (tests/reports/test_report.py)
        still_stands(
            sweep, capsys, pictures=value is True and place[-1] in ("elbo", "by_latent", "mig")
        )


@some(
    4,
    "value",
    ["null", "x", "-1", "2.5", "true", "[]", "{}", ".nan", ".inf", "'7'", "4294967296", "1" * 400],
)
def test_a_run_whose_seed_is_none_is_not_counted_and_says_so(sweep, capsys, value):
    (sweep / "odd" / ".hydra" / "config.yaml").write_text(CONFIG + f"seed: {value}\n")
    found = still_stands(sweep, capsys)
    assert found.left_out["odd"].startswith("seed")


@some(
    3, "name", [b"\xff\xfe", b"a\nb", b"\x1b[31mred", b"`x`", b"a|b", "Ünï".encode(), b"<script>"]
)
def test_a_name_that_is_no_plain_text_is_shown_as_such(sweep, capsys, name):
    place = Path(os.fsdecode(os.fsencode(sweep) + b"/" + name))
    (sweep / "odd").rename(place)
    found, text, _ = reported(sweep, capsys)
    assert len(found.runs) == 2
    (place / "finished.json").unlink()
    found, text, _ = reported(sweep, capsys)
    assert len(found.runs) == 1
    assert "\x1b" not in text
    assert sum(line.startswith("- `") for line in text.splitlines()) == 1


# ---- text that something would obey
# ----------------------------------------------------------------------

EVIL = (
    '=HYPERLINK("http://x","y")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    "<script>alert(1)</script>",
    "![x](http://x/y.png)",
    "[x](javascript:alert(1))",
    "a|b|c",
    "`x` <b>",
    "*x*",
)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.attributes = []
        self.text = ""
        self.script = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)
        self.attributes.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data
        if self.cdata_elem == "script":
            self.script += data


@some(4, "evil", EVIL)
def test_a_strangers_text_is_neither_a_formula_nor_html(sweep, capsys, evil):
    config = sweep / "odd" / ".hydra" / "config.yaml"
    config.write_text(CONFIG + f"seed: 0\nobjective: {{beta: {json.dumps(evil)}}}\n")
    (sweep / "third" / ".hydra").mkdir(parents=True)
    (sweep / "third" / ".hydra" / "config.yaml").write_text(CONFIG)
    (sweep / "third" / "failed.json").write_text(json.dumps({"error": evil}))
    _, text, table = reported(sweep, capsys)
    for row in csv.reader(table.splitlines()):
        for cell in row:
            assert not cell.startswith(("=", "+", "-", "@")) or _is_number(cell)
    html = Tags(markdown(text, extensions=["tables"]))
    assert not {*html.found} & {"script", "img", "a", "b", "em"}
    assert f"failed: {evil}" in html.text
    assert {
        len(line.replace(r"\|", "").split("|"))
        for line in text.splitlines()
        if line.startswith("| ")
    } == {9}


@some(4, "evil", EVIL)
def test_a_strangers_text_is_text_in_the_page_and_the_page_fetches_nothing(sweep, evil):
    config = sweep / "odd" / ".hydra" / "config.yaml"
    config.write_text(CONFIG + f"seed: 0\nobjective: {{beta: {json.dumps(evil)}}}\n")
    (sweep / "third" / ".hydra").mkdir(parents=True)
    (sweep / "third" / ".hydra" / "config.yaml").write_text(CONFIG)
    (sweep / "third" / "failed.json").write_text(json.dumps({"error": evil}))
    found = read(sweep)
    values = measured(found)
    blank = Strip(0, torch.zeros(3, 4, 5, dtype=torch.uint8))
    strips = dict.fromkeys(range(len(found.groups)), blank)
    text = page(
        found, evil, "", "", values, chosen(found, values), [evil], {evil: b"<svg/>"}, strips
    )
    parsed = Tags(text)
    assert parsed.found.count("script") == 1  # its own
    assert not {*parsed.found} & {"b", "em", "iframe", "object"}
    assert parsed.text.count(evil) >= 4  # title, head, reason, command
    assert parsed.text.count(shown(evil)) >= 8  # and in both tables, beside the traversals
    for tag, attributes in parsed.attributes:
        assert not [name for name in attributes if name.startswith("on")]
        for name in {"src", "href"} & attributes.keys():
            start = "data:image/" if tag == "img" else ("#", "report/")
            assert attributes[name].startswith(start)


def test_no_script_runs_but_the_pages_own(sweep):
    found = read(sweep)
    values = measured(found)
    parsed = Tags(html(found, values, chosen(found, values), []))
    (policy,) = (
        attributes["content"]
        for tag, attributes in parsed.attributes
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    digest = b64encode(sha256(parsed.script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def _is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_a_diagnostic_of_a_strangers_name_is_in_no_command(sweep, capsys):
    evil = "x' ; touch /tmp/jensen_pwned ; '"
    found = {**SCORES, "diagnostics": {**SCORES["diagnostics"], evil: {"settings": None, "a": 1.0}}}
    (sweep / "odd" / "scores.json").write_text(json.dumps(found))
    report, text, _ = reported(sweep, capsys)
    assert "odd" in report.left_out
    assert not missing(report, sweep)
    assert "```" not in text


def test_a_pipe_is_no_record(tmp_path):
    os.mkfifo(tmp_path / "scores.json")
    assert get_json(tmp_path / "scores.json") == {}
