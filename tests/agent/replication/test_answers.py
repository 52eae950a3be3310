"""An answer that is too long for a message comes in pages, and says the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coherd.limits import RANGES_MAX
from coherd.model import Lane, Origin, Stream
from coherd.net.peer import FetchPart
from coherd.net.peer_codec import decode_part, encode_part
from coherd.replication.answers import NOTHING, Answer, answer, pages
from coherd.replication.intervals import Intervals
from coherd.replication.vector import Vector

STREAMS = [Stream("shop", Origin("a", epoch), Lane.NORMAL) for epoch in (1, 2, 3)]
NUMBERS = st.sets(st.integers(1, 40)).map(lambda found: Intervals((n, n) for n in sorted(found)))
AGES = st.floats(0.0, 1e6)
ANSWERS = st.dictionaries(
    st.sampled_from(STREAMS),
    st.builds(Answer, st.just(Intervals()), NUMBERS, NUMBERS, AGES, NUMBERS, NUMBERS),
)


def ranges(page: dict[Stream, Answer]) -> int:
    return sum(
        each.range_count
        for part in page.values()
        for each in (part.covers, part.blank, part.unknown, part.retained)
    )


@given(ANSWERS, st.integers(1, 30), st.integers(1, 3))
def test_pages_are_small_and_say_what_the_answer_says(
    answers: dict[Stream, Answer], ranges_max: int, streams_max: int
) -> None:
    joined: dict[Stream, Answer] = {}
    for page in pages(answers, ranges_max, streams_max):
        assert ranges(page) <= ranges_max
        assert len(page) <= streams_max
        for stream, part in page.items():
            joined[stream] = joined[stream].joined(part) if stream in joined else part
    for stream, whole in answers.items():
        found = joined.get(stream, NOTHING)
        assert (found.covers, found.blank, found.unknown, found.retained) == (
            whole.covers, whole.blank, whole.unknown, whole.retained
        )  # fmt: skip
        assert not whole.blank or found.blank_age == whole.blank_age


def test_what_retains_more_ranges_than_a_message_takes_is_told_exactly() -> None:
    last = 6 * RANGES_MAX
    vector = Vector()
    vector.take_rows(STREAMS[0], [(1, last)])
    vector.compact(STREAMS[0], [(n, n) for n in range(1, last, 2)])
    asked = Intervals((n, n) for n in range(1, 20_000, 2))
    whole = answer(vector.get(STREAMS[0]), asked, 0.0)
    assert whole.retained.range_count > 2 * RANGES_MAX
    found = NOTHING
    for page in pages({STREAMS[0]: whole}, RANGES_MAX // 2, 1000):
        found = found.joined(decode_part(encode_part(FetchPart(answers=page))).answers[STREAMS[0]])
    assert found.covers == asked
    assert found.retained == whole.retained
