"""The roster keeps everybody it ever met, by name, and knows who is linked."""

from __future__ import annotations

from dataclasses import replace

from coherd.clock import ManualClock
from coherd.cluster.roster import Roster, State, decode_entry
from coherd.net.peer import MemberInfo
from coherd.replication.freshness import Freshness

ME = MemberInfo("me", 5, "me:1", "r")
OTHER = MemberInfo("other", 5, "other:1", "r")


def roster(known: dict[str, bytes] | None = None) -> tuple[Roster, ManualClock, dict[str, bytes]]:
    clock, stored = ManualClock(), {} if known is None else known

    def store(name: str, data: bytes) -> bool:
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
    assert decode_entry(stored["other"]).address == "elsewhere:1"
    assert not members.heard(replace(ME, epoch=9)), "nobody tells it who it is"


def test_members_survive_a_restart_as_unreachable() -> None:
    _, _, stored = roster()
    roster(stored)[0].heard(OTHER)
    again = roster(stored)[0]
    assert again.members["other"].state is State.UNREACHABLE
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
    assert members.members["other"].state is State.UNREACHABLE
    assert members.members["other"].since == 15.0


def test_who_holds_a_namespace_is_what_it_says() -> None:
    members, _, _ = roster()
    members.heard(replace(OTHER, namespaces=("billing",)))
    assert [m.info.name for m in members.holders("billing")] == ["other"]
    assert not list(members.holders("shop"))


def test_a_member_that_could_not_be_stored_is_stored_later() -> None:
    answers = [False, False, True]
    asked: list[str] = []

    def store(name: str, _data: bytes) -> bool:
        asked.append(name)
        return answers.pop(0)

    members = Roster(ME, {}, ManualClock().now, store)
    members.heard(OTHER)
    for _ in range(4):
        members.check()
    assert asked == ["other"] * 3


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
