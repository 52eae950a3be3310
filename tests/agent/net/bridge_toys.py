"""What the tests of the bridge share: toy servicers on the real services, and waiting without sleeping."""

from __future__ import annotations

from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from coherd.net.bridge import Bridge, Channel, Server, methods, open_bridge
from coherd.v1 import cache_service_pb2, peer_service_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PEER = peer_service_pb2.DESCRIPTOR.services_by_name["PeerService"]
CACHE = cache_service_pb2.DESCRIPTOR.services_by_name["CacheService"]
METHODS = methods(PEER) | methods(CACHE)

PATIENCE = 20.0


class Served(NamedTuple):
    bridge: Bridge
    server: Server
    channel: Channel


@asynccontextmanager
async def serving(**servicers: Any) -> AsyncIterator[Served]:
    """A bridge whose server answers the named RPCs by the given functions, and a channel to it."""
    with trio.fail_after(PATIENCE):
        async with open_bridge() as bridge:
            toy = SimpleNamespace(**servicers)
            server = await bridge.serve([(PEER, toy), (CACHE, toy)], ["127.0.0.1:0"])
            yield Served(bridge, server, bridge.channel(f"127.0.0.1:{server.ports[0]}"))


async def pause() -> None:
    with trio.move_on_after(0.002):
        await trio.sleep_forever()


async def eventually(condition: Callable[[], bool]) -> None:
    while not condition():
        await pause()


async def standstill(progress: Callable[[], int]) -> None:
    """Wait until there was some progress and then none for a while; on a busy machine more may follow."""
    still, last = 0, 0
    while still < 50 or last == 0:
        await pause()
        still, last = (still + 1, last) if progress() == last else (0, progress())


class Waiting:
    """A servicer's method that waits to be cancelled, and tells what happened to it."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.cancelled = trio.Event()
        self.count = 0

    async def __call__(self, *_: Any) -> None:
        self.count += 1
        self.started.set()
        try:
            await trio.sleep_forever()
        finally:
            self.count -= 1
            self.cancelled.set()
