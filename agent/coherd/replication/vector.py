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
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from coherd.model import Range, Stream

_MASK = 2**64 - 1


def stream_hash(stream: Stream) -> bytes:
    """Give 8 bytes that name the stream in digests and buckets."""
    namespace, (name, epoch), lane = stream
    text = f"{namespace}\0{name}\0{epoch}\0{int(lane)}"
    return blake2b(text.encode(), digest_size=8).digest()


class StreamState:
    """What one agent knows of one stream."""

    __slots__ = ("_digest", "floor", "have", "held", "id", "is_retired", "version")

    def __init__(self, stream: Stream) -> None:
        self.id = stream_hash(stream)
        self.have = Intervals()
        """The numbers applied or rightly covered."""
        self.held = Intervals()
        """The numbers whose rows can be served."""
        self.floor = Floor()
        self.is_retired = False
        """Whether it is not shown any more (`eras`): in no sum, and in no list of streams."""
        self.version = 0
        """Changes with `have`."""
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
        self.version += 1

    def retained(self) -> Intervals:
        """Give everything that is still held."""
        return self.held.copy()


class Vector:
    """The streams of all namespaces."""

    def __init__(self) -> None:
        self._namespaces: dict[str, dict[Stream, StreamState]] = {}
        self._sums: dict[str, int] = {}
        """Per namespace the sum of what `_summed` says."""
        self._summed: dict[Stream, int] = {}
        """The digests that are in the sums."""
        self._unsummed: dict[str, set[Stream]] = {}
        """Per namespace the streams that changed since."""
        self._eras: dict[str, int] = {}
        self.shown_again: set[str] = set()
        """Namespaces with a retired stream that is shown again, until somebody stores that."""

    def __iter__(self) -> Iterator[tuple[Stream, StreamState]]:
        for streams in self._namespaces.values():
            yield from streams.items()

    def namespaces(self) -> Iterable[str]:
        """Give the namespaces that have a stream."""
        return self._namespaces.keys()

    def streams(self, namespace: str) -> dict[Stream, StreamState]:
        """Give the streams of a namespace."""
        return self._namespaces.get(namespace, {})

    def last_epoch(self, name: str) -> int:
        """Give the epoch of the last life of an agent that it knows a stream of; 0 when it knows none."""
        epochs = [stream.origin.epoch for stream, _ in self if stream.origin.name == name]
        return max(epochs, default=0)

    def get(self, stream: Stream) -> StreamState | None:
        """Give what is known of a stream, or None when it was never heard of."""
        return self._namespaces.get(stream.namespace, {}).get(stream)

    def state(self, stream: Stream) -> StreamState:
        """Give what is known of a stream, beginning with nothing."""
        streams = self._namespaces.setdefault(stream.namespace, {})
        state = streams.get(stream)
        if state is None:
            state = streams[stream] = StreamState(stream)
            self._changed(stream, state)
        return state

    def _changed(self, stream: Stream, state: StreamState) -> None:
        if state.is_retired:  # there is something new of it
            state.is_retired = False
            self.shown_again.add(stream.namespace)
        state.changed()
        self._unsummed.setdefault(stream.namespace, set()).add(stream)

    def missing(self, stream: Stream, ranges: Sequence[Range]) -> tuple[Range, ...]:
        """Give those of `ranges` that it does not have."""
        state = self.get(stream)
        return state.have.missing(ranges) if state is not None else tuple(ranges)

    def floors(self, streams: Iterable[Stream]) -> dict[Stream, Floor]:
        """Give the floors of streams, as far as these are known still: asking makes none known again."""
        return {s: state.floor for s in streams if (state := self.get(s)) is not None}

    def take_rows(self, stream: Stream, ranges: Sequence[Range]) -> tuple[Range, ...]:
        """Add numbers whose rows are at hand; give those that were new."""
        state = self.state(stream)
        new = state.have.missing(ranges)
        for low, high in new:
            state.have.add(low, high)
            state.held.add(low, high)
        if new:
            self._changed(stream, state)
        return new

    def adopt(self, stream: Stream, numbers: Intervals, floor: Floor | None) -> None:
        """Add numbers without rows, and with `floor` admit that they are forgotten here."""
        state = self.state(stream)
        state.have.update(numbers)
        if floor is not None:
            state.floor = state.floor.raised(*floor)
        self._changed(stream, state)

    def retire(self, stream: Stream, *, retired: bool) -> None:
        """Show a stream no more, or again."""
        state = self.state(stream)
        self._changed(stream, state)
        state.is_retired = retired

    def drop(self, stream: Stream) -> None:
        """Know nothing of a stream any more."""
        streams = self._namespaces.get(stream.namespace, {})
        if streams.pop(stream, None) is not None:
            self._unsummed.setdefault(stream.namespace, set()).add(stream)

    def compact(self, stream: Stream, ranges: Iterable[Range]) -> None:
        """Give up rows that are superseded by held ones of the same stream."""
        state = self.state(stream)
        for low, high in ranges:
            state.held.discard(low, high)

    def forget(self, stream: Stream, ranges: Sequence[Range], accepted_at: float) -> None:
        """Give up rows for good: the floor rises to the highest, its age falls to the youngest's."""
        state = self.get(stream)
        if state is None:  # it was dropped
            return
        for low, high in ranges:
            state.held.discard(low, high)
        if ranges:
            state.floor = state.floor.raised(ranges[-1][1], accepted_at)

    def set_era(self, namespace: str, era: int) -> None:
        """Let the sum of a namespace tell its era, too: in different ones different streams are shown."""
        text = f"{namespace}\0{era}".encode()
        self._eras[namespace] = int.from_bytes(blake2b(text, digest_size=8).digest(), "big")

    def sum(self, namespaces: Iterable[str]) -> int:
        """Give the sum (mod 2^64) of the digests of all streams of these namespaces that are shown."""
        return sum(map(self._sum, namespaces)) & _MASK

    def _sum(self, namespace: str) -> int:
        changed = self._unsummed.pop(namespace, None)
        if changed:
            total = self._sums.get(namespace, 0)
            for stream in changed:
                state = self.get(stream)
                digest = 0 if state is None or state.is_retired else state.digest
                total += digest - self._summed.pop(stream, 0)
                if digest:
                    self._summed[stream] = digest
            self._sums[namespace] = total
        return self._sums.get(namespace, 0) + self._eras.get(namespace, 0)

    def bucket_sums(self, namespaces: Iterable[str], whole: Collection[str] = ()) -> list[int]:
        """Give the sum per bucket, without eras; in the namespaces of `whole` over all streams."""
        sums = [0] * BUCKETS
        for name in namespaces:
            for state in self.streams(name).values():
                if not state.is_retired or name in whole:
                    sums[state.bucket] = (sums[state.bucket] + state.digest) & _MASK
        return sums
