"""The callback that makes a snapshot of a validation, and writes to TensorBoard what diagnostics
say of it.
"""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch.utils.tensorboard import SummaryWriter

from jensen.algorithm.gradient import Gradient
from jensen.base.batch import Batch
from jensen.base.errors import InputError
from jensen.callbacks.diagnose import PICTURED, Diagnose, write
from jensen.diagnostics.snapshot import Film
from jensen.launch.training import train
from jensen.model.likelihood import Normal
from jensen.model.linear import LinearDecoder, LinearEncoder
from jensen.model.prior import StandardNormal
from jensen.model.vae import VAE
from jensen.objective.beta import Beta

COUNT = 23
DIM = 4
LATENTS = 2
SMALL = (
    *(
        "data=gaussian",
        "model=linear",
        "latent_dim=3",
        "data.size=200",
        "data.validation=61",
        "data.batch_size=12",
    ),
    *(
        "trainer.accelerator=cpu",
        "trainer.max_steps=8",
        "trainer.val_check_interval=4",
        "callbacks=[checkpoint,diagnose]",
    ),
    "+trainer.enable_progress_bar=false",
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def events(folder) -> EventAccumulator:
    accumulator = EventAccumulator(
        str(folder), size_guidance={"scalars": 0, "images": 0, "histograms": 0, "tensors": 0}
    )
    accumulator.Reload()
    return accumulator


class Validation:
    """A model, its data and what Lightning would hand to the callback; no trainer."""

    def __init__(self, logger=None):
        torch.manual_seed(0)
        self.model = VAE(
            LinearEncoder([DIM], LATENTS),
            LinearDecoder([DIM], LATENTS),
            Normal(),
            StandardNormal(),
            LATENTS,
        )
        self.model.requires_grad_(False)
        self.x = torch.randn(COUNT, DIM, generator=generator())
        self.factors = torch.stack([torch.arange(COUNT), torch.arange(COUNT) % 3], 1)
        self.noise = torch.randn(COUNT, LATENTS, generator=generator(1))
        self.logged = {}
        examples = SimpleNamespace(names=("place", "rest"))
        self.trainer = SimpleNamespace(
            sanity_checking=False,
            is_global_zero=True,
            loggers=[logger] if logger else [],
            global_step=7,
            datamodule=SimpleNamespace(
                examples=lambda split: examples, show=lambda count: self.x[:count]
            ),
        )
        self.module = Gradient(self.model, Beta(4.0), torch.optim.Adam, seed=0)
        self.module.log_dict = lambda scalars, logger: self.logged.update(scalars)

    def run(self, callback, rows, batch=5):
        """Validates on `rows`, a batch at a time, in that order."""
        callback.on_validation_start(self.trainer, self.module)
        for number, some in enumerate(rows.split(batch)):
            outputs = self.model(self.x[some], self.noise[some])
            callback.on_validation_batch_end(
                self.trainer,
                self.module,
                outputs,
                Batch(self.x[some], self.factors[some], some),
                number,
            )
        callback.on_validation_epoch_end(self.trainer, self.module)


KEPT = []


def keep(snapshot):
    """A diagnostic that only remembers the snapshot; also named in a configuration below."""
    KEPT.append(snapshot)
    return {}


@pytest.fixture(autouse=True)
def _nothing_kept():
    KEPT.clear()


def test_the_snapshot_is_in_the_order_of_the_data_set_whatever_the_order_of_the_rows():
    validation = Validation()
    validation.run(Diagnose({"keep": keep}), torch.randperm(COUNT, generator=generator(2)))
    (snapshot,) = KEPT
    whole = validation.model(validation.x, validation.noise)
    assert torch.equal(snapshot.factors, validation.factors)
    assert snapshot.names == ("place", "rest")
    for name, found, expected in (
        ("mean", snapshot.posterior.mean, whole.posterior.mean),
        ("log_var", snapshot.posterior.log_var, whole.posterior.log_var),
        ("z", snapshot.z, whole.z),
        ("log_prior", snapshot.log_prior, whole.log_prior),
        ("distortion", snapshot.bound.distortion, whole.bound.distortion),
        ("rate", snapshot.bound.rate, whole.bound.rate),
    ):
        torch.testing.assert_close(found, expected, msg=name)
    torch.testing.assert_close(snapshot.latent_rate.sum(1), whole.bound.rate)


def test_a_subset_of_the_rows_is_in_their_order():
    validation = Validation()
    validation.run(Diagnose({"keep": keep}), torch.tensor([17, 3, 22, 4]), batch=3)
    assert KEPT[0].factors[:, 0].tolist() == [3, 4, 17, 22]
    torch.testing.assert_close(
        KEPT[0].posterior.mean, validation.model.encode(validation.x[[3, 4, 17, 22]]).mean
    )


def test_the_snapshots_functions_are_the_models():
    validation = Validation()
    validation.run(Diagnose({"keep": keep}), torch.arange(COUNT))
    snapshot = KEPT[0]
    model = validation.model
    assert torch.equal(snapshot.images, validation.x[:PICTURED])
    assert torch.equal(snapshot.encode(validation.x).mean, model.encode(validation.x).mean)
    z = torch.randn(3, LATENTS, generator=generator(3))
    assert torch.equal(snapshot.decode(z), model.decode(z))
    assert torch.equal(
        snapshot.infer(validation.x, validation.noise).z, model(validation.x, validation.noise).z
    )
    draws = snapshot.draw(4000)
    assert torch.equal(draws[:5], snapshot.draw(5))
    assert draws.mean(0).abs().max() < 0.08
    assert (torch.cov(draws.T) - torch.eye(LATENTS)).abs().max() < 0.1


def test_each_validation_starts_anew_and_the_sanity_check_leaves_nothing():
    validation = Validation()
    callback = Diagnose({"keep": keep})
    validation.trainer.sanity_checking = True
    validation.run(callback, torch.arange(8))
    assert not KEPT
    validation.trainer.sanity_checking = False
    for rows in (torch.arange(COUNT), torch.arange(5)):
        validation.run(callback, rows)
    assert [len(snapshot.z) for snapshot in KEPT] == [COUNT, 5]


def test_without_diagnostics_nothing_is_kept():
    validation = Validation()
    callback = Diagnose({})
    validation.run(callback, torch.arange(COUNT))
    assert validation.logged == {}


def test_scalars_are_logged_for_other_callbacks_and_the_rest_is_not():
    results = {
        "number": torch.tensor(2.5),
        "many": torch.ones(3),
        "words": "text",
        "detail": np.ones((2, 2)),
    }
    validation = Validation()
    validation.run(
        Diagnose({"one": lambda snapshot: results, "two": lambda snapshot: results}),
        torch.arange(COUNT),
    )
    assert validation.logged == {"one/number": 2.5, "two/number": 2.5}


def test_diagnostics_run_without_gradients():
    validation = Validation()
    grad = []
    validation.model.requires_grad_(True)
    diagnostic = lambda snapshot: grad.append(snapshot.decode(snapshot.z).requires_grad) or {}  # noqa: E731
    validation.run(Diagnose({"one": diagnostic}), torch.arange(COUNT))
    assert grad == [False]


# ---- TensorBoard


def test_what_a_value_is_says_where_it_goes(tmp_path):
    picture = torch.randint(256, (3, 5, 7), generator=generator(), dtype=torch.uint8)
    numbers = torch.linspace(-2, 3, 1000)
    results = {
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "histogram": numbers,
        "bytes": picture,
        "unit": picture / 255,
        "text": "| a | b |\n|---|---|",
        "detail": np.ones((4, 4)),
    }
    writer = SummaryWriter(tmp_path)
    write(writer, "some", results, 12)
    writer.close()
    found = events(tmp_path)
    tags = found.Tags()
    assert tags["scalars"] == ["some/scalar"]
    assert tags["histograms"] == ["~histogram/some/histogram"]
    assert sorted(tags["images"]) == ["some/bytes", "some/unit"]
    assert tags["tensors"] == ["some/text/text_summary"]

    (event,) = found.Scalars("some/scalar")
    assert (event.step, event.value) == (12, 2.5)
    (event,) = found.Histograms("~histogram/some/histogram")
    histogram = event.histogram_value
    assert event.step == 12
    assert (histogram.min, histogram.max, histogram.num) == (-2, 3, 1000)
    assert histogram.sum == pytest.approx(numbers.double().sum().item())
    for name in ("bytes", "unit"):
        (event,) = found.Images(f"some/{name}")
        (tmp_path / "one.png").write_bytes(event.encoded_image_string)
        with Image.open(tmp_path / "one.png") as image:
            assert np.abs(np.array(image).astype(int) - picture.permute(1, 2, 0).numpy()).max() <= (
                name == "unit"
            )
    (event,) = found.Tensors("some/text/text_summary")
    assert event.tensor_proto.string_val == [b"| a | b |\n|---|---|"]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.bfloat16, torch.float64])
def test_any_type_of_number_is_a_histogram_and_a_scalar(tmp_path, dtype):
    writer = SummaryWriter(tmp_path)
    write(
        writer,
        "some",
        {"many": torch.tensor([0, 1, 1]).to(dtype), "one": torch.tensor(1).to(dtype)},
        0,
    )
    writer.close()
    assert events(tmp_path).Histograms("~histogram/some/many")[0].histogram_value.sum == 2
    assert events(tmp_path).Scalars("some/one")[0].value == 1


@pytest.mark.parametrize("shape", [(2, 3), (1, 8, 8), (4, 8, 8), (8, 8, 3), (2, 3, 8, 8)])
def test_other_shapes_are_refused_by_name(tmp_path, shape):
    writer = SummaryWriter(tmp_path)
    with pytest.raises(
        TypeError,
        match=rf"diagnostic some/odd returned shape \[{', '.join(map(str, shape))}\]: expected",
    ):
        write(writer, "some", {"odd": torch.zeros(shape)}, 0)
    writer.close()


def test_results_go_to_every_tensorboard_logger_under_their_tags(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="")
    validation = Validation(logger)
    validation.trainer.loggers.append(SimpleNamespace())  # of another kind
    validation.run(
        Diagnose({"one": lambda snapshot: {"mean": snapshot.z.mean()}}), torch.arange(COUNT)
    )
    logger.finalize("success")
    (event,) = events(logger.log_dir).Scalars("one/mean")
    assert event.step == 7
    assert event.value == pytest.approx(validation.logged["one/mean"].item())


def test_only_rank_zero_writes(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="")
    validation = Validation(logger)
    validation.trainer.is_global_zero = False
    validation.run(
        Diagnose({"one": lambda snapshot: {"mean": snapshot.z.mean()}}), torch.arange(COUNT)
    )
    assert "one/mean" in validation.logged
    assert not [*tmp_path.rglob("*tfevents*")]


def layout(folder):
    """Titles and tags of TensorBoard's CUSTOM SCALARS."""
    (event,) = events(folder).Tensors("custom_scalars__config__")
    found = layout_pb2.Layout()
    found.ParseFromString(event.tensor_proto.string_val[0])
    return {
        category.title: {chart.title: [*chart.multiline.tag] for chart in category.chart}
        for category in found.category
    }


def test_the_custom_scalars_are_laid_out(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="")
    validation = Validation(logger)
    charts = {
        "in nats": {"bound": ["val/elbo", "val/rate"], "latents": ["latent_rates/z.*"]},
        "more": {"audit": ["estimator_audit/.*"]},
    }
    Diagnose({}, charts).on_fit_start(validation.trainer, validation.module)
    logger.finalize("success")
    assert layout(logger.log_dir) == charts


def test_charts_without_a_heading_are_refused():
    with pytest.raises(InputError, match=r"charts\.bound is \['val/elbo'\]: expected a title"):
        Diagnose({}, {"bound": ["val/elbo"]})


def test_standard_errors_and_histograms_get_groups_that_sort_last(tmp_path):
    results = {
        "z": torch.tensor(1.0),
        "z_se": torch.tensor(0.5),
        "exact_se": torch.tensor(0.0),
        "none": torch.tensor(0.0),
        "spread": torch.arange(5.0),
    }
    with SummaryWriter(str(tmp_path)) as writer:
        write(writer, "zebra", results, 3)
    tags = events(tmp_path).Tags()
    assert sorted(tags["scalars"]) == ["zebra/none", "zebra/z", "~standard_error/zebra/z_se"]
    assert tags["histograms"] == ["~histogram/zebra/spread"]


def test_a_film_is_an_animated_image(tmp_path):
    frames = torch.zeros(3, 3, 8, 12, dtype=torch.uint8)
    frames[1] = 255
    with SummaryWriter(str(tmp_path)) as writer:
        write(writer, "film", {"all": Film(frames, 0.2)}, 3)
    (event,) = events(tmp_path).Images("film/all")
    assert (event.step, event.width, event.height) == (3, 12, 8)
    with Image.open(io.BytesIO(event.encoded_image_string)) as read:
        assert (read.format, read.n_frames) == ("GIF", 3)


# ---- through the whole program


def test_a_diagnostics_scalar_can_choose_the_checkpoint(configure, tmp_path):
    monitor = (
        "callbacks.best.monitor=rate/active_units",
        "callbacks.best.mode=min",
        "diagnostics=[rate]",
    )
    results = train(configure(*SMALL, *monitor), tmp_path)
    values = [event.value for event in events(tmp_path).Scalars("rate/active_units")]
    assert len(values) == 2
    assert results["rate/active_units"] == values[-1]
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    (state,) = (state for name, state in saved.items() if name == "Best")
    assert state["value"] == min(values)
    assert (tmp_path / "checkpoints" / "best.ckpt").exists()
    assert "elbo" in layout(tmp_path)["the bound, in nats"]


@pytest.mark.parametrize("objective", ["beta", "importance"])
def test_row_for_row_the_snapshot_is_the_models_word_on_the_held_out_set(
    configure, tmp_path, objective
):
    """Also with several draws an example; from the checkpoint, by code that shares nothing with the
    trainer.
    """
    kept = (
        "diagnostics=[]",
        f"+diagnostics.keep._target_={__name__}.keep",
        "+diagnostics.keep._partial_=true",
    )
    cfg = configure(*SMALL, f"objective={objective}", *kept)
    train(cfg, tmp_path)
    snapshot = KEPT[-1]
    algorithm = instantiate(cfg.algorithm)
    algorithm.load_state_dict(
        torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    )
    held_out = instantiate(cfg.data).show(
        61
    )  # in random order: sorted by a coordinate on both sides
    with torch.no_grad():
        mean, log_var = algorithm.model.encode(held_out)
        decoded = algorithm.model.decoder(snapshot.z)
    assert len(snapshot.z) == len(snapshot.bound.rate) == 61
    found, expected = (part[part[:, 0].argsort()] for part in (snapshot.posterior.mean, mean))
    torch.testing.assert_close(found, expected)
    q = torch.distributions.Normal(snapshot.posterior.mean, (log_var / 2).exp())
    rate = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(snapshot.latent_rate, rate, rtol=1e-4, atol=1e-6)
    # z and the distortion belong to the same example: the x at which this decoder has that
    # distortion is there
    x = held_out[mean[:, 0].argsort()][snapshot.posterior.mean[:, 0].argsort().argsort()]
    distortion = (
        -torch.distributions.Normal(decoded, (algorithm.model.likelihood.log_var / 2).exp())
        .log_prob(x)
        .sum(1)
    )
    torch.testing.assert_close(snapshot.bound.distortion, distortion.detach(), rtol=1e-4, atol=1e-4)
    assert ((snapshot.z - snapshot.posterior.mean) / q.scale).abs().max() < 5
