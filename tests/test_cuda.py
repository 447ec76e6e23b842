"""On a GPU: the numbers of the CPU, a run that continues bit for bit, half precision, a loss that
is not finite.
"""

import json
import math

import numpy as np
import pytest
import torch
from fitting import fitted
from pytorch_lightning import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import TINY

import jensen
from jensen.algorithm.advance import advance
from jensen.base import replay
from jensen.base.errors import InputError
from jensen.bound.decomposition import decompose
from jensen.family.gaussian import Gaussian
from jensen.launch.training import train
from jensen.model.em_layer import EMLayer
from jensen.model.gmm import GMM

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch sees")

RUN = (
    *TINY,
    "trainer.accelerator=gpu",
    "trainer.log_every_n_steps=5",
    "trainer.max_steps=24",
    "trainer.val_check_interval=8",
)
QUIET = (
    "callbacks=[checkpoint,diagnose]",
    "diagnostics=[rate,decomposition]",
    "+trainer.enable_progress_bar=false",
)


def blobs(n=6000, d=3, k=4, apart=4.0, seed=0):
    rng = np.random.default_rng(seed)
    factors = np.eye(d) + 0.4 * rng.normal(size=(k, d, d))
    label = rng.integers(k, size=n)
    return apart * rng.normal(size=(k, d))[label] + np.einsum(
        "nde,ne->nd", factors[label], rng.normal(size=(n, d))
    )


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_mixture_is_that_of_the_cpu(covariance, dtype):
    x = torch.as_tensor(blobs()).to(dtype)
    settings = {"init": x[:4].double(), "tolerance": 1e-10}
    here, there = (GMM(4, covariance, **settings).fit(points) for points in (x, x.cuda()))
    assert there.mean.device.type == "cuda"
    assert abs(here.log_likelihood - there.log_likelihood) / len(x) < (
        1e-9 if dtype == torch.float64 else 1e-6
    )
    if dtype == torch.float64:
        torch.testing.assert_close(there.mean.cpu(), here.mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        GMM.of(there.mixture).log_prob(x.cuda()).cpu(),
        there.cpu().log_prob(x),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_iteration_of_em_is_made_of_graphs(covariance, dtype, monkeypatch, caplog):
    x = torch.as_tensor(blobs(apart=1.0)).to(dtype).cuda()
    captures = []

    def capture(run):
        captures.append(run)
        return replay.captured(run)

    monkeypatch.setitem(replay.CAPTURES, "cuda", capture)
    settings = {"init": x[:4].double(), "tolerance": 0.0, "max_iter": 40}
    graphed = GMM(4, covariance, **settings).fit(x)
    assert len(captures) >= 4
    assert "without a CUDA graph" not in caplog.text
    monkeypatch.delitem(replay.CAPTURES, "cuda")
    plain = GMM(4, covariance, **settings).fit(x)
    assert abs(graphed.log_likelihood - plain.log_likelihood) / len(x) < 1e-6


@pytest.mark.parametrize("covariance", ["full", "diag"])
@pytest.mark.parametrize("far", [1e4, 4000.0])
def test_float32_is_float64_far_from_zero_and_far_apart(covariance, far):
    rng = np.random.default_rng(0)
    x = (
        rng.normal(size=(5000, 2))
        + np.where(rng.random(5000) < 0.4, 0, 3 if far == 1e4 else far)[:, None]
    )
    x = (x + (far if far == 1e4 else 0)).astype(np.float32)
    init = torch.as_tensor(np.quantile(x, [0.2, 0.8], 0)).double()
    narrow = GMM(2, covariance, init=init, tolerance=1e-9).fit(torch.as_tensor(x).cuda())
    wide = GMM(2, covariance, init=init, tolerance=1e-9).fit(torch.as_tensor(x).double())
    assert abs(narrow.log_likelihood - wide.log_likelihood) / len(x) < 1e-4


def test_restarts_missing_values_and_loaders():
    x = blobs(2000)
    many = GMM(4, restarts=8).cuda().fit(x)
    assert many.mean.device.type == "cuda"
    assert many.failure is None
    holes = x.copy()
    holes[::5, 1] = np.nan
    missing = [
        GMM(4, init=x[:4], missing=True, tolerance=1e-9).to(device).fit(holes)
        for device in ("cpu", "cuda")
    ]
    assert abs(missing[0].log_likelihood - missing[1].log_likelihood) / len(x) < 1e-8
    batches = (
        GMM(4, init=x[:4], tolerance=1e-9)
        .cuda()
        .fit([torch.as_tensor(x[:900]), torch.as_tensor(x[900:])])
    )
    assert (
        abs(batches.log_likelihood - GMM(4, init=x[:4], tolerance=1e-9).fit(x).log_likelihood)
        / len(x)
        < 1e-9
    )


@pytest.mark.parametrize("gradient", ["unroll", "implicit", "one_step"])
def test_the_layer_and_its_gradient(gradient):
    sets = torch.as_tensor(blobs(240)).view(4, 60, 3)
    torch.manual_seed(0)
    layer = EMLayer(
        3, dim=3, covariance="full", gradient=gradient, steps=100 if gradient == "implicit" else 5
    ).double()
    found = []
    for device in ("cpu", "cuda"):
        x = sets.to(device).clone().requires_grad_()
        layer.to(device)(x).log_likelihood.sum().backward()
        found.append(x.grad.cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-8)


def test_the_decomposition_is_that_of_the_cpu():
    mean, log_var = torch.randn(2, 1500, 5, generator=torch.Generator().manual_seed(0))
    parts = []
    for device in ("cpu", "cuda"):
        posterior = Gaussian(mean.to(device), log_var.to(device) - 2)
        parts.append(decompose(posterior, samples=3000, generator=torch.Generator().manual_seed(1)))
    for name, here, there in zip(parts[0]._fields, *parts, strict=True):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-9, atol=1e-9, msg=name)


def test_a_stopped_run_continues_bit_for_bit(configure, tmp_path):
    train(configure(*RUN, *QUIET), tmp_path / "whole")
    train(configure(*RUN, *QUIET, "trainer.max_steps=11"), tmp_path / "stopped")
    train(configure(*RUN, *QUIET), tmp_path / "stopped")
    whole, stopped = (
        torch.load(
            tmp_path / name / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True
        )
        for name in ("whole", "stopped")
    )
    for key in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(whole[key], stopped[key], rtol=0, atol=0)


def test_training_is_that_of_the_cpu(configure, tmp_path):
    for accelerator in ("cpu", "gpu"):
        train(
            configure(*RUN, *QUIET, f"trainer.accelerator={accelerator}", "trainer.max_steps=6"),
            tmp_path / accelerator,
        )
    here, there = (losses(tmp_path / accelerator) for accelerator in ("cpu", "gpu"))
    assert here.keys() == there.keys()
    for step, loss in here.items():
        assert there[step] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_is_for_networks(configure, tmp_path, precision):
    train(configure(*RUN, *QUIET, f"trainer.precision={precision}"), tmp_path)
    found = losses(tmp_path)
    assert len(found) >= 4
    assert all(map(math.isfinite, found.values()))
    assert found[max(found)] < found[min(found)]


def test_a_loss_that_is_not_finite_is_found(configure, tmp_path):
    with pytest.raises(InputError, match="training stopped at step"):
        train(configure(*RUN, *QUIET, "optimizer.lr=1e30"), tmp_path)
    assert "parameters" in json.loads((tmp_path / "non_finite.json").read_text())


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (
            "model/prior=mixture",
            "model.prior.components=3",
            "model.prior.warmup=2",
            "model.prior.fit=both",
        ),
    ],
)
def test_a_run_on_the_gpu_is_evaluated_on_the_cpu(configure, tmp_path, overrides):
    train(configure(*RUN, *QUIET, *overrides), tmp_path)
    model = jensen.load(tmp_path).model
    x = torch.rand(3, *configure(*RUN).data.x_shape)
    assert model.encode(x).mean.isfinite().all()


def losses(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {event.step: event.value for event in events.Scalars("train/loss")}


GRAPHED = {
    **{
        f"objective {name}": (f"objective={name}",)
        for name in ("beta", "beta_tcvae", "capacity", "control", "dip_ii", "importance", "mmd")
    },
    "objective factor": ("objective=factor", "objective.hidden=[4]"),
    "objective free_bits": ("objective=free_bits",),
    "prior mixture": ("model/prior=mixture", "model.prior.warmup=5"),
    "prior factorised": ("model/prior=factorised", "model.prior.warmup=5"),
    "prior bayesian_mixture": (
        "model/prior=bayesian_mixture",
        "model.prior.warmup=5",
        "model.prior.settle=5",
    ),
    "prior vamp": ("model/prior=vamp",),
    "likelihood optimal_normal": ("model/likelihood=optimal_normal",),
    "likelihood learned_normal": ("model/likelihood=learned_normal",),
    "clipped": ("trainer.gradient_clip_val=0.1",),
    "a schedule of lr": (
        "+schedule@algorithm.lr_scale=linear",
        "algorithm.lr_scale.start=0.1",
        "algorithm.lr_scale.end=1.0",
        "algorithm.lr_scale.steps=33",
    ),
    "half precision": ("trainer.precision=bf16-mixed",),
    "compiled": ("algorithm.compile=true",),
    "adamw": ("optimizer=adamw",),
    "sgd": ("optimizer=sgd",),
    "adam in parts": ("optimizer.fused=false",),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", GRAPHED)
def test_a_graph_is_the_eager_step(case):
    """Parameters after 40 steps, and all that was logged on the way."""
    overrides = GRAPHED[case]
    eager, _, expected = fitted(*overrides, "algorithm.engine=eager", accelerator="gpu")
    graphed, _, found = fitted(*overrides, accelerator="gpu")
    assert graphed.calls._drive.why == ""
    assert graphed.compiled is None or graphed.compiled.why == ""
    rough = 0.02 if case == "half precision" else 2e-3
    for (step, terms), (same, others) in zip(expected, found, strict=True):
        assert step == same
        for name, value in terms.items():
            assert others[name] == pytest.approx(value, rel=rough, abs=rough), (step, name)
    for one, other in zip(eager.parameters(), graphed.parameters(), strict=True):
        assert (one - other).norm() <= rough * one.norm() + 1e-3


@pytest.mark.filterwarnings("ignore")
def test_a_graph_continues_bit_for_bit(tmp_path):
    whole = fitted(accelerator="gpu")[0]
    _, trainer, _ = fitted("trainer.max_steps=20", accelerator="gpu")
    trainer.save_checkpoint(tmp_path / "amid.ckpt")
    again = fitted(accelerator="gpu", checkpoint=tmp_path / "amid.ckpt")[0]
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore")
def test_what_asks_the_device_is_named_and_eager(caplog):
    class Asking(torch.nn.Module):
        def __init__(self, encoder):
            super().__init__()
            self.encoder = encoder

        def forward(self, x):
            return self.encoder(x * (1.0 if x.sum().item() else 2.0))

    class Replace(Callback):
        def setup(self, trainer, pl_module, stage):
            pl_module.model.encoder = Asking(pl_module.model.encoder)

    found = fitted(accelerator="gpu", callbacks=[Replace()])[0]
    assert found.calls._drive.why.startswith("in model.encoder")


@pytest.mark.filterwarnings("ignore")
def test_what_changes_amid_a_training_is_captured_again():
    class Slower(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                trainer.optimizers[0].param_groups[0].update(lr=1e-4, weight_decay=0.1)
                pl_module.model.encoder.requires_grad_(False)

    words = ("algorithm.steps_per_call=5",)
    eager = fitted(*words, "algorithm.engine=eager", accelerator="gpu", callbacks=[Slower()])[0]
    graphed = fitted(*words, accelerator="gpu", callbacks=[Slower()])[0]
    assert graphed.calls._drive.why == ""
    for one, other in zip(eager.parameters(), graphed.parameters(), strict=True):
        assert (one - other).norm() <= 2e-3 * one.norm() + 1e-3


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW])
def test_a_captured_step_of_adam_is_torch_s_bit_for_bit(make):
    """In pieces, of tensors that lie in any order."""

    def stepped(step, captures):
        torch.manual_seed(0)
        shapes = [(300, 100), (7,), (16, 8, 4, 4), ()]
        weights = [torch.randn(shape, device="cuda", requires_grad=True) for shape in shapes]
        weights[2] = weights[2].detach().to(memory_format=torch.channels_last).requires_grad_()
        made = make(weights, lr=1e-2, weight_decay=0.1, fused=True, capturable=True)
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        made.step()
        run = replay.captured(lambda: step(made)) if captures else lambda: step(made)
        for _ in range(5):
            run()
        return [*weights, *(made.state[each]["exp_avg_sq"] for each in weights)]

    expected = stepped(lambda made: made.step(), captures=False)
    for one, other in zip(expected, stepped(advance, captures=True), strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore")
def test_nothing_waits_for_the_device_amid_a_chunk():
    waited = []

    class Watch(Callback):
        chunkwise = True

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 20:
                torch.cuda.set_sync_debug_mode("error")

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            torch.cuda.set_sync_debug_mode("default")
            waited.append(trainer.global_step)

    words = ("algorithm.steps_per_call=5", "trainer.log_every_n_steps=40")
    try:
        fitted(*words, accelerator="gpu", callbacks=[Watch()])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert waited[-1] == 40
