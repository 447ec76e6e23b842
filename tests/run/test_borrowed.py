"""Settings of diagnostics that are values of the run they are asked of."""

from omegaconf import OmegaConf

from jensen.run.borrowed import borrowed
from jensen.run.conf import conf_folder


def settings_of(choice):
    return OmegaConf.load(conf_folder() / "diagnostics" / f"{choice}.yaml")


def folder(tmp_path, **content):
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(
        OmegaConf.create({"algorithm": {}, **content}), tmp_path / ".hydra" / "config.yaml"
    )
    return tmp_path


def test_a_diagnostic_finds_the_values_of_the_runs_data(tmp_path):
    run = folder(
        tmp_path,
        data={"variances": [4.0, 1.0]},
        objective={"beta": 2.0},
        model={"likelihood": {"_target_": "jensen.model.likelihood.Normal", "variance": 0.5}},
    )
    found = borrowed(settings_of("water_filling"), run)
    assert not found.absent
    settings = found.settings["water_filling"]
    assert settings["variances"] == [4.0, 1.0]
    assert (settings["beta"], settings["noise"]) == (2.0, 0.5)


def test_what_the_run_has_not_is_left_out_with_the_choice_that_has_it(tmp_path):
    run = folder(tmp_path, data={"size": 9}, seed=0)
    settings, absent = borrowed(settings_of("probabilistic_pca"), run)
    assert settings == {}
    assert absent["probabilistic_pca"] == (
        f"diagnostics.probabilistic_pca asks for data.variances, which run={run} has not: expected"
        " a run of data=gaussian"
    )
    (sentence,) = borrowed(settings_of("probabilistic_pca"), None).absent.values()
    assert "which codes alone have not: expected a run of data=gaussian" in sentence


def test_nothing_is_made_of_what_a_strangers_folder_holds(tmp_path):
    run = folder(tmp_path, data={"variances": {"_target_": "os.system", "command": "false"}})
    (settings,) = borrowed(settings_of("probabilistic_pca"), run).settings.values()
    assert settings["variances"] == {"command": "false"}
