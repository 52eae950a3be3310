"""Whole agents in one process under a virtual clock: their journals, caches and network are twins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import trio

from coherd.api.cache_service import order_of
from coherd.api.peer_service import PeerService
from coherd.cluster.agent import Agent, draw_epoch
from coherd.cluster.invalidating import Outcome
from coherd.config import Address, AgentConfig
from coherd.handlers.memory import MemoryHandler
from coherd.journal.memory import Disk, MemoryJournal
from coherd.net.memory_bridge import Network
from coherd.net.peer import MemberInfo
from coherd.net.peer_client import GrpcPeer
from coherd.v1 import cache_service_pb2 as cache

NAMESPACE = "shop"


class Time:
    """Virtual time, of which days can be skipped in which nothing but ageing happens."""

    skipped = 0.0

    def now(self) -> float:
        return trio.current_time() + self.skipped

    async def skip(self, seconds: float) -> None:
        """Let everything become older, in steps between which every task runs."""
        for _ in range(10):
            self.skipped += seconds / 10
            await wait(3.0)


class VirtualClock:
    """The door to time."""

    def __init__(self, time: Time, running_time: float, behind: float = 0.0) -> None:
        self._time = time
        self._behind = behind
        self._offset = running_time - time.now()

    def now(self) -> float:
        return self._time.now() + self._offset

    def wall_ms(self) -> int:
        return self.wall_us() // 1000

    def wall_us(self) -> int:
        return 1_790_000_000_000_000 + int((self._time.now() - self._behind) * 1_000_000)


class Host:
    """One host: an agent that comes and goes, a disk and a cache that stay."""

    def __init__(
        self, network: Network, time: Time, name: str, number: int, seeds: Sequence[str]
    ) -> None:
        self.network = network
        self.time = time
        self.name = name
        self.address = f"10.0.0.{number}:4373"
        self.disk = Disk()
        self.boot = 1
        self.clock_behind = 0.0
        """Seconds by which its wall clock is."""
        self.settings: dict[str, Any] = {}
        """More fields of the configuration."""
        self.cache = MemoryHandler(NAMESPACE)
        self.random = Random(number)
        self.seeds = tuple(seeds)
        self.agent: Agent
        self.journal: MemoryJournal
        self._scope: trio.CancelScope | None = None

    @property
    def config(self) -> AgentConfig:
        seeds = tuple(Address(*_split(seed)) for seed in self.seeds)
        return AgentConfig(self.name, cluster="test", region="test", join=seeds, **self.settings)

    async def start(self) -> None:
        """Start the agent."""
        await self.network.nursery.start(self._run)

    async def _run(self, task_status: Any) -> None:
        boot = f"boot {self.boot}"
        self.journal = journal = MemoryJournal(self.disk, now=self.time.now, boot_id=boot)
        clock = VirtualClock(self.time, journal.running_time(), self.clock_behind)
        bridge = self.network.bridge(self.address)

        def dial(address: str, name: str | None) -> GrpcPeer:
            return GrpcPeer(bridge, address, "test", self.agent.count_refused, name=name)  # type: ignore[arg-type]

        lives = [life.epoch for life, _ in journal.contents.lives]
        epoch = draw_epoch(clock.wall_ms(), lives, 0)
        me = MemberInfo(
            self.name, epoch, self.address, "test", self.config.interest, version="0.1.0"
        )
        with trio.CancelScope() as self._scope:
            async with trio.open_nursery() as nursery:
                self.agent = Agent(self.config, me, journal, clock, self.random, dial, nursery)
                self.agent.serve([self.cache] if self.config.holds(NAMESPACE) else [])
                self.network.servicers[self.address] = PeerService(self.agent.endpoint)
                self.agent.start()
                task_status.started()

    def crash(self) -> None:
        """End the agent without a word; what was not committed is lost."""
        assert self._scope is not None
        self._scope.cancel()
        self.network.crash(self.address)

    async def stop(self) -> None:
        """End the agent in order."""
        await self.journal.aclose()
        self.crash()

    @property
    def resets(self) -> int:
        """How often the agent, or its cache alone, was reset since the agent started."""
        counts = self.agent.ingest.counts.values()
        own = sum(handler.resets for handler in self.agent.delivery.handlers)
        return own + sum(sum(each.resets.values()) for each in counts)

    async def invalidate(
        self, keys: Sequence[bytes], namespace: str = NAMESPACE, **fields: Any
    ) -> Outcome:
        """Invalidate at this host's agent."""
        request = cache.InvalidateRequest(namespace=namespace, keys=keys, **fields)
        return await self.agent.invalidating.invalidate(order_of(request))

    def fill(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self.cache.put(key, "value", ())


@asynccontextmanager
async def hosts(
    count: int, *, whole: bool = True, interests: Sequence[Sequence[str]] = (), **settings: Any
) -> AsyncIterator[list[Host]]:
    """Run hosts, once all are linked with each other where `whole` says so.

    `settings` are more fields of their configuration, `interests` what the first ones hold, if not all.
    """
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        names = [f"host-{i}" for i in range(1, count + 1)]
        time, seeds = Time(), ["10.0.0.1:4373"]
        all_ = [Host(network, time, name, i, seeds) for i, name in enumerate(names, 1)]
        for at, host in enumerate(all_):
            held = {"interest": tuple(interests[at])} if at < len(interests) else {}
            host.settings = settings | held
            await host.start()
        if whole:
            await until(lambda: all(is_whole(host, count) for host in all_))
        yield all_
        nursery.cancel_scope.cancel()


def is_whole(host: Host, count: int) -> bool:
    """Whether the host is ready and linked with everybody."""
    return not host.agent.reasons() and len(host.agent.linking.peers) == count - 1


async def until(probe: Callable[[], bool], timeout: float = 120.0) -> None:
    """Let virtual time pass until `probe` is true."""
    with trio.fail_after(timeout):
        while not probe():
            await trio.lowlevel.checkpoint()
            await wait(0.05)


async def wait(seconds: float) -> None:
    """Let virtual time pass."""
    with trio.move_on_after(seconds):
        await trio.sleep_forever()


def _split(address: str) -> tuple[str, int]:
    host, port = address.rsplit(":", 1)
    return host, int(port)
