"""When positions were reached is remembered as long as there is room, and never made up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coherd.cluster.delivery import UNKNOWN, Follower
from coherd.cluster.moments import Moments


def test_a_position_has_the_moment_of_the_batch_that_reached_it() -> None:
    moments = Moments(10, 100)
    moments.note(12, 6.0)
    moments.note(20, 7.5)
    assert [moments.of(n) for n in (1, 10)] == [None, None], "before the record began"
    assert [moments.of(n) for n in (11, 12, 13, 20)] == [6.0, 6.0, 7.5, 7.5]
    assert moments.of(21) is None, "not reached"
    assert moments.since is None


def test_the_record_is_bounded_and_says_since_when_it_knows() -> None:
    moments = Moments(0, 100)
    for n in range(1, 1001):
        moments.note(n, float(n))
        assert moments.of(n) == n
    assert 100 <= len(moments._positions) <= 200
    assert len(moments._positions) == len(moments._times)
    known = [n for n in range(1, 1001) if moments.of(n) is not None]
    assert known == list(range(known[0], 1001))
    assert moments.since == known[0] - 1


def test_what_a_cache_says_that_it_has_reached_has_no_moment() -> None:
    moments = Moments(0, 100)
    moments.note(5, 1.0)
    moments.note(9, 2.0)
    moments.begin(12)
    assert [moments.of(n) for n in (5, 9, 10, 12)] == [1.0, 2.0, None, None]
    moments.begin(7)
    assert [moments.of(n) for n in (5, 6, 7, 9)] == [1.0, 2.0, 2.0, None], "an older copy of it"
    moments.note(9, 3.0)
    assert [moments.of(n) for n in (7, 8, 9)] == [2.0, 3.0, 3.0]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=40))
def test_it_is_right_or_silent(steps: list[tuple[bool, int]]) -> None:
    moments = Moments(0, 5)
    truth: dict[int, float | None] = {}
    reached = 0
    for at, (begins, n) in enumerate(steps):
        if begins:
            truth = {p: t for p, t in truth.items() if p <= n}
            truth.update(dict.fromkeys(range(reached + 1, n + 1)))
            reached = n
            moments.begin(n)
        elif n > reached:
            truth.update(dict.fromkeys(range(reached + 1, n + 1), float(at)))
            reached = n
            moments.note(n, float(at))
    for position in range(40):
        found = moments.of(position)
        assert found is None or found == truth[position]


def test_a_cache_notes_when_it_has_applied_what() -> None:
    now = 1.0
    follower = Follower("redis", ["shop"], UNKNOWN)
    follower.now = lambda: now
    follower.reached(10)
    assert follower.moments.of(10) is None, "it came with that"
    now = 2.0
    follower.reached(12)
    now = 3.0
    follower.reached(12)
    assert follower.moments.of(11) == 2.0
    follower.position = UNKNOWN
    follower.reached(11)
    assert follower.moments.of(11) == 2.0
    assert follower.moments.of(12) is None, "it came back as an older copy of itself"


def test_a_watcher_that_comes_back_goes_on_with_what_is_remembered_of_it() -> None:
    gone, back = Follower("app", ["shop"], 0), Follower("app", ["shop"], 7)
    gone.now = back.now = lambda: 4.0
    gone.reached(5)
    back.take_over(gone)
    assert [back.moments.of(n) for n in (5, 7)] == [4.0, None]
    back.reached(9)
    assert back.moments.of(9) == 4.0


def test_of_a_watcher_that_does_not_acknowledge_nothing_is_remembered() -> None:
    follower = Follower("app", ["shop"], 0, acknowledges=False)
    follower.now = lambda: 1.0
    for n in range(100):
        follower.reached(n)
    assert len(follower.moments._positions) == 1
