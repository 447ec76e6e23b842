"""EM as a Lightning algorithm: the same maximum as GMM.fit and as scikit-learn, whatever the
batches, ranks and stops.
"""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from cases import slow, some
from pytorch_lightning import Trainer
from ranks import fit, together
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jensen.algorithm.em import EM
from jensen.algorithm.m_step import MStep
from jensen.base.errors import InputError
from jensen.base.schedule import Constant
from jensen.data.blobs import blobs
from jensen.data.examples import Examples, identity
from jensen.data.module import DataModule
from jensen.family.structures import STRUCTURES
from jensen.launch.training import train
from jensen.model.bayesian_gmm import BayesianGMM
from jensen.model.gmm import GMM
from jensen.model.mixture_model import MixtureModel

QUICK = (
    "experiment=gmm",
    "data.size=700",
    "data.validation=100",
    "data.batch_size=90",
    "trainer.accelerator=cpu",
)
NO_PICTURES = ("diagnostics=[]", "callbacks=[checkpoint]")


def parameters(folder):
    """`model.*` of the last checkpoint."""
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {
        name.removeprefix("model."): value
        for name, value in state.items()
        if name.startswith("model.")
    }


def scalar(folder, tag):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {event.step: event.value for event in accumulator.Scalars(tag)}


def held_out_and_trained_on(cfg):
    """The points of the run, in numpy."""
    from hydra.utils import instantiate

    data = instantiate(cfg.data)
    return data.show(10_000).double().numpy(), data.sample(10_000).double().numpy()


@some(2, "covariance", STRUCTURES)
def test_it_ends_where_scikit_learn_ends_from_the_same_start(configure, tmp_path, covariance):
    options = (
        *QUICK,
        *NO_PICTURES,
        f"model.covariance={covariance}",
        "model.restarts=1",
        "data.spread=2",
        "data.components=3",
    )
    options = (*options, "model.components=3", "algorithm.tolerance=0")
    train(configure(*options, "trainer.max_steps=1"), tmp_path / "one")
    cfg = configure(*options, "trainer.max_steps=25")
    results = train(cfg, tmp_path / "all")

    held_out, points = held_out_and_trained_on(cfg)
    peer = GaussianMixture(
        3, covariance_type=covariance, tol=0, max_iter=24, reg_covar=0, warm_start=True
    )
    first = parameters(tmp_path / "one")  # after one M-step: 24 more
    scale = (
        first["log_var"].exp()
        if "log_var" in first
        else first["scale_tril"] @ first["scale_tril"].mT
    )
    precision = 1 / scale if "log_var" in first else torch.linalg.inv(scale)
    peer.weights_init, peer.means_init, peer.precisions_init = (
        (value / value.sum() if value.dim() == 1 and value is not precision else value).numpy()
        for value in (first["log_weight"].exp(), first["mean"], precision)
    )
    with pytest.warns(Warning, match="converge"):
        peer.fit(points)
    last = parameters(tmp_path / "all")
    assert torch.allclose(last["log_weight"].exp(), torch.tensor(peer.weights_), atol=1e-9)
    assert torch.allclose(last["mean"], torch.tensor(peer.means_), atol=1e-8)
    assert results["val/elbo"] == pytest.approx(peer.score(held_out), abs=1e-7)


def test_without_a_tolerance_it_goes_to_its_last_step(configure, tmp_path, monkeypatch):
    """At the maximum an M-step gains a rounding error, of either sign; here it loses one each
    time.
    """
    remember = MStep.remember

    def higher(self, *given):
        remember(self, *given)
        self.memory["objective"] = self.memory["objective"] + 1e-9

    monkeypatch.setattr(MStep, "remember", higher)
    cfg = configure(
        *QUICK, *NO_PICTURES, "model.components=1", "trainer.max_steps=12", "algorithm.tolerance=0"
    )
    train(cfg, tmp_path / "none")
    assert json.loads((tmp_path / "none" / "finished.json").read_text())["step"] == 12
    train(
        configure(*QUICK, *NO_PICTURES, "model.components=1", "trainer.max_steps=12"),
        tmp_path / "some",
    )
    marker = json.loads((tmp_path / "some" / "finished.json").read_text())
    assert (marker["step"] < 12, marker["why"]) == (True, "algorithm.tolerance")


def test_what_it_says_of_each_iteration(configure, tmp_path):
    cfg = configure(
        *QUICK,
        "model.components=3",
        "model.restarts=1",
        "data.spread=1.5",
        "trainer.max_steps=12",
        "algorithm.tolerance=0",
    )
    results = train(cfg, tmp_path)
    bound, value, gap = (
        scalar(tmp_path, f"train/{name}") for name in ("bound", "log_likelihood", "gap")
    )
    assert sorted(value) == list(range(12))
    assert sorted(bound) == list(range(1, 12))
    for step in bound:
        assert (
            value[step - 1] <= bound[step] + 1e-6
        )  # the bound touched there, and the M-step raised it
        assert gap[step] >= -1e-6
        assert bound[step] + gap[step] == pytest.approx(value[step], abs=1e-6)
    for step, q in scalar(tmp_path, "train/q").items():
        assert q + scalar(tmp_path, "train/entropy")[step] == pytest.approx(bound[step], abs=1e-6)

    found = parameters(tmp_path)
    (held_out, _) = held_out_and_trained_on(cfg)
    joint = [
        float(weight) + multivariate_normal(mean, scale @ scale.mT).logpdf(held_out)
        for weight, mean, scale in zip(
            found["log_weight"], found["mean"], found["scale_tril"], strict=True
        )
    ]
    assert results["val/elbo"] == pytest.approx(logsumexp(joint, axis=0).mean(), abs=1e-6)
    assert -(results["val/distortion"] + results["val/rate"]) == pytest.approx(
        results["val/elbo"], abs=1e-6
    )
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert {"components/weights", "components/ellipses"} <= set(accumulator.Tags()["images"])


def test_batches_change_nothing_and_it_ends_by_itself(configure, tmp_path):
    for size in (90, 600):
        train(configure(*QUICK, *NO_PICTURES, f"data.batch_size={size}"), tmp_path / str(size))
    one = parameters(tmp_path / "90")
    other = parameters(tmp_path / "600")
    assert all(torch.allclose(one[name], other[name], rtol=0, atol=1e-10) for name in one)
    steps = [
        torch.load(tmp_path / size / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
        for size in ("90", "600")
    ]
    assert steps[0] == steps[1] < 200
    value = scalar(tmp_path / "90", "train/log_likelihood")
    assert value[max(value)] - value[max(value) - 1] < 1e-6 < value[1] - value[0]


@pytest.mark.parametrize("algorithm", ["em", "stepwise_em"])
def test_a_continued_fit_equals_an_uninterrupted_one(configure, tmp_path, algorithm):
    options = (
        *QUICK,
        *NO_PICTURES,
        f"algorithm={algorithm}",
        "data.spread=1",
        "model.components=3",
        "algorithm.tolerance=0",
    )
    train(configure(*options, "trainer.max_steps=9"), tmp_path / "whole")
    train(configure(*options, "trainer.max_steps=4"), tmp_path / "parts")
    train(configure(*options, "trainer.max_steps=9"), tmp_path / "parts")
    whole = parameters(tmp_path / "whole")
    parts = parameters(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


RANKED = {
    "em": ("algorithm=em",),
    "stepwise_em": ("algorithm=stepwise_em",),
    "bayesian": ("algorithm=stepwise_em", "model=bayesian_gmm", "model.restarts=2"),
    "mixed": (
        *("algorithm=em", "model=mixed_mixture", "data=codes", "data.x_shape=[4]"),
        *("model.families.normal=[3]", "model.families.bernoulli=[0]", "model.sizes=3"),
        *("model.families.poisson=[2]", "model.families.categorical=[1]"),
    ),
}


def write_table(path):
    """700 rows of two kinds: 0 or 1, one of three, a count, a real number."""
    draw = np.random.default_rng(0)
    kind = draw.integers(2, size=700)
    columns = (
        draw.random(700) < 0.2 + 0.6 * kind,
        np.minimum(draw.integers(3, size=700), 1 + kind),
        draw.poisson(2.0 + 5 * kind),
        draw.normal(3.0 * kind),
    )
    np.savez(path, codes=np.stack(columns, 1).astype(np.float32))


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """`ranked(name, world)`: the folder of that run, which is made once."""
    folder = tmp_path_factory.mktemp("ranks")
    write_table(folder / "table.npz")
    quick = [word for word in QUICK if not word.startswith("data.size")]
    options = (*quick, "data.batch_size=92", "model.components=3", "trainer=ddp")
    options = (*options, "algorithm.tolerance=0", "trainer.max_steps=5", "data.validation=101")
    points = ("data.size=700", "data.spread=1")
    table = (f"data.path={folder / 'table.npz'}",)

    def on(name, world):
        run = folder / name / world
        if not run.exists():
            own = table if name == "mixed" else points
            words = (*options, f"trainer.devices={world}", *RANKED[name], *own)
            together(int(world), fit, [(run, words)])
        return run

    return on


@pytest.mark.parametrize("world", ["2", slow("4")])
@some(1, "algorithm", RANKED)
def test_ranks_change_nothing(ranked, algorithm, world):
    alone = ranked(algorithm, "1")
    shared = ranked(algorithm, world)
    one = parameters(alone)
    other = parameters(shared)
    assert max((one[name] - other[name]).abs().max() for name in one if one[name].numel()) < 1e-10
    for tag in ("val/elbo", "components/responsibility_entropy", "train/log_likelihood"):
        assert scalar(shared, tag) == pytest.approx(scalar(alone, tag), rel=1e-6)


def test_a_stepwise_step_is_the_average_of_the_papers_equation(configure, tmp_path):
    """Two steps by hand, in numpy: s0 of all examples at the start, then 1/2^decay and 1/3^decay of
    a batch.
    """
    options = (
        *QUICK,
        *NO_PICTURES,
        "algorithm=stepwise_em",
        "algorithm.decay=0.75",
        "data.x_shape=[1]",
        "model.components=2",
    )
    options = (
        *options,
        "data.components=2",
        "data.spread=1",
        "data.validation=100",
        "trainer.val_check_interval=1",
        "model.seed=5",
    )
    cfg = configure(*options, "trainer.max_steps=2")
    train(configure(*options, "trainer.max_steps=1"), tmp_path / "1")
    train(cfg, tmp_path / "2")

    from hydra.utils import instantiate

    from jensen.data.order import Shuffled

    data = instantiate(cfg.data)
    everything = data.sample(10_000).flatten().double()
    gmm = instantiate(cfg.model).fit(everything[:, None].float())
    batches = [
        blobs(700, 1, 2, 1.0).stored[rows, 0].double()
        for rows in Shuffled(data.source.rows[1], 90, 0, 0, 1, lambda: 0)
    ]

    def statistics(x, weight, mean, var):
        joint = (
            torch.log(weight)
            - 0.5 * (x[:, None] - mean) ** 2 / var
            - 0.5 * torch.log(2 * math.pi * var)
        )
        r = joint.softmax(1)
        return torch.stack([r.sum(0), (r * x[:, None]).sum(0), (r * x[:, None] ** 2).sum(0)]) / len(
            x
        )

    def maximise(s):
        return s[0] / s[0].sum(), s[1] / s[0], s[2] / s[0] - (s[1] / s[0]) ** 2

    theta = gmm.log_weight.exp(), gmm.mean[:, 0], gmm.scale_tril[:, 0, 0] ** 2
    s = statistics(everything, *theta)
    for step, batch in enumerate(batches[:2]):
        gamma = (step + 2) ** -0.75
        s = (1 - gamma) * s + gamma * statistics(batch, *theta)
        theta = maximise(s)
        found = parameters(tmp_path / str(step + 1))
        assert torch.allclose(found["log_weight"].exp(), theta[0], atol=1e-9)
        assert torch.allclose(found["mean"][:, 0], theta[1], atol=1e-8)
        assert torch.allclose(found["scale_tril"][:, 0, 0] ** 2, theta[2], atol=1e-7)


@pytest.mark.slow
def test_stepwise_comes_close_to_all_data(configure, tmp_path):
    options = (
        "data.size=3000",
        "data.spread=2",
        "data.components=3",
        "model.components=3",
        "data.validation=500",
    )
    large = (*options, "data.batch_size=500")  # which changes nothing where all are counted
    exact = train(configure(*QUICK, *NO_PICTURES, *large), tmp_path / "all")
    online = train(
        configure(*QUICK, *NO_PICTURES, *options, "algorithm=stepwise_em", "algorithm.decay=0.7"),
        tmp_path / "steps",
    )
    assert online["val/elbo"] == pytest.approx(exact["val/elbo"], abs=0.01)


def test_only_the_weights_move_at_first(configure, tmp_path):
    for steps in (1, 3, 4):
        cfg = configure(
            *QUICK,
            *NO_PICTURES,
            "algorithm.weights_first=3",
            "algorithm.tolerance=0",
            f"trainer.max_steps={steps}",
        )
        train(cfg, tmp_path / str(steps))
    first, third, fourth = (parameters(tmp_path / name) for name in ("1", "3", "4"))
    assert torch.equal(first["mean"], third["mean"])
    assert torch.equal(first["scale_tril"], third["scale_tril"])
    assert not torch.equal(first["log_weight"], third["log_weight"])
    assert not torch.equal(third["mean"], fourth["mean"])


def test_data_moved_by_a_million_move_the_means_and_nothing_else(configure, tmp_path, monkeypatch):
    options = (
        *QUICK,
        *NO_PICTURES,
        "data.spread=2",
        "model.components=3",
        "trainer.max_steps=10",
        "algorithm.tolerance=0",
    )
    train(configure(*options, "trainer.precision=64-true"), tmp_path / "here")
    import jensen.data.blobs as source

    def moved(*shape):
        found = blobs(*shape)
        return type(found)(
            found.stored.double() + 1e6, found.decode, found.factors, found.names, found.sizes
        )

    monkeypatch.setattr(
        source,
        "blobs",
        lambda size, dim, components, spread, scale, seed: moved(
            size, dim, components, spread, scale, seed
        ),
    )
    train(configure(*options, "trainer.precision=64-true"), tmp_path / "there")
    here = parameters(tmp_path / "here")
    there = parameters(tmp_path / "there")
    assert torch.allclose(here["mean"] + 1e6, there["mean"], rtol=0, atol=1e-8)
    assert all(
        torch.allclose(here[name], there[name], atol=1e-8) for name in ("log_weight", "scale_tril")
    )


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("algorithm.decay=0.5", "decay is 0.5: expected a number above 0.5"),
        ("algorithm.tolerance=-1", "tolerance is -1"),
        (
            "data.shuffle=true",
            "data.shuffle is True: expected False, since EM on all data counts every example once"
            " an epoch",
        ),
        (
            "trainer.val_check_interval=10",
            "trainer.val_check_interval is 10: expected 1.0, since EM on all data counts",
        ),
        ("algorithm.beta=0", "beta is 0"),
        ("model.components=0", "components is 0"),
        ("model.components=601", "x has 600 points: expected at least 601"),
    ],
)
def test_bad_input(configure, tmp_path, override, sentence):
    from hydra.errors import InstantiationException

    from jensen.run.words import explain

    with pytest.raises((InputError, InstantiationException)) as found:
        train(configure(*QUICK, *NO_PICTURES, override), tmp_path)
    assert sentence in (explain(found.value) or "")


@pytest.mark.parametrize(
    ("bad", "missing"), [(math.nan, False), (math.inf, False), (-math.inf, True)]
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_held_out_number_that_is_not_finite_is_refused_before_training(
    tmp_path, split, bad, missing
):
    points = {
        split: torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        for split in ("train", "test")
    }

    def source(split):
        return Examples(points[split], identity)

    data = DataModule(
        source, (2,), 50, seed=0, splits=["train", "test"], validation=20, shuffle=False
    )
    row = int(data.source.rows[0][3])  # one that the start does not look at
    points[split][row, 1] = bad
    trainer = Trainer(
        accelerator="cpu",
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    with pytest.raises(
        InputError,
        match=f"the data hold {bad:g}: expected finite .* \\(example {row} of the {split} split",
    ):
        trainer.fit(EM(GMM(2, missing=missing)), data)


@pytest.mark.parametrize("beta", [0.1, Constant(0.1)])
def test_the_temperature_is_the_number_that_was_given(beta):
    assert EM(GMM(2), beta=beta).beta(torch.tensor(0)).item() == 0.1


@pytest.mark.filterwarnings("ignore")  # Lightning's
@pytest.mark.parametrize("covariance", [*STRUCTURES, "columns"])
@pytest.mark.parametrize("apart", [10.0, 1e4, 3e7])
def test_clusters_too_far_apart_for_sums_about_one_origin_are_said(covariance, apart, caplog):
    """The model's own `fit` is the oracle: where nothing is said the covariances are its own, to what is said
    of the limit.
    """
    noise = torch.randn(400, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points = noise + apart * (torch.arange(400) % 2).unsqueeze(1)
    data = DataModule(
        lambda: Examples(points, identity), (2,), 100, seed=0, validation=20, shuffle=False
    )
    start = points[:2]
    columns = covariance == "columns"
    make = partial(MixtureModel, 2, "normal") if columns else partial(GMM, 2, covariance)
    model = make(init=start)
    options = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        accelerator="cpu", max_steps=4, precision="64-true", num_sanity_val_steps=0, **options
    )
    with caplog.at_level("WARNING", logger="jensen"):
        trainer.fit(EM(model), data)
    said = [
        record.message for record in caplog.records if "sums about one origin" in record.message
    ]
    expected = make(init=start).fit(data.sample(400))
    every = [each.mixture.components for each in (model, expected)]
    found = [each.groups[0].log_var if columns else each.marginals().log_var for each in every]
    assert len(said) == (apart > 1e5)
    torch.testing.assert_close(model.mean, expected.mean, rtol=1e-6, atol=1e-6)
    if said:
        assert "lie up to 1." in said[0] or "lie up to 2." in said[0]
        assert "e+07 of their deviations" in said[0]
    else:
        torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # Lightning's
@pytest.mark.parametrize(
    "make",
    [
        lambda **more: BayesianGMM(3, tolerance=0.0, **more),
        lambda **more: BayesianGMM(3, "tied", weights="stick", tolerance=0.0, **more),
        lambda **more: MixtureModel(
            2, {"normal": [1], "poisson": [0]}, tolerance=0.0, accelerate=False, **more
        ),
    ],
    ids=["bayesian", "sticks", "table"],
)
def test_steps_over_batches_are_those_of_other_mixtures_own_fits(make):
    draw = torch.Generator().manual_seed(0)
    one = (torch.arange(300) % 2).double()
    counts = torch.poisson(2 + 8 * one, generator=draw)
    points = torch.stack([counts, torch.randn(300, dtype=torch.float64, generator=draw) + one], 1)
    data = DataModule(
        lambda: Examples(points, identity), (2,), 100, seed=0, validation=20, shuffle=False
    )
    trainer = Trainer(
        accelerator="cpu",
        max_steps=6,
        precision="64-true",
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = make(max_iter=0)
    trainer.fit(EM(model, tolerance=0), data)
    expected = make(max_iter=6).fit(data.sample(400))
    for name, value in expected.state_dict().items():
        if name != "elbo":  # of the parameters before the last step
            torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-9, atol=1e-9)
    if isinstance(model, BayesianGMM):
        before = expected.history[-2].bound * 280
        assert model.elbo.item() == pytest.approx(before, abs=1e-7)
