"""How connections break, who notices that and when, and how members are linked again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from random import Random

    from coherd.sim.faults.links import Arrival, Connections, Pair
    from coherd.sim.faults.member import Member

SILENT_MIN, SILENT_MAX = 3.0, 9.0
"""Seconds of silence after which an end gives a connection up; one that has nothing to send asks only after
five whether anybody is there."""
CRASH_NOTICED = 3.0
"""Seconds at most after which a crash is noticed."""
DIAL_MIN, DIAL_MAX = 0.1, 2.5
"""Seconds until two members that can reach each other are linked."""
DEAD_AFTER_MIN, DEAD_AFTER_MAX = 4.0, 12.0
"""Seconds after which who is not linked is not handed anything, unless a third one still hears of it."""
SENT_AGAIN = 0.4
"""Seconds at most after which what waited for a way is sent again."""


class Connecting(ABC):
    """The part of a world that makes and breaks connections."""

    random: Random
    links: Connections
    by_name: Mapping[str, Member]

    @property
    @abstractmethod
    def now(self) -> float:
        """The true time in seconds."""

    @abstractmethod
    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something at a true time."""

    @abstractmethod
    def when_awake(
        self, member: Member, life: int, seconds: float, action: Callable[[], None]
    ) -> None:
        """Let a member do something after a while, unless that life has ended by then."""

    @abstractmethod
    def arrive(self, at: float, event: Arrival) -> None:
        """Let a message arrive."""

    @abstractmethod
    def settle(self, member: Member, sent_at: float = 0.0) -> None:
        """Send what a member wants to send, and set its timer."""

    def pairs_of(self, member: Member) -> Iterable[Pair]:
        """Give the connections of a member."""
        return [pair for pair in self.links.pairs[member.index] if pair is not None]

    def cut(self, ways: Sequence[tuple[int, int]]) -> None:
        """Cut ways between members, by index."""
        self.links.cut(ways)
        for source, target in ways:
            pair = self.links.pairs[source][target]
            if pair.is_up:
                self.break_later(pair)

    def mend(self, ways: Sequence[tuple[int, int]]) -> None:
        """End a cut: what waited is sent again, who is not linked is dialled."""
        self.links.mend(ways)
        for source, target in ways:
            pair = self.links.pairs[source][target]
            if self.links.is_disturbed(pair):
                continue
            if pair.is_up:
                at = self.now + self.random.uniform(0.0, SENT_AGAIN)
                held, pair.held = pair.held, []
                for event in held:
                    self.arrive(at, event)
            else:
                self._dial(pair)

    def break_later(self, pair: Pair) -> None:
        """Break a connection unless all is well again before its ends give it up."""
        generation = pair.generation

        def look() -> None:
            if pair.generation != generation or not pair.is_up:
                return
            ends = (pair.first, pair.second)
            stalled = any(end.stalled_until > self.now for end in ends)
            if not stalled and not self.links.is_disturbed(pair):
                return
            self.break_off(pair)
            for end, other in (ends, ends[::-1]):
                self.notice(end, other, self.random.uniform(0.0, SILENT_MAX - SILENT_MIN))

        self.at(self.now + SILENT_MIN, look)

    def break_off(self, pair: Pair) -> None:
        """Break a connection now, whoever notices."""
        pair.is_up = False
        pair.generation += 1
        pair.held.clear()

    def notice(self, member: Member, other: Member, seconds: float) -> None:
        """Let a member notice that a connection is broken."""
        pair = self.links.pairs[member.index][other.index]
        generation = pair.generation

        def notice() -> None:
            if pair.generation == generation:
                self._closed(member, other)

        self.when_awake(member, member.life, seconds, notice)

    def _closed(self, member: Member, other: Member) -> None:
        if member.linked_at.pop(other.name, None) is None:
            return
        member.peers = sorted(member.linked_at)
        self._forget_links(member, other.name)
        member.mending.closed(other.name, member.now)
        life, seconds = member.life, self.random.uniform(DEAD_AFTER_MIN, DEAD_AFTER_MAX)
        self.when_awake(member, life, seconds, lambda: self._dead(member, other))

    def _forget_links(self, member: Member, name: str) -> None:
        for urgent in (True, False):
            member.spread.closed_in(name, urgent=urgent)
        member.spread.closed_out(name, member.now)

    def _dead(self, member: Member, other: Member) -> None:
        if other.name in member.linked_at:
            return
        if any(other.name in self.by_name[third].linked_at for third in member.peers):
            return  # it answers others
        member.view.remove(other.name)
        member.spread.closed_out(other.name, member.now)
        member.spread.forget(other.name)

    def dial(self, member: Member) -> None:
        """Link a member with all that it can reach."""
        for pair in self.pairs_of(member):
            if not pair.is_up:
                self._dial(pair)

    def _dial(self, pair: Pair) -> None:
        if not pair.is_dialled:
            pair.is_dialled = True
            self.at(self.now + self.random.uniform(DIAL_MIN, DIAL_MAX), lambda: self._dialled(pair))

    def _dialled(self, pair: Pair) -> None:
        pair.is_dialled = False
        ends = (pair.first, pair.second)
        if pair.is_up or self.links.is_disturbed(pair) or not all(end.is_up for end in ends):
            return  # who starts, and who mends a cut, dials again
        if any(end.stalled_until > self.now for end in ends):
            return  # who goes on dials again
        pair.is_up = True
        pair.generation += 1
        for end, other in (ends, ends[::-1]):
            self._opened(end, other)
        for end in ends:
            self.settle(end)

    def _opened(self, member: Member, other: Member) -> None:
        name = other.name
        if name in member.linked_at:  # the old connection was not missed yet
            self._closed(member, other)
        self._forget_links(member, name)  # whatever was sent into nowhere
        member.linked_at[name] = self.now
        member.peers = sorted(member.linked_at)
        if other.epochs.get(member.name, 0) > member.epoch:
            member.begin_epoch(other.epochs[member.name])
        member.hear_of(other)
        if name not in member.unknown:
            member.view.add(name, other.interest)
        member.mending.linked(name)
