"""A region too large for everybody to be linked with everybody: rows go along fingers, arc by arc.

Here a region of more than three members counts as large, so that a few agents show it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from google.protobuf.duration_pb2 import Duration
from hosts import NAMESPACE, Host, hosts, until, wait
from trio.testing import MockClock

from coherd.cluster import linking
from coherd.cluster.spreading import Spreading
from coherd.model import Lane, Stream
from coherd.replication import ring
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import types_pb2 as types

KEYS = [b"user:%d" % n for n in range(20)]
COUNT = 24
"""So many that most members are no fingers of each other."""


@pytest.fixture(autouse=True)
def _few_are_linked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (ring, linking):
        monkeypatch.setattr(module, "DIRECT_MAX", 3)
    monkeypatch.setattr(linking, "KEPT_FOR", 1.0)
    monkeypatch.setattr(linking, "TEND_INTERVAL", 0.5)


@asynccontextmanager
async def region() -> AsyncIterator[list[Host]]:
    """Agents that know each other, and are linked with their fingers."""
    async with hosts(COUNT, whole=False) as all_:
        await until(lambda: all(knows_all(host) for host in all_))
        yield all_


def knows_all(host: Host) -> bool:
    agent = host.agent
    fingers = {*agent.spreading.neighbours()}
    return len(agent.linking.reachable) == COUNT - 1 and fingers <= agent.linking.peers.keys()


def forwarded(all_: list[Host]) -> int:
    return sum(host.agent.spreading.statistics["received"] for host in all_)


async def test_most_are_linked_with_their_fingers_alone(autojump_clock: MockClock) -> None:
    async with region() as all_:
        await wait(2 * linking.KEPT_FOR)
        linked = [len(host.agent.linking.peers) for host in all_]
        assert max(linked) < COUNT - 1
        assert all(not host.agent.reasons() for host in all_)


@pytest.mark.parametrize(("lane", "copies"), [(types.LANE_NORMAL, 1), (types.LANE_URGENT, 2)])
async def test_everybody_is_handed_a_row_once_on_each_ring(
    autojump_clock: MockClock, lane: types.Lane.ValueType, copies: int
) -> None:
    async with region() as all_:
        for host in all_:
            host.fill(KEYS)
        before = forwarded(all_)
        await all_[0].invalidate(KEYS, lane=lane)
        await wait(0.2)
        assert not any(host.cache.entries for host in all_)
        assert COUNT - 1 <= forwarded(all_) - before <= copies * (COUNT - 1)
        assert not any(host.agent.ingest.counts[NAMESPACE].repaired for host in all_)


async def test_receipts_come_up_the_tree(autojump_clock: MockClock) -> None:
    async with region() as all_:
        outcome = await all_[3].invalidate(KEYS, wait=cache.WAIT_REGION)
        assert outcome.is_complete
        assert len(outcome.receipt.applied) == COUNT


async def test_who_is_no_finger_is_asked_over_a_link_made_for_it(
    autojump_clock: MockClock,
) -> None:
    async with region() as all_:
        one = all_[0]
        await wait(2 * linking.KEPT_FOR)
        stranger = next(h for h in all_[1:] if h.name not in one.agent.linking.peers)
        peer = await one.agent.linking.reach(stranger.name)
        assert peer is not None
        assert stranger.name in one.agent.linking.peers
        await wait(2 * linking.KEPT_FOR)
        assert stranger.name not in one.agent.linking.peers, "nobody needs it any more"


async def test_a_crashed_finger_does_not_keep_its_arc(autojump_clock: MockClock) -> None:
    async with region() as all_:
        for host in all_:
            host.fill(KEYS)
        one = all_[0]
        finger = next(h for h in all_[1:] if h.name in one.agent.spreading.neighbours())
        finger.crash()
        others = [host for host in all_ if host is not finger]
        outcome = await one.invalidate(KEYS, wait=cache.WAIT_REGION, timeout=Duration(seconds=1))
        assert outcome.receipt.missing == [finger.name]
        assert not any(host.cache.entries for host in others)


async def test_a_large_region_that_restarts_as_a_whole_becomes_fresh(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them has a row that nobody else has: nobody may be fresh without it who can reach that one."""
    async with region() as all_:
        await all_[0].invalidate(KEYS, wait=cache.WAIT_REGION)
        network, owner = all_[0].network, all_[5]
        for host in all_:
            network.cut(owner.address, host.address)
        await owner.invalidate([b"lone"])
        lone = Stream(NAMESPACE, owner.agent.ingest.life, Lane.NORMAL)
        for host in all_:
            host.crash()
        network.heal()
        # As in a really large region: few are fingers of each other, and all know of each other before
        # many links were opened while the region still looked small.
        monkeypatch.setattr(Spreading, "neighbours", few_neighbours)
        with monkeypatch.context() as patch:
            patch.setattr(linking.Linking, "_dial_soon", lambda _self, _name: None)
            for host in all_:
                await host.start()
            await until(lambda: all(knows_of_all(host) for host in all_))
            assert all(host.agent.freshness.is_catching_up for host in all_)
        for host in all_:
            host.agent.linking._choose()

        def all_are_ready() -> bool:
            for host in all_:
                agent = host.agent
                if not agent.freshness.is_catching_up:
                    assert agent.ingest.has(lone, 1, 1), f"{host.name} is fresh without it"
            return not any(host.agent.reasons() for host in all_)

        await until(all_are_ready, 10.0)


def few_neighbours(spreading: Spreading) -> list[str]:
    names = sorted(spreading.view.members)
    at = names.index(spreading._spread.me)
    return [names[(at + step) % len(names)] for step in (1, 5)]


def knows_of_all(host: Host) -> bool:
    return len(host.agent.linking.reachable) == COUNT - 1
