"""Hosts: an agent and a Redis each, and a cache that says whether an invalidation was lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis
from integration.agents import AgentProcess, cluster, lone, redis_settings, wait_until_whole
from integration.polling import poll
from servers import RedisServer, redis_server

from coherd.model import Position
from coherd.v1 import cache_service_pb2 as cache

KEPT = b"kept"
"""A key that nobody invalidates."""
ROWS = 10
"""Rows of one request: small, so that there are many blocks."""


@contextmanager
def three_agents(folder: Path) -> Iterator[tuple[list[AgentProcess], RedisServer]]:
    """Run three agents, of which only the third has a cache to look after."""
    with redis_server(folder / "redis") as server:
        settings = {"cache-3": redis_settings(server.url)}
        with cluster(folder, ["cache-1", "cache-2", "cache-3"], settings) as agents:
            yield agents, server


class Host:
    """An agent that keeps a Redis coherent; both come and go."""

    def __init__(self, agent: AgentProcess, server: RedisServer) -> None:
        self.agent = agent
        self.server = server

    @property
    def cache(self) -> redis.Redis:
        """Its Redis."""
        return redis.Redis(port=self.server.port)

    @property
    def position(self) -> int:
        """The newest position of the agent."""
        return Position.parse(self.agent.status().cursor).n

    @property
    def resets(self) -> dict[str, int]:
        """The resets of this life by cause; those of its Redis alone are called `handler`."""
        status = self.agent.status()
        found = {
            cause: count
            for namespace in status.namespaces
            for cause, count in namespace.resets.items()
        }
        if own := sum(handler.resets for handler in status.handlers):
            found["handler"] = own
        return found

    @property
    def damages(self) -> str:
        """What the agent says of its journal's damages."""
        return "\n".join(self.agent.status().journal.damages)

    def set(self, **settings: str) -> None:
        """Give the agent's settings anew, as TOML beside those of its Redis; resets come at once."""
        lines = {"reset_jitter": "0", **settings}
        text = "".join(f"{name} = {value}\n" for name, value in lines.items())
        self.agent.settings = text + redis_settings(self.server.url)

    def fill(self, keys: Iterable[bytes]) -> None:
        """Have copies."""
        self.cache.mset({b"shop:" + key: b"value" for key in [*keys, KEPT]})

    def left(self, keys: Iterable[bytes]) -> set[bytes]:
        """Tell which of the keys are still in its Redis."""
        keys = list(keys)
        values = self.cache.mget([b"shop:" + key for key in keys])
        return {key for key, value in zip(keys, values, strict=True) if value is not None}

    def invalidate(self, keys: Sequence[bytes]) -> None:
        """Invalidate here, a few keys at a time, without waiting for anybody else."""
        for at in range(0, len(keys), ROWS):
            self.agent.invalidate(keys=keys[at : at + ROWS])

    def is_settled(self, among: int, gone: Iterable[bytes]) -> bool:
        """Whether it is ready among so many agents, lacks nothing, and holds none of the keys."""
        status = self.agent.status()
        return (
            self.agent.is_ready_with(among)
            and not status.journal.healing
            and not any(namespace.gaps_open for namespace in status.namespaces)
            and not any(handler.lag for handler in status.handlers)
            and not self.left(gone)
        )


@contextmanager
def hosts(folder: Path, *names: str) -> Iterator[list[Host]]:
    """Give hosts that know each other; their servers run, nobody has started their agents yet."""
    with ExitStack() as stack:
        given = []
        for name in names:
            agent = stack.enter_context(lone(folder, name))
            host = Host(agent, stack.enter_context(redis_server(folder / f"redis-{name}")))
            host.set()
            given.append(host)
        for host in given:
            host.agent.seeds = [other.agent.address for other in given]
        yield given


def start(given: Sequence[Host]) -> None:
    """Start the agents, and wait until they see each other."""
    for host in given:
        host.agent.spawn()
    for host in given:
        poll(host.agent.answers, f"agent {host.agent.name}")
    wait_until_whole([host.agent for host in given])


def settle(given: Sequence[Host], gone: Iterable[bytes], timeout: float = 30.0) -> None:
    """Wait until no host holds one of the keys, and each has applied everything."""
    gone = list(gone)
    for host in given:
        poll(
            lambda h=host: h.is_settled(len(given), gone),
            f"{host.agent.name} to be settled: {host.agent.status()}",
            timeout,
        )
    newest = given[0].agent.invalidate(keys=[b"newest"], wait=cache.WAIT_REGION, timeout=10)
    assert sorted(newest.applied) == sorted(host.agent.name for host in given)
    assert [host.left(gone) for host in given] == [set() for _ in given]


def keys(case: str, first: int, last: int) -> list[bytes]:
    """Give numbered keys, `last` excluded, of one case."""
    return [b"%s:%03d" % (case.encode(), n) for n in range(first, last)]
