"""The folder of a stranger: whatever its configuration and its files name, nothing of it is
called.
"""

import hashlib
import io
import itertools
import logging
import os
import pickle
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import some
from commands import contents, run_here, sentence
from conftest import QUICK
from omegaconf import OmegaConf
from pytorch_lightning import LightningModule

import jensen
from jensen import encode, evaluate, report
from jensen import train as training
from jensen.algorithm.gradient import Gradient
from jensen.base import memory
from jensen.base.errors import InputError
from jensen.callbacks import events
from jensen.data import idx, module, sprites
from jensen.data.cache import cached
from jensen.data.codes import codes
from jensen.data.dsprites import dsprites
from jensen.diagnostics.from_codes import read_codes
from jensen.reports.read import read as read_sweep
from jensen.run.diagnose import on_run
from jensen.run.log import RunLog
from jensen.run.trust import build


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (os.makedirs, (str(self.mark),))


@pytest.fixture
def mark(tmp_path):
    """Appears if something was called."""
    return tmp_path / "called"


def test_the_payload_works(mark):
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()


# ---- what a configuration may call
# ------------------------------------------------------------------


def changed(run, key, value):
    change(run, {key: value})


def change(run, values):
    cfg = OmegaConf.load(run / ".hydra" / "config.yaml")
    OmegaConf.set_struct(cfg, False)
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, force_add=True, merge=False)
    OmegaConf.save(cfg, run / ".hydra" / "config.yaml")


def evil(mark, target="os.makedirs", **others):
    return {"_target_": target, "name": str(mark), **others}


PLACES = (
    "algorithm",
    "data",
    "data.source",
    "data.transform",
    "data.unused",
    "algorithm.model",
    "algorithm.model.prior",
    "algorithm.optimizer",
    "algorithm.unused",
    "algorithm.unused.in.depth",
    "objective",
    "model.encoder",
)
MAKERS = {
    "plain": evil,
    "partial": lambda mark: evil(mark, _partial_=True),
    "in a list": lambda mark: [1, [evil(mark)]],
    "as an argument": lambda mark: {
        "_target_": "jensen.model.prior.StandardNormal",
        "_args_": [evil(mark)],
    },
    "not recursive": lambda mark: {
        "_target_": "jensen.model.prior.StandardNormal",
        "_recursive_": False,
        "x": evil(mark),
    },
    "by an import of ours": lambda mark: evil(mark, "jensen.encode.os.makedirs"),
    "by a module of ours": lambda mark: {
        "_target_": "jensen.base.files.write",
        "path": str(mark),
    },
    "by name": lambda mark: {"_target_": "hydra.utils.get_method", "path": "os.makedirs"},
    "of torch": lambda mark: evil(mark, "torch.hub.load"),
    "below the optimisers": lambda mark: evil(mark, "torch.optim.lr_scheduler.LambdaLR"),
    "interpolated": lambda mark: evil(mark, "${stranger}"),
    "made by a resolver": lambda mark: f"${{oc.create:{{_target_:os.makedirs,name:'{mark}'}}}}",
    "made by a resolver, later": lambda mark: (
        f"\\${{oc.create:{{_target_:os.makedirs,name:'{mark}'}}}}"
    ),
    "no name": lambda mark: evil(mark, 3),
}


@some(7, "how", MAKERS)
def test_what_is_not_known_is_refused_before_anything_is_called(run, mark, how):
    changed(run, "stranger", "os.makedirs")
    changed(run, "algorithm.unused", MAKERS[how](mark))
    with pytest.raises(
        InputError,
        match=r"algorithm\.unused.* of the run is .*: expected known code"
        r"|has the interpolation .*: expected the plain name of a key in it",
    ):
        jensen.load(run)
    assert not mark.exists()


@some(4, "place", PLACES)
def test_it_is_refused_wherever_it_stands(run, mark, place):
    changed(run, place, evil(mark))
    with pytest.raises(
        InputError,
        match=r"of the run is 'os\.makedirs', which is no part of jensen: .* add trust=\[os\]",
    ):
        on_run(run, "validation", "last", {})
    assert not mark.exists()


@some(2, "place", ["callbacks.more", "diagnostics.more", "logger", "trainer", "unused"])
def test_what_is_never_made_is_not_asked_about(run, mark, place):
    changed(run, place, evil(mark))
    on_run(run, "validation", "last", {})
    assert not mark.exists()


@pytest.mark.parametrize("program", [evaluate, encode, report])
def test_every_command_refuses(capsys, run, mark, program):
    changed(run, "algorithm.model.encoder", evil(mark))
    before = contents(run)
    subject = [f"sweep={run.parent}"] if program is report else [f"run={run}"]
    more = {
        evaluate: ["diagnostics=[rate]"],
        encode: [f"out={run.parent / 'codes.npz'}"],
        report: [],
    }[program]
    ended = run_here(capsys, program.main, *subject, *more)
    refusal = (
        ended.out if program is report else sentence(ended.err)
    )  # a report goes on without the model
    assert ended.status == (program is not report)
    assert "algorithm.model.encoder._target_ of the run is 'os.makedirs'" in refusal
    assert contents(run) == before
    assert not mark.exists()
    assert not (run.parent / "codes.npz").exists()


def test_training_takes_its_targets_from_its_own_command(capsys, run, mark):
    changed(run, "algorithm.model.encoder", evil(mark))
    before = contents(run)
    ended = run_here(capsys, training.main, *QUICK, "trainer.max_steps=9", f"hydra.run.dir={run}")
    assert ended.status == 1
    assert "holds another run" in sentence(ended.err)
    assert contents(run) == before
    assert not mark.exists()


def test_other_optimisers_are_known(configure):
    assert isinstance(
        build(configure("optimizer._target_=torch.optim.NAdam"), "algorithm", LightningModule),
        Gradient,
    )


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "own_parts.py").write_text(
        "import os\nfrom jensen.model.mlp import MLPEncoder\n\nclass Encoder(MLPEncoder):\n   "
        " pass\n"
    )
    monkeypatch.syspath_prepend(folder)
    yield "own_parts"
    sys.modules.pop("own_parts", None)


def test_a_module_that_is_trusted_may_be_called(capsys, run, own):
    changed(run, "model.encoder._target_", "own_parts.Encoder")
    with pytest.raises(
        InputError, match=r"if you trust that of own_parts, add trust=\[own_parts\]"
    ):
        jensen.load(run)
    assert "own_parts" not in sys.modules
    assert type(jensen.load(run, trust=own).model.encoder).__name__ == "Encoder"
    ended = run_here(capsys, evaluate.main, f"run={run}", "trust=[own_parts]", "diagnostics=[rate]")
    assert ended.status == 0, ended.err


def test_what_a_trusted_module_imports_is_not_trusted(run, own, mark):
    changed(run, "model.encoder", evil(mark, "own_parts.os.makedirs"))
    with pytest.raises(InputError, match=r"'own_parts\.os\.makedirs', which is no part of jensen"):
        jensen.load(run, trust=[own])
    assert not mark.exists()


@pytest.mark.parametrize(
    ("trust", "message"),
    [([7], "trust is"), ([True], "trust is"), (["nowhere"], "cannot be imported")],
)
def test_trust_in_what_is_no_module_is_refused(run, trust, message):
    changed(run, "model.encoder._target_", "nowhere.Encoder")
    with pytest.raises(InputError, match=message):
        jensen.load(run, trust=trust)


# ---- what a file may hold
# -----------------------------------------------------------------------------


def evil_checkpoint(run, mark, name="last"):
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save(saved | {"more": Payload(mark)}, run / "checkpoints" / f"{name}.ckpt")


@pytest.mark.parametrize("old", [False, True])
def test_a_checkpoint_is_never_unpickled(capsys, run, mark, old):
    if old:  # the format of torch before 1.6: a bare pickle
        (run / "checkpoints" / "last.ckpt").write_bytes(pickle.dumps(Payload(mark)))
    else:
        evil_checkpoint(run, mark)
    for name in ("best", "last.previous"):
        shutil.copy(run / "checkpoints" / "last.ckpt", run / "checkpoints" / f"{name}.ckpt")
    (run / "finished.json").unlink()
    before = contents(run)
    for name in ("last", "best"):
        with pytest.raises(
            InputError, match=f"{name}.ckpt cannot be read .*: expected a whole checkpoint"
        ):
            jensen.load(run, name)
    for main, words in (
        (evaluate.main, [f"run={run}", "diagnostics=[rate]"]),
        (encode.main, [f"run={run}", f"out={run.parent / 'codes.npz'}"]),
        (training.main, [*QUICK, f"hydra.run.dir={run}"]),
    ):
        ended = run_here(capsys, main, *words)
        assert ended.status == 1
        assert "cannot be read" in sentence(ended.err)
    after = contents(run)
    assert {name: after[name] for name in before} == before
    assert not mark.exists()


def test_a_report_unpickles_no_checkpoint(capsys, run, mark):
    evil_checkpoint(run, mark)
    ended = run_here(capsys, report.main, f"sweep={run.parent}")
    assert "its checkpoints/ holds no last.ckpt that can be read" in sentence(ended.err)
    assert not mark.exists()


def objects(mark):
    return np.array([[Payload(mark)]], dtype=object)


def test_npz_files_are_never_unpickled(tmp_path, mark):
    path = tmp_path / "codes.npz"
    np.savez(path, codes=objects(mark), factors=np.zeros((1, 1), int), names=objects(mark))
    for read in (codes, dsprites, lambda path: read_codes(Path(path))):
        with pytest.raises(InputError):
            read(str(path))
    path.write_bytes(pickle.dumps(Payload(mark)))
    for read in (codes, dsprites, lambda path: read_codes(Path(path))):
        with pytest.raises(InputError):
            read(str(path))
    assert not mark.exists()


def test_the_pickle_in_dsprites_own_file_is_not_opened(tmp_path, mark, monkeypatch):
    monkeypatch.setattr(sprites, "SIZES", (1, 1, 1, 1, 2))
    np.savez(tmp_path / "d.npz", imgs=np.zeros((2, 64, 64), np.uint8), metadata=objects(mark))
    assert len(dsprites(str(tmp_path / "d.npz"))) == 2
    assert not mark.exists()


def test_the_cache_is_never_unpickled(tmp_path, mark, monkeypatch):
    monkeypatch.setenv("JENSEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    rows = np.arange(6, dtype=np.uint8).reshape(2, 3)
    pickled = io.BytesIO()
    archive = io.BytesIO()
    np.save(pickled, objects(mark), allow_pickle=True)
    np.savez(archive, rows=objects(mark))
    for content in (pickled.getvalue(), archive.getvalue(), pickle.dumps(Payload(mark))):
        (tmp_path / "cache" / "rows.npy").write_bytes(content + hashlib.sha256(content).digest())
        assert np.array_equal(cached("rows", rows.shape, lambda: iter([rows])), rows)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../out", "/tmp/jensen_hostile_out", "a/../../out"])
def test_an_archive_writes_nowhere(tmp_path, name):
    """Archives are read member by member, by name; none is unpacked."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "codes.npz", "w") as archive:
        archive.writestr(name, b"out")
    for read in (codes, dsprites):
        with pytest.raises(InputError):
            read(str(folder / "codes.npz"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "codes.npz"]
    assert not Path("/tmp/jensen_hostile_out").exists()


# ---- what a folder may have us write, fetch, start and make
# -------------------------------------------


def mnist_of(root, by_place):
    """A configuration of data that would be fetched into `root`."""
    source = {"_target_": "jensen.data.idx.mnist", "_partial_": True}
    given = {"_args_": [str(root), "train", True]} if by_place else {}
    options = (
        {}
        if by_place
        else {"root": str(root), "download": True, "splits": ["train", "test"], "validation": 0}
    )
    module = {
        "_target_": "jensen.data.module.DataModule",
        "x_shape": [1, 28, 28],
        "batch_size": 2,
        "seed": 0,
        "validation": 1,
    }
    return module | options | {"source": source | given}


@some(1, "by_place", [False, True])
@pytest.mark.parametrize("program", [evaluate, encode, report])
def test_nothing_is_fetched_unless_the_command_line_says_so(
    capsys, run, mark, monkeypatch, program, by_place
):
    fetched = []
    monkeypatch.setattr(
        idx, "download_url", lambda *what: fetched.append(what) or pytest.fail("it was fetched")
    )
    changed(run, "data", mnist_of(mark, by_place))
    subject = [f"sweep={run.parent}"] if program is report else [f"run={run}"]
    more = {
        evaluate: ["diagnostics=[rate]"],
        encode: [f"out={run.parent / 'codes.npz'}"],
        report: [],
    }[program]
    ended = run_here(capsys, program.main, *subject, *more)
    said = ended.out if program is report else sentence(ended.err)
    assert (
        "would be downloaded, as the run's configuration says: expected files that are there"
        in said
    )
    assert "add download=true" in said
    assert not fetched
    assert not mark.exists()


def test_the_command_line_may_have_data_fetched(run, mark, monkeypatch):
    def fail(url, *_):
        raise OSError("no network")

    monkeypatch.setattr(idx, "download_url", fail)
    changed(run, "data", mnist_of(mark, False))
    with pytest.raises(InputError, match="could not be downloaded"):
        on_run(run, "validation", "last", {}, download=True)


def test_a_model_fetches_nothing_while_it_is_made(run, mark, monkeypatch):
    monkeypatch.setattr(idx, "download_url", lambda *what: pytest.fail("it was fetched"))
    changed(
        run,
        "algorithm.unused",
        {"_target_": "jensen.data.idx.mnist", "root": str(mark), "download": True},
    )
    with pytest.raises(InputError, match="would be downloaded"):
        jensen.load(run)
    assert not mark.exists()


def test_the_machine_says_how_data_are_served(run, monkeypatch):
    seen = []
    loader = module.Loader
    monkeypatch.setattr(
        module, "Loader", lambda *a, **k: seen.append(k["num_workers"]) or loader(*a, **k)
    )
    changed(run, "data.workers", 300)
    on_run(run, "validation", "last", {})
    changed(run, "data.workers", 0)
    changed(run, "data.device", "cuda:7")
    on_run(run, "validation", "last", {})
    assert set(seen) == {0}


def test_a_model_that_does_not_fit_is_not_made(run):
    changed(run, "model.encoder.latent_dim", 10**10)
    with pytest.raises(
        InputError,
        match=r"in algorithm of the run 'algorithm' takes \d[\d,]+ GB: expected at most half of the",
    ):
        jensen.load(run)


def test_data_that_do_not_fit_are_not_made(run):
    source = {"_target_": "jensen.data.blobs.blobs", "_partial_": True, "size": 10**13}
    shape = {"x_shape": [2], "batch_size": 2, "seed": 0, "validation": 1}
    changed(run, "data", {"_target_": "jensen.data.module.DataModule", "source": source, **shape})
    with pytest.raises(
        InputError, match=r"data of the run takes \d[\d,]+ GB: expected at most half of the"
    ):
        on_run(run, "validation", "last", {})


def test_an_archive_that_does_not_fit_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "codes.npz"
    np.savez_compressed(path, codes=np.zeros((1000, 1000)), factors=np.zeros((1000, 1), int))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(memory, "memory", lambda: 10_000_000)
    for read in (codes, lambda path: read_codes(Path(path))):
        with pytest.raises(
            InputError, match=r"codes\.npz takes 0\.00801 GB: expected at most half of the 0\.01 GB"
        ):
            read(str(path))


@pytest.mark.parametrize("read", [codes, dsprites, lambda path: read_codes(Path(path))])
def test_a_device_is_no_file(read):
    with pytest.raises(InputError, match=r"/dev/zero cannot be read \(it is no file\)"):
        read("/dev/zero")


def test_a_checkpoint_that_is_packed_is_not_unpacked(run):
    last = run / "checkpoints" / "last.ckpt"
    with (
        zipfile.ZipFile(last) as whole,
        zipfile.ZipFile(run / "packed", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for part in whole.infolist():
            packed.writestr(part.filename, whole.read(part) + bytes(1 << 20))
    (run / "packed").replace(last)
    with pytest.raises(InputError, match=r"last\.ckpt cannot be read \(it is compressed\)"):
        jensen.load(run)


BOMB = "a: &a [1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]\n"
    for last, name in itertools.pairwise("abcdefghi")
)
SETTINGS = {
    "aliases": (BOMB, "it has aliases"),
    "deep": ("x: " + "[" * 5000, "it is nested too deep"),
    "long": ("x: [" + "1, " * 400_000 + "]", "it has 1,2"),
}


@pytest.mark.parametrize("name", ["config.yaml", "hydra.yaml"])
@pytest.mark.parametrize("how", SETTINGS)
def test_settings_that_would_fill_memory_are_not_counted(run, name, how):
    shutil.copytree(run, run.parent / "other")
    content, why = SETTINGS[how]
    (run / ".hydra" / "hydra.yaml").write_text("{}")
    (run / ".hydra" / name).write_text(content)
    assert why in read_sweep(run.parent).left_out["run"]


@pytest.mark.parametrize("name", ["config.yaml", "hydra.yaml"])
def test_a_pipe_is_no_file(run, name):
    shutil.copytree(run, run.parent / "other")
    (run / ".hydra" / name).unlink(missing_ok=True)
    os.mkfifo(run / ".hydra" / name)
    assert "it is no file" in read_sweep(run.parent).left_out["run"] or name == "config.yaml"


def victim(folder):
    folder.mkdir(exist_ok=True)
    (folder / "events.out.tfevents.1.train").write_text("mine")
    (folder / "file").write_text("mine")
    return folder


def test_no_link_leads_a_writer_out_of_the_folder(capsys, run, tmp_path):
    other = victim(tmp_path / "other")
    before = contents(other)
    (run / ".scores.json.partial").symlink_to(other / "file")
    ended = run_here(capsys, evaluate.main, f"run={run}", "diagnostics=[rate]")
    assert "scores.json cannot be written" in sentence(ended.err)
    (run / ".scores.json.partial").unlink(missing_ok=True)
    (run / "projector").symlink_to(other)
    ended = run_here(capsys, evaluate.main, f"run={run}", "diagnostics=[embedding]")
    assert f"out of {run}: expected a folder in it" in sentence(ended.err)
    (run.parent / "report").symlink_to(other)
    ended = run_here(capsys, report.main, f"sweep={run.parent}", "models=false")
    assert f"out of {run.parent}: expected a folder in it" in sentence(ended.err)
    (run / "events.out.tfevents.9.train").symlink_to(other / "file")
    events.rewind(events.files(run), {"events.out.tfevents.9.train": 0})
    assert contents(other) == before


LINKED = (".hydra", "checkpoints", ".hydra/config.yaml", "checkpoints/last.ckpt")


@some(3, "name", LINKED)
def test_no_link_leads_a_reader_out_of_the_folder(capsys, run, tmp_path, name):
    (run / name).rename(tmp_path / "elsewhere")
    (run / name).symlink_to(tmp_path / "elsewhere")
    out = tmp_path / "codes.npz"
    for main, words in ((evaluate.main, ("diagnostics=[rate]",)), (encode.main, (f"out={out}",))):
        ended = run_here(capsys, main, f"run={run}", *words)
        assert f"leads to {tmp_path / 'elsewhere'}" in sentence(ended.err)
        assert f"out of {run}: expected a folder in it, or a file" in sentence(ended.err)
    assert not out.exists()


@some(2, "name", ["finished.json", "scores.json", ".hydra/hydra.yaml", ".hydra"])
def test_a_report_counts_no_run_that_says_what_it_is_by_links(run, tmp_path, name):
    shutil.copytree(run, run.parent / "other")
    if not (run / name).exists():
        (run / name).write_text("hydra: {runtime: {choices: {}}}")
    (run / name).rename(tmp_path / "elsewhere")
    (run / name).symlink_to(tmp_path / "elsewhere")
    assert "run" in read_sweep(run.parent).left_out


@pytest.mark.parametrize(
    "name",
    [
        ".hydra",
        "checkpoints",
        "train.log",
        ".lock",
        "hparams.yaml",
        "checkpoints/last.previous.ckpt",
    ],
)
def test_no_link_leads_training_out_of_the_folder(capsys, run, tmp_path, name):
    other = victim(tmp_path / "other")
    target = other / "file" if "." in name[1:] or name == ".lock" else other
    if (run / name).is_dir():
        shutil.copytree(run / name, other, dirs_exist_ok=True)
        shutil.rmtree(run / name)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(target)
    before = contents(other)
    words = (
        *(word for word in QUICK if "max_steps" not in word),
        "trainer.max_steps=8",
        f"hydra.run.dir={run}",
    )
    ended = run_here(capsys, training.main, *words)
    assert f"out of {run}: expected a folder in it, or a file" in sentence(ended.err)
    assert contents(other) == before


def test_a_log_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "train.log").symlink_to(tmp_path / "file")
    handler = RunLog(tmp_path / "train.log")
    handler.emit(logging.makeLogRecord({"msg": "said"}))
    handler.close()
    assert (tmp_path / "file").read_text() == "mine"
    handler = RunLog(tmp_path / "plain.log")
    handler.emit(logging.makeLogRecord({"msg": "said"}))
    handler.close()
    assert (tmp_path / "plain.log").read_text() == "said\n"


@some(1, "main", [evaluate.main, encode.main, report.main])
@pytest.mark.slow
def test_interpolations_that_double_end_in_one_sentence(capsys, run, tmp_path, main):
    doubled = {"algorithm.k0": "x" * 100}
    for place in range(1, 60):
        doubled[f"algorithm.k{place}"] = f"${{algorithm.k{place - 1}}}" * 2
    change(run, doubled)
    words = [f"sweep={run.parent}"] if main is report.main else [f"run={run}"]
    ended = run_here(
        capsys, main, *words, *([f"out={tmp_path / 'x.npz'}"] if main is encode.main else [])
    )
    assert "characters once its interpolations are resolved: expected at most" in sentence(
        ended.err
    )
