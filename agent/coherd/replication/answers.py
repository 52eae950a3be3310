"""What a holder says of the numbers it is asked for: rows, covers, blank, unknown, and what it retains.

All of an answer is from one snapshot of the stream: a cover is only as good as the rows that were held when
it was called one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
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
