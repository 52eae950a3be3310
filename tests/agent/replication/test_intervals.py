"""Intervals behave as the sets of numbers that they stand for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coherd.replication.intervals import Intervals

RANGES = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 6)).map(lambda r: (r[0], r[0] + r[1])), max_size=8
)


def numbers(ranges: list[tuple[int, int]]) -> set[int]:
    return {n for low, high in ranges for n in range(low, high + 1)}


@given(RANGES, RANGES)
def test_set_operations_are_those_of_sets(left: list, right: list) -> None:
    a, b = Intervals(left), Intervals(right)
    x, y = numbers(left), numbers(right)
    assert set(a | b) == x | y
    assert set(a & b) == x & y
    assert set(a - b) == x - y
    assert (a <= b) == (x <= y)
    assert (a == b) == (x == y)
    assert set(a) == x
    assert set(b) == y, "the operands are left alone"


@given(RANGES, RANGES)
def test_ranges_are_disjoint_ascending_and_do_not_touch(left: list, right: list) -> None:
    a = Intervals(left)
    for low, high in right:
        a.discard(low, high)
    assert set(a) == numbers(left) - numbers(right)
    ends = [bound for r in a.ranges() for bound in r]
    assert ends == sorted(ends)
    assert all(b[0] > a[1] + 1 for a, b in zip(a.ranges(), a.ranges()[1:], strict=False))


@given(RANGES, st.integers(0, 50))
def test_questions_agree_with_sets(left: list, number: int) -> None:
    a, x = Intervals(left), numbers(left)
    assert (number in a) == (number in x)
    assert len(a) == len(x)
    assert a.first == min(x, default=0)
    assert a.last == max(x, default=0)
    assert set(a.holes()) == set(range(1, max(x, default=0) + 1)) - x
    assert set(a.up_to(number)) == {n for n in x if n <= number}
    assert set(a.above(number)) == {n for n in x if n > number}
    assert set(a.take(number)) == set(sorted(x)[:number])


@given(RANGES, RANGES)
def test_missing_gives_what_is_not_there_in_order(have: list, asked: list) -> None:
    a, wanted = Intervals(have), Intervals(asked)
    missing = a.missing(wanted.ranges())
    assert numbers(list(missing)) == numbers(asked) - numbers(have)
    assert list(missing) == sorted(missing)
    for low, high in asked:
        assert a.covers(low, high) == (numbers([(low, high)]) <= numbers(have))


MANY = st.sets(st.integers(1, 300), max_size=120)


@given(MANY, MANY)
def test_sets_of_very_many_ranges_are_swept_over_with_the_same_result(x: set, y: set) -> None:
    a, b = (Intervals((n, n) for n in sorted(each)) for each in (x, y))
    assert set(a | b) == x | y
    assert set(a & b) == x & y
    assert set(a - b) == x - y
    assert a | b == Intervals((n, n) for n in sorted(x | y)), "ranges that touch are one"
    assert [set(part) for part in a.chunks(7)] == [
        {n for low, high in a.ranges()[at : at + 7] for n in range(low, high + 1)}
        for at in range(0, a.range_count, 7)
    ]


@given(RANGES, st.integers(1, 50), st.integers(0, 9))
def test_a_range_is_compared_without_looking_at_each_number(
    have: list, low: int, more: int
) -> None:
    a, asked = Intervals(have), set(range(low, low + more + 1))
    assert a.meets(low, low + more) == bool(asked & numbers(have))
    assert a.first_missing(low, low + more) == min(asked - numbers(have), default=0)
