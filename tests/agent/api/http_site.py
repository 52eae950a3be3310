"""The HTTP server on a real socket with a toy behind it, and ways to ask it."""

from __future__ import annotations

import ssl
from typing import Any

import trio
from prometheus_client.core import GaugeMetricFamily

from coherd.api.authorization import Certified
from coherd.api.http_app import http_app
from coherd.api.http_server import HttpServer, listen
from coherd.api.token import Token
from coherd.audit import Event
from coherd.clock import BootClock
from coherd.cluster.protection import Protection
from coherd.config import Address
from coherd.net.credentials import Credentials

LONG = 20_000_000
"""Bytes of an answer that no socket takes at once."""


class ToyAgent:
    """Ready, or not."""

    def __init__(self) -> None:
        self.why: list[str] = []
        self.clock = BootClock()
        self.protection = Protection()
        self.events: list[Event] = []
        self.protection.audit = self.events.append

    def reasons(self) -> list[str]:
        return self.why


class ToyCollector:
    """One figure; with a long help where the answer shall be long."""

    help = "a figure"

    def collect(self) -> list[Any]:
        return [GaugeMetricFamily("toy", self.help, 1)]


class Site:
    """A server with a toy behind it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.agent = ToyAgent()
        self.collector = ToyCollector()

    async def open(
        self,
        host: str = "127.0.0.1",
        *,
        as_if: str = "",
        credentials: Credentials | None = None,
        certified: Certified | None = None,
        token: Token | None = None,
    ) -> None:
        """Serve at a free port; `as_if`: of a host that it believes to be its address."""
        listeners, self.address = await listen(Address(host, 0))
        address = self.address._replace(host=as_if or host)
        agent: Any = self.agent
        app = http_app(agent, lambda: self.collector, address, token=token, certified=certified)
        self.server = HttpServer(app, listeners, credentials)
        self.nursery.start_soon(self.server.run)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(self.address.host, self.address.port)

    async def ask(
        self,
        request: str,
        *headers: str,
        host: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> tuple[int, str]:
        """Send a request line and headers; give the status and the body."""
        answer = await self.ask_raw(request, *headers, host=host, tls=tls)
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split()[1]), body

    async def ask_raw(
        self,
        request: str,
        *headers: str,
        host: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> str:
        lines = [f"{request} HTTP/1.1", f"host: {host or self.address}", "connection: close"]
        stream: trio.abc.Stream = await self.connect()
        if tls is not None:
            stream = trio.SSLStream(stream, tls, https_compatible=True)
        async with stream:
            await stream.send_all("\r\n".join([*lines, *headers, "", ""]).encode())
            return await read_all(stream)


async def read_all(stream: trio.abc.Stream) -> str:
    """Give everything until the end."""
    with trio.fail_after(10):
        try:
            return b"".join([data async for data in stream]).decode()
        except trio.BrokenResourceError:
            return "reset"


async def all_closed(site: Site) -> None:
    """Wait until no connection is open."""
    with trio.fail_after(5):
        while site.server._open:
            await site.server._closed.park()


async def cut_off_after(site: Site, *beginnings: bytes) -> None:
    """Send what is never gone on with, each over a connection of its own, and wait until that is closed."""
    for beginning in beginnings:
        stream = await site.connect()
        async with stream:
            if beginning:
                await stream.send_all(beginning)
            await read_all(stream)


async def begin_long_answer(site: Site, requests: int = 1) -> trio.SocketStream:
    """Ask for long answers and receive only the beginning of the first."""
    site.collector.help = "x" * LONG
    stream = await site.connect()
    await stream.send_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n" * requests)
    assert await stream.receive_some(100)
    site.collector.help = "a figure"
    return stream
