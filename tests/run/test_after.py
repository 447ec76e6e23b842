"""A prior that is learned after its VAE: what is kept, what is learned, and what is refused."""

import pytest
import torch
from runs import weights
from tiny import TINY

import jensen
from jensen.base.errors import InputError
from jensen.launch.training import train

QUICK = (*TINY, "trainer.accelerator=cpu", "diagnostics=[]", "callbacks=[checkpoint]")
SMALL = {"diffusion": ("model.prior.hidden=[16]",), "flow": ("model.prior.hidden=[8]",)}
KEPT = ("model.encoder.", "model.decoder.")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run of a VAE, whose prior is N(0, I)."""
    from composing import composed

    folder = tmp_path_factory.mktemp("first")
    train(composed(*QUICK, "trainer.max_steps=4"), folder)
    return folder


def after(choice, path, *more):
    given = [] if path is None else [f"model.prior.path={path}"]
    learned = (f"model/prior={choice}", *SMALL[choice], "model.prior.train=after")
    return (*QUICK, "trainer.max_steps=6", *learned, *given, *more)


@pytest.mark.parametrize("choice", SMALL)
def test_the_prior_learns_and_all_else_stays_as_it_was(configure, tmp_path, first, choice, capsys):
    train(configure(*after(choice, first)), tmp_path)
    assert f"the VAE of {first}, of step 4, is kept as it is" in capsys.readouterr().out
    before, found = weights(first), weights(tmp_path)
    kept = [key for key in found if key.startswith(KEPT)]
    assert len(kept) == 8
    assert all(torch.equal(found[key], before[key]) for key in kept)
    model = jensen.load(tmp_path).model
    fresh = type(model.prior)(3, hidden=(16,) if choice == "diffusion" else (8,)).state_dict()
    start = [key for key, each in fresh.items() if key.endswith("weight") and not each.any()]
    assert start  # what begins at 0
    assert all(found[f"model.prior.{key}"].any() for key in start)


def test_a_run_that_goes_on_asks_its_own_checkpoint_and_not_the_other_run(
    configure, tmp_path, first
):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(first, other)
    words = after("diffusion", other)
    whole = train(configure(*words), tmp_path / "whole")
    train(configure(*words, "trainer.max_steps=3"), tmp_path / "halves")
    shutil.rmtree(other)
    halves = train(configure(*words), tmp_path / "halves")
    assert halves == whole
    one, two = (weights(tmp_path / name) for name in ("whole", "halves"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_parts_that_are_kept_are_in_evaluation_mode_and_have_no_gradient():
    prior = jensen.model.DiffusionPrior(2, hidden=(8,), train="after", path="somewhere")
    model = jensen.VAE("mlp", "mlp", latent_dim=2, x_shape=[3], prior=prior).train()
    assert prior.training
    assert not model.encoder.training
    model(torch.zeros(4, 3)).bound.elbo.sum().backward()
    trained = {
        name.partition(".")[0] for name, each in model.named_parameters() if each.requires_grad
    }
    assert trained == {"prior"}
    assert any(each.grad is not None and each.grad.any() for each in prior.parameters())


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            ("model.encoder.hidden=[8]",),
            r"model\.encoder\.hidden is \[8\] and \[16\] in .*: expected",
        ),
        (("model.encoder.activation=tanh",), r"model\.encoder\.activation is 'tanh' and 'relu' in"),
        (("model/likelihood=normal",), r"model\.likelihood\._target_ is"),
        (("latent_dim=2",), r"model\.latent_dim is 2 and 3 in"),
    ],
)
def test_another_vae_is_refused(configure, tmp_path, first, more, sentence):
    with pytest.raises(InputError, match=sentence):
        train(configure(*after("diffusion", first, *more)), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_what_is_no_run_is_refused(configure, tmp_path):
    with pytest.raises(
        InputError,
        match=r"model\.prior\.path is .*nowhere, which has no \.hydra/config\.yaml: expected the folder",
    ):
        train(configure(*after("diffusion", tmp_path / "nowhere")), tmp_path / "b")


@pytest.mark.parametrize("choice", ["FlowPrior", "DiffusionPrior"])
def test_after_needs_a_path_and_a_path_needs_after(choice):
    make = getattr(jensen.model, choice)
    with pytest.raises(InputError, match=r"train is after and path is null: expected the folder"):
        make(2, train="after")
    with pytest.raises(
        InputError, match=r"path is 'there' and train is joint: expected train=after"
    ):
        make(2, path="there")
    with pytest.raises(InputError, match=r"train is 'before': expected one of joint, after"):
        make(2, train="before")
