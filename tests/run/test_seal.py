"""A finished run that has its seal is known without reading its data; one that any of this may have
changed for is looked at.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

import jensen
from jensen.base.errors import RefusedError
from jensen.run import seal
from jensen.run.folder import FINISHED, open_run

RESULTS = {"val/elbo": -1.5}


@pytest.fixture
def images(tmp_path):
    path = tmp_path / "data" / "images.npz"
    path.parent.mkdir()
    draw = np.random.default_rng(0)
    np.savez(path, images=draw.integers(0, 255, (80, 8, 8, 1), dtype=np.uint8))
    return path


@pytest.fixture
def cfg(configure, images):
    words = ("data=images", f"data.path={images}", "data.x_shape=[1,8,8]", "data.validation=20")
    return lambda *more: configure(*words, "model=linear", "trainer.max_steps=20", *more)


def finish(folder, cfg, meanwhile=lambda: None):
    """What a training leaves."""
    with open_run(folder, cfg) as this:
        assert this.begin(instantiate(cfg.data)) is None
        this.claim()
        (folder / "checkpoints").mkdir()
        torch.save({"global_step": 20}, folder / "checkpoints" / "last.ckpt")
        meanwhile()
        this.finish(20, "trainer.max_steps", RESULTS, {"run": str(folder), "diagnostics": {}})


@pytest.fixture
def run(cfg, tmp_path):
    folder = tmp_path / "run"
    finish(folder, cfg())
    return folder


def known(folder, cfg):
    """The results as they are found without the data."""
    with open_run(folder, cfg) as this:
        return this.found()


def looked_at(folder, cfg):
    with open_run(folder, cfg) as this:
        return this.begin(instantiate(cfg.data))


def test_what_training_has_just_finished_is_known_in_the_words_of_one_that_is_looked_at(
    run, cfg, capsys
):
    capsys.readouterr()
    assert known(run, cfg()) == RESULTS
    said = capsys.readouterr().out
    (run / seal.NAME).unlink()
    assert known(run, cfg()) is None
    assert looked_at(run, cfg()) == RESULTS
    assert capsys.readouterr().out == said == f"jensen: {run} is finished: nothing to do\n"
    assert known(run, cfg()) == RESULTS  # which has sealed it


def test_what_was_never_validated_is_said_too(cfg, tmp_path, capsys):
    with open_run(tmp_path, cfg()) as this:
        this.begin(instantiate(cfg().data))
        (tmp_path / "checkpoints").mkdir()
        torch.save({"global_step": 20}, tmp_path / "checkpoints" / "last.ckpt")
        this.finish(20, "trainer.max_steps", RESULTS, {"diagnostics": {}}, validated=False)
    capsys.readouterr()
    assert known(tmp_path, cfg()) == RESULTS
    assert "was never validated" in capsys.readouterr().out


def same_size(path):
    """Other bytes, with the time and the size of those that were there."""
    before = path.stat()
    text = path.read_bytes()
    path.write_bytes(text[:-1] + bytes([text[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def touched(path):
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("change", [same_size, touched, Path.unlink])
def test_data_that_may_be_others_are_read(run, cfg, images, change):
    change(images)
    assert known(run, cfg()) is None


@pytest.mark.parametrize("name", seal.OF_A_RUN)
def test_a_run_whose_files_have_changed_is_looked_at(run, cfg, name):
    touched(run / name)
    assert known(run, cfg()) is None
    assert looked_at(run, cfg()) == RESULTS
    assert known(run, cfg()) == RESULTS


@pytest.mark.parametrize("words", ["diagnostics=[rate]", "trainer.devices=2", "data.device=cpu"])
def test_keys_without_effect_are_looked_at_once(run, cfg, words):
    assert known(run, cfg(words)) is None
    assert looked_at(run, cfg(words)) == RESULTS
    assert known(run, cfg(words)) == RESULTS


def test_another_run_is_refused_as_without_a_seal(run, cfg):
    refusals = set()
    for _ in range(2):
        with pytest.raises(RefusedError, match=r"objective\.beta is 7 here and 4") as refused:
            known(run, cfg("objective.beta=7"))
        refusals.add(str(refused.value))
        (run / seal.NAME).unlink(missing_ok=True)
    assert len(refusals) == 1


def test_the_seal_of_a_run_that_goes_on_is_broken(run, cfg):
    longer = cfg("trainer.max_steps=30")
    assert known(run, longer) is None
    with open_run(run, longer) as this:
        assert this.begin(instantiate(longer.data)) is None
        this.claim()
    assert known(run, longer) is known(run, cfg()) is None


def test_a_package_that_has_changed_is_another(run, cfg, monkeypatch):
    monkeypatch.setattr(seal, "_package", lambda: ["another"])
    assert known(run, cfg()) is None


def test_every_file_of_the_package_is_looked_at():
    names = {name for name, *_ in seal._package()[-1]}
    top = Path(jensen.__file__).parent
    assert {str(path.relative_to(top)) for path in top.rglob("*.py")} == names


def test_data_that_change_during_training_leave_no_seal(cfg, tmp_path, images):
    finish(tmp_path / "run", cfg(), meanwhile=lambda: touched(images))
    assert (tmp_path / "run" / FINISHED).exists()
    assert not (tmp_path / "run" / seal.NAME).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"evidence": "", "stamps": ""}'])
def test_a_seal_that_is_torn_is_none(run, cfg, text):
    (run / seal.NAME).write_text(text)
    assert known(run, cfg()) is None


@pytest.fixture
def of(tmp_path):
    """The evidence of data in a folder."""
    (tmp_path / "images" / "more").mkdir(parents=True)
    (tmp_path / "images" / "more" / "a").write_text("a")
    tree = {"data": {"source": {"_target_": "jensen.data.mnist"}, "root": str(tmp_path / "images")}}
    return lambda: seal.evidence(tree)


def test_a_file_more_or_less_in_a_folder_is_other_evidence(of, tmp_path):
    found = [of()]
    assert found == [of()] != [""]
    (tmp_path / "images" / "more" / "b").write_text("b")
    found.append(of())
    (tmp_path / "images" / "more" / "a").unlink()
    found.append(of())
    assert len({*found}) == 3


def test_of_links_and_of_many_files_there_is_no_evidence(of, tmp_path, monkeypatch):
    (tmp_path / "images" / "link").symlink_to(tmp_path)
    assert of() == ""
    (tmp_path / "images" / "link").unlink()
    assert of()
    monkeypatch.setattr(seal, "_MOST", 1)
    assert of() == ""


@pytest.mark.parametrize("target", ["my.Data", "jensen.run.given.given", "jensenly.data"])
def test_of_code_of_ones_own_there_is_no_evidence(target):
    assert seal.evidence({"data": {}, "callbacks": [{"a": {"_target_": target}}]}) == ""
    score = {"_target_": "hydra.utils.get_method", "path": target}
    assert seal.evidence({"diagnostics": {"mine": {"function": score}}}) == ""


def test_a_seal_holds_nothing_but_hashes_sizes_and_times(run, cfg):
    entry = json.loads((run / seal.NAME).read_text())
    assert entry.keys() == {"evidence", "stamps"}
    tree = OmegaConf.to_container(cfg(), resolve=True)
    assert entry == {"evidence": seal.evidence(tree), "stamps": seal.stamps(run)}
