"""Who has applied some rows, and who has not.

Required are all holders in the roster when the rows were accepted, by name and whatever their state: a
dead host's cache may still serve the stale copy. Who is forgotten meanwhile is required no more. What
counts is an answer "applied", never a vector.
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

    def __init__(
        self, dots: Sequence[StreamRange], required: Iterable[str], members: int | None = None
    ) -> None:
        """`members`: how many are enough; None is all of them."""
        self.dots = dots
        self.applied: set[str] = set()
        self._required = set(required)
        self._members = members
        self._changed = trio.lowlevel.ParkingLot()
        self.changes = 0
        """How often it grew, or those that it misses may have become others or been seen otherwise."""

    def add(self, names: Iterable[str]) -> None:
        """Note members that have applied the rows; repetition does no harm."""
        before = len(self.applied)
        self.applied |= self._required.intersection(names)
        if len(self.applied) != before:
            self._change()

    def look_again(self, roster: Roster) -> None:
        """Drop members that were forgotten; others may be seen in another state now."""
        known = {roster.me.name, *roster.members}
        self._required &= known
        self.applied &= known
        self._change()

    def _change(self) -> None:
        self.changes += 1
        self._changed.unpark_all()

    @property
    def missing(self) -> list[str]:
        """The required members that have not said that they applied the rows, in order."""
        return sorted(self._required - self.applied)

    @property
    def is_complete(self) -> bool:
        """Whether as many as were asked for have applied the rows."""
        wanted = len(self._required) if self._members is None else self._members
        return len(self.applied) >= wanted

    async def wait(self, roster: Roster) -> None:
        """Wait until enough members have applied the rows, or only such are missing that are down."""
        while not self.is_complete and not all(_is_down(roster, name) for name in self.missing):
            await self._changed.park()

    async def wait_changed(self, changes: int) -> None:
        """Wait until there were more than so many changes."""
        while self.changes <= changes:
            await self._changed.park()


def _is_down(roster: Roster, name: str) -> bool:
    member = roster.members.get(name)
    return member is not None and member.state is State.DEAD
