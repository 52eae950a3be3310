"""The roster is a view of what the machine finds out, with who is linked, and keeps it for the next life."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest

from coherd.clock import ManualClock
from coherd.cluster.roster import (
    AWAY_AFTER,
    NOWHERE,
    Roster,
    State,
    decode_entry,
    encode_entry,
)
from coherd.net.peer import MemberInfo
from coherd.replication.freshness import Freshness
from coherd_membership import News, Status

ME = MemberInfo("me", 5, "me:1", "r")
OTHER = MemberInfo("other", 5, "other:1", "r", ("shop",))
ALIVE = News("other", 5, 1, Status.ALIVE, "other:1")
LEFT = ALIVE._replace(status=Status.LEFT)


def roster(known: dict[str, bytes] | None = None) -> tuple[Roster, ManualClock, dict[str, bytes]]:
    clock, stored = ManualClock(), {} if known is None else known

    def store(name: str, data: bytes | None) -> bool:
        stored.pop(name, None)
        if data is not None:
            stored[name] = data
        return True

    return Roster(ME, dict(stored), clock.now, store), clock, stored


def noted(members: Roster) -> list[str]:
    """Give a list that gets an entry for each change that the roster tells of."""
    calls: list[str] = []
    members.on_change = lambda: calls.append("changed")
    return calls


class TestTake:
    def test_who_is_not_known_becomes_a_member_that_is_kept(self) -> None:
        members, clock, stored = roster()
        clock.time = 3.0
        calls = noted(members)
        members.take(ALIVE)
        member = members.members["other"]
        assert (member.state, member.since, member.is_linked) == (State.ALIVE, 3.0, False)
        assert member.info == MemberInfo("other", 5, "other:1", "")
        assert decode_entry(stored["other"]) == member.info
        assert calls == ["changed"]

    @pytest.mark.parametrize(
        ("status", "state"),
        [
            (Status.SUSPECT, State.SUSPECT),
            (Status.RESTARTING, State.RESTARTING),
            (Status.DEAD, State.DEAD),
        ],
    )
    def test_another_state_begins_when_it_is_heard_of(self, status: Status, state: State) -> None:
        members, clock, _ = roster()
        members.take(ALIVE)
        calls = noted(members)
        clock.time = 2.0
        members.take(ALIVE._replace(incarnation=2))
        assert not calls, "the same as before"
        members.take(ALIVE._replace(status=status))
        clock.time = 4.0
        members.take(ALIVE._replace(status=status, accusers=("a",)))
        member = members.members["other"]
        assert (member.state, member.since) == (state, 2.0)
        assert calls == ["changed"]

    def test_a_later_life_elsewhere_keeps_what_is_known_but_for_its_readiness(self) -> None:
        members, _, stored = roster()
        members.take(ALIVE)
        members.learn(replace(OTHER, ready=True))
        members.take(ALIVE._replace(epoch=6, address="elsewhere:1"))
        later = replace(OTHER, epoch=6, address="elsewhere:1", ready=None)
        assert members.members["other"].info == later
        assert decode_entry(stored["other"]) == later

    def test_who_comes_back_from_the_dead_is_given_time_to_be_linked(self) -> None:
        members, clock, _ = roster()
        members.take(ALIVE._replace(status=Status.DEAD))
        clock.time = 100.0
        assert members.members["other"].is_away(clock.now())
        members.take(ALIVE._replace(epoch=6))
        assert not members.members["other"].is_away(clock.now())
        clock.time = 100.0 + AWAY_AFTER
        assert members.members["other"].is_away(clock.now())


class TestLearn:
    def test_what_a_member_publishes_is_told_and_kept_where_it_matters(self) -> None:
        members, _, stored = roster()
        members.take(ALIVE)
        calls = noted(members)
        members.learn(OTHER)
        assert members.members["other"].info == OTHER
        assert decode_entry(stored["other"]) == OTHER
        stored.clear()
        members.learn(replace(OTHER, ready=True))
        assert members.members["other"].info.ready
        assert not stored, "whether it is ready is not kept"
        members.learn(replace(OTHER, ready=True))
        assert calls == ["changed"] * 2

    def test_of_strangers_nothing_is_learned(self) -> None:
        members, _, stored = roster()
        members.learn(OTHER)
        assert not members.members
        assert not stored

    def test_who_holds_a_namespace_is_what_it_says(self) -> None:
        members, _, _ = roster()
        members.take(ALIVE)
        assert list(members.holders("billing")), "it may hold anything until it says what"
        members.learn(OTHER)
        assert [m.info.name for m in members.holders("shop")] == ["other"]
        assert not list(members.holders("billing"))
        assert members.holds("other", "shop")
        assert not members.holds("other", "billing")
        assert not members.holds("stranger", "shop")
        members.take(ALIVE._replace(status=Status.DEAD))
        assert list(members.holders("shop")), "its cache may go on serving"


class TestGoing:
    def test_who_has_left_is_gone_up_to_that_life(self) -> None:
        members, _, stored = roster()
        members.take(ALIVE)
        calls = noted(members)
        members.take(LEFT)
        assert not members.members
        assert decode_entry(stored["other"]) == LEFT._replace(incarnation=0)
        assert [members.is_forgotten("other", epoch) for epoch in (4, 5, 6)] == [True, True, False]
        members.take(LEFT)
        assert calls == ["changed"]

    def test_a_later_life_takes_the_place_of_the_tombstone(self) -> None:
        members, _, stored = roster()
        members.take(LEFT)
        members.take(ALIVE._replace(epoch=6))
        assert not members.is_forgotten("other", 5)
        assert decode_entry(stored["other"]) == members.members["other"].info

    def test_of_who_is_evicted_nothing_is_left(self) -> None:
        members, _, stored = roster()
        members.take(ALIVE)
        calls = noted(members)
        members.evict("other")
        assert (members.members, stored, calls) == ({}, {}, ["changed"])
        members.take(LEFT)
        members.evict("other")
        assert (members.is_forgotten("other", 5), stored, calls) == (False, {}, ["changed"])


class TestLinks:
    def test_who_is_linked_can_be_reached_and_is_not_away(self) -> None:
        members, clock, _ = roster()
        members.take(ALIVE)
        member = members.members["other"]
        clock.time = 10.0
        assert member.is_away(clock.now())
        calls = noted(members)
        members.linked("other")
        assert (members.reachable(), member.is_away(clock.now())) == (["other"], False)
        assert calls == ["changed"]
        members.unlinked("other")
        assert (members.reachable(), member.is_away(clock.now())) == ([], False)
        clock.time = 10.0 + AWAY_AFTER
        assert member.is_away(clock.now())
        assert member.state is State.ALIVE, "a link says nothing of the state"

    def test_the_link_of_one_that_went_meanwhile_may_break(self) -> None:
        members, _, _ = roster()
        members.unlinked("other")
        assert not members.members


class TestStoring:
    def test_members_survive_a_restart_as_dead_until_they_are_heard_of(self) -> None:
        _, _, stored = roster()
        before = roster(stored)[0]
        before.take(ALIVE)
        before.learn(OTHER)
        before.take(News("gone", 7, 3, Status.LEFT, "gone:1"))
        again = roster(stored)[0]
        assert again.members["other"].state is State.DEAD
        assert [m.info for m in again.holders("shop")] == [OTHER]
        assert again.is_forgotten("gone", 7)
        assert again.recalled == [
            News("other", 5, 0, Status.DEAD, "other:1"),
            News("gone", 7, 0, Status.LEFT, "gone:1"),
        ]

    def test_entries_of_earlier_releases_are_read(self) -> None:
        stored = {
            "other": msgpack.packb(["other", 5, "other:1", "r", ["shop"]]),
            "gone": msgpack.packb(["gone", 7]),
            "me": msgpack.packb(["me", 4, "me:1", "r", ["*"]]),
        }
        members = roster(stored)[0]
        assert {name: each.info for name, each in members.members.items()} == {"other": OTHER}
        assert members.recalled[1:] == [News("gone", 7, 0, Status.LEFT, NOWHERE)]
        assert encode_entry(OTHER) == stored["other"], "and they can read ours"

    def test_what_could_not_be_stored_is_stored_later(self) -> None:
        answers = [False, False, True]
        asked: list[tuple[str, bool]] = []

        def store(name: str, data: bytes | None) -> bool:
            asked.append((name, data is None))
            return answers.pop(0)

        members = Roster(ME, {}, ManualClock().now, store)
        members.take(ALIVE)
        members.evict("other")
        for _ in range(3):
            members.save()
        assert asked == [("other", False), ("other", True), ("other", True)]


class TestWentOn:
    def test_who_is_in_the_life_that_was_stored_went_on(self) -> None:
        members, clock, _ = roster({"other": encode_entry(OTHER)})
        assert members.went_on("other")
        assert members.may_have_gone_on("other")
        clock.time = AWAY_AFTER
        assert not members.may_have_gone_on("other"), "nobody has reached it"
        members.take(ALIVE._replace(epoch=6))
        assert not members.went_on("other")
        members.take(News("new", 1, 1, Status.ALIVE, "new:1"))
        assert not members.went_on("new"), "it was not known"

    def test_where_nobody_was_stored_everybody_counts(self) -> None:
        members, _, _ = roster()
        members.take(ALIVE)
        assert members.went_on("other")
        assert not members.may_have_gone_on("other")
        assert not members.went_on("stranger")


class TestFreshness:
    def test_a_sync_with_one_who_is_not_catching_up_ends_it(self) -> None:
        freshness = Freshness()
        freshness.holders({"*": frozenset("b")})
        freshness.completed("b", catching_up=False, now=3.0)
        assert freshness.synced_at == 3.0

    def test_two_who_are_both_catching_up_do_not_vouch_for_each_other(self) -> None:
        freshness = Freshness()
        freshness.holders({"*": frozenset("bcde")})
        freshness.completed("b", catching_up=True, now=3.0)
        freshness.check(["b"], alone=False, now=3.0)
        assert freshness.is_catching_up, "two of five"
        freshness.completed("c", catching_up=True, now=4.0)
        freshness.check(["b", "c"], alone=False, now=4.0)
        assert not freshness.is_catching_up, "three of five restarted together"

    def test_one_reachable_holder_that_was_not_synced_with_keeps_it_waiting(self) -> None:
        freshness = Freshness()
        freshness.holders({"*": frozenset("bc")})
        freshness.completed("b", catching_up=True, now=3.0)
        freshness.check(["b", "c"], alone=False, now=3.0)
        assert freshness.is_catching_up

    def test_who_is_still_to_be_met_is_told_until_catching_up_ends(self) -> None:
        freshness = Freshness()
        freshness.holders({"*": frozenset("bcd"), "shop": frozenset("bcde")})
        assert freshness.unmet([*"bcex"]) == {*"bce"}
        freshness.completed("b", catching_up=True, now=3.0)
        assert freshness.unmet([*"bce"]) == {*"ce"}
        freshness.completed("c", catching_up=False, now=4.0)
        assert not freshness.unmet([*"bce"])

    def test_the_only_holder_needs_no_sync_unless_it_waits_for_its_seeds(self) -> None:
        freshness = Freshness()
        freshness.check([], alone=False, now=1.0)
        assert freshness.is_catching_up
        freshness.check([], alone=True, now=2.0)
        assert freshness.synced_at == 2.0
