"""Data of several modalities: cues, captions, and what is missing."""

import pytest
import torch
from composing import composed
from hydra.utils import instantiate

from jensen.base.errors import InputError
from jensen.data.cues import cues
from jensen.data.incomplete import drop
from jensen.data.sprites import render
from jensen.data.sprites_caption import sprites_caption
from jensen.run.words import explain


def decoded(examples):
    return examples.decode(examples[torch.arange(len(examples))].stored)


def test_cues_have_the_covariance_of_their_sources_and_noise():
    noise = {"see": [0.25, 2.0], "hear": [2.0, 0.25]}
    x = cues(100_000, noise, prior_mean=3.0, prior_sd=1.5).stored.double()
    expected = 2.25 * torch.eye(2).repeat(2, 2) + torch.diag(
        torch.tensor([0.25, 2.0, 2.0, 0.25]).square()
    )
    torch.testing.assert_close(x.T.cov(), expected.double(), rtol=0.03, atol=0.05)
    torch.testing.assert_close(x.mean(0), torch.full((4,), 3.0).double(), rtol=0, atol=0.03)


def test_without_a_common_cause_each_sense_has_sources_of_its_own():
    examples = cues(100_000, {"see": 0.1, "hear": 0.1}, common=0.3)
    one = examples.factors[:, 0].bool()
    assert one.double().mean().item() == pytest.approx(0.3, abs=0.01)
    for which, expected in ((one, 1 / 1.01), (~one, 0.0)):
        assert examples.stored[which].T.corrcoef()[0, 1].item() == pytest.approx(expected, abs=0.02)


def test_other_splits_and_seeds_are_other_points():
    found = [
        cues(20, seed=seed, split=split).stored for seed in (0, 1) for split in ("train", "test")
    ]
    assert len({part.sum().item() for part in found}) == 4


def test_modalities_are_missing_at_random_and_one_is_always_kept():
    examples = cues(40_000)
    x = decoded(drop(examples, [1, 1], 0.5, 7))
    gone = x.isnan()
    assert not gone.all(1).any()
    assert x[~gone].equal(decoded(examples)[~gone])
    # of the four equal cases, both gone becomes either of them
    for column in gone.T:
        assert column.double().mean().item() == pytest.approx(0.375, abs=0.01)
    assert decoded(drop(examples, [1, 1], 0.5, 7)).isnan().equal(gone)
    assert not decoded(drop(examples, [1, 1], 0.0, 7)).isnan().any()
    assert decoded(drop(examples, [1, 1], 1.0, 7)).isnan().sum(1).eq(1).all()


def test_a_modality_is_missing_as_a_whole():
    x = decoded(drop(sprites_caption(size=50), [4096, 3, 6], 0.5, 3))
    for part in x.split([4096, 3, 6], 1):
        gone = part.isnan()
        assert gone.any(1).equal(gone.all(1))
        assert 0 < gone.all(1).sum() < 50


def test_a_sprite_and_its_caption_belong_together():
    examples = sprites_caption(["scale", "shape"], size=40)
    x = decoded(examples)
    image, scale, shape = x.split([4096, 6, 3], 1)
    latents = examples.factors
    assert image.equal(torch.from_numpy(render(latents)).flatten(1).float())
    assert scale.argmax(1).equal(latents[:, 1].long())
    assert shape.argmax(1).equal(latents[:, 0].long())
    assert scale.sum(1).eq(1).all()


def test_the_validation_of_incomplete_cues_is_complete():
    data = instantiate(composed("data=incomplete", "data.of.size=100").data)
    assert data.source.at("train", torch.arange(100)).isnan().any()
    split, rows = data.held_out()
    assert split == "test"
    assert not data.source.at(split, rows).isnan().any()


def test_whole_splits_are_decoded_as_those_that_lose_some():
    source = instantiate(composed("data=incomplete", "data.of.size=100").data).source
    train, test = (source.stored(split) for split in ("train", "test"))
    rows = torch.arange(100)
    assert train.decode(test[rows].stored).equal(source.at("test", rows))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data=cues", "data.noise.see=0"], "data.noise.see is 0"),
        (["data=cues", "data.noise.see=[1,2]"], "data.noise has 2 of see, 1 of hear"),
        (["data=cues", "data.common=1.5"], "data.common is 1.5"),
        (["data=cues", "data.x_shape=[3]"], "x_shape is \\[3\\] and modalities have 1 \\+ 1"),
        (["data=cues", "data.modalities.see=[2]"], "modalities have 2 \\+ 1 numbers"),
        (["data=incomplete", "data.fraction=2"], "data.fraction is 2"),
        (["data=incomplete", "data@data.of=blobs"], "modalities"),
        (["data=sprites_caption", "data.caption=[colour]"], "data.caption is 'colour'"),
        (["data=sprites_caption", "data.caption=[shape,shape]"], "data.caption is"),
        (["data=sprites_caption", "data.caption=[shape]"], "data.x_shape is"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_one_sentence(overrides, words):
    with pytest.raises(Exception, match=words) as raised:
        instantiate(composed(*overrides).data).examples("train")
    sentence = str(raised.value) if isinstance(raised.value, InputError) else explain(raised.value)
    assert sentence
    assert "\n" not in sentence
