"""Three agents, three Redis servers: what is invalidated at one is gone from all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from integration.agents import AgentProcess, cluster, redis_settings, wait_until_whole
from integration.polling import poll
from servers import RedisServer, redis_server

from coherd.v1 import cache_service_pb2 as cache

NAMES = ["cache-1", "cache-2", "cache-3"]
REGION = cache.WAIT_REGION


class Hosts:
    """Three hosts: an agent and a Redis each."""

    def __init__(self, agents: list[AgentProcess], servers: list[RedisServer]) -> None:
        self.agents = agents
        self.servers = servers

    @property
    def caches(self) -> list[redis.Redis]:
        return [redis.Redis(port=server.port) for server in self.servers]

    def fill(self, keys: list[str], tag: str = "") -> None:
        for client in self.caches:
            with client.pipeline() as pipe:
                for key in keys:
                    pipe.set(f"shop:{key}", "value")
                    if tag:
                        pipe.sadd(f"tag:shop:{tag}", f"shop:{key}")
                pipe.execute()

    def left(self, host: int) -> set[str]:
        keys = self.caches[host].keys("shop:*")
        return {key.decode().removeprefix("shop:") for key in keys}


@pytest.fixture
def hosts(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    proxies = getattr(request, "param", False)
    with (
        redis_server(tmp_path / "r1") as one,
        redis_server(tmp_path / "r2") as two,
        redis_server(tmp_path / "r3") as three,
    ):
        servers = [one, two, three]
        settings = {n: redis_settings(s.url) for n, s in zip(NAMES, servers, strict=True)}
        with cluster(tmp_path, NAMES, settings, proxies=proxies) as agents:
            yield Hosts(agents, servers)


def users(first: int, last: int) -> list[str]:
    return [f"user:{n}" for n in range(first, last + 1)]


def test_what_is_invalidated_at_one_host_is_gone_from_all(hosts: Hosts) -> None:
    agent = hosts.agents[0]
    kinds = {
        "key": {"keys": [b"user:42"]},
        "tag": {"tags": [b"vip"]},
        "prefix": {"prefixes": [b"user:"]},
        "namespace": {"everything": True},
    }
    for kind, rows in kinds.items():
        hosts.fill(["user:42", "user:43"], tag="vip")
        hosts.fill(["other"])
        receipt = agent.invalidate(wait=REGION, **rows)
        assert receipt.complete, kind
        assert list(receipt.applied) == NAMES, kind
        left = {
            "key": {"user:43", "other"},
            "tag": {"other"},
            "prefix": {"other"},
            "namespace": set(),
        }
        for host in range(3):
            assert hosts.left(host) == left[kind], kind


def invalidate_5000(agent: AgentProcess) -> list[cache.Receipt]:
    keys = [key.encode() for key in users(1, 5000)]
    return [
        agent.invalidate(keys=keys[start : start + 500], wait=REGION, timeout=1)
        for start in range(0, 5000, 500)
    ]


def assert_repaired(hosts: Hosts, host: int, receipts: list[cache.Receipt]) -> None:
    """The host has exactly the keys that were left alone, without a reset, and receipts complete."""
    wanted = set(users(5001, 6000))
    poll(lambda: hosts.left(host) == wanted, "the missed keys to be gone", 60)
    for agent in hosts.agents:
        assert not agent.namespace().resets
        assert agent.namespace().gaps_open == 0
    assert all(handler.resets == 0 for a in hosts.agents for handler in a.status().handlers)
    for receipt in receipts:
        poll(
            lambda r=receipt: list(hosts.agents[0].receipt(r.dots).applied) == NAMES,
            "the receipt to complete",
        )


def test_a_killed_agent_catches_up_with_exactly_what_it_missed(hosts: Hosts) -> None:
    hosts.fill(users(1, 6000))
    hosts.agents[2].kill()
    receipts = invalidate_5000(hosts.agents[0])
    assert not receipts[-1].complete
    assert [missing.name for missing in receipts[-1].missing] == ["cache-3"]
    assert len(hosts.left(2)) == 6000
    hosts.agents[2].start()
    assert_repaired(hosts, 2, receipts)
    assert hosts.agents[2].namespace().repaired == 5000
    wait_until_whole(hosts.agents)


@pytest.mark.parametrize("hosts", [True], indirect=True)
def test_an_agent_that_was_cut_off_catches_up_after_the_heal(hosts: Hosts) -> None:
    hosts.fill(users(1, 6000))
    one, two, three = hosts.agents
    for agent in (one, two):
        assert agent.proxy is not None
        agent.proxy.cut(["cache-3"])
    assert three.proxy is not None
    three.proxy.cut(["cache-1", "cache-2"])
    receipts = invalidate_5000(one)
    poll(lambda: two.namespace().received == 5000, "the reachable host to have everything")
    assert hosts.left(1) == set(users(5001, 6000))
    assert len(hosts.left(2)) == 6000
    poll(lambda: one.status().members_alive == 2, "the cut host to count as dead")
    for agent in hosts.agents:
        assert agent.proxy is not None
        agent.proxy.heal()
    assert_repaired(hosts, 2, receipts)


def test_a_redis_that_was_stopped_is_brought_up_to_date_when_it_is_back(hosts: Hosts) -> None:
    hosts.fill(users(1, 6000))
    server = hosts.servers[2]
    redis.Redis(port=server.port).save()
    server.kill()
    receipts = invalidate_5000(hosts.agents[0])
    assert not receipts[-1].complete, "having is not applying"
    status = hosts.agents[2].status()
    assert not status.ready
    assert "does not answer" in " ".join(status.reasons)
    server.start()
    assert len(hosts.left(2)) > 0
    assert_repaired(hosts, 2, receipts)
