"""The last lines of a run."""

from omegaconf import OmegaConf

from jensen.run.summary import summary


def test_numbers_stand_below_each_other_and_the_pictures_of_an_experiment_are_named(tmp_path):
    (tmp_path / "events.out.tfevents.1").touch()
    data = {"modalities": {"see": [1]}, "x_shape": [1]}
    # a factor_map is not drawn of data without factors
    shown = ("rate", "mcgurk", "reconstructions", "traversals", "factor_map")
    diagnostics: dict[str, dict[str, int]] = {name: {} for name in shown}
    cfg = OmegaConf.create({"diagnostics": diagnostics, "latent_dim": 4, "data": data})
    results = {"val/elbo": -3.599, "val/distortion_phoneme": 0.199}
    first, second, *places = summary(tmp_path, cfg, results)
    assert first.index(".599 nats") == second.index(".199 nats")
    assert any(line.startswith("pictures (mcgurk) are in") for line in places)
    cfg.data.modalities.see = [1, 8, 8]
    *_, told, _ = summary(tmp_path, cfg, results)
    assert told.startswith("pictures (traversals) are in")
    cfg.data = {"x_shape": [1, 8, 8]}
    *_, told, _ = summary(tmp_path, cfg, results)
    assert told.startswith("pictures (reconstructions, traversals) are in")


def test_latents_of_a_modality_of_its_own_are_counted(tmp_path):
    model = {"latent_dim": 1, "latent_private": {"a": 2}}
    cfg = OmegaConf.create({"diagnostics": {}, "latent_dim": 1, "model": model})
    lines = summary(tmp_path, cfg, {"rate/active_units": 2.0})
    assert any("2 of 3 latents active" in line for line in lines), lines


def test_a_mixture_is_said_to_have_no_number_of_latents(tmp_path):
    cfg = OmegaConf.create({"diagnostics": {}, "latent_dim": 10, "model": {"components": 5}})
    lines = summary(tmp_path, cfg, {"rate/active_units": 1450.0})
    assert lines == ["1450 latents active"]
