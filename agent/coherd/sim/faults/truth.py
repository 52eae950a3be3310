"""What really happened, which no member knows: every row that was accepted, and which are lost for good."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from coherd.model import EVERYTHING, Effect, Kind
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from coherd.model import Batch, Range, Selector, Stream

KEYS = 40
"""Keys of a namespace that applications write and caches hold."""
TAGS = 5
PREFIX = 2
"""Length of the prefixes that are invalidated."""


def key_of(number: int) -> bytes:
    """Give the name of a key."""
    return b"%02d-%d" % (number % 10, number)


def tag_of(key: bytes) -> bytes:
    """Give the one tag that a copy of `key` carries."""
    return b"tag-%d" % (sum(key) % TAGS)


def touches(selector: Selector, key: bytes) -> bool:
    """Tell whether a row with this selector invalidates a copy of `key`."""
    kind, rest = selector[0], selector[1:]
    if kind == Kind.KEY:
        return rest == key
    if kind == Kind.TAG:
        return rest == tag_of(key)
    return selector == EVERYTHING or key.startswith(rest)


class Issued:
    """Rows that one call was to invalidate; also the payload that carries them."""

    __slots__ = ("at", "batch", "first", "is_committed", "last", "payload")

    def __init__(self, payload: int, batch: Batch, at: float) -> None:
        self.payload = payload
        self.batch = batch
        self.at = at
        """The true time, which is also that of the writes to the source."""
        (self.first, self.last) = batch.numbers[0]
        self.is_committed = False
        """Whether its origin's journal had it: only then the application was told that it is accepted."""


class Truth:
    """Every row by stream and number."""

    def __init__(self) -> None:
        self.issued: list[Issued] = []
        """By payload."""
        self.streams: dict[Stream, list[Issued]] = {}
        self.extinct: dict[Stream, Intervals] = {}
        """Numbers of which the last trace went with a disk, or with a memory that was not committed."""
        self.again: dict[Stream, Intervals] = {}
        """Numbers whose rows were issued again, in another stream."""

    def issue(self, batch: Batch, at: float) -> Issued:
        """Note rows that a member has just numbered."""
        issued = Issued(len(self.issued), batch, at)
        self.issued.append(issued)
        self.streams.setdefault(batch.stream, []).append(issued)
        return issued

    def find(self, stream: Stream, ranges: Sequence[Range]) -> Iterator[Issued]:
        """Give what has some of the numbers, ascending."""
        known = self.streams.get(stream, [])
        for low, high in ranges:
            at = bisect_left(known, low, key=_last)
            while at < len(known) and known[at].first <= high:
                yield known[at]
                at += 1

    def youngest(self, stream: Stream, ranges: Sequence[Range]) -> float:
        """Give the true time at which the youngest of some numbers was accepted."""
        return max((issued.at for issued in self.find(stream, ranges)), default=0.0)

    def row(self, stream: Stream, number: int) -> tuple[Selector, Effect, int]:
        """Give selector, effect and version of one row."""
        known = self.streams[stream]
        issued = known[bisect_right(known, number, key=_first) - 1]
        batch, offset = issued.batch, number - issued.first
        version = batch.versions[offset] if batch.versions is not None else 0
        return batch.selectors[offset], batch.effect, version

    def is_superseded(self, stream: Stream, number: int, among: Intervals) -> bool:
        """Tell whether a later row of the stream, one of `among`, makes this one needless."""
        selector, effect, version = self.row(stream, number)
        return any(
            other_selector == selector and other_effect >= effect and other >= version
            for later in among.above(number)
            for other_selector, other_effect, other in (self.row(stream, later),)
        )

    def lose(self, stream: Stream, numbers: Intervals) -> None:
        """Note that nobody has these numbers any more."""
        self.extinct.setdefault(stream, Intervals()).update(numbers)

    def issue_again(self, stream: Stream, numbers: Intervals) -> None:
        """Note that these rows are forgotten after they were issued again, in another stream."""
        self.again.setdefault(stream, Intervals()).update(numbers)

    def accepted(self, stream: Stream) -> Intervals:
        """Give the numbers of which an application was told that they are accepted, and that still count."""
        result = Intervals()
        for issued in self.streams[stream]:
            if issued.is_committed:
                result.add(issued.first, issued.last)
        for gone in (self.extinct.get(stream), self.again.get(stream)):
            if gone:
                result = result - gone
        return result


def _first(issued: Issued) -> int:
    return issued.first


def _last(issued: Issued) -> int:
    return issued.last
