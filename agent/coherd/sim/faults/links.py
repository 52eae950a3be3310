"""Connections between simulated members: open or not, cut or not, and what is under way on them.

A connection is reliable and keeps the order. While a way is cut, what is sent on it waits to be sent again;
if that lasts, both ends give the connection up, each when it notices, and what waits is lost. A connection
that is opened again is another one: what still comes of the old one is not heard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coherd.sim.faults.member import Member


class Arrival(NamedTuple):
    """A message that is to arrive."""

    target: Member
    message: object
    source: Member
    generation: int
    """Of the connection that it was sent on."""
    sent_at: float


class Pair:
    """The connection of two members."""

    __slots__ = ("first", "generation", "held", "is_dialled", "is_up", "second")

    def __init__(self, first: Member, second: Member) -> None:
        self.first = first
        self.second = second
        self.is_up = False
        self.generation = 0
        """How many connections there were."""
        self.held: list[Arrival] = []
        """What waits until the way is free again."""
        self.is_dialled = False


class Connections:
    """All of them."""

    def __init__(self, members: list[Member]) -> None:
        count = len(members)
        self._cuts = [[0] * count for _ in members]
        self.pairs: list[list[Pair]] = [[None] * count for _ in members]  # type: ignore[list-item]
        self.all: list[Pair] = []
        for i, first in enumerate(members):
            for j in range(i + 1, count):
                pair = Pair(first, members[j])
                self.pairs[i][j] = self.pairs[j][i] = pair
                self.all.append(pair)
        self.cuts = 0
        """How many ways are cut."""

    def is_cut(self, source: Member, target: Member) -> bool:
        """Tell whether one way is cut."""
        return bool(self.cuts) and self._cuts[source.index][target.index] > 0

    def is_disturbed(self, pair: Pair) -> bool:
        """Tell whether one of both ways is cut."""
        return self.is_cut(pair.first, pair.second) or self.is_cut(pair.second, pair.first)

    def cut(self, ways: Iterable[tuple[int, int]]) -> None:
        """Cut ways, once more where they are cut already."""
        for source, target in ways:
            self._cuts[source][target] += 1
            self.cuts += 1

    def mend(self, ways: Iterable[tuple[int, int]]) -> None:
        """End one cut of each way."""
        for source, target in ways:
            self._cuts[source][target] -= 1
            self.cuts -= 1
