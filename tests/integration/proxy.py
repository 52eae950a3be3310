"""A TCP proxy before one agent that can swallow everything between it and some of the others.

It tells who is at the other end of a connection by the process that owns the socket, so that one agent
can be cut off from others that go on talking to each other; it looks only once that matters, for looking
takes longer than forwarding. While a pair is cut nothing is forwarded and
nothing is closed, as on a link that drops every packet.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""For SO_LINGER: a close throws away what waits, and the other end sees a reset."""
DO_TIMEOUT = 30.0
"""Seconds for what a proxy is told; on a busy machine its thread may wait for a processor."""


class Connection:
    """One connection through the proxy."""

    def __init__(
        self, port: int, writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    ) -> None:
        self.port = port
        """The local port of whoever opened it."""
        self.writers = writers
        self.name: str | None = None
        """Who opened it; None while nobody has looked."""
        self.pumps: tuple[asyncio.Task[None], ...] = ()


class Proxy:
    """Forwards from `port` to the agent's own port, in a thread of its own."""

    def __init__(self, target: int, agents: Sequence[Any]) -> None:
        self.port = 0
        self.target = target
        """The port that new connections are forwarded to."""
        self._agents = agents
        self._deaf: set[str] = set()
        """Whose bytes are swallowed on the way here."""
        self._mute: set[str] = set()
        """For whom the answers are swallowed."""
        self._connections: set[Connection] = set()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def cut(self, names: Sequence[str], *, inward: bool = True, outward: bool = True) -> None:
        """Swallow what these agents send here (inward), and what they are answered (outward)."""

        def cut() -> None:
            self._look()
            self._deaf.update(names if inward else ())
            self._mute.update(names if outward else ())

        self._do(cut)

    def heal(self, names: Collection[str] | None = None) -> None:
        """Forward again what comes from now on, of these agents or of all; what was open is closed."""

        def heal() -> None:
            for cut in (self._deaf, self._mute):
                cut.intersection_update(() if names is None else cut - set(names))
            for connection in self._of(names):
                for pump in connection.pumps:
                    pump.cancel()

        self._do(heal)

    def reset(self, names: Collection[str]) -> None:
        """Break the connections of these agents; they may open others at once."""

        def reset() -> None:
            for connection in self._of(names):
                for writer in connection.writers:
                    opened = writer.get_extra_info("socket")
                    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                    writer.transport.abort()

        self._do(reset)

    def _do(self, action: Callable[[], None]) -> None:
        """Do something in the thread that forwards, and wait until it is done."""
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        self._loop.call_soon_threadsafe(act)
        assert done.wait(DO_TIMEOUT), "the proxy to do what it is told"

    def _of(self, names: Collection[str] | None) -> list[Connection]:
        if names is None:
            return list(self._connections)
        self._look()
        return [each for each in self._connections if each.name in names]

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stop.wait()
            server.close()
            for connection in self._connections:
                for pump in connection.pumps:
                    pump.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except (OSError, asyncio.CancelledError):
            writer.close()
            return
        port = writer.get_extra_info("peername")[1]
        connection = Connection(port, (writer, target_writer))
        self._connections.add(connection)
        if self._deaf or self._mute:
            self._look()
        connection.pumps = pumps = (
            asyncio.ensure_future(self._pump(connection, self._deaf, reader, target_writer)),
            asyncio.ensure_future(self._pump(connection, self._mute, target_reader, writer)),
        )
        with suppress(asyncio.CancelledError):
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        self._connections.discard(connection)
        for pump in pumps:
            pump.cancel()
        for each in (writer, target_writer):
            each.close()

    @staticmethod
    async def _pump(
        connection: Connection,
        cut: set[str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if connection.name in cut:
                    continue
                writer.write(data)
                await writer.drain()

    def _look(self) -> None:
        """Find the agents whose processes hold the other ends of the connections that have no name yet."""
        nameless = {each.port: each for each in self._connections if each.name is None}
        if not nameless:
            return
        # On a busy machine the tables have thousands of lines: local, remote, six more, the inode.
        found = {}
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):  # gRPC likes mapped addresses
            for port, inode in re.findall(
                rf":([0-9A-F]{{4}}) [0-9A-F]+:{self.port:04X} +(?:\S+ +){{6}}(\d+) ",
                Path(table).read_text(),
            ):
                if connection := nameless.get(int(port, 16)):
                    found[f"socket:[{inode}]"] = connection
        for connection in nameless.values():
            connection.name = ""
        for agent in self._agents:
            if agent.process is None:
                continue
            with suppress(OSError):  # it may have ended
                for descriptor in Path(f"/proc/{agent.process.pid}/fd").iterdir():
                    with suppress(OSError):
                        if connection := found.get(str(descriptor.readlink())):
                            connection.name = str(agent.name)
