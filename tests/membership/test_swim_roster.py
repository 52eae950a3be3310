"""Everybody that is known, and the sums: equal for equal rosters, in whatever order they came about."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pair import news
from test_swim_member import NEWS

from coherd_membership import News, Status
from coherd_membership._codec import BUCKETS
from coherd_membership._roster import SUM_MODULUS, Roster, bucket_of

SEVERAL = st.lists(
    st.builds(lambda item, name: item._replace(name=name), NEWS, st.sampled_from("uvwxyz")),
    max_size=12,
)


def roster(*several: News, me: str = "me") -> Roster:
    made = Roster(news(me))
    for item in several:
        made.put(item, 0.0)
    return made


def counted(made: Roster) -> tuple[int, int]:
    statuses = [member.news.status for member in made.members.values()]
    return (
        sum(status is Status.ALIVE for status in statuses),
        1 + sum(status < Status.DEAD for status in statuses),
    )


@given(several=SEVERAL, seed=st.integers())
def test_equal_rosters_have_equal_sums_whatever_the_order(several: list[News], seed: int) -> None:
    last = {item.name: item for item in several}
    shuffled = list(last.values())
    Random(seed).shuffle(shuffled)
    one, other = roster(*several), roster(*shuffled)
    assert (one.root, one.buckets) == (other.root, other.buckets)
    assert one.root == sum(one.buckets) % SUM_MODULUS


@given(several=SEVERAL)
def test_the_counts_are_those_of_the_members(several: list[News]) -> None:
    made = roster(*several)
    assert (made.alive, made.present) == counted(made)
    for name in list(made.members):
        made.remove(name)
    assert (made.alive, made.present, made.root) == (0, 1, roster().root)


def test_every_member_has_the_same_sum_as_me_and_as_another() -> None:
    one, other = roster(news("b"), me="a"), roster(news("a"), me="b")
    assert (one.root, one.buckets) == (other.root, other.buckets)


@pytest.mark.parametrize(
    "other",
    [news("x", Status.DEAD), news("x", Status.LEFT), news("x", epoch=2), news("x", version=1)],
)
def test_what_is_true_for_good_shows_in_the_sum(other: News) -> None:
    assert roster(news("x")).root != roster(other).root


@pytest.mark.parametrize(
    "other",
    [news("x", Status.SUSPECT), news("x", Status.RESTARTING), news("x", incarnation=3)],
)
def test_what_passes_does_not_show_in_the_sum(other: News) -> None:
    assert roster(news("x")).root == roster(other).root


def test_the_sum_is_the_same_in_every_process_and_version() -> None:
    assert roster(news("x"), news("y", Status.DEAD)).root == ROOT
    assert bucket_of("x") == BUCKET


ROOT = 1_118_318_711_123_751_771
BUCKET = 34


def test_a_status_is_as_old_as_its_last_change_and_a_new_life_was_not_heard_yet() -> None:
    made = roster()
    member = made.put(news("x"), 1.0)
    member.heard = True
    made.put(news("x", incarnation=1), 2.0)
    assert (member.since, member.heard) == (1.0, True)
    made.put(news("x", Status.SUSPECT, 1), 3.0)
    assert member.since == 3.0
    made.put(news("x", epoch=2), 4.0)
    assert (member.since, member.heard) == (4.0, False)


def test_buckets_divide_everybody() -> None:
    names = [f"m{number}" for number in range(500)]
    made = roster(*map(news, names))
    everybody = [item.name for item in made.in_buckets(2**BUCKETS - 1)]
    assert sorted(everybody) == sorted([*names, "me"])
    apart = [item.name for bucket in range(BUCKETS) for item in made.in_buckets(1 << bucket)]
    assert sorted(apart) == sorted(everybody)
    assert list(made.in_buckets(0)) == []


def test_metadata_is_lacking_until_the_present_version_is_here() -> None:
    made = roster(news("x", version=1))
    assert list(made.lacking) == ["x"]
    made.set_meta(made.members["x"], b"1")
    assert not made.lacking
    made.put(news("x", incarnation=2, version=2), 0.0)
    assert list(made.lacking) == ["x"]
    made.put(news("x", Status.LEFT, 2, version=2), 0.0)
    assert not made.lacking


def test_a_version_counts_within_its_life_only() -> None:
    made = roster(news("x", version=1))
    made.set_meta(made.members["x"], b"1")
    made.put(news("x", epoch=2, version=1), 0.0)
    assert list(made.lacking) == ["x"]


def test_filling_takes_in_whom_it_does_not_know_and_knows_what_they_lack() -> None:
    made = roster(news("x", Status.SUSPECT))
    made.fill([news("x"), news("y", version=1), news("me", Status.DEAD)], 5.0)
    assert made.members["x"].news.status is Status.SUSPECT
    assert "me" not in made.members
    assert (made.alive, made.present) == counted(made)
    assert list(made.lacking) == ["y"]
    assert made.root == roster(news("x"), news("y", version=1)).root
