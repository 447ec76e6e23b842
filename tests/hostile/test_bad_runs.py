"""Run folders that are damaged, taken, or none: one sentence, and nothing in them is changed."""

import io
import shutil
from pathlib import Path

import numpy as np
import torch
from cases import some
from commands import contents, run_here, sentence
from conftest import QUICK
from filelock import FileLock

from jensen import encode, evaluate, report
from jensen import train as training
from jensen.launch.training import train
from jensen.run import folder as folders

RATE = "diagnostics=[rate]"


def refused(capsys, main, *words):
    ended = run_here(capsys, main, *words)
    assert ended.status == 1
    assert 'File "' not in ended.err
    return sentence(ended.err)


CONFIGS = {
    "half": (lambda text: text[: len(text) // 2] + "\n  - [", "cannot be read"),
    "empty": (lambda text: "", "configures no algorithm and data"),
    "a list": (lambda text: "- 1\n- 2\n", "configures no algorithm and data"),
    "a number": (lambda text: "7\n", "cannot be read"),
    "another": (lambda text: "algorithm: 1\nname: somebody\n", "configures no algorithm and data"),
    "of plain values": (
        lambda text: "algorithm: 1\ndata: 2\n",
        "algorithm of the run cannot be resolved",
    ),
    "of lists": (
        lambda text: "algorithm: [1]\ndata: [2]\n",
        "algorithm of the run is ListConfig: expected LightningModule",
    ),
    "binary": (lambda text: "\0\1\2", "cannot be read"),
    "tagged": (
        lambda text: "algorithm: !!python/object/apply:os.getcwd []\ndata: 1\n",
        "cannot be read",
    ),
    "aliases": (
        lambda text: "a: &a [1, 1]\nb: [*a, *a]\nalgorithm: 1\ndata: 1\n",
        "cannot be read (it has aliases)",
    ),
    "deep": (lambda text: "algorithm: " + "[" * 1000, "cannot be read"),
    "a loop": (
        lambda text: text.replace("seed: ${seed}", "seed: ${algorithm.seed}"),
        "cannot be resolved",
    ),
    "unknown resolver": (
        lambda text: text.replace("seed: ${seed}", "seed: ${nothing:1}"),
        "cannot be resolved",
    ),
    "another width": (
        lambda text: text.replace("latent_dim: 3", "latent_dim: 4"),
        "does not fit the model",
    ),
    "wrong value": (
        lambda text: text.replace("latent_dim: 3", "latent_dim: many"),
        "latent_dim is 'many'",
    ),
    "wrong key": (lambda text: text.replace("  hidden:", "  hiddden:"), "cannot be made"),
    "swapped": (
        lambda text: text.replace("algorithm:\n", "data:\n", 1).replace(
            "\ndata:\n  _t", "\nalgorithm:\n  _t"
        ),
        "",
    ),
}


@some(5, "how", CONFIGS)
def test_a_damaged_configuration(capsys, run, how):
    path = run / ".hydra" / "config.yaml"
    change, message = CONFIGS[how]
    path.write_text(change(path.read_text()))
    before = contents(run)
    for main, words in (
        (evaluate.main, [RATE]),
        (encode.main, [f"out={run.parent / 'codes.npz'}"]),
    ):
        assert message in refused(capsys, main, f"run={run}", *words)
    assert contents(run) == before


CHECKPOINTS = {
    "empty": lambda content: b"",
    "text": lambda content: b"not a checkpoint",
    "half": lambda content: content[: len(content) // 2],
    "its end is missing": lambda content: content[:-1],
    "a flipped bit": lambda content: content[:9000] + bytes([content[9000] ^ 1]) + content[9001:],
    "zeros amid it": lambda content: content[:4000] + bytes(4000) + content[8000:],
    "another program's": lambda content: as_saved({"model": {}}),
    "no names": lambda content: as_saved({"state_dict": [1], "global_step": 6}),
    "a step that is none": lambda content: as_saved({"state_dict": {}, "global_step": None}),
    "NaN": lambda content: with_a_nan(content),
}


def as_saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def with_a_nan(content):
    """Whole, but for one weight, which training would not have saved."""
    saved = torch.load(io.BytesIO(content), weights_only=True)
    next(iter(saved["state_dict"].values())).view(-1)[3] = torch.nan
    return as_saved(saved)


@some(4, "how", CHECKPOINTS)
def test_a_damaged_checkpoint(capsys, run, how):
    path = run / "checkpoints" / "last.ckpt"
    path.write_bytes(CHECKPOINTS[how](path.read_bytes()))
    before = contents(run)
    said = refused(capsys, evaluate.main, f"run={run}", RATE)
    assert f"{path} cannot be read" in said
    assert "expected a whole checkpoint" in said
    assert contents(run) == before


@some(4, "how", CHECKPOINTS)
def test_training_does_not_start_over_where_all_checkpoints_are_torn(capsys, run, how):
    (run / "finished.json").unlink()
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(CHECKPOINTS[how](path.read_bytes()))
    before = contents(run / "checkpoints")
    assert "cannot be read" in refused(capsys, training.main, *QUICK, f"hydra.run.dir={run}")
    assert contents(run / "checkpoints") == before


ARGUMENTS = {
    "run={run} checkpoint=first": "checkpoint is 'first': expected one of last, best",
    "run={run} split=half": "split is 'half': expected one of validation, test, train",
    "run={run} split=test": "these data have no test split",
    "run={run}/nowhere": "has no .hydra/config.yaml: expected the folder of a run",
    "run={run}/checkpoints/last.ckpt": "has no .hydra/config.yaml: expected the folder of a run",
    "run=7": "has no .hydra/config.yaml: expected the folder of a run",
}
EVALUATES = ARGUMENTS | {
    "": "none is given: expected one of run=FOLDER, sweep=FOLDER and codes=FILE.npz",
    "run={run} codes={run}/codes.npz": "expected one of run=FOLDER, sweep=FOLDER and codes=FILE.npz",
    "run={run} jobs=2": "jobs is 2 and there is one run to do: expected jobs with sweep=FOLDER alone",
    "sweep={run}": "is a run: expected the folder of a sweep of jensen.train -m, or run=",
    "sweep={run} out=x.json": "expected no out, since each run has its scores.json",
    "sweep={run}/none": "sweep=",
    "codes={run}/nowhere.npz": "nowhere.npz cannot be read (No such file or directory)",
    "codes={run}": "cannot be read (Is a directory)",
    "codes={run}/checkpoints/last.ckpt": "expected arrays codes (N, D) and factors (N, F)",
    "run={run} out=/dev/null/scores.json": "/dev/null/scores.json cannot be written",
    "run={run} out={run}/x.npz": "x.npz does not end with .json: expected a name of the format that is written",
    "run={run} out={run}/x": "x does not end with .json: expected a name of the format that is written",
    "run={run} out={run}": "cannot be written (Is a directory): expected a file",
}
ENCODES = ARGUMENTS | {
    "": "run is not set: expected run=FOLDER",
    "run={run} out=/dev/null/codes.npz": "codes.npz cannot be written",
    "run={run} out={run}": "cannot be written (Is a directory)",
    "run={run} out=null": "out is None: expected a path",
    "run={run} out={run}/x.txt": "x.txt does not end with .npz: expected a name of the format that is written; take out=",
    "run={run} out={run}/x": "x does not end with .npz: expected a name of the format that is written; take out=",
    "run={run} out=.": "out=. cannot be written (Is a directory): expected a file; name one in it",
}
REPORTS = {
    "": "sweep is not given: expected sweep=FOLDER",
    "sweep={run}/nowhere": "is no folder: expected the folder of a sweep",
    "sweep={run}": "is the folder of a run: expected the folder above",
    "sweep={run}/checkpoints": "holds no runs",
    "sweep={run}/finished.json": "is no folder",
    "sweep={run} out={run}/finished.json": "finished.json is a file: expected a folder",
    "sweep={run} out={run}/report.md": "report.md is a file: expected a folder, for several; take out=",
}


@some(
    12,
    "main, words, message",
    [
        *((evaluate.main, *each) for each in EVALUATES.items()),
        *((encode.main, *each) for each in ENCODES.items()),
        *((report.main, *each) for each in REPORTS.items()),
    ],
)
def test_wrong_arguments(capsys, run, main, words, message):
    before = contents(run)
    others = [RATE] if main is evaluate.main else []
    others += (
        [f"out={run.parent / 'codes.npz'}"] if main is encode.main and "out=" not in words else []
    )
    assert message in refused(capsys, main, *words.format(run=run).split(), *others)
    after = {name: content for name, content in contents(run).items() if "tfevents" not in name}
    assert after == {name: content for name, content in before.items() if "tfevents" not in name}


def test_a_folder_that_holds_another_run(capsys, run):
    before = contents(run)
    said = refused(capsys, training.main, *QUICK, "objective.beta=5", f"hydra.run.dir={run}")
    assert "holds another run (objective.beta is 5 here and 4.0 there)" in said
    assert contents(run) == before


def test_a_folder_where_another_process_trains(capsys, run, monkeypatch):
    monkeypatch.setattr(folders, "PATIENCE", 0.1)
    before = contents(run)
    with FileLock(run / ".lock"):
        said = refused(capsys, training.main, *QUICK, "trainer.max_steps=9", f"hydra.run.dir={run}")
    assert f"another process trains in {run}: expected one at a time" in said
    assert contents(run) == before


def test_a_shorter_run_than_there_is(capsys, run):
    before = contents(run)
    said = refused(
        capsys,
        training.main,
        *[*QUICK[:-3], "trainer.max_steps=4", *QUICK[-2:]],
        f"hydra.run.dir={run}",
    )
    assert "trainer.max_steps is 4" in said
    assert contents(run) == before


@some(3, "content", ["", "{", "[]", "7", '{"data": 3}', '{"step": null}', '{"step": "x"}'])
def test_a_torn_marker_is_no_marker(configure, run, content):
    """The run is continued, from where it is: finished, it is the same again."""
    whole = contents(run)
    (run / "finished.json").write_text(content)
    train(configure(*QUICK), run)
    assert np.array_equal(contents(run)["checkpoints/best.ckpt"], whole["checkpoints/best.ckpt"])


def arrays(**changes):
    made = {"codes": np.ones((6, 2)), "factors": np.zeros((6, 1), int)} | changes
    return {name: array for name, array in made.items() if array is not None}


CODES = {
    "NaN": (arrays(codes=np.full((6, 2), np.nan)), "finite"),
    "infinite": (arrays(codes=np.full((6, 2), np.inf)), "finite"),
    "integers": (arrays(codes=np.ones((6, 2), int)), "floating-point"),
    "complex": (arrays(codes=np.ones((6, 2), complex)), "floating-point"),
    "text": (arrays(codes=np.full((6, 2), "a")), "floating-point"),
    "dates": (arrays(codes=np.zeros((6, 2), "datetime64[s]")), "floating-point"),
    "records": (arrays(codes=np.zeros(6, [("a", float)])), "codes"),
    "empty": (arrays(codes=np.ones((0, 2)), factors=np.zeros((0, 1), int)), "empty"),
    "no latents": (arrays(codes=np.ones((6, 0))), "empty"),
    "one number": (arrays(codes=np.array(1.0)), "(N, D)"),
    "fractional factors": (arrays(factors=np.full((6, 1), 0.5)), "integer"),
    "factors of text": (arrays(factors=np.full((6, 1), "a")), "integer"),
    "negative factors": (arrays(factors=np.full((6, 1), -1)), "at least 0"),
    "other names": (arrays(names=np.array(["a", "b"])), "names"),
    "names of two dimensions": (arrays(names=np.array([["a"]])), "names"),
}


@some(6, "how", CODES)
def test_codes_that_cannot_be(capsys, tmp_path, how):
    content, message = CODES[how]
    if "names" not in content:
        content = content | {"names": np.array(["a"])}
    path = tmp_path / "codes.npz"
    np.savez(path, **content)
    before = contents(tmp_path)
    said = refused(capsys, evaluate.main, f"codes={path}", "diagnostics=[mig_hist20]")
    assert str(path) in said
    assert message in said
    assert contents(tmp_path) == before
    words = (
        "data=codes",
        f"data.path={path}",
        "data.validation=2",
        "data.batch_size=2",
        "model=mlp",
        "latent_dim=2",
    )
    said = refused(capsys, training.main, *words, *QUICK[-4:], f"hydra.run.dir={tmp_path / 'run'}")
    assert str(path) in said
    assert path.read_bytes() == before["codes.npz"]


def test_a_folder_cut_short_by_hand(capsys, run):
    """Of a copy that lacks its checkpoints nothing can be evaluated; of one that lacks its
    configuration neither.
    """
    shutil.rmtree(run / "checkpoints")
    assert "last.ckpt is missing" in refused(capsys, evaluate.main, f"run={run}", RATE)
    Path(run / ".hydra" / "config.yaml").unlink()
    assert "has no .hydra/config.yaml" in refused(capsys, evaluate.main, f"run={run}", RATE)
