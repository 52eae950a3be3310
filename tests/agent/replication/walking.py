"""A broadcast on one ring without time: who is handed what by whom, with what must be true of it.

Each member sees a view of its own. The walk goes on until nobody has anything to hand on; what it finds wrong
it raises.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from coherd.replication.ring import CIRCLE, View, hash64

NAMESPACE = "shop"


class Violation(AssertionError):
    """A rule of delegation was broken."""


@dataclass
class Walk:
    """What came of one broadcast."""

    hops: dict[str, int] = field(default_factory=dict)
    """Who was reached, after how many hops."""
    copies: dict[str, int] = field(default_factory=dict)


def distance(ring: int, name: str, end: int) -> int:
    return (end - hash64(ring, name)) % CIRCLE


def walk(views: Mapping[str, View], origin: str, ring: int, copies_max: float = math.inf) -> Walk:
    """Spread from `origin` on a ring. Raises Violation where an arc is not inside the one it was cut from,
    and when a member gets more copies than it may."""
    result = Walk({origin: 0})
    todo = [(origin, CIRCLE)]
    while todo:
        name, reach = todo.pop()
        me = hash64(ring, name)
        for delegate in views[name].rings[ring].delegates(me, 1, reach, NAMESPACE):
            begin = (hash64(ring, delegate.name) - me) % CIRCLE
            end = begin + distance(ring, delegate.name, delegate.end)
            if not 0 < begin < reach:
                raise Violation(f"{name} hands to {delegate.name} outside of its arc")
            if end > reach or end - begin >= reach:
                raise Violation(f"{name} hands {delegate.name} an arc that is not inside its own")
            hops = result.hops[name] + 1
            result.hops[delegate.name] = min(hops, result.hops.get(delegate.name, hops))
            result.copies[delegate.name] = result.copies.get(delegate.name, 0) + 1
            if result.copies[delegate.name] > copies_max:
                raise Violation(f"{delegate.name} is reached again, by {name}")
            todo.append((delegate.name, end - begin))
    return result


def check_all_reached_once(view: View, origin: str, ring: int) -> Walk:
    """Spread where all have the same view. Raises Violation unless every holder is reached exactly once."""
    result = walk(dict.fromkeys(view.members, view), origin, ring, copies_max=1)
    wanted = {name for name in view.members if view.holds(name, NAMESPACE)} - {origin}
    if result.copies != dict.fromkeys(wanted, 1):
        raise Violation(f"wanted {sorted(wanted)}, reached {sorted(result.copies.items())}")
    return result
