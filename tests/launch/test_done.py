"""What is known to be finished is neither composed nor read again; what has changed is."""

import json
import os

import pytest
import torch
from hydra.utils import instantiate
from sweeps import planning

from jensen.launch import compositions, done
from jensen.run import folder as folders
from jensen.run import seal
from jensen.run.folder import open_run

BLOBS = ("data=blobs", "model=linear", "latent_dim=2", "trainer.max_steps=20")
JOBS = [(*BLOBS, f"objective.beta={beta}") for beta in (1, 2, 3)]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """`sweep()`: as the launcher of `jensen.train -m ... hydra.sweep.dir=sweep` sets it up, all three
    jobs of which are finished, the third with the words of none.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders, "PATIENCE", 0.05)
    with planning() as make:
        made = []

        def again(*words):
            for each in made:
                each.places.held.close()
            made.append(make(*words))
            return made[-1]

        first = again()
        jobs = first.plan(JOBS[:2])
        for job in jobs:
            finish(job)
        first.report(jobs)
        yield again


def finish(job):
    """What training leaves of a job."""
    with open_run(job.folder, job.cfg) as this:
        this.begin(instantiate(job.cfg.data))
        (job.folder / "checkpoints").mkdir(exist_ok=True)
        torch.save({"global_step": 20}, job.folder / "checkpoints" / "last.ckpt")
        this.finish(20, "max_steps", {"val/elbo": -1.5}, {"run": "", "diagnostics": {}})


@pytest.fixture
def composed(monkeypatch):
    """The words of all jobs that are composed from now on."""
    words = []
    of = compositions.Compositions.of

    def noted(self, overrides):
        words.append(tuple(overrides))
        return of(self, overrides)

    monkeypatch.setattr(compositions.Compositions, "of", noted)
    return words


def stand(made):
    return [job.before for job in made.plan(JOBS)]


def test_a_sweep_that_is_done_is_composed_once_for_its_data(sweep, composed):
    made = sweep()
    planned = made.plan(JOBS[:2])
    assert [job.before for job in planned] == ["finished", "finished"]
    assert composed == JOBS[:1]  # asks for the data, whose fingerprint is held against
    assert [each.return_value for each in made.returns(planned)] == [None, None]
    assert [job.folder for job in planned] == [job.folder for job in sweep().plan(JOBS[:2])]
    assert planned[1].cfg.objective.beta == 2  # composed when it is asked for


def test_a_job_that_is_new_is_composed_beside_them(sweep, composed):
    assert stand(sweep()) == ["finished", "finished", "new"]
    assert composed == [JOBS[0], JOBS[2]]


def test_what_is_found_finished_without_the_index_is_in_it_from_then_on(sweep, tmp_path, composed):
    (tmp_path / "sweep" / done.NAME).unlink()
    sweep().plan(JOBS[:2])
    assert composed == JOBS[:2]
    composed.clear()
    sweep().plan(JOBS[:2])
    assert composed == JOBS[:1]


def touched(path):
    os.utime(path, ns=(0, 0))


def spoiled(path):
    path.write_text("{")


def renamed(path):
    path.parents[1].rename(path.parents[1].with_name("other"))


@pytest.mark.parametrize(
    ("change", "name", "expected"),
    [
        (touched, "checkpoints/last.ckpt", "finished"),
        (spoiled, "finished.json", "interrupted"),
        (spoiled, ".hydra/config.yaml", "other"),
        (renamed, ".hydra/config.yaml", "finished"),
    ],
)
def test_a_run_whose_files_have_changed_is_looked_at_anew(sweep, composed, change, name, expected):
    made = sweep()
    folder = made.plan(JOBS[:2])[1].folder
    change(folder / name)
    composed.clear()
    planned = sweep().plan(JOBS[:2])
    assert JOBS[1] in composed
    before = planned[1].before
    assert before == expected or (expected == "other" and planned[1].folder != folder)
    assert planned[0].before == "finished"


def test_other_data_are_another_run(sweep, composed, monkeypatch):
    monkeypatch.setattr("jensen.run.fingerprint.fingerprint", lambda data: "others")
    assert stand(sweep()) == [
        "finished",
        "finished",
        "new",
    ]  # nothing that they are read from changed
    monkeypatch.setattr(seal, "_package", lambda: ["another"])
    assert stand(sweep()) == ["new", "new", "new"]


def test_data_that_have_not_changed_are_not_read(sweep, monkeypatch):
    def read(data):
        raise AssertionError

    monkeypatch.setattr("jensen.run.fingerprint.fingerprint", read)
    made = sweep()
    planned = made.plan(JOBS[:2])
    assert [job.before for job in planned] == ["finished", "finished"]
    made.report(planned)


def test_nothing_is_believed_where_what_composes_has_changed(
    sweep, composed, monkeypatch, tmp_path
):
    index = tmp_path / "sweep" / done.NAME
    before = index.read_text()
    files = done._files

    def one_more(sources):
        (tmp_path / "mine.yaml").write_text("a: ${oc.env:MINE,0}")
        return [*files(sources), tmp_path / "mine.yaml"]

    monkeypatch.setattr(done, "_files", one_more)
    assert stand(sweep()) == ["finished", "finished", "new"]
    assert composed == JOBS
    assert index.read_text() != before
    for value, looked in (("1", JOBS), ("1", JOBS[::2]), ("2", JOBS)):
        composed.clear()
        monkeypatch.setenv("MINE", value)
        assert stand(sweep()) == ["finished", "finished", "new"]
        assert composed == looked, value


def test_where_composing_is_not_known_nothing_is_remembered(sweep, monkeypatch, composed):
    monkeypatch.setattr(done, "_files", lambda sources: [])
    for _ in range(2):
        composed.clear()
        assert stand(sweep()) == ["finished", "finished", "new"]
        assert composed == JOBS


def test_words_that_mean_another_thing_at_another_time_are_not_remembered(sweep, composed):
    asks = (*BLOBS, "objective.beta=${if:true,1,2}")
    for _ in range(2):
        composed.clear()
        sweep().plan([asks])
        assert composed == [asks]


def test_an_index_that_is_torn_or_odd_is_none(sweep, tmp_path):
    index = tmp_path / "sweep" / done.NAME
    whole = json.loads(index.read_text())
    odd = [{"sources": []}, {"runs": {key: {} for key in whole["runs"]}}]
    for text in ('{"ground": ', *(json.dumps(whole | each) for each in odd)):
        index.write_text(text)
        assert stand(sweep()) == ["finished", "finished", "new"]


def test_another_launcher_believes_it_too(sweep, tmp_path, composed):
    assert stand(sweep("hydra/launcher=subprocess")) == ["finished", "finished", "new"]
    assert composed == [JOBS[0], JOBS[2]]
