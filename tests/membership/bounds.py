"""How much a core holds: the entries of every container inside it, by the attribute that holds it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from coherd_membership._probe import RELAYS_MAX

if TYPE_CHECKING:
    from coherd_membership import Swim

CONTAINERS = (dict, list, set, frozenset, deque, tuple)


def sizes(core: Swim) -> dict[str, int]:
    """Entries of every container of a core and of its parts, those of containers within them included."""
    found: dict[str, int] = {}
    seen: set[int] = set()

    def look(path: str, thing: Any) -> None:
        if id(thing) in seen:
            return
        seen.add(id(thing))
        for name, value in vars(thing).items():
            if isinstance(value, CONTAINERS):
                inner = value.values() if isinstance(value, dict) else value
                within = sum(len(each) for each in inner if isinstance(each, CONTAINERS[:3]))
                found[f"{path}.{name}"] = max(len(value), within)
            elif type(value).__module__.startswith("coherd_membership._") and hasattr(
                value, "__dict__"
            ):
                look(f"{path}.{name}", value)

    look("swim", core)
    assert len(found) > 20
    return found


def limit(core: Swim) -> int:
    """More entries than this no container of a core may have, whatever it was told.

    The most has the heap of deadlines: each member, question and relay has one or two, and it is cleaned
    when it is four times as long as what counts in it.
    """
    config = core.config
    return 4 * 2 * (config.members_max + config.inquiries_max + RELAYS_MAX + 64) + 64
