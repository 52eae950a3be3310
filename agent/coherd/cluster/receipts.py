"""Who has applied some rows, and who has not.

Required are all holders in the roster when the rows were accepted, by name and whatever their state: a
dead host's cache may still serve the stale copy. What counts is an answer "applied", never a vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from coherd.cluster.roster import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from coherd.cluster.roster import Roster
    from coherd.net.peer import StreamRange


class Receipt:
    """The required members of some rows, and those that have applied them."""

    def __init__(self, dots: Sequence[StreamRange], required: Iterable[str]) -> None:
        self.dots = dots
        self.required = frozenset(required)
        self.applied: set[str] = set()
        self._changed = trio.lowlevel.ParkingLot()

    def add(self, names: Iterable[str]) -> None:
        """Note members that have applied the rows; repetition does no harm."""
        before = len(self.applied)
        self.applied |= self.required.intersection(names)
        if len(self.applied) != before:
            self._changed.unpark_all()

    @property
    def missing(self) -> list[str]:
        """The required members that have not said that they applied the rows, in order."""
        return sorted(self.required - self.applied)

    @property
    def is_complete(self) -> bool:
        """Whether everybody has applied the rows."""
        return len(self.applied) == len(self.required)

    async def wait(self, roster: Roster, wanted: int) -> None:
        """Wait until `wanted` members have applied the rows, or only such are missing that are down."""
        while len(self.applied) < wanted:
            down = [n for n in self.missing if _is_down(roster, n)]
            if len(down) == len(self.missing):
                return
            with trio.move_on_after(1.0):  # members may go down meanwhile
                await self._changed.park()


def _is_down(roster: Roster, name: str) -> bool:
    member = roster.members.get(name)
    return name != roster.me.name and (member is None or member.state is State.UNREACHABLE)
