"""NATS as people use it: one nats-server, nats-py; at most once, nothing is kept."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import networks
import processes
from processes import free_port, wait_until

LABEL = "NATS"
SUBJECT = "inv"
SHARE = 1.0
IS_BROKER = True
PENDING_BYTES_MAX = 1 << 28
PENDING_MESSAGES_MAX = 10_000_000


def missing() -> str:
    """Tell what is missing; empty when nothing is."""
    if not shutil.which("nats-server"):
        return "no nats-server (make bench-servers)"
    return "" if find_spec("nats") else "no nats-py (make bench-servers)"


@contextmanager
def server(place: networks.Host | None, *options: str) -> Iterator[tuple[str, int]]:
    """Run a server; give its address."""
    host, space = (place.address, place.space) if place else ("127.0.0.1", "")
    address = (host, free_port())
    command = ["nats-server", "-a", host, "-p", str(address[1]), *options]
    with processes.server([*networks.inside(space), *command], stderr=subprocess.DEVNULL):
        if not space:
            wait_until(lambda: is_open(address), 10)
        yield address


@contextmanager
def running(_count: int, place: networks.Host | None = None) -> Iterator[tuple[str, int]]:
    """Run a server without JetStream; give its address."""
    with server(place) as address:
        yield address


def is_open(address: tuple[str, int]) -> bool:
    """Tell whether somebody listens there."""
    try:
        with socket.create_connection(address, timeout=1):
            return True
    except OSError:
        return False


async def connect(address: tuple[str, int]) -> Any:
    """Open a connection that buffers as much as a burst needs."""
    import nats

    return await nats.connect(f"nats://{address[0]}:{address[1]}", pending_size=PENDING_BYTES_MAX)


def listen(
    address: tuple[str, int], _number: int, note: Callable[[bytes], None], ready: Callable[[], None]
) -> None:
    """The body of one subscriber."""

    async def main() -> None:
        connection = await connect(address)

        async def received(message: Any) -> None:
            note(message.data)

        await connection.subscribe(
            SUBJECT,
            cb=received,
            pending_msgs_limit=PENDING_MESSAGES_MAX,
            pending_bytes_limit=PENDING_BYTES_MAX,
        )
        await connection.flush()
        ready()
        await asyncio.Event().wait()

    wait_until(lambda: is_open(address), 30)
    asyncio.run(main())


class Sender:
    """A publisher: one flush, which is a round trip, after each `send`."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.loop = asyncio.new_event_loop()
        wait_until(lambda: is_open(address), 30)
        self.connection = self.loop.run_until_complete(connect(address))

    def send(self, keys: Sequence[bytes]) -> None:
        self.loop.run_until_complete(self._publish(keys))

    async def _publish(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            await self.connection.publish(SUBJECT, key)
        await self.connection.flush()

    def drain(self) -> None:
        """Each send has waited for its answers."""
