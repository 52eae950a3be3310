"""One seed, one history of spreading: the same in every process, whatever the hashes of strings are there."""

from __future__ import annotations

import pytest
from histories import history

SCRIPT = """
import sys
from coherd.model import Lane
from coherd.sim.spread_world import Region, SpreadWorld
from coherd.sim.streams import Conditions

conditions = Conditions(loss=0.05, late_replies=0.2)
world = SpreadWorld(Region(60, 0.8, 0.2, conditions=conditions), int(sys.argv[1]))
world.trace = True
world.run(1)
for number in range(30):
    lane = (Lane.URGENT, Lane.NORMAL, Lane.BULK)[number % 3]
    node = world.nodes[world.holders[number % 7]]
    world.invalidate(node, lane, 100, receipt=number % 2 == 0)
    world.run(world.now + 0.05)
    if number == 5:
        world.stall(world.nodes[20], 0.4)
    if number == 10:
        world.crash(world.nodes[world.holders[20]])
world.run(8)
print(world.traced, world.events, world.copies, world.mended, world.bytes_spread, world.receipts)
"""


@pytest.fixture(scope="module")
def first() -> str:
    return history(SCRIPT, 1, 1)


def test_the_same_seed_gives_the_same_history_in_another_process(first: str) -> None:
    assert not first.startswith("0 ")
    assert history(SCRIPT, 1, 2) == first


def test_another_seed_gives_another(first: str) -> None:
    assert history(SCRIPT, 2, 1).split(maxsplit=1)[0] != first.split(maxsplit=1)[0]
