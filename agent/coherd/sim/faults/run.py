"""One history of faults, and what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coherd.sim.faults.plan import Plan, Size
from coherd.sim.scenarios import uncollected

if TYPE_CHECKING:
    from collections.abc import Callable


def history(size: Size, seed: int, tell: Callable[[str], None] = lambda _line: None) -> Plan:
    """Simulate a history and look at it."""
    with uncollected():
        plan = Plan(size, seed)
        plan.run(tell)
    return plan
