"""Anti-entropy: which rows are missing, whom to ask, and what may be believed of the answers.

A *hole* is a number that somebody claims, or that lies below one we have, and that is not in our vector.
Whoever has it answers from one snapshot: rows; *covers* (a later row that it holds supersedes them);
*blank* (it forgot them, at least so long ago); *unknown*. A hole that nobody can fill ends in a reset of
its namespace, never in silence. After Demers et al., "Epidemic Algorithms for Replicated Database
Maintenance" (1987), §1.3, and Parker et al.'s version vectors (1983).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from coherd.model import Cause, Stream
from coherd.replication.answers import NOTHING, Answer, answer
from coherd.replication.gap import NONE, Gap
from coherd.replication.intervals import Intervals
from coherd.replication.retention import Floor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from random import Random

    from coherd.replication.vector import Vector

__all__ = ["Adoption", "Answer", "Ask", "Repair", "answer"]

HOLE_AGE_MIN = 0.150
"""Seconds: the parcel of a younger hole may be under way."""
UNCLAIMED_AFTER = 30.0
"""Seconds after which a hole that nobody reachable claims is given up."""
LATE_MAX = 1.0
"""Of the seconds between two looks at open holes so many count for this: an agent that stood still, or that
got no processor, could not hear a claim either."""
BELOW_FLOOR_AFTER = 1.0
"""Seconds from which on a hole may count as below the floor. Its origin may have forgotten it, and say so,
before the holders that have it have told: within this time each of them sends a Have, or is compared with."""
REPLAY_MAX = 1_000_000
"""Missing rows from which a reset is cheaper than a replay."""
ASK_ROWS_MAX = 10_000
"""Numbers asked of one member at once."""
REFUSALS_MAX = 3
"""Holders that are asked, beside the origin, before a hole counts as below the floor; first who claims it."""
RETRY_AFTER_MAX = 5.0
"""Longest time in seconds for which a member can say that it is busy."""
TICK = 0.05
"""Seconds between two looks at open holes."""


class Ask(NamedTuple):
    """Numbers to fetch from one member."""

    number: int
    member: str
    wanted: Mapping[Stream, Intervals]


class Adoption(NamedTuple):
    """Numbers that entered the vector without a row; with a floor where they are forgotten."""

    stream: Stream
    numbers: Intervals
    floor: Floor | None


class Repair:
    """Finds out what is missing, and decides from whom to fetch it and when to give up."""

    def __init__(
        self,
        vector: Vector,
        random: Random,
        horizon: Callable[[str, float], float],
        reset_jitter: float = 5.0,
        replay_max: int = REPLAY_MAX,
    ) -> None:
        """`horizon(namespace, now)`: the age in seconds from which a forgotten row does not matter.

        `reset_jitter`: seconds over which the resets of many hosts are spread. `replay_max`: missing rows
        of a namespace from which it is reset instead of replayed.
        """
        self._replay_max = replay_max
        self._reset_jitter = reset_jitter
        self._vector = vector
        self._random = random
        self._horizon = horizon
        self._gaps: dict[Stream, Gap] = {}
        self._flight: dict[str, Ask] = {}
        self._not_before: dict[str, float] = {}
        self._resets_due: dict[str, float] = {}
        self._asks = 0
        self._looked_at = 0.0
        self._stood_still = 0.0
        """Seconds that do not count for holes that nobody claims."""
        self.holds: Callable[[str, str], bool] = lambda _member, _namespace: True
        """Tells whether a member holds a namespace."""

    # ------------------------------------------------------------------ what is missing

    def claim(self, member: str, claims: Iterable[tuple[Stream, Intervals]]) -> None:
        """Note what `member` says it has: everything of each named stream."""
        for stream, numbers in claims:
            state = self._vector.get(stream)
            missing = numbers - state.have if state else numbers
            if missing:
                self._gap(stream).claim(member, missing)
            elif stream in self._gaps:
                self._gaps[stream].claim(member, missing)

    def claim_more(self, member: str, claims: Iterable[tuple[Stream, Intervals]]) -> None:
        """Note that `member` has this of each named stream, beside what it said before."""
        for stream, numbers in claims:
            state = self._vector.get(stream)
            if missing := numbers - state.have if state else numbers:
                self._gap(stream).claim_more(member, missing)

    def touch(self, stream: Stream) -> list[Adoption]:
        """Note that rows of `stream` arrived: new holes may show, waiting covers may be due."""
        gap = self._gaps.get(stream)
        if gap is None:
            have = self._vector.state(stream).have
            if have and have.first_missing(1, have.last):
                self._gap(stream)
            return []
        return self._settle(stream, gap)

    def open(self, namespace: str | None = None) -> int:
        """Count the numbers that are missing, those included that wait for others."""
        return sum(
            gap.missing()
            for stream, gap in self._gaps.items()
            if namespace in {None, stream.namespace}
        )

    def oldest(self, namespace: str, now: float) -> float:
        """Give the age in seconds of the namespace's oldest hole."""
        return max(
            (g.ages.oldest(now) for s, g in self._gaps.items() if s.namespace == namespace),
            default=0.0,
        )

    def is_closed(self, member: str) -> bool:
        """Tell whether every hole that `member` showed is closed."""
        return not any(
            numbers - self._vector.state(stream).have
            for stream, gap in self._gaps.items()
            if (numbers := gap.claims.get(member))
        )

    def is_open(self, stream: Stream) -> bool:
        """Tell whether something of a stream is missing, as far as is known."""
        gap = self._gaps.get(stream)
        return gap is not None and gap.missing() > 0

    def drop(self, stream: Stream) -> None:
        """Know nothing of a stream any more."""
        self._gaps.pop(stream, None)

    @property
    def has_gaps(self) -> bool:
        """Whether anything is open."""
        return bool(self._gaps)

    def next_timer(self, now: float) -> float | None:
        """Say when to call `plan` again; None while nothing is open."""
        return now + TICK if self._gaps else None

    # ------------------------------------------------------------------ whom to ask

    def plan(self, now: float, reachable: Collection[str]) -> list[Ask]:
        """Divide the holes that are old enough among members that are not busy.

        These claim them; or, where all of those have refused, hold the namespace.
        """
        everybody = frozenset(reachable)
        wanted: dict[str, dict[Stream, Intervals]] = {}
        room = {
            member: ASK_ROWS_MAX
            for member in reachable
            if member not in self._flight and self._not_before.get(member, 0.0) <= now
        }
        for stream, gap in list(self._gaps.items()):
            if not gap.waiting and not gap.holes():
                del self._gaps[stream]
                continue
            gap.grow_older(now)
            _, in_vain = gap.in_vain(stream.origin.name, everybody, REFUSALS_MAX)
            if in_vain:
                in_vain = in_vain & gap.ages.older_than(BELOW_FLOOR_AFTER, now)
            members = self._candidates(stream, gap, room, anybody=bool(in_vain))
            if not members:
                continue
            ripe = gap.ages.older_than(HOLE_AGE_MIN, now) - self._in_flight(stream)
            for member in members:
                if not ripe:
                    break
                part = self._askable(stream, gap, member, ripe, in_vain).take(room[member])
                if part:
                    wanted.setdefault(member, {})[stream] = part
                    room[member] -= len(part)
                    ripe = ripe - part
        asks = []
        for member, streams in wanted.items():
            self._asks += 1
            ask = self._flight[member] = Ask(self._asks, member, streams)
            asks.append(ask)
        return asks

    def _candidates(
        self, stream: Stream, gap: Gap, room: Mapping[str, int], *, anybody: bool
    ) -> list[str]:
        """Give the members worth asking, in random order so that a big gap is shared out."""
        members = [m for m in {*gap.claims, stream.origin.name} if room.get(m)]
        if anybody:
            holders = (m for m in room if room[m] and self.holds(m, stream.namespace))
            members = list({*members, *holders})
        members.sort()
        self._random.shuffle(members)
        return members

    def _askable(
        self, stream: Stream, gap: Gap, member: str, ripe: Intervals, in_vain: Intervals
    ) -> Intervals:
        """Give what to ask of `member`: what it claims, and what all who do were asked for in vain.

        Of an origin everything of its own.
        """
        if member == stream.origin.name:
            mine = ripe
        else:
            claimed = gap.claims.get(member, NONE)
            mine = ripe & (claimed | in_vain if in_vain else claimed)
        return mine - gap.refused(member)

    def _in_flight(self, stream: Stream) -> Intervals:
        result = Intervals()
        for ask in self._flight.values():
            if numbers := ask.wanted.get(stream):
                result.update(numbers)
        return result

    # ------------------------------------------------------------------ what they answer

    def answered(self, ask: Ask, answers: Mapping[Stream, Answer], now: float) -> list[Adoption]:
        """Believe what may be believed. The rows of the answer were received before."""
        if self._flight.get(ask.member) is ask:
            del self._flight[ask.member]
        adoptions: list[Adoption] = []
        for stream, wanted in ask.wanted.items():
            gap = self._gaps.get(stream)
            if gap is None:
                continue
            reply = answers.get(stream, NOTHING)
            have = self._vector.state(stream).have
            self._take_covers(
                gap, ask.member, (reply.covers & wanted) - have, reply.retained - have
            )
            blank = (reply.blank & wanted) - have
            if blank and reply.blank_age >= self._horizon(stream.namespace, now):
                adoptions.append(
                    self._adopt(stream, blank, Floor(blank.last, now - reply.blank_age))
                )
            else:
                gap.deny(ask.member, blank)
            # What it neither brought nor spoke of it will not bring next time either.
            gap.deny(ask.member, wanted - have - reply.covers - reply.blank - reply.unknown)
            gap.disown(ask.member, (reply.unknown & wanted) - have)
            adoptions += self._settle(stream, gap)
        return adoptions

    def failed(self, ask: Ask, now: float, retry_after: float) -> None:
        """Note that the ask ended without an answer; `member` is left alone for `retry_after` s."""
        if self._flight.get(ask.member) is ask:
            del self._flight[ask.member]
        self._not_before[ask.member] = now + min(retry_after, RETRY_AFTER_MAX)

    def _take_covers(self, gap: Gap, member: str, covers: Intervals, lacking: Intervals) -> None:
        """Let covers wait until everything that the holder retains is here, whoever brings it."""
        if covers:
            gap.wait(covers, lacking)
            if lacking:
                gap.claim_more(member, lacking)

    def _settle(self, stream: Stream, gap: Gap) -> list[Adoption]:
        due = gap.take_due()
        return [self._adopt(stream, due, None)] if due else []

    def _adopt(self, stream: Stream, numbers: Intervals, floor: Floor | None) -> Adoption:
        self._vector.adopt(stream, numbers, floor)
        return Adoption(stream, numbers, floor)

    # ------------------------------------------------------------------ when to give up

    def resets(self, now: float, reachable: Collection[str]) -> list[tuple[str, Cause]]:
        """Name the namespaces that must be reset now, each once, and why."""
        members = frozenset(reachable)
        self._stood_still += max(0.0, now - self._looked_at - LATE_MAX)
        self._looked_at = now
        listened = now - self._stood_still
        causes: dict[str, Cause] = {}
        missing: dict[str, int] = {}
        for stream, gap in self._gaps.items():
            name, origin = stream.namespace, stream.origin.name
            missing[name] = missing.get(name, 0) + len(gap.holes())
            gap.grow_older(now)
            holders = (m for m in members if m != origin and self.holds(m, name))
            lost = gap.below_floor(origin, members, holders, REFUSALS_MAX)
            if lost and lost & gap.ages.older_than(BELOW_FLOOR_AFTER, now):
                causes[name] = Cause.BELOW_FLOOR
            gap.give_up(origin, members, REFUSALS_MAX, listened)
            if gap.unclaimed.older_than(UNCLAIMED_AFTER, listened):
                causes.setdefault(name, Cause.UNCLAIMED)
        for name, count in missing.items():
            if count > self._replay_max:
                causes.setdefault(name, Cause.TOO_FAR_BEHIND)
        for name in causes:
            self._resets_due.setdefault(name, now + self._random.uniform(0.0, self._reset_jitter))
        self._resets_due = {n: at for n, at in self._resets_due.items() if n in causes}
        return [(name, causes[name]) for name, at in self._resets_due.items() if at <= now]

    def reset(self, namespace: str) -> dict[Stream, Intervals]:
        """Give everything that is missing in the namespace, to be adopted, and forget its holes."""
        adopted: dict[Stream, Intervals] = {}
        for stream in [s for s in self._gaps if s.namespace == namespace]:
            gap = self._gaps.pop(stream)
            if numbers := gap.holes() | gap.waiting.covers():
                adopted[stream] = numbers
        self._resets_due.pop(namespace, None)
        return adopted

    def _gap(self, stream: Stream) -> Gap:
        gap = self._gaps.get(stream)
        if gap is None:
            gap = self._gaps[stream] = Gap(self._vector.state(stream))
        return gap
