"""Deadlines: one for each key, the nearest first, and no more memory than keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coherd_membership._timers import Key, Timers


def key(name: object) -> Key:
    return ("k", name)


def test_the_nearest_is_told_and_taken_first() -> None:
    timers = Timers()
    for name, at in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        timers.set(key(name), at)
    assert timers.next() == 1.0
    assert timers.pop(0.5) is None
    assert [timers.pop(2.5), timers.pop(2.5), timers.pop(2.5)] == [key("a"), key("b"), None]
    assert timers.next() == 3.0


def test_setting_again_replaces_both_earlier_and_later() -> None:
    timers = Timers()
    timers.set(key("a"), 1.0)
    timers.set(key("a"), 5.0)
    assert timers.next() == 5.0
    timers.set(key("a"), 2.0)
    assert (timers.next(), timers.at(key("a"))) == (2.0, 2.0)
    assert timers.pop(10.0) == key("a")
    assert timers.pop(10.0) is None


def test_what_is_cleared_is_never_due_not_even_after_it_was_set_to_the_same_time_again() -> None:
    timers = Timers()
    timers.set(key("a"), 1.0)
    timers.clear(key("a"))
    timers.clear(key("a"))
    assert (timers.next(), key("a") in timers) == (None, False)
    timers.set(key("a"), 1.0)
    assert [timers.pop(1.0), timers.pop(1.0)] == [key("a"), None]


def test_of_equal_deadlines_the_one_set_first_comes_first() -> None:
    timers = Timers()
    for name in ("b", "a", 1, None):
        timers.set(key(name), 1.0)
    assert [timers.pop(1.0) for _ in range(4)] == [key("b"), key("a"), key(1), key(None)]


def test_what_is_due_is_told_and_left() -> None:
    timers = Timers()
    timers.set(key("a"), 1.0)
    timers.set(key("b"), 2.0)
    assert timers.due(1.5) == [key("a")]
    assert timers.next() == 1.0


def test_a_deadline_that_is_put_off_for_ever_takes_no_memory() -> None:
    timers = Timers()
    for step in range(10_000):
        timers.set(key(step % 10), float(step))
    assert len(timers._heap) <= 4 * 10 + 65


@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "clear", "pop"]), st.integers(0, 3), st.integers(0, 9)),
        max_size=60,
    )
)
def test_it_behaves_as_a_plain_dictionary_would(steps: list[tuple[str, int, int]]) -> None:
    timers, plain = Timers(), dict[Key, float]()
    for verb, name, at in steps:
        if verb == "set":
            timers.set(key(name), float(at))
            plain[key(name)] = float(at)
        elif verb == "clear":
            timers.clear(key(name))
            plain.pop(key(name), None)
        else:
            taken = timers.pop(float(at))
            due = {each: when for each, when in plain.items() if when <= at}
            assert (taken is None) == (not due)
            if taken is not None:
                assert plain.pop(taken) == min(due.values())
        assert timers.next() == min(plain.values(), default=None)
