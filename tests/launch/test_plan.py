"""Which jobs of a sweep are to do, where they belong, and what is said of them; nothing is
trained.
"""

import itertools
import json

import numpy as np
import pytest
import torch
from cases import some
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobStatus
from hydra.errors import CompactHydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from sweeps import planning

from jensen.base.errors import InputError
from jensen.launch import sequential, slurm
from jensen.launch.console import quoted
from jensen.run import folder as folders
from jensen.run.folder import open_run
from jensen.run.identity import LOCATION, WITHOUT_EFFECT

BLOBS = (
    "data=blobs",
    "model=linear",
    "latent_dim=2",
    "trainer.max_steps=20",
    "trainer.accelerator=cpu",
)
RESULTS = {"val/elbo": -1.5, "mig_hist20/mig_hist20": 0.25}


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """`sweep(*overrides)`: as the launcher of `jensen.train -m ... hydra.sweep.dir=sweep` sets it
    up.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders, "PATIENCE", 0.05)
    with planning() as make:
        yield make


def done(job, until="finished"):
    """What training leaves of a job."""
    with open_run(job.folder, job.cfg) as this:
        this.begin(instantiate(job.cfg.data))
        (job.folder / "checkpoints").mkdir(exist_ok=True)
        torch.save({"global_step": 20}, job.folder / "checkpoints" / "last.ckpt")
        if until == "failed":
            raise RuntimeError("first line\nsecond line")
        if until == "finished":
            this.finish(20, "trainer.max_steps", RESULTS, {"run": "", "diagnostics": {}})


def jobs(*betas, extra=()):
    return [(*BLOBS, f"objective.beta={beta}", *extra) for beta in betas]


def again(sweep, *made, **options):
    for each in made:
        each.places.held.close()
    return sweep(**options)


def test_runs_are_named_and_all_are_to_do(sweep, tmp_path):
    first = sweep()
    planned = first.plan(jobs(1, 2))
    name = "data=blobs_model=linear_latent_dim=2_max_steps=20_beta="
    assert [job.folder for job in planned] == [
        tmp_path / "sweep" / f"{name}{beta}" for beta in (1, 2)
    ]
    assert first.to_do(planned) == planned
    assert [job.cfg.objective.beta for job in planned] == [1, 2]


def test_without_a_folder_the_experiment_names_it(sweep, tmp_path):
    planned = sweep(folder=()).plan(
        [("experiment=beta_sprites", "seed=1"), ("experiment=mnist_mlp", "seed=1"), ("seed=1",)]
    )
    names = ("beta_sprites", "mnist_mlp", "sweep")
    assert [job.folder for job in planned] == [
        tmp_path / "runs" / name / "seed=1" for name in names
    ]


def test_experiments_that_share_a_folder_name_their_runs(sweep, tmp_path):
    swept = ("experiment=beta_sprites,mnist_mlp", "seed=1")
    words = [("experiment=beta_sprites", "seed=1"), ("experiment=mnist_mlp", "seed=1")]
    shared, apart = (
        [str(job.folder.relative_to(tmp_path)) for job in made.plan(words)]
        for made in (sweep(*swept), sweep(*swept, folder=()))
    )
    assert shared == ["sweep/experiment=beta_sprites", "sweep/experiment=mnist_mlp"]
    assert apart == ["runs/beta_sprites/run", "runs/mnist_mlp/run"]


def test_a_sweep_that_is_run_again_does_what_is_left(sweep, capsys):
    first = sweep()
    planned = first.plan(jobs(1, 2, 3, 4))
    done(planned[0])
    done(planned[1], until="saved")
    with pytest.raises(RuntimeError):
        done(planned[2], until="failed")

    second = again(sweep, first)
    planned = second.plan(jobs(1, 2, 3, 4))
    assert [job.before for job in planned] == ["finished", "interrupted", "failed", "new"]
    assert second.to_do(planned) == [planned[1], planned[3]]
    for job in second.to_do(planned):
        done(job)
    second.report(planned)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "jensen: sweep of 4: 1 skipped, 1 continued, 1 failed, 1 trained"
    assert [line.split()[1] for line in said[1:5]] == ["skipped", "continued", "failed", "trained"]
    assert said[3].endswith("beta=3: RuntimeError: first line")
    assert "sweep/data=blobs" in said[3]
    assert "retry_failed=true" in said[5]

    returned = second.returns(planned)
    assert [each.status == JobStatus.COMPLETED for each in returned] == [True, True, False, True]
    with pytest.raises(
        CompactHydraException,
        match=r"1 of the sweep's runs failed: sweep/.*beta=3: RuntimeError: first line",
    ):
        _ = returned[2].return_value

    third = again(sweep, second, retry_failed=True)
    planned = third.plan(jobs(1, 2, 3, 4))
    assert third.to_do(planned) == [planned[2]]
    done(planned[2])
    third.report(planned)
    assert "jensen: retried     sweep/" in capsys.readouterr().out
    assert third.summary() == ""


def test_a_diagnostic_more_makes_no_other_run_and_an_edited_key_does(sweep):
    first = sweep()
    (job,) = first.plan(jobs(1))
    done(job)
    before = {file: file.read_bytes() for file in job.folder.rglob("*") if file.is_file()}
    second = again(sweep, first)
    assert [
        each.before
        for each in second.plan(jobs(1, extra=("diagnostics=[rate]", "callbacks.best.mode=min")))
    ] == ["finished"]

    # conf/ was edited since: the same overrides compose another learning rate
    second.config.hydra.overrides.hydra.append("hydra.sweep.subdir=" + quoted(job.folder.name))
    (other,) = second.plan(jobs(1, extra=("optimizer.lr=0.5",)))
    assert other.before == "new"
    assert other.folder.parent == job.folder.parent
    assert other.folder.name.startswith(f"{job.folder.name}~")
    assert len(other.folder.name) == len(job.folder.name) + 9
    done(other)
    assert {file: file.read_bytes() for file in before} == before

    third = again(sweep, second)
    third.config.hydra.overrides.hydra.append("hydra.sweep.subdir=" + quoted(job.folder.name))
    assert [each.before for each in third.plan(jobs(1, extra=("optimizer.lr=0.5",)))] == [
        "finished"
    ]
    assert [each.before for each in third.plan(jobs(1))] == ["finished"]


def test_a_job_may_be_named_by_its_number(sweep):
    made = sweep("hydra.sweep.subdir=${hydra.job.num}")
    assert [job.folder.name for job in made.plan(jobs(1, 2), first=3)] == ["3", "4"]


def test_two_runs_of_one_name_in_one_sweep_get_a_folder_each(sweep):
    first, second = sweep("hydra.sweep.subdir=x").plan(jobs(1, 2))
    assert first.folder.name == "x"
    assert second.folder.name.startswith("x~")


def test_two_jobs_that_are_one_run_are_done_once(sweep, capsys):
    """And a line says in what they differ all the same."""
    made = sweep()
    planned = made.plan([*jobs(1), *jobs(1, extra=("diagnostics=[rate]",))])
    said = capsys.readouterr().out
    assert (
        "is trained once, as the first of its jobs has it: another differs in diagnostics" in said
    )
    assert len(made.to_do(planned)) == 1
    done(planned[0])
    made.report(planned)
    assert [each.status for each in made.returns(planned)] == [JobStatus.COMPLETED] * 2


def test_data_that_changed_make_another_run(sweep, monkeypatch):
    first = sweep()
    (job,) = first.plan(jobs(1))
    done(job)
    calls = []
    monkeypatch.setattr(
        "jensen.run.fingerprint.fingerprint", lambda data: calls.append(data) or "other data"
    )
    second = again(sweep, first)
    planned = second.plan([*jobs(1, 2), *jobs(1, extra=("seed=4",))])
    assert [each.before for each in planned] == ["new"] * 3
    assert planned[0].folder.name.startswith(f"{job.folder.name}~")
    assert len(calls) == 1  # read once, whatever the seed


def test_the_result_to_maximise_is_returned_also_of_a_run_that_is_skipped(sweep):
    first = sweep()
    (job,) = first.plan(jobs(1))
    done(job)
    second = again(sweep, first)
    planned = second.plan(jobs(1, extra=("maximise=mig_hist20/mig_hist20",)))
    assert [each.return_value for each in second.returns(planned)] == [0.25]
    with pytest.raises(
        InputError,
        match=r"maximise is 'mig_hist20/typo': expected one of val/elbo, mig_hist20/mig_hist20",
    ):
        second.returns(second.plan(jobs(1, extra=("maximise=mig_hist20/typo",))))


def test_a_folder_holds_one_experiment(sweep, tmp_path):
    first = sweep()
    first.plan([("experiment=beta_sprites",)])
    with pytest.raises(
        InputError,
        match=r"sweep holds the sweep of experiment=beta_sprites and this is experiment=mnist_mlp",
    ):
        again(sweep, first).plan([("experiment=mnist_mlp",)])
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text()) == {
        "experiment": "beta_sprites",
        "swept": [],
    }


def test_a_mark_that_no_sweep_made_is_refused_and_a_torn_one_made_anew(sweep, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text('{"x": 1}')
    with pytest.raises(
        InputError,
        match=r"sweep\.json names no experiment: expected what a sweep of jensen\.train wrote",
    ):
        sweep().plan(jobs(1))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sweep.json").write_text('{"exper')
    assert len(sweep(folder=("hydra.sweep.dir=other",)).plan(jobs(1))) == 1


def test_one_sweep_at_a_time(sweep):
    first = sweep()
    first.plan(jobs(1))
    with pytest.raises(
        InputError,
        match=r"another sweep works in .*sweep: expected one at a time; wait for it, or choose",
    ):
        sweep().plan(jobs(1))
    assert again(sweep, first).plan(jobs(1))


def test_jobs_run_one_after_the_other_unless_another_launcher_is_named(sweep):
    launchers = [
        sweep(*named).config.hydra.launcher
        for named in ((), ("hydra/launcher=in_turn",), ("hydra/launcher=sequential",))
    ]
    assert (
        launchers
        == [{"_target_": "hydra_plugins.jensen_plugins.Sequential", "retry_failed": False}] * 3
    )


def test_ranks_of_its_own_are_refused_before_any_work(sweep):
    made = sweep()
    planned = made.plan(jobs(1, extra=("trainer=ddp", "trainer.devices=2")))
    with pytest.raises(InputError, match="hydra/launcher=subprocess"):
        sequential.launch(made, planned, lambda cfg: pytest.fail("it was begun"))
    assert not planned[0].folder.exists()


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (
            ("trainer.devices=2",),
            "hydra.launcher.tasks_per_node is 1 and trainer.devices is 2: expected the same number",
        ),
        (
            ("trainer.num_nodes=2",),
            "hydra.launcher.nodes is 1 and trainer.num_nodes is 2: expected the same number",
        ),
    ],
)
def test_slurm_starts_as_many_ranks_as_a_job_wants(sweep, extra, sentence):
    pytest.importorskip(
        "hydra_plugins.hydra_submitit_launcher", reason="the extra jensen[slurm] is not installed"
    )
    made = sweep()
    with pytest.raises(InputError, match=sentence):
        slurm.launch(
            made,
            made.plan(jobs(1, extra=extra)),
            lambda cfg: None,
            {"tasks_per_node": 1, "nodes": 1},
        )


# ---- keys without effect on the numbers that name the data
# ---------------------------------------------

TINY_VAE = (
    "model=mlp",
    "latent_dim=2",
    "model/likelihood=normal",
    "data.validation=1",
    "trainer.max_steps=20",
)
NOT_THE_DATA = ("data.device", "data.workers", "data.download")


@pytest.fixture
def places(tmp_path):
    """By the key that names it: a choice of data, and three places, of which the first and the last
    hold the same.
    """
    made: dict[str, tuple[str, list[str]]] = {
        "data.root": ("folder", []),
        "data.path": ("codes", []),
    }
    for number, shade in enumerate((10, 200, 10)):
        (root := tmp_path / f"root{number}").mkdir()
        for image in range(3):
            Image.new("L", (4, 4), shade + image).save(root / f"{image}.png")
        np.savez(path := tmp_path / f"path{number}.npz", codes=np.full((3, 2), float(shade)))
        made["data.root"][1].append(root.name)
        made["data.path"][1].append(path.name)
    return made


def swept(sweep, places, key, names, *more, params=False, **options):
    """The planned jobs of a sweep over places, as a command gives them to the launcher."""
    choice, known = places[key]
    over = ",".join(known[name] for name in names)
    shape = "data.x_shape=[1,4,4]" if choice == "folder" else "data.x_shape=[2]"
    fixed = [f"data={choice}", shape, *TINY_VAE, *more]
    task = fixed if params else [*fixed, f"{key}={over}"]
    made = sweep(*task, **options)
    if params:
        made.config.hydra.sweeper.params = {key: over}
    (batch,) = BasicSweeper.split_arguments(
        OverridesParser.create().parse_overrides([*fixed, f"{key}={over}"]), None
    )
    return made, made.plan(batch)


@some(
    1, ("key", "more"), [*((key, ()) for key in LOCATION), ("data.path", ("hydra.sweep.subdir=x",))]
)
def test_each_place_of_data_is_a_run_and_the_same_sweep_finds_it(sweep, places, key, more):
    """Also with the points in another order, fewer or more of them."""
    options = {"folder": ("hydra.sweep.dir=sweep", *more)}
    first, planned = swept(sweep, places, key, (0, 1), **options)
    assert len(first.to_do(planned)) == 2
    for job in planned:
        done(job)
    folders = {OmegaConf.select(job.cfg, key): job.folder for job in planned}
    assert len(set(folders.values())) == 2
    first.places.held.close()
    for names in ((1, 0), (1,), (0, 2, 1)):
        made, planned = swept(sweep, places, key, names, **options)
        for job in planned:
            place = OmegaConf.select(job.cfg, key)
            if place in folders:
                assert (job.before, job.folder) == ("finished", folders[place])
        made.places.held.close()


@pytest.mark.parametrize(
    ("key", "params"), [("data.root", False), ("data.path", False), ("data.path", True)]
)
def test_a_place_that_is_swept_is_named_and_one_for_all_is_not(sweep, places, key, params):
    _, planned = swept(sweep, places, key, (0, 1), params=params)
    for job, place in zip(planned, places[key][1], strict=False):
        assert f"{key.split('.')[1]}={place}" == job.folder.name
    if not params:
        _, (alone,) = swept(sweep, places, key, (0,), folder=("hydra.sweep.dir=other",))
        assert places[key][1][0] not in alone.folder.name


def test_a_sweep_of_before_goes_on_in_the_folder_of_its_only_run(sweep, places):
    """Which was trained on the first place, under the name that all of them had."""
    made, (old,) = swept(sweep, places, "data.path", (0,))
    done(old)
    made.places.held.close()
    _, (first, second) = swept(sweep, places, "data.path", (0, 1))
    assert (first.before, first.folder) == ("finished", old.folder)
    assert second.before == "new"
    assert second.folder != old.folder


def test_places_that_cannot_be_read_fail_by_themselves(sweep, places):
    places["data.path"][1][0] = "/nowhere.npz"
    made, planned = swept(
        sweep, places, "data.path", (0, 1), folder=("hydra.sweep.dir=sweep", "hydra.sweep.subdir=x")
    )
    assert len(made.to_do(planned)) == 2
    with pytest.raises(InputError, match=r"nowhere\.npz cannot be read"):
        done(planned[0])
    done(planned[1])
    made.places.held.close()
    _, again = swept(
        sweep, places, "data.path", (0, 1), folder=("hydra.sweep.dir=sweep", "hydra.sweep.subdir=x")
    )
    assert [job.before for job in again] == ["failed", "finished"]
    assert [job.folder for job in again] == [job.folder for job in planned]


def test_the_same_data_in_two_places_under_one_name_are_one_run(sweep, places):
    made, planned = swept(
        sweep, places, "data.path", (0, 2), folder=("hydra.sweep.dir=sweep", "hydra.sweep.subdir=x")
    )
    assert len(made.to_do(planned)) == 1


@some(
    2,
    ("key", "values"),
    [
        ("data.device", "cpu,auto"),
        ("data.workers", "0,1"),
        ("diagnostics", "[],[rate]"),
        ("trainer.benchmark", "true,false"),
    ],
)
def test_a_sweep_over_a_key_without_effect_is_one_run(sweep, monkeypatch, key, values):
    monkeypatch.setattr(
        "jensen.run.fingerprint.fingerprint", lambda data: pytest.fail("nothing asks for the data")
    )
    made = sweep(f"{key}={values}")
    added = f"+{key}" if key == "trainer.benchmark" else key
    (batch,) = BasicSweeper.split_arguments(
        OverridesParser.create().parse_overrides([*BLOBS, f"{added}={values}"]), None
    )
    planned = made.plan(batch)
    assert len(planned) == 2
    assert len(made.to_do(planned)) == 1


def test_every_key_of_data_without_effect_either_names_data_or_changes_none():
    assert {key for key in WITHOUT_EFFECT if key.startswith("data.")} == {*LOCATION, *NOT_THE_DATA}


BOTH = (*BLOBS, "objective.beta=1,4", "+kind=x", "seed=0,1", "trainer.val_check_interval=7")


def plan_of(sweep, *overrides):
    """The sweep of a command line, and its jobs as Hydra's sweeper would ask for them."""
    parsed = OverridesParser.create().parse_overrides([*overrides])
    parts = [
        [f"{each.get_key_element()}={value}" for value in each.sweep_string_iterator()]
        if each.is_sweep_override()
        else [each.input_line]
        for each in parsed
    ]
    made = sweep(*overrides)
    planned = made.plan([*itertools.product(*parts)])
    made.places.held.close()
    return planned


def test_folders_name_what_is_swept_and_not_what_is_constant(sweep):
    planned = plan_of(sweep, *BOTH)
    assert [job.folder.name for job in planned] == [
        f"beta={beta}_seed={seed}" for beta in (1, 4) for seed in (0, 1)
    ]


def test_another_sweep_into_the_folder_is_told_apart_by_its_constants(sweep):
    for job in plan_of(sweep, *BOTH):
        done(job)
    planned = plan_of(sweep, *BOTH[:-1], "trainer.val_check_interval=8")
    assert {job.before for job in planned} == {"new"}
    assert planned[0].folder.name.endswith("beta=1_kind=x_seed=0_val_check_interval=8")


def test_a_run_is_found_again_when_a_key_more_is_swept_or_it_was_named_with_its_constants(sweep):
    (first,) = plan_of(sweep, *BLOBS, "objective.beta=1", "seed=0")
    name = first.folder.name
    assert name.endswith("_max_steps=20_beta=1_seed=0")  # nothing is swept
    done(first)
    alone = plan_of(sweep, *BLOBS, "objective.beta=1,4", "seed=0")
    assert [(job.before, job.folder.name) for job in alone] == [
        ("finished", name),
        ("new", "beta=4"),
    ]
    done(alone[1])
    both = plan_of(sweep, *BLOBS, "objective.beta=1,4", "seed=0,1")
    assert [(job.before, job.folder.name) for job in both] == [
        ("finished", name),
        ("new", "beta=1_seed=1"),
        ("finished", "beta=4"),
        ("new", "beta=4_seed=1"),
    ]
