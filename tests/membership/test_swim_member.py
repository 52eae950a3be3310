"""The one order of news: what it prefers, that joining is a semilattice, and that the table is total."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st
from pair import news

from coherd_membership import Change, News, Status, merge
from coherd_membership._member import ACCUSERS_MAX, TRANSITIONS, order

NEWS = st.builds(
    News,
    name=st.just("x"),
    epoch=st.integers(0, 2),
    incarnation=st.integers(0, 2),
    status=st.sampled_from(Status),
    address=st.sampled_from(["a:1", "b:1"]),
    version=st.integers(0, 1),
    accusers=st.lists(st.sampled_from("abcde"), unique=True, max_size=ACCUSERS_MAX)
    .map(sorted)
    .map(tuple),
)


def test_a_later_life_wins_over_a_leave_a_leave_over_incarnations_those_over_gravity() -> None:
    ascending = [
        news("x"),
        news("x", Status.RESTARTING),
        news("x", Status.SUSPECT),
        news("x", Status.DEAD),
        news("x", incarnation=2),
        news("x", Status.DEAD, 2**32 - 1),
        news("x", Status.LEFT, 1),
        news("x", Status.LEFT, 2),
        news("x", epoch=2),
    ]
    assert sorted(set(ascending), key=order) == ascending


def test_one_accusation_keeps_the_first_accusers_of_both_by_name() -> None:
    one = news("x", Status.SUSPECT, accusers=("b", "d"))
    other = news("x", Status.SUSPECT, accusers=("a", "c"))
    assert merge(one, other).accusers == ("a", "b", "c")


@given(one=NEWS, other=NEWS)
def test_merging_is_commutative(one: News, other: News) -> None:
    assert merge(one, other) == merge(other, one)


@given(one=NEWS, other=NEWS, third=NEWS)
def test_merging_is_associative(one: News, other: News, third: News) -> None:
    assert merge(merge(one, other), third) == merge(one, merge(other, third))


@given(one=NEWS, other=NEWS)
def test_merging_is_idempotent(one: News, other: News) -> None:
    both = merge(one, other)
    assert merge(one, one) == one
    assert merge(both, one) == merge(both, other) == both


@given(one=NEWS, other=NEWS)
def test_merging_never_goes_back(one: News, other: News) -> None:
    assert order(merge(one, other)) == max(order(one), order(other))


@given(st.lists(NEWS, min_size=1, max_size=4))
def test_every_order_of_the_same_news_ends_the_same(several: list[News]) -> None:
    ends = set()
    for row in permutations(several):
        result = row[0]
        for item in row[1:]:
            result = merge(result, item)
        ends.add(result)
    assert len(ends) == 1


def test_the_table_is_total_and_holds_nothing_else() -> None:
    assert set(TRANSITIONS) == {(before, after) for before in (None, *Status) for after in Status}
    assert set(TRANSITIONS.values()) == set(Change)


def test_only_who_was_unknown_or_had_left_joins() -> None:
    joining = {before for (before, _), change in TRANSITIONS.items() if change is Change.JOINED}
    assert joining == {None, Status.LEFT}


def test_only_who_was_down_or_restarting_returns() -> None:
    returning = {pair for pair, change in TRANSITIONS.items() if change is Change.RETURNED}
    assert returning == {(Status.DEAD, Status.ALIVE), (Status.RESTARTING, Status.ALIVE)}
