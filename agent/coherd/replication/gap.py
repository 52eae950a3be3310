"""What is open of one stream: which numbers are missing, who says that it has them, who had to pass.

Everything that is derived is kept until something changes: a member that is far behind looks at the same
holes twenty times a second while the rows are under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coherd.replication.aging import Aging
from coherd.replication.intervals import Intervals
from coherd.replication.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coherd.replication.vector import StreamState

NONE = Intervals()


class Gap:
    """What is open of one stream."""

    __slots__ = ("_asked", "_claimed", "_holes", "_refused", "_seen", "_state", "_version", "ages",
                 "claims", "denied", "unclaimed", "unknown", "waiting")  # fmt: skip

    def __init__(self, state: StreamState) -> None:
        self._state = state
        self.claims: dict[str, Intervals] = {}
        """Per member the numbers that it says it has and that were missing then."""
        self.unknown: dict[str, Intervals] = {}
        """Per member the numbers that it answered unknown."""
        self.denied: dict[str, Intervals] = {}
        """Per member the numbers that it answered blank and too young, or did not answer."""
        self.waiting = Waiting()
        self.ages = Aging()
        self.unclaimed = Aging()
        self._version = 0
        self._holes: tuple[tuple[int, int], Intervals] | None = None
        self._claimed: tuple[int, frozenset[str], Intervals] | None = None
        self._refused: tuple[Intervals, Intervals, tuple[Intervals, Intervals]] | None = None
        """What `in_vain` found last, with the holes and claims of then."""
        self._seen: Intervals | None = None
        """The holes that `ages` was told of last."""
        self._asked: tuple[Intervals, Intervals] | None = None
        """The holes and claims that `unclaimed` was told of last."""

    # ------------------------------------------------------------------ what is said

    def claim(self, member: str, missing: Intervals) -> None:
        """Note that `member` has what is missing here; with nothing, that it brings nothing new."""
        if missing:
            if self.claims.get(member) != missing:
                self.claims[member] = missing
                self._version += 1
            if unknown := self.unknown.get(member):
                self.unknown[member] = unknown - missing
                self._version += 1
        elif self.claims.pop(member, None) is not None:
            self._version += 1

    def claim_more(self, member: str, missing: Intervals) -> None:
        """Note that `member` has this, too."""
        self.claims[member] = self.claims.get(member, Intervals()) | missing
        self._version += 1

    def deny(self, member: str, numbers: Intervals) -> None:
        """Note that `member` does not bring these although it should."""
        if numbers:
            self.denied[member] = self.denied.get(member, Intervals()) | numbers
            self._version += 1

    def disown(self, member: str, numbers: Intervals) -> None:
        """Note that `member` never had these."""
        if numbers:
            self.unknown[member] = self.unknown.get(member, Intervals()) | numbers
            self._version += 1

    def wait(self, covers: Intervals, lacking: Intervals) -> None:
        """Let covers wait for what is lacking."""
        self.waiting.add(covers, lacking, self._state.have)
        self._version += 1

    def take_due(self) -> Intervals:
        """Give the covers that need not wait any more."""
        due = self.waiting.take_due(self._state.have)
        if due:
            self._version += 1
        return due

    # ------------------------------------------------------------------ what follows

    def holes(self) -> Intervals:
        """Give the numbers that are missing and do not merely wait for others; not to be changed."""
        key = (self._state.version, self._version)
        if self._holes is None or self._holes[0] != key:
            have = self._state.have
            holes = have.holes()
            for numbers in self.claims.values():
                holes.update(numbers)
            holes = holes - have
            if self.waiting:
                holes = holes - self.waiting.covers()
            if self._holes is not None and self._holes[1] == holes:
                holes = self._holes[1]  # the same object: nothing that follows has to be found anew
            self._holes = key, holes
        return self._holes[1]

    def missing(self) -> int:
        """Count what is missing, what waits for others included."""
        waiting = self.waiting.covers() - self._state.have if self.waiting else ()
        return len(self.holes()) + len(waiting)

    def refused(self, member: str) -> Intervals:
        """Give what it is of no use to ask `member` for."""
        unknown, denied = self.unknown.get(member), self.denied.get(member)
        return (unknown or Intervals()) | denied if denied else unknown or Intervals()

    def claimed(self, members: frozenset[str]) -> Intervals:
        """Give what some of these members claim; not to be changed."""
        found = self._claimed
        if found is None or found[0] != self._version or found[1] != members:
            result = Intervals()
            for member, numbers in self.claims.items():
                if member in members:
                    result.update(numbers)
            found = self._claimed = self._version, members, result
        return found[2]

    def grow_older(self, now: float) -> None:
        """Note which holes there are `now`."""
        holes = self.holes()
        if holes is not self._seen:
            self.ages.update(holes, now)
            self._seen = holes

    def give_up(self, origin: str, members: frozenset[str], refusals: int, now: float) -> None:
        """Note which holes nobody of `members`, the stream's origin apart, claims `now` and may bring.

        Seconds of a clock that may stand still.
        """
        holes, claimed = self.holes(), self.claimed(members)
        if self._asked is not None and self._asked[0] is holes and self._asked[1] is claimed:
            return
        self._asked = holes, claimed
        unclaimed = holes - claimed
        if unclaimed and origin in members:
            unclaimed = unclaimed & self.refused(origin)
        _, in_vain = self.in_vain(origin, members, refusals)
        self.unclaimed.update(unclaimed | in_vain if in_vain else unclaimed, now)

    def below_floor(
        self, origin: str, members: frozenset[str], holders: Iterable[str], refusals: int
    ) -> Intervals:
        """Give the holes that the origin and so many, or all, of `holders` were asked for in vain."""
        often, left = self.in_vain(origin, members, refusals)
        for member in holders:
            if not left:
                break
            left = left & self.refused(member)
        return often | left if left else often

    def in_vain(
        self, origin: str, members: frozenset[str], refusals: int
    ) -> tuple[Intervals, Intervals]:
        """Give the holes that so many have refused, and those that fewer have, but all who claim them.

        The origin is asked beside these; where it is one of `members` it has refused them, too. What nobody
        of `members` claims is not among them: somebody may still tell of it. Not to be changed.
        """
        if not self.unknown and not self.denied:
            return NONE, NONE
        holes, claimed = self.holes(), self.claimed(members)
        found = self._refused
        if found is None or found[0] is not holes or found[1] is not claimed:
            times = self._refusals(origin, refusals)
            refused = self.refused(origin) if origin in members else times[0]
            refused = holes & refused & claimed
            often = refused & times[-1]
            fewer = refused - often
            hopeful = Intervals()
            for member, numbers in self.claims.items():
                if fewer and member in members:
                    hopeful.update((fewer & numbers) - self.refused(member))
            found = self._refused = holes, claimed, (often, fewer - hopeful)
        return found[2]

    def _refusals(self, origin: str, count: int) -> list[Intervals]:
        """Give what one or more others than the origin have refused, what two or more, and so on."""
        times = [Intervals() for _ in range(count)]
        for member in (self.unknown.keys() | self.denied.keys()) - {origin}:
            numbers = self.refused(member)
            for at in range(count - 1, 0, -1):
                times[at].update(times[at - 1] & numbers)
            times[0].update(numbers)
        return times
