"""A simulated cluster in which only that happens which a test does."""

from __future__ import annotations

from math import inf

from coherd.sim.faults.host import Policy
from coherd.sim.faults.world import FaultWorld
from coherd.sim.streams import Conditions

NAMESPACE = "catalog"


def world(members: int = 5) -> FaultWorld:
    """Give a cluster that is linked, where nothing happens by itself."""
    made = FaultWorld([[NAMESPACE]] * members, [NAMESPACE], Conditions(), 1)
    for member in made.members:
        member.policies[NAMESPACE] = Policy(600.0, inf, inf)
        member.set_ttl(NAMESPACE, 600.0)
        made.start(member)
    made.run(20.0)
    return made
