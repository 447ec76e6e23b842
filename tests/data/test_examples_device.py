"""Examples go to a device whole."""

import torch

from jensen.data.examples import Examples


def test_examples_without_factors_go_whole_to_a_device():
    """The empty table of factors was made on the CPU again, and a GPU's rows found none in it."""
    moved = Examples(torch.zeros(5, 3), torch.empty(5, 0)).to("meta")
    assert moved.stored.device.type == moved.factors.device.type == "meta"
