"""What the README says to type, typed; what it says to write, written."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import shell
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
QUICK = [
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "trainer.accelerator=cpu",
    "data.validation=64",
]


def commands(mark: str) -> list[str]:
    """The lines of the bash block behind `<!-- mark -->`, without their comments."""
    block = re.search(rf"<!-- {mark} -->\n```bash\n(.*?)```", README, re.DOTALL)
    assert block is not None
    return [re.sub(r"\s+#.*", "", line) for line in block.group(1).splitlines()]


def run(line: str, folder: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    """The command `line` in `folder`, cut short by `extra` overrides."""
    python, option, module, *words = shlex.split(line)
    assert (python, option) == ("python", "-m")
    done = shell.run(module, *words, *extra, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("line", commands("run"))
def test_a_command_runs(line, tmp_path):
    extra = [*QUICK, *(["data.size=200"] if "data=blobs" not in line else [])]
    if "schedule" in line:
        extra.append("objective.beta.steps=2")
    done = run(line, tmp_path, *extra)
    assert "tensorboard --logdir" in done.stdout
    assert list(tmp_path.rglob("last.ckpt"))


@pytest.mark.parametrize(
    "line",
    [line for line in commands("run with files") if "FOLDER" in line and "fashion" not in line],
)
def test_a_command_runs_on_mnist(line, tmp_path, shared_data):
    assert "val/elbo" in run(line.replace("FOLDER", str(shared_data)), tmp_path, *QUICK).stdout


def test_a_command_runs_on_a_folder_of_images(tmp_path):
    (line,) = [line for line in commands("run with files") if "IMAGES" in line]
    for shade in range(80):
        (tmp_path / "images" / str(shade % 3)).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (70 + shade, 90), (shade, 2 * shade, 200)).save(
            tmp_path / "images" / str(shade % 3) / f"{shade}.png"
        )
    extra = [*QUICK, "data.validation=8", "data.batch_size=8"]
    assert (
        "val/elbo" in run(line.replace("IMAGES", str(tmp_path / "images")), tmp_path, *extra).stdout
    )


def test_the_commands_for_a_finished_run(tmp_path):
    size = ["data.size=400", "data.validation=100", "model=mlp"]
    run(
        "python -m jensen.train hydra.run.dir=RUN",
        tmp_path,
        "trainer.max_steps=2",
        "trainer.accelerator=cpu",
        *size,
    )
    for line in commands("run on a run"):
        extra = (
            ["diagnostics=[mig_hist20,mig_exact]"]
            if "diagnostics" not in line and "evaluate" in line
            else []
        )
        run(line.replace("dci,", ""), tmp_path, *extra)
    assert (tmp_path / "RUN" / "scores.json").exists()
    assert (tmp_path / "codes.scores.json").exists()


def test_the_extensions_work_as_written(tmp_path):
    files = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert len(files) == 8
    for name, text in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (line,) = commands("run with the files above")
    done = run(
        line, tmp_path, "trainer.max_steps=20", "trainer.accelerator=cpu", "hydra.run.dir=here"
    )
    assert "val/elbo" in done.stdout
    events = b"".join(file.read_bytes() for file in (tmp_path / "here").glob("events*"))
    for tag in (b"spread/largest", b"spread/mean_image", b"train/target", b"train/gamma"):
        assert tag in events


def test_scripts_train_runs_in_an_environment_that_is_set_up(tmp_path):
    if not (Path(sys.prefix) / ".jensen-setup").exists():
        pytest.skip(
            "this environment was not made by scripts/test, and setting it up takes minutes"
        )
    environment = os.environ | {"JENSEN_VENV": sys.prefix}
    line = [str(ROOT / "scripts" / "train"), *QUICK, "data.size=200", "hydra.run.dir=here"]
    done = subprocess.run(
        line, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here" / "checkpoints" / "best.ckpt").exists()


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"<!-- python -->\n```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / target).exists(), target
