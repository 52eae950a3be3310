"""The roster keeps everybody it ever met, by name, and knows who is linked."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import msgpack

from coherd.clock import ManualClock
from coherd.cluster.roster import Roster, State, decode_entry
from coherd.limits import FORGOTTEN_MAX
from coherd.model import Origin
from coherd.net.peer import MemberInfo
from coherd.replication.freshness import Freshness

ME = MemberInfo("me", 5, "me:1", "r")
OTHER = MemberInfo("other", 5, "other:1", "r")


def roster(known: dict[str, bytes] | None = None) -> tuple[Roster, ManualClock, dict[str, bytes]]:
    clock, stored = ManualClock(), {} if known is None else known

    def store(name: str, data: bytes | None) -> bool:
        stored.pop(name, None)
        if data is not None:
            stored[name] = data
        return True

    return Roster(ME, dict(stored), clock.now, store), clock, stored


def test_a_later_life_replaces_an_earlier_one_and_never_the_other_way_round() -> None:
    members, _, stored = roster()
    assert members.heard(OTHER)
    later = replace(OTHER, epoch=6, address="elsewhere:1")
    assert members.heard(later)
    assert not members.heard(OTHER)
    assert members.members["other"].info == later
    assert decode_entry(stored["other"]) == later
    assert not members.heard(replace(ME, epoch=9)), "nobody tells it who it is"


def test_members_survive_a_restart_as_unreachable() -> None:
    _, _, stored = roster()
    roster(stored)[0].heard(OTHER)
    again = roster(stored)[0]
    assert again.members["other"].state is State.DEAD
    assert [m.info.name for m in again.holders("shop")] == ["other"]


def test_a_member_is_unreachable_five_seconds_after_its_link_broke() -> None:
    members, clock, _ = roster()
    members.heard(OTHER)
    members.linked("other")
    clock.time = 10.0
    members.unlinked("other")
    clock.time = 14.9
    members.check()
    assert members.members["other"].state is State.ALIVE
    clock.time = 15.0
    members.check()
    assert members.members["other"].state is State.DEAD
    assert members.members["other"].since == 15.0


def test_who_holds_a_namespace_is_what_it_says() -> None:
    members, _, _ = roster()
    members.heard(replace(OTHER, namespaces=("billing",)))
    assert [m.info.name for m in members.holders("billing")] == ["other"]
    assert not list(members.holders("shop"))


def test_a_member_that_could_not_be_stored_is_stored_later() -> None:
    answers = [False, False, True]
    asked: list[str] = []

    def store(name: str, _data: bytes | None) -> bool:
        asked.append(name)
        return answers.pop(0)

    members = Roster(ME, {}, ManualClock().now, store)
    members.heard(OTHER)
    for _ in range(4):
        members.check()
    assert asked == ["other"] * 3


class TestRestarting:
    def test_who_says_it_restarts_is_restarting_at_once_and_alive_with_its_next_life(self) -> None:
        members, clock, _ = roster()
        members.heard(OTHER)
        members.linked("other")
        members.stops("other", 5)
        member = members.members["other"]
        assert member.state is State.RESTARTING
        members.linked("other")
        assert member.state is State.RESTARTING, "the life that stops does not come back"
        clock.time = 2.0
        members.heard(replace(OTHER, epoch=6))
        members.linked("other")
        assert (member.state, member.since) == (State.ALIVE, 2.0)
        members.stops("other", 5)
        assert member.state is State.ALIVE, "that was an earlier life"

    def test_it_is_expected_back_for_ten_seconds(self) -> None:
        members, clock, _ = roster()
        members.heard(OTHER)
        members.linked("other")
        clock.time = 1.0
        members.stops("other", 5)
        members.unlinked("other")
        clock.time = 10.9
        members.check()
        assert members.members["other"].state is State.RESTARTING
        clock.time = 11.0
        members.check()
        assert members.members["other"].state is State.DEAD


class TestTombstones:
    def test_no_life_up_to_the_epoch_counts_and_a_later_one_does(self) -> None:
        members, _, stored = roster()
        members.heard(OTHER)
        gone: list[str] = []
        members.on_gone = gone.append
        members.forget("other", 5)
        assert gone == ["other"]
        assert not members.members
        assert decode_entry(stored["other"]) == Origin("other", 5)
        assert not members.heard(OTHER)
        assert members.heard(replace(OTHER, epoch=6))
        assert not members.forgotten
        members.forget("other", 5)
        assert "other" in members.members, "the later life is not concerned"

    def test_they_survive_a_restart_beside_entries_of_earlier_releases(self) -> None:
        _, _, stored = roster()
        stored["other"] = msgpack.packb(["other", 5, "other:1", "r", ["*"]])
        members = roster(stored)[0]
        assert members.members["other"].info == OTHER
        members.forget("other", 5)
        members.forget("unknown", 9)
        members = roster(stored)[0]
        assert not members.members
        assert set(members.forgotten) == {Origin("other", 5), Origin("unknown", 9)}
        assert not members.heard(OTHER)

    def test_in_whatever_order_news_comes_everybody_ends_with_the_same(self) -> None:
        lives = [replace(OTHER, epoch=epoch) for epoch in (5, 6, 7, 8)]
        for seed in range(50):
            random = Random(seed)
            news = [*lives, Origin("other", 5), Origin("other", random.choice((7, 8)))]
            ends = []
            for _ in range(3):
                members, _, stored = roster()
                for each in random.sample(news, len(news)):
                    if isinstance(each, Origin):
                        members.forget(*each)
                    else:
                        members.heard(each)
                assert len(stored) == 1
                ends.append((set(members.members), members.forgotten, stored["other"]))
            assert ends[0] == ends[1] == ends[2]

    def test_the_oldest_go_when_there_are_too_many(self) -> None:
        members, _, stored = roster()
        for n in range(FORGOTTEN_MAX):
            members.forget(f"host-{n}", 100 + n)
        members.forget("older", 99)
        assert "older" not in stored
        members.forget("newer", 101 + FORGOTTEN_MAX)
        assert len(members.forgotten) == len(stored) == FORGOTTEN_MAX
        assert "host-0" not in stored
        assert "newer" in stored

    def test_the_own_life_is_told_of_and_not_taken(self) -> None:
        members, _, stored = roster()
        heard: list[int] = []
        members.on_forgotten = heard.append
        for epoch in (4, 5, 9):
            members.forget("me", epoch)
        assert heard == [5, 9]
        assert not members.forgotten
        assert not stored


class TestFreshness:
    def test_a_sync_with_one_who_is_not_catching_up_ends_it(self) -> None:
        freshness = Freshness()
        freshness.completed("b", catching_up=False, now=3.0)
        assert freshness.synced_at == 3.0

    def test_two_who_are_both_catching_up_do_not_vouch_for_each_other(self) -> None:
        freshness = Freshness()
        freshness.completed("b", catching_up=True, now=3.0)
        freshness.check(["b"], 4, alone=False, now=3.0)
        assert freshness.is_catching_up, "two of five"
        freshness.completed("c", catching_up=True, now=4.0)
        freshness.check(["b", "c"], 4, alone=False, now=4.0)
        assert not freshness.is_catching_up, "three of five restarted together"

    def test_one_reachable_holder_that_was_not_synced_with_keeps_it_waiting(self) -> None:
        freshness = Freshness()
        freshness.completed("b", catching_up=True, now=3.0)
        freshness.check(["b", "c"], 2, alone=False, now=3.0)
        assert freshness.is_catching_up

    def test_the_only_holder_needs_no_sync_unless_it_waits_for_its_seeds(self) -> None:
        freshness = Freshness()
        freshness.check([], 0, alone=False, now=1.0)
        assert freshness.is_catching_up
        freshness.check([], 0, alone=True, now=2.0)
        assert freshness.synced_at == 2.0
