"""A real kill of one of two ranks; in a file of its own, so that a second worker runs it beside
`test_faults.py`.
"""

import pytest
from killed import faults


@pytest.mark.slow
def test_one_of_two_ranks_is_killed():
    assert ", 0 not" in faults("1", "0", "two ranks")
