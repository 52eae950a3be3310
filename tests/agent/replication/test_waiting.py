"""Covers are due once all that they wait for is here, and what they bring may make others due."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coherd.replication.intervals import Intervals
from coherd.replication.waiting import Waiting

SETS = st.sets(st.integers(1, 30), max_size=8)
STEPS = st.lists(st.one_of(st.tuples(SETS, SETS), SETS), max_size=20)


def intervals(numbers: set[int]) -> Intervals:
    return Intervals((n, n) for n in sorted(numbers))


@given(STEPS)
def test_waiting_agrees_with_looking_at_everything_again_and_again(
    steps: list[tuple[set[int], set[int]] | set[int]],
) -> None:
    waiting, have = Waiting(), set[int]()
    plain: list[tuple[set[int], set[int]]] = []
    for step in steps:
        if isinstance(step, tuple):
            covers, lacking = step[0] - have, step[1] - have
            waiting.add(intervals(covers), intervals(lacking), intervals(have))
            plain.append((covers, lacking))
        else:
            have |= step
        due = waiting.take_due(intervals(have))
        again, expected = True, set[int]()
        while again:
            again = False
            for entry in list(plain):
                if entry[1] <= have | expected:
                    plain.remove(entry)
                    expected |= entry[0] - have
                    again = True
        assert set(due) == expected
        have |= expected
        assert set(waiting.covers()) == set().union(*(covers for covers, _ in plain))
        assert bool(waiting) == bool(plain)


def test_a_chain_of_many_is_settled_at_once() -> None:
    waiting, have = Waiting(), Intervals()
    count = 20_000
    for n in range(count, 0, -1):
        waiting.add(Intervals([(n + 1, n + 1)]), Intervals([(n, n)]), have)
    assert waiting.take_due(Intervals([(1, 1)])) == Intervals([(2, count + 1)])
    assert not waiting
