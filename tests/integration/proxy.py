"""A TCP proxy before one agent that can swallow everything between it and some of the others.

It tells who is at the other end of a connection by the process that owns the socket, so that one agent
can be cut off from others that go on talking to each other. While a pair is cut nothing is forwarded and
nothing is closed, as on a link that drops every packet.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from servers import free_port


class Proxy:
    """Forwards from `port` to the agent's own port, in a thread of its own."""

    def __init__(self, target: int, agents: Sequence[Any]) -> None:
        self.port = free_port()
        self._target = target
        self._agents = agents
        self._cut: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def cut(self, names: Sequence[str]) -> None:
        """Swallow what these agents send here, and what they are answered."""
        self._loop.call_soon_threadsafe(self._cut.update, names)

    def heal(self) -> None:
        """Forward again what comes from now on; broken connections stay broken."""

        def heal() -> None:
            self._cut.clear()
            for task in self._tasks:
                task.cancel()

        self._loop.call_soon_threadsafe(heal)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with await asyncio.start_server(self._serve, "127.0.0.1", self.port) as server:
            self._ready.set()
            await self._stop.wait()
            server.close()
            for task in self._tasks:
                task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = self._owner(writer.get_extra_info("peername")[1])
        try:
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        pumps = [
            asyncio.ensure_future(self._pump(name, reader, target_writer)),
            asyncio.ensure_future(self._pump(name, target_reader, writer)),
        ]
        self._tasks.update(pumps)
        with suppress(asyncio.CancelledError):
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
            self._tasks.discard(pump)
        for each in (writer, target_writer):
            each.close()

    async def _pump(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if name in self._cut:
                    continue
                writer.write(data)
                await writer.drain()

    def _owner(self, port: int) -> str:
        """Find the agent whose process holds the socket with this local port."""
        ends = (f":{port:04X}", f":{self.port:04X}")
        lines = [
            line.split()
            for table in ("/proc/net/tcp", "/proc/net/tcp6")  # gRPC likes mapped addresses
            for line in Path(table).read_text().splitlines()[1:]
        ]
        inode = next(
            (f[9] for f in lines if f[1].endswith(ends[0]) and f[2].endswith(ends[1])), None
        )
        for agent in self._agents:
            process = agent.process
            if inode is None or process is None:
                continue
            folder = Path(f"/proc/{process.pid}/fd")
            for descriptor in folder.iterdir():
                with suppress(OSError):
                    if str(descriptor.readlink()) == f"socket:[{inode}]":
                        return str(agent.name)
        return ""
