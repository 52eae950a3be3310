"""One link to a peer, seen from its sender: what waits, what is under way, what is overdue.

The urgent link never waits. On the other two messages may be under way; what comes meanwhile goes with the
next, so that a busy peer gets few large messages (after Nagle, RFC 896). Bytes that wait or are not
acknowledged are bounded. A parcel is overdue when it was not acknowledged for four smoothed round trips, or
50 ms if that is longer.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from coherd.replication.parcels import Arc, Parcel, Parcels

LINK_BYTES_MAX = 8 * 1024 * 1024
"""Payload bytes that may wait on a link or be unacknowledged."""
MESSAGES_MAX = 2
"""Messages under way from which on parcels that are not urgent wait, to go together. With 4, as was tried, a
busy agent takes 2.9 µs a row instead of 2.2."""
MESSAGE_BYTES_MAX = 1024 * 1024
"""Payload bytes of one message, as long as that is one parcel or more."""
PARCEL_BYTES = 64
"""What a parcel counts beside its payload: even very many empty ones must not take all memory."""
TIMEOUT_MIN = 0.050
"""Seconds in which every healthy peer acknowledges."""
ROUND_TRIPS = 4


class _Queued(NamedTuple):
    number: int
    parcel: Parcel
    at: float


class OutLink:
    """The state of one link; the messages themselves are sent by somebody else."""

    __slots__ = (
        "_bytes", "_held_back", "_messages", "_number", "_overdue", "_stripped", "_under_way", "_waiting",
        "dropped", "is_armed", "name", "round_trip", "sent", "urgent",
    )  # fmt: skip

    def __init__(self, name: str, *, urgent: bool, held_back: float = 0.0) -> None:
        """`held_back`: seconds for which the peer may hold an acknowledgement back."""
        self.name = name
        self.urgent = urgent
        self.round_trip = 0.0
        """Smoothed, in seconds, from queued to acknowledged; 0 while nothing was."""
        self.sent = 0
        self.dropped = 0
        """Parcels that found no room, or waited when the connection broke."""
        self.is_armed = False
        """Whether somebody will look for what is overdue."""
        self._held_back = held_back
        self._number = 0
        self._bytes = 0
        self._waiting: deque[_Queued] = deque()
        self._stripped = 0
        """How many of them, the oldest, are overdue: their arcs were taken from them."""
        self._under_way: deque[_Queued] = deque()
        self._overdue: deque[_Queued] = deque()
        """What is under way and overdue; older than the rest."""
        self._messages: deque[int] = deque()
        """The last parcel's number of each message under way."""

    @property
    def is_silent(self) -> bool:
        """Whether something is overdue on it."""
        return bool(self._overdue or self._stripped)

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait or are not acknowledged."""
        return self._bytes

    def unacknowledged_age(self, now: float) -> float:
        """Give for how many seconds the oldest parcel under way has been; 0 when there is none."""
        for queue in (self._overdue, self._under_way):
            if queue:
                return now - queue[0].at
        return 0.0

    @property
    def timeout(self) -> float:
        """Seconds from which on an unacknowledged parcel is overdue.

        What the peer holds back on purpose counts once, not with each round trip (RFC 9002, section 6.2.1).
        """
        travel = self.round_trip - self._held_back
        return max(TIMEOUT_MIN, ROUND_TRIPS * travel + self._held_back)

    @property
    def due(self) -> float | None:
        """When the next parcel will be overdue, if none is acknowledged before."""
        if self._under_way:
            return self._under_way[0].at + self.timeout
        if len(self._waiting) > self._stripped:
            return self._waiting[self._stripped].at + self.timeout
        return None

    def offer(self, parcel: Parcel, now: float) -> bool:
        """Queue a parcel; False when there is no room for it."""
        size = _size(parcel)
        if self._bytes + size > LINK_BYTES_MAX:
            self.dropped += 1
            return False
        self._bytes += size
        self._number += 1
        self._waiting.append(_Queued(self._number, parcel, now))
        return True

    def take(self) -> Parcels | None:
        """Take the next message, if one may go now."""
        waiting = self._waiting
        if not waiting or (not self.urgent and len(self._messages) >= MESSAGES_MAX):
            return None
        parcels = []
        size = 0
        while waiting and size < MESSAGE_BYTES_MAX:
            queued = waiting.popleft()
            size += _size(queued.parcel)
            parcels.append(queued.parcel)
            if self._stripped:
                self._stripped -= 1
                self._overdue.append(queued)
            else:
                self._under_way.append(queued)
        last = queued.number
        self._messages.append(last)
        self.sent += len(parcels)
        return Parcels(self.urgent, last, tuple(parcels))

    def acknowledge(self, number: int, now: float) -> None:
        """Note that the peer has taken all parcels up to a number.

        An acknowledgement that was waited for in vain counts as no slower than that: a lost segment must not
        make patient with a peer for long, and a peer that has really become slow shows it again and again.
        """
        newest = None
        for queue in (self._overdue, self._under_way):
            while queue and queue[0].number <= number:
                newest = queue.popleft()
                self._bytes -= _size(newest.parcel)
        while self._messages and self._messages[0] <= number:
            self._messages.popleft()
        if newest is not None:
            sample = min(now - newest.at, self.timeout)
            smoothed = self.round_trip  # as in RFC 6298 (2.3)
            self.round_trip = smoothed + (sample - smoothed) / 8 if smoothed else sample

    def take_overdue(self, now: float) -> list[Parcel]:
        """Give the parcels that have just become overdue. Those that still wait go without their arcs."""
        timeout = self.timeout  # added as in `due`: rounded otherwise, it might never come
        found = []
        while self._under_way and self._under_way[0].at + timeout <= now:
            queued = self._under_way.popleft()
            self._overdue.append(queued)
            found.append(queued.parcel)
        waiting = self._waiting
        if not self._under_way:
            while self._stripped < len(waiting) and waiting[self._stripped].at + timeout <= now:
                queued = waiting[self._stripped]
                found.append(queued.parcel)
                alone = tuple(Arc.nobody(arc.ring, self.name) for arc in queued.parcel.arcs)
                bare = queued.parcel._replace(arcs=alone)
                waiting[self._stripped] = queued._replace(parcel=bare)
                self._stripped += 1
        return found

    def close(self) -> list[Parcel]:
        """Begin anew, because the connection broke; give what may not have been taken and has arcs left."""
        rest = [*self._under_way, *list(self._waiting)[self._stripped :]]
        self.dropped += len(self._waiting)
        self._number = self._bytes = self._stripped = 0
        for queue in (self._waiting, self._under_way, self._overdue, self._messages):
            queue.clear()
        return [queued.parcel for queued in rest]


def _size(parcel: Parcel) -> int:
    return parcel.payload.size_bytes + PARCEL_BYTES
