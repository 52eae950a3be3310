"""NATS JetStream as people use it for what must not be lost: a stream in a file, durable push consumers.

Every message is acknowledged to its publisher once the server has it, and by each consumer once it is
handled; 500 publishes are under way at once, and as many deliveries as the server allows by itself (1,000).
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import nats_peer
import networks
from processes import wait_until

LABEL = "NATS JetStream"
STREAM = "INV"
SUBJECT = "inv"
SHARE = 0.2
"""It does a tenth of the others: a round shall not take ten times as long."""
IS_BROKER = True

missing = nats_peer.missing


@contextmanager
def running(_count: int, place: networks.Host | None = None) -> Iterator[tuple[str, int]]:
    """Run a server with JetStream; give its address."""
    with (
        tempfile.TemporaryDirectory(prefix="coherd-bench-") as folder,
        nats_peer.server(place, "-js", "-sd", folder) as address,
    ):
        yield address


async def _stream(connection: Any) -> Any:
    """Give the JetStream context of a connection, with the stream made if it is the first to ask."""
    stream = connection.jetstream()
    await stream.add_stream(name=STREAM, subjects=[SUBJECT], storage="file")
    return stream


def listen(
    address: tuple[str, int], number: int, note: Callable[[bytes], None], ready: Callable[[], None]
) -> None:
    """The body of one subscriber."""

    async def main() -> None:
        connection = await nats_peer.connect(address)
        stream = await _stream(connection)

        async def received(message: Any) -> None:
            note(message.data)
            await message.ack()

        await stream.subscribe(
            SUBJECT,
            durable=f"subscriber-{number}",
            cb=received,
            manual_ack=True,
            pending_msgs_limit=nats_peer.PENDING_MESSAGES_MAX,
            pending_bytes_limit=nats_peer.PENDING_BYTES_MAX,
        )
        await connection.flush()
        ready()
        await asyncio.Event().wait()

    wait_until(lambda: nats_peer.is_open(address), 30)
    asyncio.run(main())


class Sender(nats_peer.Sender):
    """A publisher: waits for the server's acknowledgements of each `send`."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address)
        self._stream = self.loop.run_until_complete(_stream(self.connection))

    async def _publish(self, keys: Sequence[bytes]) -> None:
        await asyncio.gather(*(self._stream.publish(SUBJECT, key) for key in keys))
