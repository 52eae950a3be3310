"""Who has applied it: receipts over hosts of which one's cache hangs, or one's agent is gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from grpc_health.v1 import health_pb2, health_pb2_grpc
from integration.agents import AgentProcess, cluster, wait_until_whole
from integration.hosts import three_agents
from integration.polling import poll
from integration.watching import Watcher
from servers import RedisServer

from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import types_pb2 as types

NAMES = ["cache-1", "cache-2", "cache-3"]
Hosts = tuple[list[AgentProcess], RedisServer]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Three agents; only the third has a cache to look after."""
    with three_agents(tmp_path_factory.mktemp("receipts")) as found:
        yield found


@pytest.fixture
def frozen(hosts: Hosts) -> Iterator[Hosts]:
    """The cache of the third host hangs."""
    agents, server = hosts
    server.freeze()
    try:
        yield hosts
    finally:
        server.thaw()
        wait_until_whole(agents)


def test_a_cache_that_hangs_is_named_at_the_timeout(frozen: Hosts) -> None:
    (one, two, three), server = frozen
    receipt = one.invalidate(keys=[b"a"], wait=cache.WAIT_REGION, timeout=0.5)
    assert not receipt.complete
    assert list(receipt.applied) == ["cache-1", "cache-2"]
    assert [(m.name, m.state) for m in receipt.missing] == [
        ("cache-3", types.MEMBER_STATE_ALIVE),
    ]
    assert one.invalidate(keys=[b"a"], wait=cache.WAIT_LOCAL).complete
    assert not three.invalidate(keys=[b"a"], wait=cache.WAIT_LOCAL, timeout=0.3).complete
    assert one.invalidate("news", keys=[b"a"], wait=cache.WAIT_REGION).complete
    for agent in (one, two, three):
        again = agent.receipt(receipt.dots, timeout=0)
        assert "cache-3" in [missing.name for missing in again.missing]
    server.thaw()
    for agent in (one, two, three):
        assert list(agent.receipt(receipt.dots, timeout=20).applied) == NAMES


def test_a_number_of_members_is_enough_or_is_not(frozen: Hosts) -> None:
    (one, _, _), _ = frozen

    def receipt(members: int, timeout: float) -> cache.Receipt:
        return one.invalidate(
            keys=[b"a"], wait=cache.WAIT_MEMBERS, members=members, timeout=timeout
        )

    for members in (1, 2):
        few = receipt(members, 30)
        assert few.complete
        assert set(few.applied) <= {"cache-1", "cache-2"}
    for members in (3, 4):
        many = receipt(members, 0.5)
        assert not many.complete
        assert [missing.name for missing in many.missing] == ["cache-3"]


def test_a_host_whose_cache_hangs_never_counts_and_does_once_it_goes_on(frozen: Hosts) -> None:
    (one, _, three), server = frozen
    with redis.Redis(port=server.port) as client:
        receipt = one.invalidate(keys=[b"hangs"], wait=cache.WAIT_MEMBERS, members=3, timeout=0.5)
        for agent in (one, three):
            assert "cache-3" not in agent.receipt(receipt.dots, timeout=0.3).applied
        server.thaw()
        assert list(one.receipt(receipt.dots, timeout=20).applied) == NAMES
        assert not client.exists("shop:hangs")


def test_more_members_than_there_are_is_answered_and_not_complete(hosts: Hosts) -> None:
    (one, _, _), _ = hosts
    receipt = one.invalidate(keys=[b"a"], wait=cache.WAIT_MEMBERS, members=4, timeout=30)
    assert not receipt.complete
    assert list(receipt.applied) == NAMES
    assert not receipt.missing


def test_a_member_that_is_down_is_named_at_once(hosts: Hosts) -> None:
    agents, _ = hosts
    one, two, _ = agents
    assert two.stop() == 0
    poll(lambda: one.states()["cache-2"] == "dead", "the second to be dead")
    assert one.states() == {"cache-1": "alive", "cache-2": "dead", "cache-3": "alive"}
    assert one.status().ready
    receipt = one.invalidate(keys=[b"a"], wait=cache.WAIT_REGION, timeout=3600)
    assert not receipt.complete
    assert [(m.name, m.state) for m in receipt.missing] == [
        ("cache-2", types.MEMBER_STATE_DEAD),
    ]
    enough = one.invalidate(keys=[b"a"], wait=cache.WAIT_MEMBERS, members=2, timeout=30)
    assert enough.complete
    few = one.invalidate(keys=[b"a"], wait=cache.WAIT_MEMBERS, members=3, timeout=3600)
    assert not few.complete
    two.start()
    wait_until_whole(agents)
    assert set(one.states().values()) == {"alive"}
    assert list(one.receipt(receipt.dots, timeout=20).applied) == NAMES


def test_watchers_of_other_hosts_are_waited_for(hosts: Hosts) -> None:
    (one, two, _), _ = hosts
    with Watcher(two, "watched", acknowledges=True) as watcher:
        receipt = one.invalidate("watched", keys=[b"a"], wait=cache.WAIT_REGION, timeout=0.5)
        assert [missing.name for missing in receipt.missing] == ["cache-2"]
        poll(lambda: watcher.dots, "the row to be told")
        watcher.acknowledge()
        assert list(one.receipt(receipt.dots).applied) == NAMES
        later = one.invalidate("watched", keys=[b"b"], wait=cache.WAIT_REGION, timeout=0.3)
    poll(lambda: not two.status().watchers, "the watch to be over")
    receipt = one.receipt(later.dots, timeout=1)
    assert [missing.name for missing in receipt.missing] == ["cache-2"], "gone is not applied"


def test_stale_is_drop_where_a_cache_cannot_mark(hosts: Hosts) -> None:
    (one, _, _), server = hosts
    with redis.Redis(port=server.port) as client:
        client.mset({"shop:stale": "value", "shop:other": "value"})
        receipt = one.invalidate(
            keys=[b"stale"], effect=types.EFFECT_STALE, wait=cache.WAIT_REGION, timeout=30
        )
        assert receipt.complete
        assert client.keys("shop:*") == [b"shop:other"]


def test_the_largest_request_reaches_every_host(hosts: Hosts) -> None:
    (one, _, three), server = hosts
    keys = [b"%03d" % n + b"\xff" * 1021 for n in range(1000)]
    with redis.Redis(port=server.port) as client:
        for lane in (types.LANE_URGENT, types.LANE_NORMAL, types.LANE_BULK):
            client.mset({b"shop:" + key: b"value" for key in keys})
            receipt = one.invalidate(keys=keys, lane=lane, wait=cache.WAIT_REGION, timeout=30)
            assert receipt.complete
            assert not client.exists(*(b"shop:" + key for key in keys))
    assert not three.namespace().gaps_open


def test_health_follows_readiness(hosts: Hosts) -> None:
    agents, server = hosts
    three = agents[2]
    stub = health_pb2_grpc.HealthStub(three.channel)
    told: list[int] = []
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="coherd.v1.CacheService"))

    def read() -> None:
        told.extend(next(watch).status for _ in range(3))

    reader = threading.Thread(target=read)
    reader.start()
    poll(lambda: told, "the first status")
    assert three.health() == "SERVING"
    server.kill()
    poll(lambda: three.health() == "NOT_SERVING", "it to be not serving")
    assert "does not answer" in " ".join(three.status().reasons)
    assert agents[0].health() == "SERVING"
    poll(lambda: len(told) == 2, "the second status")
    server.start()
    poll(lambda: three.health() == "SERVING", "it to serve again")
    reader.join(10)
    watch.cancel()
    response = health_pb2.HealthCheckResponse
    assert told == [response.SERVING, response.NOT_SERVING, response.SERVING]


def test_a_receipt_waits_for_a_watcher_that_its_agents_crash_took_along(tmp_path: Path) -> None:
    settings = dict.fromkeys("ab", '[namespaces.default]\nstaleness_bound = "5s"')
    with cluster(tmp_path, ["a", "b"], settings) as (one, two):
        with Watcher(two, acknowledges=True, name="app"):
            one.invalidate(keys=[b"first"])
        two.kill()
        receipt = one.invalidate(keys=[b"second"], wait=cache.WAIT_REGION, timeout=1)
        assert [missing.name for missing in receipt.missing] == ["b"]
        two.start()
        poll(lambda: one.status().members_alive == 2, "b to be back")
        assert not one.receipt(receipt.dots, timeout=1).complete, "its cache may hold the copy"
        poll(lambda: one.receipt(receipt.dots, timeout=1).complete, "the bound to pass", 30)
