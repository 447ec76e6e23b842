"""The tour in Python, run as it stands but for its number of steps, which its docstring says how to
lower.
"""

import re
import runpy
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image

import jensen

TOUR = Path(__file__).parents[1] / "scripts" / "tour.py"


def test_the_tour_runs_from_its_first_cell_to_its_last(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPS", "30")
    mpl.use("agg")
    found = runpy.run_path(str(TOUR))
    said = capsys.readouterr().out
    (run,) = (tmp_path / "runs").iterdir()
    assert f"loaded {Path('runs', run.name, 'checkpoints', 'best.ckpt')}, of step 30" in said
    picture = np.asarray(Image.open(tmp_path / "tour.png").convert("L"))
    assert len(np.unique(picture)) > 20
    assert found["again"].scores.keys() >= {"rate", "mig_hist20", "mig_exact"}
    assert found["parts"].log_n == np.log(1024)
    loaded = found["again"].encode(found["few"]).mean
    assert torch.equal(loaded, found["run"].encode(found["few"]).mean)
    assert isinstance(found["mixture"], jensen.GMM)


def test_the_tour_is_cells_of_text_and_of_code():
    cells = re.split(r"^# %%", TOUR.read_text(), flags=re.MULTILINE)[1:]
    text = [cell for cell in cells if cell.startswith(" [markdown]")]
    assert len(text) >= 6
    for cell in text:
        assert all(not line or line.startswith("#") for line in cell.splitlines()[1:])
    for cell in set(cells) - set(text):
        compile(cell, "cell", "exec")
