"""A step of accumulated batches is the step of one large minibatch, in what is learned in closed form
too.
"""

from types import SimpleNamespace

import pytest
import torch
from fitting import BASE, fitted
from ranks import fit, together
from runs import weights

from jensen.algorithm.checks import check_accumulation
from jensen.base.errors import InputError
from jensen.model.likelihood import Normal, OptimalNormal
from jensen.objective.beta import Beta
from jensen.objective.capacity import Capacity
from jensen.objective.control import Control
from jensen.objective.decomposed import Decomposed
from jensen.objective.dip import DIP

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning",
    "ignore:.*does not have many workers.*",
    "ignore:.*Checkpoint directory .* exists and is not empty.*",
)
TEN = "data.batch_size=10"
DOUBLE = ("trainer.precision=64-true",)


@pytest.mark.parametrize(
    "prior",
    [
        ("model/prior=mixture", "model.prior.warmup=5"),
        ("model/prior=mixture", "model.prior.warmup=5", "model.prior.fit=both"),
        ("model/prior=factorised", "model.prior.warmup=5"),
        ("model/prior=bayesian_mixture", "model.prior.warmup=5"),
    ],
    ids=lambda words: words[0].partition("=")[2] + ("_both" if "both" in words[-1] else ""),
)
def test_a_prior_learns_of_a_whole_step(prior):
    expected = fitted(*prior, *DOUBLE)[0]
    found = fitted(*prior, *DOUBLE, TEN, accumulate_grad_batches=2)[0]
    assert expected.global_step == found.global_step == 40
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-6, atol=1e-8)


def test_two_ranks_of_two_batches_are_one_large_minibatch(tmp_path):
    words = [*BASE, *DOUBLE, "model/prior=mixture", "model.prior.warmup=5", "diagnostics=[]"]
    words += ["trainer.accelerator=cpu", "trainer.max_steps=20"]
    ranks = ["data.batch_size=10", "trainer.accumulate_grad_batches=2", "trainer.devices=2"]
    together(1, fit, [(tmp_path / "one", words)])
    together(2, fit, [(tmp_path / "two", [*words, *ranks])])
    expected = weights(tmp_path / "one")
    for name, value in weights(tmp_path / "two").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-8, atol=1e-10)


class Data:
    batch_size = 16


def of(objective, likelihood=None):
    return SimpleNamespace(
        objective=objective, model=SimpleNamespace(likelihood=likelihood or Normal())
    )


def test_a_loss_of_a_whole_minibatch_is_said_or_refused(caplog):
    with pytest.raises(InputError, match=r"batches is 4: expected 1, .* set data.batch_size=64"):
        check_accumulation(of(Control(1.0)), 4, Data())
    with caplog.at_level("INFO"):
        for alone in (Beta(4.0), Capacity(1.0, convention="example"), Decomposed(1, 1, 1)):
            check_accumulation(of(alone), 4, Data())
        check_accumulation(of(DIP(), OptimalNormal()), 1, None)
        check_accumulation(of(Control(1.0)), 1, None)
    assert not caplog.text
    with caplog.at_level("INFO"):
        for whole in (DIP(), Capacity(1.0), Decomposed(tc=4.0)):
            caplog.clear()
            check_accumulation(of(whole), 4, Data())
            assert f"a {type(whole).__name__}, whose loss is of a minibatch" in caplog.text
            assert "=4 of each batch of 16" in caplog.text
        check_accumulation(of(Beta(4.0), OptimalNormal()), 4, None)
        assert "an OptimalNormal, whose variance is of a minibatch as a whole" in caplog.text
