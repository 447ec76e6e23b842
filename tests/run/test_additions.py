"""What `+callbacks=...` adds is added, whatever else the command says, or a sentence says that it is
not.
"""

import pytest
from composing import composed

from jensen.run.additions import gathered, untaken
from jensen.run.compose import compose


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("+callbacks=ema", "+callbacks=ema"),
        ("+callbacks=ema seed=1 +callbacks=ema", "+callbacks=[ema] seed=1"),
        (
            "+logger=csv +callbacks=ema logger=[tensorboard]",
            "logger=[tensorboard,csv] +callbacks=ema",
        ),
        ("+diagnostics=[dci, sap_r2] diagnostics=[]", "diagnostics=[dci,sap_r2]"),
        ("callbacks=[a] callbacks=[b]", "callbacks=[a] callbacks=[b]"),
        ("+callbacks=a,b +callbacks=c", "+callbacks=a,b +callbacks=c"),
        ("+callbacks.x._target_=my.X +callbacks=ema", "+callbacks.x._target_=my.X +callbacks=ema"),
        ("--multirun +callbacks=a +callbacks=b", "--multirun +callbacks=[a,b]"),
    ],
)
def test_additions_to_one_group_are_one_word(words, expected):
    assert gathered(words.replace(", ", ",").split()) == expected.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["+callbacks=ema"],
            ["best", "last", "events", "progress", "diagnose", "hparams", "preempt"],
        ),
        (["callbacks=[preempt]", "+callbacks=[lr_monitor]"], ["preempt", "lr_monitor"]),
    ],
)
def test_what_is_added_is_there_beside_what_was_chosen(words, expected):
    found = list(compose("train", [*words, "+callbacks=ema"]).callbacks)
    assert found == [*expected, "ema"]


def test_what_hydra_drops_is_a_sentence():
    dropped = ["callbacks=[checkpoint]", "+callbacks=ema"]
    assert untaken(dropped, composed(*dropped)).startswith(
        "+callbacks=ema is lost, since the sweep chooses callbacks as a whole: expected one choice"
    )
    taken = ["+callbacks=ema", "+diagnostics=dci", "+callbacks.x=null", "+logger=csv"]
    assert not untaken(taken, composed(*taken))
