"""The last lines of a run."""

from omegaconf import OmegaConf

from jensen.run.summary import summary


def test_numbers_stand_below_each_other_and_the_pictures_of_an_experiment_are_named(tmp_path):
    (tmp_path / "events.out.tfevents.1").touch()
    cfg = OmegaConf.create({"diagnostics": {"rate": {}, "mcgurk": {}}, "latent_dim": 4})
    results = {"val/elbo": -3.599, "val/distortion_phoneme": 0.199}
    first, second, *places = summary(tmp_path, cfg, results)
    assert first.index(".599 nats") == second.index(".199 nats")
    assert any(line.startswith("pictures (mcgurk) are in") for line in places)
