"""One seed, one history of faults: the same in every process, whatever the hashes of strings are there."""

from __future__ import annotations

import pytest
from histories import history

SCRIPT = """
import sys
from coherd.sim.faults.plan import Size
from coherd.sim.faults.run import outcome

print(outcome(Size(10, 300.0), int(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def first() -> str:
    return history(SCRIPT, 4, 1)


def test_the_same_seed_gives_the_same_history_in_another_process(first: str) -> None:
    assert history(SCRIPT, 4, 2) == first


def test_another_seed_gives_another(first: str) -> None:
    assert history(SCRIPT, 5, 1) != first
