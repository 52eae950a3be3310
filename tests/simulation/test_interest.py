"""Agents that hold different namespaces, and such as only publish: rows are where they belong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from simulation.hosts import NAMESPACE, Host, hosts, is_whole, until, wait
from simulation.test_ordinary_life import keys
from trio.testing import MockClock

from coherd.api.cache_service import CacheService
from coherd.cluster.offering import Offering
from coherd.errors import RpcFailed
from coherd.model import Cause, Lane, Origin, Stream
from coherd.replication.freshness import Freshness
from coherd.replication.intervals import Intervals
from coherd.v1 import cache_service_pb2 as cache

FARM = "farm"
INTERESTS = [[NAMESPACE], [NAMESPACE, FARM], [FARM], []]


def numbers(host: Host, namespace: str) -> int:
    streams = host.agent.replica.vector.streams(namespace).values()
    return sum(len(state.have) for state in streams)


def last_syncs(host: Host) -> dict[str, float]:
    return dict(host.agent.repairing.synced_at)


async def test_rows_go_to_holders_and_nowhere_else(autojump_clock: MockClock) -> None:
    async with hosts(4, interests=INTERESTS) as all_:
        await all_[0].invalidate(keys(0))
        await all_[2].invalidate(keys(0, 5), FARM)
        await until(lambda: numbers(all_[1], NAMESPACE) == 20 and numbers(all_[1], FARM) == 5)
        await wait(30)
        assert [numbers(host, NAMESPACE) for host in all_] == [20, 20, 0, 0]
        assert [numbers(host, FARM) for host in all_] == [0, 5, 5, 0]


async def test_who_holds_different_namespaces_is_in_sync_by_sums_alone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosts(4, interests=INTERESTS) as all_:
        for namespace in (NAMESPACE, FARM):
            for host in all_:
                await host.invalidate(keys(0, 3), namespace)
        await until(lambda: numbers(all_[1], NAMESPACE) == 12 and numbers(all_[1], FARM) == 12)
        await wait(15)  # every change is told
        asked: list[str] = []
        for host in all_:
            monkeypatch.setattr(host.agent.endpoint, "compare_buckets", lambda *_: asked.append(""))
        before = [last_syncs(host) for host in all_]
        await wait(15)
        assert not asked, "no two of them differ"
        for host, then in zip(all_[:3], before, strict=False):
            assert all(at > then[name] for name, at in last_syncs(host).items())


async def test_rows_that_arrive_by_mistake_are_not_kept(autojump_clock: MockClock) -> None:
    async with hosts(2, interests=[[NAMESPACE], [FARM]]) as (one, two):
        outcome = await one.invalidate(keys(0))
        assert outcome.is_complete
        entries = one.agent.feed.rows(*next(iter(spoken(one))))
        two.agent.ingest.receive([(entries[0].payload, 0.0)], Cause.LINK)
        assert numbers(two, NAMESPACE) == 0


def spoken(host: Host) -> list[tuple[Any, Any]]:
    return [(s, state.have) for s, state in host.agent.replica.vector.streams(NAMESPACE).items()]


async def test_what_who_told_of_it_cannot_bring_is_asked_of_other_holders_and_of_nobody_else(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosts(5, interests=[*INTERESTS, [NAMESPACE]]) as all_:
        await wait(15)
        asked: set[str] = set()
        for host in all_[1:]:
            fetch = host.agent.endpoint.fetch

            def noted(wanted: Any, name: str = host.name, fetch: Any = fetch) -> Any:
                asked.add(name)
                return fetch(wanted)

            monkeypatch.setattr(host.agent.endpoint, "fetch", noted)
        gone = Stream(NAMESPACE, Origin("gone", 1), Lane.NORMAL)
        all_[0].agent.repair.claim(all_[1].name, [(gone, Intervals([(1, 1)]))])
        all_[0].agent.repairing.look()
        await until(lambda: bool(all_[0].resets))
        assert asked == {all_[1].name, all_[4].name}


async def test_a_publisher_waits_for_one_holder_unless_it_says_otherwise(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3, interests=[[], [NAMESPACE], [NAMESPACE]]) as (publisher, one, two):
        outcome = await publisher.invalidate(keys(0))
        assert outcome.is_complete
        assert outcome.receipt.applied <= {one.name, two.name}
        assert len(outcome.receipt.applied) >= 1
        one.crash()
        two.crash()
        outcome = await publisher.invalidate(keys(20))
        assert not outcome.is_complete
        assert outcome.receipt.missing == [one.name, two.name]
        outcome = await publisher.invalidate(keys(40), wait=cache.WAIT_ACCEPTED)
        assert outcome.is_complete


async def test_a_publisher_that_dies_after_accepting_offers_its_rows_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    """No holder has heard of them: they are no change, and in nobody's sum."""
    async with hosts(3, interests=[[], [NAMESPACE], [NAMESPACE]]) as (publisher, one, two):
        for host in (one, two):
            host.fill(keys(0))
        await publisher.invalidate(keys(100))
        await wait(30)
        for link in (each for pair in publisher.agent.spreading.links.values() for each in pair):
            link.send = lambda *_: None  # type: ignore[method-assign]
        publisher.agent.ingest.changes.note = lambda _streams: None  # type: ignore[method-assign]
        await publisher.invalidate(keys(0), wait=cache.WAIT_ACCEPTED)
        assert len(one.cache.entries) == 20
        publisher.crash()
        await publisher.start()
        assert publisher.agent.offering.pending()
        await until(lambda: not one.cache.entries and not two.cache.entries, timeout=30)
        await wait(30)
        assert not publisher.agent.offering.pending(), "a holder said that it has them"
        assert numbers(publisher, NAMESPACE) == 40
        assert [host.resets for host in (one, two)] == [0, 0]


async def test_who_holds_a_namespace_alone_need_not_wait_for_others(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2, interests=[[NAMESPACE], [FARM]]) as (one, two):
        assert not one.agent.freshness.is_catching_up
        await two.stop()
        await two.start()
        await until(lambda: is_whole(two, 2))


async def test_a_sync_with_who_holds_something_else_is_none(autojump_clock: MockClock) -> None:
    """Their sums over what both hold are equal: both are 0."""
    async with hosts(3, interests=[[NAMESPACE], [NAMESPACE], [FARM]]) as (one, two, three):
        await two.stop()
        await one.stop()
        await one.start()
        await until(lambda: three.name in one.agent.linking.peers)
        await wait(20)
        assert one.agent.freshness.is_catching_up
        await two.start()
        await until(lambda: is_whole(one, 3) and is_whole(two, 3))


class Call:
    """A watcher's call."""

    def __init__(self, *namespaces: str) -> None:
        self._opening = cache.WatchRequest(open=cache.WatchOpen(namespaces=namespaces))

    async def receive(self) -> list[cache.WatchRequest]:
        await trio.lowlevel.checkpoint()
        return [self._opening]


async def test_a_namespace_that_is_not_held_cannot_be_watched(autojump_clock: MockClock) -> None:
    async with hosts(1, interests=[[NAMESPACE]]) as (one,):
        with pytest.raises(RpcFailed, match="'farm' is not held by this agent: add it to"):
            await CacheService(one.agent).Watch(Call(NAMESPACE, FARM))  # type: ignore[arg-type]


async def do_nothing(_self: object) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("rule", ["offers", "sums over what both hold"])
async def test_the_rules_are_needed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """A checker is believed only after it caught a planted bug."""
    if rule == "offers":
        monkeypatch.setattr(Offering, "run", do_nothing)
        case = test_a_publisher_that_dies_after_accepting_offers_its_rows_when_it_is_back
    else:
        take = Freshness.holders
        monkeypatch.setattr(Freshness, "holders", lambda self, each: take(self, {"*": whole(each)}))
        case = test_a_sync_with_who_holds_something_else_is_none
    with pytest.raises(ExceptionGroup) as caught:
        await case(autojump_clock)
    assert caught.group_contains((trio.TooSlowError, AssertionError))


def whole(domains: Mapping[str, frozenset[str]]) -> frozenset[str]:
    return frozenset({"host-1", "host-2", "host-3"}).union(*domains.values())
