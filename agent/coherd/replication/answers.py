"""What a holder says of the numbers it is asked for: rows, covers, blank, unknown, and what it retains.

All of an answer is from one snapshot of the stream: a cover is only as good as the rows that were held when
it was called one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coherd.model import Stream
    from coherd.replication.vector import StreamState


@dataclass(frozen=True, slots=True)
class Answer:
    """What a holder says of the asked numbers of one stream; from one snapshot."""

    rows: Intervals
    covers: Intervals
    blank: Intervals
    blank_age: float
    """Seconds: what is blank was accepted at least so long ago."""
    unknown: Intervals
    retained: Intervals
    """Everything of the stream that the holder still holds."""

    def joined(self, other: Answer) -> Answer:
        """Give what two parts of one answer say together."""
        ages = [each.blank_age for each in (self, other) if each.blank]
        return Answer(
            self.rows | other.rows,
            self.covers | other.covers,
            self.blank | other.blank,
            min(ages, default=0.0),
            self.unknown | other.unknown,
            self.retained | other.retained,
        )


def answer(state: StreamState | None, asked: Intervals, now: float) -> Answer:
    """Say what is known of `asked`."""
    none = Intervals()
    if state is None:
        return Answer(none, none, none, 0.0, asked, none)
    rows = asked & state.held
    known = (asked & state.have) - rows
    floor = state.floor
    covers = known.above(floor.n)
    return Answer(
        rows,
        covers,
        known.up_to(floor.n),
        max(0.0, floor.age(now)),
        asked - state.have,
        state.retained() if covers else none,
    )


NOTHING = Answer(Intervals(), Intervals(), Intervals(), 0.0, Intervals(), Intervals())
"""What a holder says that does not speak of a stream."""


def pages(
    answers: Mapping[Stream, Answer], ranges_max: int, streams_max: int
) -> Iterator[dict[Stream, Answer]]:
    """Divide answers among messages that have at most so many ranges and streams; at least one message.

    All pages are of the same snapshot: joined they say what `answers` says, and less may not be believed.
    """
    page: dict[Stream, Answer] = {}
    size = 0
    for stream, whole in answers.items():
        for part in _parts(whole, ranges_max):
            ranges = _ranges(part)
            full = len(page) >= streams_max and stream not in page
            if page and (full or size + ranges > ranges_max):
                yield page
                page, size = {}, 0
            page[stream] = page[stream].joined(part) if stream in page else part
            size += ranges
    yield page


def _parts(whole: Answer, ranges_max: int) -> Iterator[Answer]:
    if _ranges(whole) <= ranges_max:
        yield whole
        return
    for covers in whole.covers.chunks(ranges_max):
        yield replace(NOTHING, covers=covers)
    for blank in whole.blank.chunks(ranges_max):
        yield replace(NOTHING, blank=blank, blank_age=whole.blank_age)
    for unknown in whole.unknown.chunks(ranges_max):
        yield replace(NOTHING, unknown=unknown)
    for retained in whole.retained.chunks(ranges_max):
        yield replace(NOTHING, retained=retained)


def _ranges(each: Answer) -> int:
    """Count the ranges that are sent; rows are not, they were."""
    sets = (each.covers, each.blank, each.unknown, each.retained)
    return sum(numbers.range_count for numbers in sets)
