"""Arguments of Lightning, torch and others: their own annotations are held to, and a run asks for
nothing that it cannot do.
"""

from copy import deepcopy

import pytest
from omegaconf import OmegaConf

from jensen.base.errors import InputError
from jensen.launch import settings

REFUSED = {
    ("optimizer.fused", "false"): "optimizer.fused is 'false': expected true or false or null",
    ("optimizer.fused", 1): "optimizer.fused is 1: expected true or false",
    ("optimizer.lr", True): "optimizer.lr is True: expected a number",
    ("optimizer.lr", 1e300): "optimizer.lr is 1e+300: expected a number",
    ("optimizer.betas", ()): "optimizer.betas is []: expected a list of 2",
    ("optimizer.betas", (0.9, "x")): "optimizer.betas is [0.9, 'x']: expected a list of 2",
    ("optimizer._partial_", "yes"): "optimizer._partial_ is 'yes': expected true or false",
    ("data._convert_", "al"): "data._convert_ is 'al': expected one of none, partial, object, all",
    (
        "callbacks.hparams._recursive_",
        0,
    ): "callbacks.hparams._recursive_ is 0: expected true or false",
    (
        "logger.tensorboard.default_hp_metric",
        "no",
    ): "logger.tensorboard.default_hp_metric is 'no': expected true or false",
    ("trainer.devices", True): "trainer.devices is True: expected a list or a text or an integer",
    (
        "trainer.enable_model_summary",
        1,
    ): "trainer.enable_model_summary is 1: expected true or false or null",
    ("trainer.max_epochs", 0): "trainer.max_epochs is 0: expected an integer of at least 1",
    (
        "trainer.max_epochs",
        float("nan"),
    ): "trainer.max_epochs is nan: expected an integer of at least 1",
    (
        "trainer.check_val_every_n_epoch",
        0,
    ): "trainer.check_val_every_n_epoch is 0: expected an integer of at least 1",
    (
        "trainer.num_sanity_val_steps",
        "two",
    ): "trainer.num_sanity_val_steps is 'two': expected an integer of at least -1",
    (
        "trainer.overfit_batches",
        1,
    ): "trainer.overfit_batches is 1: expected 0, since it would put another order of the data",
    ("trainer.overfit_batches", 0.1): "trainer.overfit_batches is 0.1: expected 0",
    (
        "trainer.fast_dev_run",
        True,
    ): "trainer.fast_dev_run is True: expected false, since such a run keeps nothing",
    (
        "trainer.limit_train_batches",
        0,
    ): "trainer.limit_train_batches is 0: expected more, since nothing would be trained",
    (
        "trainer.use_distributed_sampler",
        True,
    ): "trainer.use_distributed_sampler is True: expected false",
}
TAKEN = [
    ("optimizer.fused", None),
    ("optimizer.lr", 1),
    ("optimizer.betas", (0.8, 0.9)),
    ("trainer.devices", "auto"),
    ("trainer.devices", (0, 1)),
    ("trainer.max_epochs", 3),
    ("trainer.max_epochs", None),
    ("trainer.max_time", "00:01:00:00"),
    ("trainer.precision", "bf16-mixed"),
    ("trainer.precision", 64),
    ("trainer.deterministic", "warn"),
    ("trainer.limit_val_batches", 0.5),
    ("trainer.num_sanity_val_steps", -1),
    ("trainer.nonsense", 7),
    ("callbacks.mine", None),
]


@pytest.fixture(scope="module")
def cfg():
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from jensen.run.conf import conf_folder

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = compose("train")
    OmegaConf.set_struct(composed, False)
    return composed


def changed(cfg, key, value):
    cfg = deepcopy(cfg)
    OmegaConf.update(cfg, key, list(value) if isinstance(value, tuple) else value, merge=False)
    return cfg


@pytest.mark.parametrize("case", REFUSED.items(), ids=lambda case: f"{case[0][0]}={case[0][1]}")
def test_what_others_do_not_take_is_one_sentence(cfg, case):
    (key, value), sentence = case
    with pytest.raises(InputError) as caught:
        settings.check(changed(cfg, key, value))
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("case", TAKEN, ids=lambda case: f"{case[0]}={case[1]}")
def test_what_they_take_passes(cfg, case):
    settings.check(changed(cfg, *case))


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("interval", [1, 30, 0.25, 1.0])
def test_a_validation_by_epochs_is_after_some_steps_or_a_part_of_one(cfg, every, interval):
    by_epochs = changed(cfg, "trainer.check_val_every_n_epoch", every)
    settings.check(changed(by_epochs, "trainer.val_check_interval", interval))


@pytest.mark.parametrize("interval", [0, 0.0, 1.5, -1, True, "x", None])
def test_no_other_interval_is_taken(cfg, interval):
    by_epochs = changed(cfg, "trainer.check_val_every_n_epoch", 1)
    with pytest.raises(InputError, match=r"^trainer.val_check_interval is"):
        settings.check(changed(by_epochs, "trainer.val_check_interval", interval))


class Mine:
    """A user's callback; its annotations are those of whoever wrote it, and one of them is wrong
    about its default.
    """

    def __init__(self, path: "str", limit: float = None, names: list[str] | None = None, plain=3):  # noqa: RUF013
        pass


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"path": "x"}, ""),
        ({"path": "x", "limit": None, "names": ["a"], "plain": "x"}, ""),
        ({"path": {"_target_": "pathlib.Path"}}, ""),
        ({"path": 3}, "callbacks.mine.path is 3: expected a text"),
        ({"path": "x", "limit": "y"}, "callbacks.mine.limit is 'y': expected a number"),
        ({"path": "x", "names": "a"}, "callbacks.mine.names is 'a': expected a list or null"),
        (
            {"path": "x", "names": ["a", 1]},
            "callbacks.mine.names is ['a', 1]: expected a list or null",
        ),
    ],
)
def test_a_users_own_annotations_are_held_to_as_well(cfg, given, sentence):
    cfg = changed(cfg, "callbacks.mine", {"_target_": f"{__name__}.Mine", **given})
    if not sentence:
        settings.check(cfg)
        return
    with pytest.raises(InputError) as caught:
        settings.check(cfg)
    assert str(caught.value) == sentence
