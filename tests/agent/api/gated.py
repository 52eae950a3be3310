"""A door that asks for certificates: a servicer that answers whatever comes through, and ways to call it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority, Files, identity

from coherd.api.auditing import Records
from coherd.api.authorization import CertificateGate, Certified
from coherd.api.doors import TLS_OPTIONS
from coherd.api.services import ADMIN, CACHE, PEER
from coherd.audit import Event
from coherd.cluster.protection import Protection
from coherd.errors import RpcFailed
from coherd.grants import Grant, Verb
from coherd.net.bridge import Bridge, Call, methods, open_bridge
from coherd.net.bridge_method import TARGET_NAME
from coherd.net.credentials import Credentials
from coherd.v1 import admin_service_pb2 as admin
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import peer_service_pb2 as pb
from coherd.v1.types_pb2 import Origin

ME = identity("agent/a")
B = identity("agent/b")
GRANTS = [
    Grant(["client/shop-*"], [Verb.READ, Verb.INVALIDATE, Verb.WATCH], ["shop", "shop.*"]),
    Grant(["client/monitor"], [Verb.READ], ["*"]),
]


class Servicer:
    """Answers whatever comes through."""

    async def Exchange(self, _request: pb.ExchangeRequest, _call: Call) -> pb.ExchangeResponse:
        return pb.ExchangeResponse(wall_us=1)

    async def Invalidate(
        self, _request: cache.InvalidateRequest, call: Call
    ) -> cache.InvalidateResponse:
        assert call.holder is not None
        return cache.InvalidateResponse()

    async def Watch(self, call: Any) -> None:
        while messages := await call.receive():
            for _ in messages:
                call.send_nowait(cache.WatchResponse(cursor="seen"))

    async def Leave(self, _request: admin.LeaveRequest, _call: Call) -> admin.LeaveResponse:
        return admin.LeaveResponse()


class Door:
    """One server whose gate asks, and the ways to call it."""

    def __init__(self, bridge: Bridge, authority: Authority, port: int) -> None:
        self.bridge = bridge
        self.authority = authority
        self.port = port
        self.events: list[Event] = []
        self.protection = Protection()
        self.protection.audit = self.events.append

    async def call(self, files: Files, name: str, request: Any, service: Any = PEER) -> Any:
        """Make one call as the holder of `files`."""
        channel = self._channel(files)
        try:
            return await channel.unary(methods(service)[name], request, timeout=10)
        finally:
            await channel.aclose()

    @asynccontextmanager
    async def watch(self, files: Files, *namespaces: str) -> AsyncIterator[Any]:
        channel = self._channel(files)
        async with channel.stream(methods(CACHE)["Watch"]) as stream:
            stream.send_nowait(cache.WatchRequest(open=cache.WatchOpen(namespaces=namespaces)))
            yield stream
        await channel.aclose()

    def _channel(self, files: Files) -> Any:
        credentials = grpc.ssl_channel_credentials(
            files.ca.read_bytes(), files.key.read_bytes(), files.cert.read_bytes()
        )
        return self.bridge.channel(
            f"127.0.0.1:{self.port}",
            credentials=credentials,
            options=[(TARGET_NAME, ME.server_name)],
        )


@asynccontextmanager
async def door(
    folder: Path,
    grants: list[Grant] = GRANTS,
    options: Sequence[tuple[str, int]] = TLS_OPTIONS,
    servicer: object | None = None,
) -> AsyncIterator[Door]:
    """Open a door of the agent `a` of the cluster `test`."""
    authority = Authority(folder)
    credentials = Credentials(authority.issue(ME).tls, time.time)
    async with open_bridge() as bridge:
        opened = Door(bridge, authority, 0)
        records = Records(opened.protection, lambda: 7)
        gate = CertificateGate(Certified(lambda: ME, lambda: grants, time.time), records)
        server = await bridge.serve(
            [(descriptor, servicer or Servicer()) for descriptor in (PEER, CACHE, ADMIN)],
            ["127.0.0.1:0"],
            credentials=credentials.server(),
            gate=gate,
            options=options,
        )
        opened.port = server.ports[0]
        yield opened


def speaking(name: str) -> pb.ExchangeRequest:
    return pb.ExchangeRequest(cluster="test", sender=Origin(name=name, epoch=1))


async def refusal(opened: Door, files: Files, name: str, request: Any, service: Any = PEER) -> str:
    with pytest.raises(RpcFailed) as caught:
        await opened.call(files, name, request, service)
    return str(caught.value)
