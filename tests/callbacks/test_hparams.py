"""TensorBoard's HPARAMS: one entry a run. The same run shows that the PROJECTOR's files belong
together.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import shell
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tiny import TINY
from torch.utils.tensorboard import SummaryWriter

from jensen.callbacks import hparams as module
from jensen.callbacks.hparams import HParams, entry_of, started_with, swept
from jensen.launch.training import train

QUICK = (
    *TINY,
    "trainer.accelerator=cpu",
    "trainer.max_steps=8",
    "trainer.val_check_interval=4",
    "seed=3",
)
DIAGNOSED = "diagnostics=[rate,decomposition,mig_hist20,embedding]"


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def entry(folder: Path) -> dict[str, object]:
    """The hyperparameters of the run as TensorBoard's plugin reads them."""
    content = events(folder).PluginTagToContent("hparams")[metadata.SESSION_START_INFO_TAG]
    info = metadata.parse_session_start_info_plugin_data(content)
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in info.hparams.items()}


def scalar(folder: Path, name: str) -> dict[int, float]:
    return {event.step: event.value for event in events(folder).Scalars(name)}


@pytest.fixture(scope="module")
def commanded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that a command started."""
    folder = tmp_path_factory.mktemp("commanded")
    done = shell.run(
        "jensen.train", *QUICK, DIAGNOSED, "objective.beta=2", "hydra.run.dir=here", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder / "here"


def test_the_entry_has_settings_choices_and_overrides(commanded):
    found = entry(commanded)
    expected = {
        "objective.beta": 2.0,
        "seed": 3.0,
        "latent_dim": 3.0,
        "optimizer.lr": 1e-3,
        "data.batch_size": 12.0,
    }
    assert expected.items() <= found.items()
    assert {
        "data": "sprites",
        "model": "mlp",
        "objective": "beta",
        "model/likelihood": "bernoulli",
    }.items() <= found.items()
    assert {
        "trainer.max_steps": 8.0,
        "data.size": 300.0,
        "model.encoder.hidden": "[16]",
    }.items() <= found.items()
    assert "diagnostics" not in found


def test_the_whole_configuration_is_in_text(commanded):
    (event,) = events(commanded).Tensors("configuration/text_summary")
    (text,) = event.tensor_proto.string_val
    lines = [line.removeprefix("    ") for line in text.decode().splitlines()]
    assert lines == (commanded / ".hydra" / "config.yaml").read_text().splitlines()
    assert "seed: 3" in lines


def test_what_was_asked_for_comes_first(commanded):
    content = events(commanded).PluginTagToContent("hparams")[metadata.EXPERIMENT_TAG]
    infos = metadata.parse_experiment_plugin_data(content).hparam_infos
    assert {info.name for info in infos if info.differs} == {
        *(
            "seed",
            "latent_dim",
            "objective.beta",
            "data.size",
            "data.validation",
            "data.batch_size",
            "model.encoder.hidden",
        ),
        *("trainer.accelerator", "trainer.max_steps", "trainer.val_check_interval"),
    }


def test_the_metrics_are_those_of_the_diagnostics_and_their_last_value_counts(commanded):
    tags = set(events(commanded).Tags()["scalars"])
    names = {
        "distortion": "val/distortion",
        "rate": "val/rate",
        "elbo": "val/elbo",
        "mi": "decomposition/mutual_information",
        "tc": "decomposition/total_correlation",
        "mig_hist20": "mig_hist20/mig_hist20",
    }
    content = events(commanded).PluginTagToContent("hparams")[metadata.EXPERIMENT_TAG]
    assert {
        info.display_name: info.name.tag
        for info in metadata.parse_experiment_plugin_data(content).metric_infos
    } == names
    assert set(names.values()) <= tags
    assert not any(tag.startswith("hp/") for tag in tags)  # no curve twice


def test_a_continued_run_keeps_its_entry(configure, tmp_path):
    overrides = (*QUICK, "diagnostics=[rate]")
    train(configure(*overrides, "trainer.max_steps=4"), tmp_path)
    files = len([*tmp_path.glob("events*")])
    train(configure(*overrides), tmp_path)
    starts = [
        event
        for file in tmp_path.glob("events*")
        for event in EventAccumulator(str(file)).Reload()._generator.Load()
        for value in event.summary.value
        if value.tag == metadata.SESSION_START_INFO_TAG
    ]
    assert len([*tmp_path.glob("events*")]) > files
    assert len(starts) <= 1
    assert sorted(scalar(tmp_path, "val/elbo")) == [4, 8]
    assert entry(tmp_path)["trainer.max_steps"] == 4.0


def test_a_schedule_is_numbers_and_the_name_of_its_class(configure):
    from hydra.utils import instantiate

    cfg = configure("+schedule@objective.beta=linear", "callbacks=[hparams]", "diagnostics=[rate]")
    (callback,) = instantiate(cfg.callbacks).values()
    assert isinstance(callback, HParams)
    assert callback.settings["objective.beta"]["end"] == 1.0
    assert callback.metrics == {
        "distortion": "val/distortion",
        "rate": "val/rate",
        "elbo": "val/elbo",
    }


def test_a_sweeps_runs_tick_what_is_swept(tmp_path):
    (tmp_path / "sweep.json").write_text('{"experiment": null, "swept": ["objective.beta"]}')
    assert swept(tmp_path / "beta=1") == {"objective.beta"}
    for odd in ('{"experi', "[]", '{"experiment": "x"}', '{"swept": 1}'):
        (tmp_path / "sweep.json").write_text(odd)
        assert swept(tmp_path / "beta=1") == set()


def columns_of(folder, overrides, monkeypatch):
    """Columns that TensorBoard gets of a run, and which of them it is told to tick."""
    callback = HParams(
        {"seed": 3, "latent_dim": 4, "a": 1, "b": 1, "c": 1}, {"elbo": "val/elbo"}, []
    )
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "hydra.yaml").write_text(
        f"hydra: {{runtime: {{choices: {{model: mlp}}}}, overrides: {{task: {overrides}}}}}"
    )
    with SummaryWriter(str(folder)) as writer:
        monkeypatch.setattr(module, "writers", lambda trainer: [writer])
        trainer = SimpleNamespace(
            global_step=0, default_root_dir=folder, is_global_zero=True, loggers=[]
        )
        callback.on_train_start(trainer, None)
    content = events(folder).PluginTagToContent("hparams")[metadata.EXPERIMENT_TAG]
    found = metadata.parse_experiment_plugin_data(content).hparam_infos
    return {info.name for info in found}, {info.name for info in found if info.differs}


EVERYTHING = {"seed", "latent_dim", "a", "b", "c", "model"}


@pytest.mark.parametrize(
    ("swept", "columns", "ticked"),
    [
        ([], EVERYTHING, {"seed", "b"}),
        (["a", "b"], {"a", "b"}, {"a", "b"}),
        (["a", "b", "c", "seed", "model"], EVERYTHING, {"a", "b", "c", "seed", "model"}),
        (["z"], EVERYTHING, set()),
    ],
)
def test_a_sweep_has_columns_of_what_is_swept_and_a_run_alone_of_everything(
    tmp_path, monkeypatch, swept, columns, ticked
):
    """TensorBoard ticks five columns where there are as many, whatever it is told."""
    (tmp_path / "sweep.json").write_text(json.dumps({"swept": swept}))
    assert columns_of(tmp_path / "run", "[b=2]", monkeypatch) == (columns, ticked)


def test_values_are_numbers_where_they_can_be(tmp_path):
    assert [entry_of(value) for value in ("1e-3", 4, "[1,2]", "conv")] == [
        1e-3,
        4.0,
        "[1,2]",
        "conv",
    ]
    assert started_with(tmp_path) == ({}, {})


def test_the_projector_reads_what_a_run_leaves(commanded):
    config = text_format.Parse(
        (commanded / "projector_config.pbtxt").read_text(), ProjectorConfig()
    )
    (found,) = config.embeddings  # one, after two validations
    codes = [line.split("\t") for line in (commanded / found.tensor_path).read_text().splitlines()]
    labels = [
        line.split("\t") for line in (commanded / found.metadata_path).read_text().splitlines()
    ]
    assert {len(row) for row in codes} == {3}
    assert labels[0] == ["shape", "scale", "orientation", "posX", "posY", "distortion", "rate"]
    assert len(codes) == len(labels) - 1 == 60
    assert [*found.sprite.single_image_dim] == [32, 32]
    with Image.open(commanded / found.sprite.image_path) as picture:
        assert picture.size == (8 * 32, 8 * 32)  # 60 thumbnails
