"""News on its way: least sent first, so many times, within the room that there is."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2

import pytest

from coherd_membership import SwimConfig
from coherd_membership._rumors import Rumors

MEMBERS = 100


def rumors(*names: str, size: int = 10) -> Rumors:
    several = Rumors(SwimConfig())
    for name in names:
        several.add(name, name.encode().ljust(size))
    return several


def take(several: Rumors, room: int, members: int = MEMBERS, **more: object) -> list[str]:
    return [each.decode().strip() for each in several.take(room, members, **more)]  # type: ignore[arg-type]


@pytest.mark.parametrize("members", [1, 2, 10, 100, 1_000, 5_000])
def test_each_is_passed_on_three_times_the_logarithm(members: int) -> None:
    several = rumors("a")
    count = 0
    while several:
        assert take(several, 1_000, members) == ["a"]
        count += 1
    assert count == ceil(3 * log2(members + 1))


def test_what_was_sent_least_goes_first() -> None:
    several = rumors("a", "b", "c")
    assert take(several, 20) == ["a", "b"]
    assert take(several, 20) == ["c", "a"]
    several.add("d", b"d".ljust(10))
    assert take(several, 20) == ["d", "b"]


def test_no_more_is_taken_than_there_is_room_for() -> None:
    several = rumors(*map(str, range(50)), size=37)
    for room in (0, 36, 37, 100, 500, 37 * 50):
        assert sum(map(len, several.take(room, MEMBERS))) <= room
    assert several.take(-5, MEMBERS) == []


def test_later_news_takes_the_place_of_earlier_and_starts_anew() -> None:
    several = rumors("a", "b")
    take(several, 10)
    several.add("a", b"a again")
    assert len(several) == 2
    assert set(take(several, 100)) == {"a again", "b"}


def test_what_the_receiver_has_to_know_goes_first_whatever_the_room_and_not_twice() -> None:
    several = rumors("a", "b")
    assert take(several, 0, name="x", first=b"word") == ["word"]
    assert take(several, 100, name="a", first=b"word") == ["word", "b"]


def test_discarding_forgets() -> None:
    several = rumors("a", "b")
    several.discard("a")
    several.discard("nobody")
    assert ("a" in several, "b" in several, len(several)) == (False, True, 1)
    assert take(several, 100) == ["b"]


def test_news_too_long_to_travel_with_others_holds_up_none() -> None:
    several = rumors("a", "long")
    several.add("long", b"x" * 601)
    assert take(several, 1_200) == ["a"]
    several.add("long", b"x" * 600)
    assert take(several, 1_200) == ["x" * 600, "a"]


def test_the_multiplier_is_set() -> None:
    several = Rumors(replace(SwimConfig(), rumor_multiplier=1.0))
    several.add("a", b"a")
    for _ in range(4):
        several.take(100, 15)
    assert not several
