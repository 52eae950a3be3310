"""One seed, one history: the same in every process, whatever the hashes of strings are there."""

from __future__ import annotations

import pytest
from histories import history

SCRIPT = """
import sys
from coherd.sim.network import Links
from coherd.sim.world import Stall, World
from coherd_membership import SwimConfig

world = World(SwimConfig.profile("lan"), 30, int(sys.argv[1]), Links(loss=0.1, duplication=0.1))
world.trace = True
world.start_all()
world.run(5)
world.network.cut("half", range(15), range(15, 30))
for node, kind in zip(world.nodes, Stall):
    world.stall_often(node, 3.0, 1.0, 30.0, kind)
world.crash(world.nodes[20])
world.at(15, lambda: world.start(world.nodes[20], knows=True))
world.at(20, lambda: world.network.mend("half"))
world.run(40)
print(world.traced, world.events, len(world.seen), world.bytes)
"""


@pytest.fixture(scope="module")
def first() -> str:
    return history(SCRIPT, 1, 1)


def test_the_same_seed_gives_the_same_history_in_another_process(first: str) -> None:
    assert not first.startswith("0 ")
    assert history(SCRIPT, 1, 2) == first


def test_another_seed_gives_another(first: str) -> None:
    assert history(SCRIPT, 2, 1).split(maxsplit=1)[0] != first.split(maxsplit=1)[0]
