"""Clients that a gate takes for one identity, and how much they may have under way together."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import trio
from certificates import identity
from doors import METHODS, Doors
from http2 import http2

from coherd.api.cache_service import CacheService
from coherd.api.services import CACHE
from coherd.net.certificates import Holder
from coherd.v1 import cache_service_pb2 as cache


class Known:
    """A gate that takes everybody for one identity."""

    asks = True

    def identify(self, _context: Any) -> Holder:
        return Holder(identity("client/app"), 0.0, 1e12)

    def check(self, _call: Any, _request: Any) -> None:
        """Nothing is refused here, and nobody asks how it ends."""


async def of_one_identity(agent: Doors, clients: int, calls: int) -> bool:
    """Have as many clients make calls that do not end, and then one more call; is that answered?"""
    services = [(CACHE, CacheService(agent.agent))]
    server = await agent.bridge.serve(services, ["127.0.0.1:0"], gate=Known())
    address = f"127.0.0.1:{server.ports[0]}"

    def ask() -> bytes:
        with ExitStack() as stack:
            for _ in range(clients):
                client = stack.enter_context(http2(address))
                client.await_settings()
                for _ in range(calls):
                    client.open(METHODS["Watch"].path)
                client.send()
            trio.from_thread.run(until)
            with http2(address) as last:
                request = cache.InvalidateRequest(namespace="shop", keys=[b"k"]).SerializeToString()
                return last.call(METHODS["Invalidate"].path, request)[b"grpc-status"]

    async def until() -> None:
        await agent.eventually(lambda: len(server._calls) == clients * calls)

    status = await trio.to_thread.run_sync(ask)
    await agent.eventually(lambda: not server._calls)
    await agent.eventually(lambda: not server._shares._calls)
    assert status in {b"0", b"8"}
    return status == b"0"
