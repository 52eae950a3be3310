"""What an agent has: per stream a set of numbers, those that it holds rows of, and a floor.

Invariant of a stream: below the floor's n, what is not held was accepted at the floor's time or before;
above it, every number of `have` is held, or superseded by one that is. The only way in is by a row, by
a cover or blank that `repair` accepted, or by a reset: *a vector never contains what was not applied or
rightly covered*.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from coherd.limits import BUCKETS
from coherd.replication.intervals import Intervals
from coherd.replication.retention import Floor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from coherd.model import Range, Stream

_MASK = 2**64 - 1


def stream_hash(stream: Stream) -> bytes:
    """Give 8 bytes that name the stream in digests and buckets."""
    namespace, (name, epoch), lane = stream
    text = f"{namespace}\0{name}\0{epoch}\0{int(lane)}"
    return blake2b(text.encode(), digest_size=8).digest()


class StreamState:
    """What one agent knows of one stream."""

    __slots__ = ("_digest", "floor", "have", "held", "id")

    def __init__(self, stream: Stream) -> None:
        self.id = stream_hash(stream)
        self.have = Intervals()
        """The numbers applied or rightly covered."""
        self.held = Intervals()
        """The numbers whose rows can be served."""
        self.floor = Floor()
        self._digest: int | None = None

    @property
    def bucket(self) -> int:
        """Which of the compared buckets it belongs to."""
        return self.id[0] % BUCKETS

    @property
    def digest(self) -> int:
        """A 64-bit hash of the stream and the numbers it has; 0 while it has none."""
        if self._digest is None:
            if not self.have:
                return 0
            text = self.id + repr(self.have.ranges()).encode()
            self._digest = int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
        return self._digest

    def changed(self) -> None:
        """Note that `have` was changed."""
        self._digest = None

    def retained(self) -> Intervals:
        """Give everything that is still held."""
        return self.held.copy()


class Vector:
    """The streams of all namespaces."""

    def __init__(self) -> None:
        self._namespaces: dict[str, dict[Stream, StreamState]] = {}

    def __iter__(self) -> Iterator[tuple[Stream, StreamState]]:
        for streams in self._namespaces.values():
            yield from streams.items()

    def namespaces(self) -> Iterable[str]:
        """Give the namespaces that have a stream."""
        return self._namespaces.keys()

    def streams(self, namespace: str) -> dict[Stream, StreamState]:
        """Give the streams of a namespace."""
        return self._namespaces.get(namespace, {})

    def get(self, stream: Stream) -> StreamState | None:
        """Give what is known of a stream, or None when it was never heard of."""
        return self._namespaces.get(stream.namespace, {}).get(stream)

    def state(self, stream: Stream) -> StreamState:
        """Give what is known of a stream, beginning with nothing."""
        streams = self._namespaces.setdefault(stream.namespace, {})
        state = streams.get(stream)
        if state is None:
            state = streams[stream] = StreamState(stream)
        return state

    def take_rows(self, stream: Stream, ranges: Sequence[Range]) -> tuple[Range, ...]:
        """Add numbers whose rows are at hand; give those that were new."""
        state = self.state(stream)
        new = state.have.missing(ranges)
        for low, high in new:
            state.have.add(low, high)
            state.held.add(low, high)
        if new:
            state.changed()
        return new

    def adopt(self, stream: Stream, numbers: Intervals, floor: Floor | None) -> None:
        """Add numbers without rows, and with `floor` admit that they are forgotten here."""
        state = self.state(stream)
        state.have.update(numbers)
        if floor is not None:
            state.floor = state.floor.raised(*floor)
        state.changed()

    def compact(self, stream: Stream, ranges: Iterable[Range]) -> None:
        """Give up rows that are superseded by held ones of the same stream."""
        state = self.state(stream)
        for low, high in ranges:
            state.held.discard(low, high)

    def forget(self, stream: Stream, ranges: Sequence[Range], accepted_at: float) -> None:
        """Give up rows for good: the floor rises to the highest, its age falls to the youngest's."""
        state = self.state(stream)
        for low, high in ranges:
            state.held.discard(low, high)
        if ranges:
            state.floor = state.floor.raised(ranges[-1][1], accepted_at)

    def sum(self, namespaces: Iterable[str]) -> int:
        """Give the sum (mod 2^64) of the digests of all streams of these namespaces."""
        return (
            sum(state.digest for name in namespaces for state in self.streams(name).values())
            & _MASK
        )

    def bucket_sums(self, namespaces: Iterable[str]) -> list[int]:
        """Give the same sum per bucket."""
        sums = [0] * BUCKETS
        for name in namespaces:
            for state in self.streams(name).values():
                sums[state.bucket] = (sums[state.bucket] + state.digest) & _MASK
        return sums
