"""What reads a member's arrivals: the cache of its host, with copies that can be stale, and a watcher.

Both follow the one rule for readers (`resume`): from a position above the floor they go on, below a floor
that is too young they are reset. A cache keeps its cursor itself, so it goes on from there whatever its agent
lost. What was shown to a reader is noted: nothing may be shown twice, or be left out in silence.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from coherd.model import Effect
from coherd.replication.intervals import Intervals
from coherd.replication.replica import resume
from coherd.sim.faults.disk import located, written
from coherd.sim.faults.truth import touches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coherd.model import Stream
    from coherd.replication.replica import Arrival
    from coherd.sim.faults.member import Member


UNKNOWN = -1
"""Position of a reader that has not shown its cursor yet: every question waits for it."""


class Copy:
    """A cached value: when it was loaded from the source, and until when it may be kept; true times."""

    __slots__ = ("expires_at", "is_stale", "loaded_at")

    def __init__(self, loaded_at: float, expires_at: float) -> None:
        self.loaded_at = loaded_at
        self.expires_at = expires_at
        self.is_stale = False
        """Whether it may be served only while it is being refreshed."""


class Reader:
    """Goes through the arrivals of the namespaces that its host holds."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.position = 0
        """Everything up to here was read."""
        self.cursor = (0, 0)
        """The same as it is written outside."""
        self.away = 0
        """For how many reasons it does not reach its agent."""
        self.seen: dict[Stream, Intervals] = {}
        self.reset_at: dict[str, float] = {}
        """Per namespace the true time of its last reset."""
        self.expired_at: dict[str, float] = {}
        """Per namespace: what was accepted up to then could be skipped, because no copy of it was left."""
        self.repeated = 0
        """Rows that were shown twice."""
        self.resets = 0
        """That this reader alone was given."""
        self._repeatable: dict[Stream, Intervals] = {}
        self._forgotten_at: dict[Stream, list[int]] = {}
        """Per stream the positions, ascending, at which the agent forgot it and that were not passed yet."""
        self._reset_position: dict[str, int] = {}

    @property
    def is_open(self) -> bool:
        """Whether it reaches its agent."""
        return self.away == 0

    def begin(self, kept: Mapping[Stream, Intervals], position: int) -> None:
        """Note that another life of the agent begins, whose journal kept these numbers, up to a position."""
        self._reset_position.clear()
        self.position = UNKNOWN
        for stream, numbers in self.seen.items():
            lost = numbers - kept.get(stream, Intervals())
            self._repeatable.setdefault(stream, Intervals()).update(lost)
        for waiting in self._forgotten_at.values():
            waiting[:] = [min(at, position) for at in waiting]

    def may_repeat(self, stream: Stream, position: int) -> None:
        """Note that a stream was forgotten: what came up to a position may be shown once more after it."""
        self._forgotten_at.setdefault(stream, []).append(position)

    def _pass_forgotten(self, stream: Stream, position: int) -> None:
        """Let a stream that was forgotten below a position repeat there what was shown of it.

        That is found out where the reader is: what it had not read when the agent forgot is here twice, too.
        """
        waiting = self._forgotten_at.get(stream)
        if waiting and waiting[0] < position:
            self._forgotten_at[stream] = [at for at in waiting if at >= position]
            seen = self.seen.get(stream, Intervals())
            self._repeatable.setdefault(stream, Intervals()).update(seen)

    def locate(self, lives: Sequence[tuple[int, int]], end: int) -> None:
        """Go on from where the cursor says, after the connection to the agent was opened again."""
        self.position = located(lives, self.cursor, end)

    def read(self, member: Member, now: float) -> None:
        """Read all that is new, at a true time."""
        replica, local = member.replica, member.now
        if self.position >= replica.position:
            return
        for namespace in member.holds:
            at = max(self.position, self._reset_position.get(namespace, 0))
            horizon = member.horizon(namespace, local)
            if resume(at, replica.floor(namespace), horizon, local) is None:
                self._reset_position[namespace] = replica.position
                self.resets += 1
                self._reset(namespace, now)
            elif at < replica.floor(namespace).n:
                expired_at = now - member.needed_ttl(namespace)
                self.expired_at[namespace] = max(expired_at, self.expired_at.get(namespace, 0.0))
        log = member.log
        for at in range(bisect_right(log, self.position, key=_last), len(log)):
            if log[at].namespace in member.holds:
                self._take(log[at], now)
        self.position = replica.position
        self.cursor = written(member.lives, self.position)

    def covered_at(self, namespace: str) -> float:
        """Give a true time: what was accepted up to then need not have been shown any more."""
        return max(self.reset_at.get(namespace, -1.0), self.expired_at.get(namespace, -1.0))

    def _take(self, arrival: Arrival, now: float) -> None:
        batch = arrival.batch
        if not batch.numbers:
            self._reset(arrival.namespace, now)
            for stream, adopted in arrival.adopted.items():
                self._pass_forgotten(stream, arrival.position)
                self.seen.setdefault(stream, Intervals()).update(adopted)
            return
        self._pass_forgotten(batch.stream, arrival.position)
        seen = self.seen.setdefault(batch.stream, Intervals())
        numbers = Intervals(batch.numbers)
        if twice := numbers & seen:
            repeatable = self._repeatable.get(batch.stream, Intervals())
            self.repeated += len(twice - repeatable)
            self._repeatable[batch.stream] = repeatable - twice
        seen.update(numbers)
        self._apply(arrival)

    def _reset(self, namespace: str, now: float) -> None:
        self.reset_at[namespace] = now

    def _apply(self, arrival: Arrival) -> None:
        """Do what rows ask for."""


class Watcher(Reader):
    """A reader that comes and goes."""


class Cache(Reader):
    """A cache, whose copies live on its host: no crash of the agent, and no loss of its disk, ends them."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.copies: dict[str, dict[bytes, Copy]] = {}

    def store(self, namespace: str, key: bytes, copy: Copy) -> None:
        """Put a copy in."""
        self.copies.setdefault(namespace, {})[key] = copy

    def _reset(self, namespace: str, now: float) -> None:
        super()._reset(namespace, now)
        self.copies.pop(namespace, None)

    def _apply(self, arrival: Arrival) -> None:
        batch = arrival.batch
        copies = self.copies.get(arrival.namespace)
        if not copies:
            return
        for selector in batch.selectors:
            for key in [k for k in copies if touches(selector, k)]:
                if batch.effect is Effect.DROP:
                    del copies[key]
                else:
                    copies[key].is_stale = True


def _last(arrival: Arrival) -> int:
    return arrival.last
