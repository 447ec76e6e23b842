"""What a `DataModule` holds out."""

import pytest
import torch
from composing import composed

from jensen.base.errors import InputError
from jensen.data.examples import Examples, identity
from jensen.data.module import DataModule


def module(size, validation):
    x = torch.arange(size, dtype=torch.float32)[:, None]
    return DataModule(lambda: Examples(x, identity), (1,), 1, seed=0, validation=validation)


@pytest.mark.parametrize(
    ("size", "held_out"), [(2, 1), (9, 1), (10, 2), (4000, 800), (40_959, 8191), (50_000, 8192)]
)
def test_auto_holds_out_a_fifth_and_at_most_8192(size, held_out):
    found = module(size, "auto")
    assert len(found.held_out()[1]) == held_out
    assert found.train_size == size - held_out


def test_auto_holds_out_the_examples_that_their_number_would():
    assert torch.equal(module(40, "auto").held_out()[1], module(40, 8).held_out()[1])


@pytest.mark.parametrize(
    ("validation", "sentence"),
    [
        ("most", "validation is 'most': expected auto or an integer of at least 0"),
        (-1, "validation is -1: expected auto or an integer of at least 0"),
        (True, "validation is True: expected auto or an integer of at least 0"),
        (0, "validation is 0 but these data have no test split"),
    ],
)
def test_what_holds_nothing_out_is_one_sentence(validation, sentence):
    with pytest.raises(InputError, match=sentence):
        module(40, validation)


def test_auto_of_a_single_example_leaves_none_to_train_on():
    with pytest.raises(InputError, match=r"data\.validation is auto: expected fewer than the 1"):
        module(1, "auto").held_out()


def test_the_default_of_sprites_is_auto_and_small_ones_can_be_chosen_by_their_size_alone():
    assert composed("data.factors=[shape,scale,posX,posY]", "data.size=4000").data.validation == (
        "auto"
    )


def test_all_of_dsprites_says_what_it_holds_out_whatever_the_default_is():
    cfg = composed("experiment=dsprites_full")
    assert (cfg.data.validation, cfg.data.factors, cfg.data.size) == (8192, None, None)
    assert cfg.model.encoder._target_ == "jensen.model.ConvEncoder"
    assert (cfg.latent_dim, cfg.objective.beta, cfg.trainer.max_steps) == (10, 4.0, 4000)
