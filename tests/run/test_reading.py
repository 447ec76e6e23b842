"""Settings and steps of many runs, read fast: what OmegaConf and torch read, and nothing is run."""

import os

import pytest
import torch
from omegaconf import OmegaConf

from jensen.base.errors import InputError
from jensen.run.reading import read_tree, read_yaml, saved_step


def test_settings_are_read_as_omegaconf_reads_them(configure, tmp_path):
    text = OmegaConf.to_yaml(configure("experiment=beta_tcvae", "model/prior=mixture"))
    text += "odd: [1e-3, 1.0e-3, .5, 2024-01-01, 0x10, 1_000, yes, null, '~', 12:30, .inf, a: b]\n"
    path = tmp_path / "config.yaml"
    path.write_text(text)
    expected = OmegaConf.create(text)
    assert repr(read_tree(path)) == repr(OmegaConf.to_container(expected))
    assert read_yaml(path) == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1\nb: 2\na: 3\n", "a twice"),
        ("a: &x 1\nb: *x\n", "aliases"),
        ("a: " + "[" * 200 + "]" * 200, "nested too deep"),
        ("a: [1", "cannot be read"),
    ],
)
def test_settings_that_no_run_writes_are_refused(tmp_path, text, found):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=found):
        read_tree(path)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_the_step_of_a_checkpoint_is_read_without_running_anything(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "checkpoints" / "last.ckpt"
    assert saved_step(tmp_path) is None
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    state = {"state_dict": model.state_dict(), "optimizer_states": [optimiser.state_dict()]}
    saved = {"epoch": 1, "global_step": 1234, **state}
    torch.save({**saved, "trap": Trap(tmp_path / "made")}, path)
    assert saved_step(tmp_path) is None  # no run is restored from it either
    assert not (tmp_path / "made").exists()
    torch.save(saved, path)
    assert saved_step(tmp_path) == 1234
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert saved_step(tmp_path) is None
