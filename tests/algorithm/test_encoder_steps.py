"""Variational EM: several steps of the encoder for one of the decoder."""

import copy

import pytest
import torch
from cases import some
from composing import composed
from fitting import ONE, fitted
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from pytorch_lightning import Callback
from resume import equal
from torch import nn

from jensen.algorithm.checks import check_encoder_steps
from jensen.base.errors import InputError
from jensen.launch import groups
from jensen.run.identity import identity

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning",
    "ignore:.*does not have many workers.*",
    "ignore:.*Checkpoint directory .* exists and is not empty.*",
    "ignore:.*your dataloader is not resumable.*",
)

THREE = ("algorithm.encoder_steps=3", "trainer.max_steps=20", "trainer.val_check_interval=10")
PRIOR = ("model/prior=vamp", "model.prior.pseudo_inputs=3", "model.prior.unit=false")


class Moved(Callback):
    """Which parts each step has moved."""

    def __init__(self):
        self.steps = []

    def on_train_batch_start(self, trainer, module, *_):
        self.before = copy.deepcopy(dict(module.named_parameters()))

    def on_train_batch_end(self, trainer, module, *_):
        moved = {
            name.split(".")[1]
            for name, value in module.named_parameters()
            if not torch.equal(value, self.before[name])
        }
        self.steps.append(moved)


def test_the_decoder_and_the_prior_move_at_each_third_step_and_the_encoder_at_all():
    moved = Moved()
    fitted(*THREE, *PRIOR, ONE, callbacks=[moved])
    each = [{"encoder", "decoder", "prior"} if step % 3 == 2 else {"encoder"} for step in range(20)]
    assert moved.steps == each


def test_the_steps_are_those_of_a_loop_by_hand():
    """The same losses by one optimiser for each part, of which the decoder's steps at each third."""
    cfg = composed("data=blobs", "model=mlp", "latent_dim=2", "model/likelihood=normal")
    twins = [instantiate(cfg.algorithm) for _ in range(2)]
    twins[1].load_state_dict(twins[0].state_dict())
    x = torch.randn(8, *cfg.data.x_shape)
    ours, theirs = (each.model for each in twins)
    twins[0].encoder_steps = 3
    whole = torch.optim.Adam(ours.parameters(), 1e-2)
    encoder, decoder = (
        torch.optim.Adam(part.parameters(), 1e-2) for part in (theirs.encoder, theirs.decoder)
    )
    for step in range(7):
        for algorithm, model in zip(twins, (ours, theirs), strict=True):
            noise = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
            model.zero_grad()
            algorithm.objective(model(x, noise), torch.tensor(step)).backward()
        for each in twins[0].still(step):
            each.grad = None
        whole.step()
        encoder.step()
        if step in (2, 5):
            decoder.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


@some(1, "also", [(), ("trainer.gradient_clip_val=0.1",), PRIOR])
def test_chunks_and_a_run_that_was_stopped_end_alike_bit_for_bit(also, tmp_path):
    _, trainer, logged = fitted(*THREE, *also, ONE)
    trainer.save_checkpoint(tmp_path / "alone.ckpt")
    expected = torch.load(tmp_path / "alone.ckpt", weights_only=True)
    chunked, trainer, seen = fitted(*THREE, *also)
    trainer.save_checkpoint(tmp_path / "chunked.ckpt")
    assert chunked.calls.driven
    found = torch.load(tmp_path / "chunked.ckpt", weights_only=True)
    parts = fitted(*THREE, *also, ONE, max_steps=10)[1]
    parts.save_checkpoint(tmp_path / "part.ckpt")  # amid the steps of the encoder
    trainer = fitted(*THREE, *also, ONE, checkpoint=tmp_path / "part.ckpt")[1]
    trainer.save_checkpoint(tmp_path / "gone_on.ckpt")
    gone_on = torch.load(tmp_path / "gone_on.ckpt", weights_only=True)
    for part in ("state_dict", "optimizer_states"):
        assert equal(found[part], expected[part])
        assert equal(gone_on[part], expected[part])
    assert seen == logged


def test_what_is_logged_counts_the_decoders_steps():
    logged = fitted(*THREE, ONE)[2]
    assert [(step, terms["decoder_steps"]) for step, terms in logged] == [(0, 0.0), (10, 3.0)]
    assert "decoder_steps" not in fitted("trainer.max_steps=10", ONE)[2][0][1]


def test_a_graph_and_a_stack_are_refused_in_a_sentence(monkeypatch):
    algorithm = fitted(*THREE)[0]
    monkeypatch.setattr(
        type(algorithm.trainer.strategy), "root_device", property(lambda _: torch.device("cuda"))
    )
    algorithm.calls.engine = "graph"
    with pytest.raises(InputError, match=r"engine is graph but algorithm\.encoder_steps=3 leaves"):
        algorithm.calls.plan()
    algorithm.calls.engine = "auto"
    algorithm.calls.plan()
    assert type(algorithm.calls.own()).__name__ == "Eager"
    group = groups.Group([None, None], algorithm, "")
    monkeypatch.setattr(groups.Group, "jobs", property(lambda _: [NoSettings, NoSettings]), False)
    assert "encoder_steps=3 leaves the decoder out" in groups._reason(group, algorithm.trainer)


class NoSettings:
    cfg = composed("data=blobs", "model=mlp", "latent_dim=2")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("algorithm.encoder_steps=0",), "encoder_steps is 0: expected"),
        (("algorithm.encoder_steps=1.5",), "encoder_steps is 1.5: expected"),
        (
            ("algorithm.encoder_steps=41",),
            "is 41 but training ends at step 40, before the decoder's",
        ),
    ],
)
def test_a_number_of_steps_that_trains_no_decoder_is_refused(overrides, sentence):
    with pytest.raises((InputError, InstantiationException), match=sentence):
        fitted(*overrides)


def test_an_encoder_without_parameters_is_refused():
    algorithm = fitted("trainer.max_steps=10")[0]
    algorithm.model.encoder = nn.Identity()
    with pytest.raises(InputError, match="encoder has no parameters"):
        check_encoder_steps(2, algorithm.model, 10)


def test_a_run_that_did_not_know_the_key_is_one_with_a_step_each():
    base = ("data=blobs", "model=mlp", "latent_dim=2")
    now = composed(*base)
    old = composed(*base, "~algorithm.encoder_steps")
    other = composed(*base, "algorithm.encoder_steps=2")
    assert identity(now) == identity(old) != identity(other)
