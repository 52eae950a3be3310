"""The roster keeps everybody it ever met, by name, as the machine sees them, and knows who is linked."""

from __future__ import annotations

from dataclasses import replace

import msgpack

from coherd.clock import ManualClock
from coherd.cluster.roster import AWAY_AFTER, NOWHERE, Roster, State, decode_entry
from coherd.net.peer import MemberInfo
from coherd.replication.freshness import Freshness
from coherd_membership import News, Status

ME = MemberInfo("me", 5, "me:1", "r")
OTHER = News("other", 5, 1, Status.ALIVE, "other:1")


def roster(known: dict[str, bytes] | None = None) -> tuple[Roster, ManualClock, dict[str, bytes]]:
    clock, stored = ManualClock(), {} if known is None else known

    def store(name: str, data: bytes | None) -> bool:
        stored.pop(name, None)
        if data is not None:
            stored[name] = data
        return True

    return Roster(ME, dict(stored), clock.now, store), clock, stored


def published(news: News, **fields: object) -> MemberInfo:
    info = MemberInfo(news.name, news.epoch, news.address, "r")
    return replace(info, **fields)  # type: ignore[arg-type]


def test_what_is_believed_of_a_member_is_seen_and_since_when() -> None:
    members, clock, _ = roster()
    seen = []
    for at, status in enumerate((Status.ALIVE, Status.SUSPECT, Status.DEAD, Status.RESTARTING)):
        clock.time = float(at)
        members.take(OTHER._replace(status=status, incarnation=at + 1))
        seen.append((members.members["other"].state, members.members["other"].since))
    states = (State.ALIVE, State.SUSPECT, State.DEAD, State.RESTARTING)
    assert seen == [(state, float(at)) for at, state in enumerate(states)]


def test_who_has_not_said_what_it_holds_is_taken_to_hold_everything() -> None:
    members, _, stored = roster()
    members.take(OTHER)
    assert [m.info.name for m in members.holders("shop")] == ["other"]
    members.learn(published(OTHER, namespaces=("billing",), ready=True))
    assert not list(members.holders("shop"))
    assert [m.info.name for m in members.holders("billing")] == ["other"]
    assert decode_entry(stored["other"]) == published(OTHER, namespaces=("billing",))


def test_a_later_life_keeps_what_the_earlier_published_until_it_says_otherwise() -> None:
    members, _, stored = roster()
    members.take(OTHER)
    members.learn(published(OTHER, namespaces=("billing",), ready=True))
    members.take(OTHER._replace(epoch=6, address="elsewhere:1"))
    later = published(OTHER, epoch=6, address="elsewhere:1", namespaces=("billing",))
    assert members.members["other"].info == later, "whether it is ready is not known"
    assert decode_entry(stored["other"]) == later


def test_nothing_is_stored_for_news_that_passes() -> None:
    members, _, stored = roster()
    members.take(OTHER)
    stored.clear()
    for status in (Status.SUSPECT, Status.ALIVE, Status.DEAD, Status.ALIVE):
        members.take(OTHER._replace(status=status))
    assert not stored


def test_others_hear_of_every_change_that_matters_to_receipts() -> None:
    members, _, _ = roster()
    calls: list[int] = []
    members.on_change = lambda: calls.append(len(calls))
    members.take(OTHER)
    members.take(OTHER._replace(status=Status.DEAD))
    members.learn(published(OTHER, namespaces=("billing",)))
    members.linked("other")
    members.take(OTHER._replace(status=Status.LEFT))
    assert len(calls) == 5
    members.take(OTHER._replace(status=Status.LEFT, epoch=6))
    assert len(calls) == 5, "nobody was there any more"


def test_members_survive_a_restart_as_dead_and_the_machine_recalls_them() -> None:
    _, _, stored = roster()
    roster(stored)[0].take(OTHER)
    again = roster(stored)[0]
    assert again.members["other"].state is State.DEAD
    assert [m.info.name for m in again.holders("shop")] == ["other"]
    assert again.recalled == [News("other", 5, 0, Status.DEAD, "other:1")]


def test_a_member_is_away_once_its_link_has_been_broken_for_a_while() -> None:
    members, clock, _ = roster()
    members.take(OTHER)
    member = members.members["other"]
    assert not member.is_away(AWAY_AFTER - 0.1), "it is being dialled"
    members.linked("other")
    clock.time = 10.0
    assert not member.is_away(clock.time)
    members.unlinked("other")
    assert not member.is_away(clock.time + AWAY_AFTER - 0.1)
    assert member.is_away(clock.time + AWAY_AFTER)
    clock.time = 100.0
    members.take(OTHER._replace(status=Status.DEAD))
    members.take(OTHER._replace(incarnation=2))
    assert not member.is_away(clock.time), "it is back, and dialled again"


def test_a_member_that_could_not_be_stored_is_stored_later() -> None:
    answers = [False, False, True]
    asked: list[str] = []

    def store(name: str, _data: bytes | None) -> bool:
        asked.append(name)
        return answers.pop(0)

    members = Roster(ME, {}, ManualClock().now, store)
    members.take(OTHER)
    for _ in range(4):
        members.save()
    assert asked == ["other"] * 3


class TestTombstones:
    def test_no_life_up_to_the_epoch_counts_and_a_later_one_does(self) -> None:
        members, _, stored = roster()
        members.take(OTHER)
        left = OTHER._replace(status=Status.LEFT)
        members.take(left)
        assert not members.members
        assert members.is_forgotten("other", 5)
        assert not members.is_forgotten("other", 6)
        assert decode_entry(stored["other"]) == left._replace(incarnation=0)
        members.take(OTHER._replace(epoch=6))
        assert members.members["other"].info.epoch == 6
        assert not members.is_forgotten("other", 5)
        assert decode_entry(stored["other"]) == published(OTHER, epoch=6, region="")

    def test_they_survive_a_restart_beside_entries_of_earlier_releases(self) -> None:
        stored = {
            "other": msgpack.packb(["other", 5, "other:1", "r", ["*"]]),
            "gone": msgpack.packb(["gone", 9]),
        }
        members = roster(stored)[0]
        assert members.members["other"].info == published(OTHER)
        members.take(OTHER._replace(status=Status.LEFT))
        again = roster(stored)[0]
        assert not again.members
        assert set(again.recalled) == {
            News("other", 5, 0, Status.LEFT, "other:1"),
            News("gone", 9, 0, Status.LEFT, NOWHERE),
        }
        assert again.is_forgotten("gone", 9)

    def test_who_is_evicted_leaves_nothing_behind(self) -> None:
        members, _, stored = roster()
        members.take(OTHER)
        members.take(News("gone", 9, 1, Status.LEFT, "gone:1"))
        members.evict("other")
        members.evict("gone")
        assert not members.members
        assert not members.recalled
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
