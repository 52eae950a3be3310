"""What a soak may ask of a cache: which copies an accepted invalidation forbids, by exact times.

Every copy says when it was filled: the cache's server writes the time itself, in the step that stores the
copy. A row that was accepted forbids the copies filled before its call, for whoever applies it does so
after the call. A copy filled between call and answer may be older or newer than the row: not counted.
All times are microseconds since 1970 of this machine's one clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

CLOCK_JUMP_MAX = 2_000
"""Microseconds that the clock may move against the monotonic one: slewing moves both."""


class Selector(NamedTuple):
    """What an invalidation names: a key, a tag or a prefix."""

    kind: str
    name: bytes


class Row(NamedTuple):
    """An accepted invalidation of one selector."""

    called_at: int
    agent: str
    dot: str


class Stale(NamedTuple):
    """A copy that must not be there."""

    host: str
    key: bytes
    filled_at: int
    row: Row

    def __str__(self) -> str:
        late = (self.row.called_at - self.filled_at) / 1e6
        return (
            f"the Redis of {self.host} holds {self.key.decode()}, filled {late:.3f} s before "
            f"{self.row.agent} was called for what it accepted as {self.row.dot}"
        )


Streams = dict[tuple[int, int], int]
"""By epoch and lane the highest number."""


def now() -> int:
    """Give the time as a cache's server would write it."""
    return time.time_ns() // 1000


class Clock:
    """Sees whether the clock was set: then no time of the run can be compared with another."""

    def __init__(self) -> None:
        self._offset = self._read()

    @staticmethod
    def _read() -> int:
        return (time.time_ns() - time.monotonic_ns()) // 1000

    @property
    def was_set(self) -> bool:
        return abs(self._read() - self._offset) > CLOCK_JUMP_MAX


class Truth:
    """The accepted invalidations; used by several threads.

    Rows are *fresh* until every host is known to have them. Fresh rows of an agent that loses its disk
    may go with it, unless another one holds them: then they are doubtful, and nothing is asked of them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._certain: dict[Selector, Row] = {}
        self._fresh: dict[str, dict[Selector, Row]] = {}
        self._streams: dict[str, Streams] = {}
        self.accepted = 0
        """Rows."""
        self.perhaps = 0
        """Rows of calls that failed or were not answered."""
        self.doubtful = 0
        """Rows that may have gone with a disk."""

    def accept(
        self,
        agent: str,
        called_at: int,
        selectors: Iterable[Selector],
        epoch: int,
        lane: int,
        last: int,
    ) -> None:
        """Note a call that was answered OK; `last` is the highest number of its rows."""
        row = Row(called_at, agent, f"{agent}/{epoch}/{lane}/{last}")
        with self._lock:
            fresh = self._fresh.setdefault(agent, {})
            streams = self._streams.setdefault(agent, {})
            streams[epoch, lane] = max(last, streams.get((epoch, lane), 0))
            for selector in selectors:
                self.accepted += 1
                _note(fresh, selector, row)

    def fail(self, rows: int) -> None:
        """Note a call that failed, or was cut off: its rows may have been accepted."""
        with self._lock:
            self.perhaps += rows

    def streams(self, agent: str) -> Streams:
        """Give the streams of the fresh rows of an agent."""
        with self._lock:
            return dict(self._streams.get(agent, {}))

    def settle(self, agent: str) -> None:
        """Take the fresh rows of an agent for certain: a disk that is not lost has them."""
        with self._lock:
            self._settle(agent)

    def doubt(self, agent: str) -> None:
        """Ask nothing of the fresh rows of an agent: its disk is lost."""
        with self._lock:
            self._streams.pop(agent, None)
            self.doubtful += len(self._fresh.pop(agent, {}))

    def settle_all(self) -> None:
        """Every agent has everything: whatever disk is lost now, none of it is."""
        with self._lock:
            for agent in list(self._fresh):
                self._settle(agent)

    def _settle(self, agent: str) -> None:
        self._streams.pop(agent, None)
        for selector, row in self._fresh.pop(agent, {}).items():
            _note(self._certain, selector, row)

    def stale(
        self, host: str, copies: Mapping[bytes, int], names: Mapping[bytes, tuple[Selector, ...]]
    ) -> list[Stale]:
        """Name the copies that must not be there; `names` gives the selectors that cover each key.

        `copies`: when each was filled.
        """
        found = []
        with self._lock:
            everything = [self._certain, *self._fresh.values()]
            for key, filled_at in copies.items():
                rows = [
                    row
                    for known in everything
                    for selector in names[key]
                    if (row := known.get(selector)) is not None and row.called_at > filled_at
                ]
                if rows:
                    found.append(Stale(host, key, filled_at, max(rows)))
        return found


def _note(rows: dict[Selector, Row], selector: Selector, row: Row) -> None:
    before = rows.get(selector)
    if before is None or row.called_at > before.called_at:
        rows[selector] = row
