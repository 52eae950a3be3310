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


class VirtualClock:
    """The door to time, on trio's clock."""

    def __init__(self, running_time: float) -> None:
        self._offset = running_time - trio.current_time()

    def now(self) -> float:
        return trio.current_time() + self._offset

    def wall_ms(self) -> int:
        return 1_790_000_000_000 + int(trio.current_time() * 1000)


class Host:
    """One host: an agent that comes and goes, a disk and a cache that stay."""

    def __init__(self, network: Network, name: str, number: int, seeds: Sequence[str]) -> None:
        self.network = network
        self.name = name
        self.address = f"10.0.0.{number}:4373"
        self.disk = Disk()
        self.cache = MemoryHandler(NAMESPACE)
        self.random = Random(number)
        self.seeds = tuple(seeds)
        self.agent: Agent
        self._scope: trio.CancelScope | None = None

    @property
    def config(self) -> AgentConfig:
        seeds = tuple(Address(*_split(seed)) for seed in self.seeds)
        return AgentConfig(self.name, cluster="test", region="test", join=seeds)

    async def start(self) -> None:
        """Start the agent."""
        await self.network.nursery.start(self._run)

    async def _run(self, task_status: Any) -> None:
        journal = MemoryJournal(self.disk, now=trio.current_time)
        clock = VirtualClock(journal.running_time())
        bridge = self.network.bridge(self.address)

        def dial(address: str) -> GrpcPeer:
            return GrpcPeer(bridge, address, "test")  # type: ignore[arg-type]

        lives = [life.epoch for life, _ in journal.contents.lives]
        epoch = draw_epoch(clock.wall_ms(), lives, 0)
        me = MemberInfo(self.name, epoch, self.address, "test")
        with trio.CancelScope() as self._scope:
            async with trio.open_nursery() as nursery:
                self.agent = Agent(self.config, me, journal, clock, self.random, dial, nursery)
                self.agent.serve([self.cache])
                self.network.servicers[self.address] = PeerService(self.agent.endpoint)
                self.agent.start()
                task_status.started()

    def crash(self) -> None:
        """End the agent without a word; what was not committed is lost."""
        assert self._scope is not None
        self._scope.cancel()
        self.network.crash(self.address)

    async def invalidate(self, keys: Sequence[bytes], **fields: Any) -> Outcome:
        """Invalidate at this host's agent."""
        request = cache.InvalidateRequest(namespace=NAMESPACE, keys=keys, **fields)
        return await self.agent.invalidating.invalidate(order_of(request))

    def fill(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self.cache.put(key, "value", ())


@asynccontextmanager
async def hosts(count: int) -> AsyncIterator[list[Host]]:
    """Run hosts that know each other."""
    async with trio.open_nursery() as nursery:
        network = Network(nursery)
        names = [f"host-{i}" for i in range(1, count + 1)]
        all_ = [Host(network, name, i, ["10.0.0.1:4373"]) for i, name in enumerate(names, 1)]
        for host in all_:
            await host.start()
        await until(lambda: all(is_whole(host, count) for host in all_))
        yield all_
        nursery.cancel_scope.cancel()


def is_whole(host: Host, count: int) -> bool:
    """Whether the host is ready and linked with everybody."""
    return not host.agent.reasons() and len(host.agent.membership.peers) == count - 1


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
