"""The whole program on small data: what a run leaves behind, and that nothing about it is by
chance.
"""

import json
import shutil

import pytest
import torch
from cases import slow
from composing import composed
from hydra.utils import instantiate
from runs import ILLUSTRATED, QUICK, TRAINER, command, events, scalar, weights

from jensen.algorithm.logs import TERMS
from jensen.base.errors import InputError
from jensen.launch.training import train

PARTS = (
    "decomposition/mutual_information",
    "decomposition/total_correlation",
    "decomposition/dimension_wise_kl",
)

SHOWN = (*ILLUSTRATED, "trainer.max_steps=20")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A finished run with every diagnostic that is on by default, and its results."""
    folder = tmp_path_factory.mktemp("ran") / "run"
    return folder, train(composed(*SHOWN), folder)


@pytest.fixture
def finished(ran, tmp_path):
    """A copy of it, which a test may change, and its results."""
    shutil.copytree(ran[0], tmp_path / "run")
    return tmp_path / "run", ran[1]


def test_a_run_leaves_scalars_pictures_and_checkpoints(ran):
    tmp_path, results = ran
    assert results["val/elbo"] == pytest.approx(
        -(results["val/distortion"] + results["val/rate"]), rel=1e-5
    )
    assert results["val/loss"] == pytest.approx(
        results["val/distortion"] + 4 * results["val/rate"], rel=1e-5
    )

    found = events(tmp_path)
    tags = found.Tags()

    def scalar(tag):
        return {event.step: event.value for event in found.Scalars(tag)}

    assert {f"{split}/{name}" for split in ("train", "val") for name in TERMS} < set(
        tags["scalars"]
    )
    assert {"train/beta", "rate/active_units", "rate/active_rates"} <= set(tags["scalars"])
    assert {
        f"~histogram/{tag}" for tag in ("rate/by_latent", "codes/mean", "codes/std", "codes/z0")
    } <= set(tags["histograms"])
    assert {"rate/sorted", "reconstructions/images", "samples/images", "traversals/image_0"} <= set(
        tags["images"]
    )
    assert sorted(scalar("train/elbo")) == [0, 5, 10, 15]
    # Each interval, and the last step.
    assert sorted(scalar("rate/active_units")) == [12, 20]
    assert sorted(scalar("val/elbo")) == [12, 20]
    assert scalar("val/elbo")[20] == pytest.approx(results["val/elbo"])
    assert weights(tmp_path, "best").keys() == weights(tmp_path, "last").keys()


def test_the_logged_bound_is_the_models(configure, ran):
    """val/elbo again from the checkpoint, by code that shares nothing with the trainer."""
    folder, results = ran
    cfg = configure(*SHOWN)
    algorithm = instantiate(cfg.algorithm)
    algorithm.load_state_dict(weights(folder))
    data = instantiate(cfg.data)
    x = data.show(60)
    with torch.no_grad():
        posterior = algorithm.model.encode(x)
        q = torch.distributions.Normal(posterior.mean, (posterior.log_var / 2).exp())
        z = q.sample((400,))
        logits = algorithm.model.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        distortion = -torch.distributions.Bernoulli(logits=logits).log_prob(x).flatten(2).sum(2)
        rate = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)
    assert results["val/rate"] == pytest.approx(rate.mean().item(), rel=1e-5)
    one_sample = distortion.mean(1)  # what a single draw of the noise gives, 400 times
    assert abs(results["val/distortion"] - distortion.mean().item()) < 5 * one_sample.std().item()


def test_the_last_checkpoint_is_of_the_last_step_even_if_an_earlier_one_was_best(
    configure, tmp_path
):
    train(
        configure(*QUICK, "callbacks.best.mode=min"), tmp_path
    )  # the bound rises, so by the least the first one is best
    steps = [
        torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]
        for name in ("best", "last")
    ]
    assert steps == [12, 30]
    assert sorted(file.name for file in (tmp_path / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
        "last.previous.ckpt",
    ]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(configure, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(configure(*QUICK, f"seed={seed}"), tmp_path / name)
    first, again, other = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if "weight" in key)


SCHEDULED = (*QUICK, "+schedule@objective.beta=linear", "objective.beta.steps=5")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(composed(*SCHEDULED), folder)
    return folder


@pytest.mark.parametrize(
    "stop", [slow(7), 12, slow(20), slow(24)]
)  # amid an epoch of 20 steps, at a validation, at an epoch's end, at both
def test_a_continued_run_equals_an_uninterrupted_one(configure, tmp_path, uninterrupted, stop):
    train(configure(*SCHEDULED, f"trainer.max_steps={stop}"), tmp_path)
    train(configure(*SCHEDULED), tmp_path)
    whole = weights(uninterrupted)
    parts = weights(tmp_path)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert scalar(uninterrupted, "train/loss") == scalar(tmp_path, "train/loss")


def test_a_finished_run_is_not_trained_again(configure, finished):
    tmp_path, first = finished
    files = [file for file in tmp_path.rglob("*.*") if file.is_file()]
    before = {file: file.read_bytes() for file in files if file.name != "seal.json"}
    assert (
        train(configure(*SHOWN, "diagnostics=[rate]", "trainer.log_every_n_steps=1"), tmp_path)
        == first
    )
    assert {file: file.read_bytes() for file in before} == before
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["bound"]["elbo"] == first["val/elbo"]
    assert scores["diagnostics"].keys() == {*configure(*SHOWN).diagnostics}
    with pytest.raises(InputError, match="seed is 1 here and 0 there"):
        train(configure(*SHOWN, "seed=1"), tmp_path)


def test_a_run_that_was_killed_after_its_last_step_is_finished_without_another(configure, finished):
    tmp_path, first = finished
    scores = json.loads((tmp_path / "scores.json").read_text()) | {"run": str(tmp_path)}
    for name in ("finished.json", "scores.json"):
        (tmp_path / name).unlink()
    trained = weights(tmp_path)
    assert train(configure(*SHOWN), tmp_path) == first
    assert json.loads((tmp_path / "scores.json").read_text()) == scores
    assert all(torch.equal(value, trained[key]) for key, value in weights(tmp_path).items())
    assert sorted(event.step for event in events(tmp_path).Scalars("val/elbo")) == [12, 20]


@pytest.mark.slow
def test_two_ranks_give_what_one_process_gives(tmp_path):
    # 61 held-out examples: the ranks' shares differ in size
    shown = "diagnostics=[rate,decomposition,traversals]"
    overrides = [*QUICK, "data.validation=61", "trainer.max_steps=12", shown, "trainer=ddp"]
    for ranks in (1, 2):
        done = command(
            *overrides, f"trainer.devices={ranks}", f"hydra.run.dir={ranks}", cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
    one = weights(tmp_path / "1")
    two = weights(tmp_path / "2")
    assert max((one[key] - two[key]).abs().max() for key in one) < 1e-6
    for tag in ("val/elbo", "val/loss", "val/rate", "rate/active_units", "train/elbo", *PARTS):
        alone = scalar(tmp_path / "1", tag)
        shared = scalar(tmp_path / "2", tag)
        assert alone.keys() == shared.keys()
        assert list(shared.values()) == pytest.approx(list(alone.values()), rel=2e-6)
    pictures = [events(tmp_path / name).Images("traversals/image_0")[-1] for name in ("1", "2")]
    assert pictures[0].height == pictures[1].height


def test_the_command_says_where_the_run_is_and_how_it_ended(tmp_path):
    done = command(*QUICK, "hydra.run.dir=here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in (
        "val/elbo",
        "val/distortion",
        "val/rate",
        "nats per example",
        f"tensorboard --logdir {tmp_path / 'here'}",
    ):
        assert words in done.stdout
    assert "Warning" not in done.stderr


def test_bad_input_ends_the_command_with_a_sentence(tmp_path):
    done = command("objective.beta=-1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "objective.beta is -1: expected a number of at least 0\n"
    (log,) = tmp_path.glob("runs/*/train.log")
    assert "failed: objective.beta is -1: expected a number" in log.read_text()


def test_a_sweep_runs_in_order_and_outlives_a_failing_job(tmp_path):
    folders = ("hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra.job.num}")
    done = command(
        "-m", *QUICK, "trainer.max_steps=2", "objective.beta=1,-1,2", *folders, cwd=tmp_path
    )
    assert done.returncode == 1
    assert [
        (tmp_path / "sweep" / str(job) / "checkpoints" / "last.ckpt").exists() for job in range(3)
    ] == [True, False, True]


def test_ranks_inside_a_sweep_are_refused(tmp_path):
    done = command("-m", *QUICK, "seed=1,2", "trainer=ddp", "trainer.devices=2", cwd=tmp_path)
    assert done.returncode == 1
    assert "each would repeat the whole sweep" in done.stderr


def test_the_test_split_is_reported_where_there_is_one(configure, tmp_path, shared_data):
    cfg = configure(
        "experiment=mnist_mlp",
        f"data.root={shared_data}",
        "data.validation=500",
        *TRAINER,
        "trainer.max_steps=3",
    )
    assert {"val/elbo", "test/elbo", "test/distortion", "test/rate"} <= train(cfg, tmp_path).keys()


@pytest.mark.parametrize("data", ["blobs", "gaussian"])
def test_vectors_train_too(configure, tmp_path, data):
    results = train(
        configure(
            f"data={data}",
            "model=linear",
            "latent_dim=2",
            "trainer.max_steps=5",
            "trainer.accelerator=cpu",
        ),
        tmp_path,
    )
    assert results["val/elbo"] < 0
