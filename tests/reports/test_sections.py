"""Tables of pairs in a report: latents of two runs, and aggregate posteriors, on codes by hand."""

import math
import re
from pathlib import Path

import torch

from jensen import Gaussian
from jensen.bound import divergence
from jensen.family import mixture
from jensen.reports.aggregates import Codes, distances
from jensen.reports.document import document
from jensen.reports.page import page
from jensen.reports.sections import sections
from jensen.reports.sweep import Group, Run, Sweep


def run(seed, scale=1.0, order=(0, 1, 2), count=200, known=True):
    draw = torch.Generator().manual_seed(0)
    mean = torch.randn(count, 3, generator=draw, dtype=torch.float64)[:, list(order)] * scale
    posterior = Gaussian(mean, torch.full_like(mean, -3.0))
    draws = torch.randn(count, 3, generator=draw.manual_seed(seed + 100), dtype=torch.float64)
    normal = Gaussian(torch.zeros(3).double(), torch.zeros(3).double())
    return Codes(posterior, draws, normal.log_prob if known else None)


def sweep(codes):
    runs = tuple(
        Run(name, seed, {}, {"diagnostics": {}}, data="d", held_out=200)
        for seed, name in enumerate(codes)
    )
    return Sweep({}, (Group({}, runs),), {})


def numbers(cell):
    return [float(each) for each in re.findall(r"-?\d+\.\d+", cell)]


def test_latents_are_named_in_each_run_and_what_they_share():
    codes = {"a": run(0), "b": run(1, -2.0, (2, 0, 1)), "c": run(2)}
    (section, _) = sections(sweep(codes), codes)
    ((_, rows),) = section.tables
    assert rows[0] == ["seed 0", "seed 1", "seed 2"]
    assert [row[0] for row in rows[1:]] == ["z0", "z1", "z2", "mean share"]
    assert [row[1].split(":")[0] for row in rows[1:4]] == ["z1", "z2", "z0"]
    assert [row[2].split(":")[0] for row in rows[1:4]] == ["z0", "z1", "z2"]
    for row in rows[1:4]:
        assert 0.5 < numbers(row[1])[0] < math.log(200)
    assert int(rows[4][1].rstrip("%")) > 60


def test_latents_that_share_nothing_are_no_pair():
    """One run tells the first of two bits and the other the second: the matching has a pair, whose
    information is 0.
    """
    codes = {}
    for name, bit in (("a", 1), ("b", 2)):
        told = 2.0 * (torch.arange(200) // bit % 2).double().unsqueeze(1) - 1
        codes[name] = run(0, known=False)._replace(
            posterior=Gaussian(told, torch.full_like(told, -2.0))
        )
    ((_, rows),) = sections(sweep(codes), codes)[0].tables
    assert rows == [["seed 0", "seed 1"], ["z0", "none"], ["mean share", "0%"]]


def test_distances_are_those_of_estimates_and_quadrature_free():
    """KL and JS of q(z), and its prior, beside `divergence.estimate` of the same mixtures."""
    codes = [run(0), run(1, 0.5)]
    rows = distances(["seed 0", "seed 1"], codes)
    q = [mixture.aggregate(each.posterior) for each in codes]
    prior = Gaussian(torch.zeros(3).double(), torch.zeros(3).double())
    expected = [
        [("kl", q[0], prior), ("jensen_shannon", q[0], prior), None, ("kl", q[0], q[1])],
        [("kl", q[1], prior), ("jensen_shannon", q[1], prior), ("kl", q[1], q[0]), None],
    ]
    for row, wanted in zip(rows[1:], expected, strict=True):
        for cell, each in zip(row[1:], wanted, strict=False):
            if each is None:
                assert cell == "0.000"
                continue
            value, error = divergence.estimate(each[1], each[2], each[0], 4000)
            found, own = numbers(cell)
            assert abs(found - value) < 4 * (own + error) + 1e-3
    assert rows[0][3:] == ["KL to seed 0", "KL to seed 1", "JS to seed 0", "JS to seed 1"]


def test_a_prior_that_nobody_knows_is_said_and_other_latents_are_not_compared():
    few = run(1)
    posterior = Gaussian(*(part[:, :2] for part in few.posterior))
    normal = Gaussian(torch.zeros(2).double(), torch.zeros(2).double())
    fewer = Codes(posterior, few.draws[:, :2], normal.log_prob)
    rows = distances(["seed 0", "seed 1"], [run(0, known=False), fewer])
    assert rows[0] == ["q(z) of", "KL(q to p)", "JS(q, p)"]
    assert rows[1] == ["seed 0", "unknown", "unknown"]


def test_a_document_and_a_page_hold_the_sections():
    codes = {"a": run(0), "b": run(1)}
    several = sweep(codes)
    more = sections(several, codes)
    text = document(several, Path("sweep"), {}, {}, [], [], more)
    html = page(several, "sweep", "", "", {"elbo": [[1.0, 2.0]]}, {}, [], {}, {}, more)
    for title in ("Alignment across seeds", "Aggregate posteriors"):
        assert f"## {title}" in text
        assert f">{title}</h2>" in html
    assert "| z0 |" in text
    assert sections(several, {}) == []
