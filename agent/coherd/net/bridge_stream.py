"""The messages of one call, both ways: what trio's and asyncio's side of a stream share.

Trio's side has four verbs, the same for clients and servers: `receive` takes everything that waits,
`deliver_to` has a function take it as it comes, `send` and `send_nowait` queue a message. Asyncio's side
is two coroutines: one reads, one writes.

Each direction is one deque of serialized messages and two counts of bytes that only grow, each written
by one side only: what came in and what was taken out. Their difference is what waits, and when it
exceeds the window the side that fills stops: a reader that no longer reads makes HTTP/2 stop the peer,
a sender waits. No lock is needed: who is about to wait says so first and then looks again, who makes
progress does so first and then looks whether somebody waits. A side that does not wait is never woken,
so a busy stream crosses without any wake at all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc.aio
import trio

from coherd.errors import RpcFailed
from coherd.net.bridge_method import parse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from coherd.net.bridge_loops import Loops

WINDOW_BYTES = 1024 * 1024
"""Bytes that may wait in each direction of a stream before its sender must wait."""

MESSAGE_OVERHEAD_BYTES = 64
"""What a waiting message counts beyond its content, so that many empty ones are bounded, too."""

EOF: Any = grpc.aio.EOF
"""What gRPC reads after the last message."""


class Failure(NamedTuple):
    """Why a call ended without success: kept as words, since an exception would hold its frames."""

    code: str
    details: str

    def error(self) -> RpcFailed:
        """Give it as an exception."""
        return RpcFailed(self.code, self.details)


class MessageStream:
    """Both directions of one call's messages; for one receiving task and any number of sending ones."""

    def __init__(
        self, loops: Loops, received_class: type[Message], window_bytes: int = WINDOW_BYTES
    ) -> None:
        self._loops = loops
        self._received_class = received_class
        self._window_bytes = window_bytes

        self._inbox: deque[bytes] = deque()
        self._inbox_in = 0  # bytes; asyncio's side counts
        self._inbox_out = 0  # bytes; trio's side counts
        self._inbox_ended = False
        self._failure: Failure | None = None
        self._receiver: trio.lowlevel.Task | None = None
        self._receiver_waits = False
        self._reader_parked: asyncio.Future[None] | None = None
        self._taker: Callable[[list[Any]], None] | None = None
        self._refusal: Exception | None = None

        self._outbox: deque[bytes] = deque()
        self._outbox_in = 0  # bytes; trio's side counts
        self._outbox_out = 0  # bytes; asyncio's side counts
        self._outbox_ended = False
        self._unwritable: Failure | None = None
        self._senders = trio.lowlevel.ParkingLot()
        self._senders_wait = False
        self._writer_parked: asyncio.Future[None] | None = None
        self._writer_waits = False

    # Trio's side: receiving.

    async def receive(self) -> list[Any]:
        """Give every message that waits, at least one, in order; none when the other side has finished.

        Raises RpcFailed when the call has failed, after everything that came before the failure, and
        MalformedMessage when bytes are no message: what came together with them is lost.
        """
        if self._inbox:
            await trio.lowlevel.checkpoint()  # a receiver that never waits gives way, too
        while True:
            # The end is read first: what came before it is in the inbox by then.
            ended = self._inbox_ended
            if self._inbox:
                return self._take()
            if ended:
                break
            await self._wait_receivable()
        await trio.lowlevel.checkpoint()  # an end that is a cancellation shows as one
        if self._failure is not None:
            raise self._failure.error()
        return []

    async def deliver_to(self, take: Callable[[list[Any]], None]) -> None:
        """Call `take` with messages as they come, until the other side has finished.

        What comes while nothing else does is taken in the step that brings it over from the other thread: no
        task is woken for it. Raises as `receive`, and what `take` raises.
        """
        self._taker = take
        try:
            while messages := await self.receive():
                take(messages)
        finally:
            self._taker = None

    def _deliver(self, take: Callable[[list[Any]], None]) -> bool:
        """Have what waits taken; False where the receiver has to go on itself."""
        try:
            take(self._take())
        except Exception as error:
            self._refusal = error
            return False
        self._receiver_waits = True
        if self._inbox or self._inbox_ended:  # it gives way to others before it takes more
            self._receiver_waits = False
            return False
        return True

    async def _wait_receivable(self) -> None:
        if self._receiver is not None:
            raise trio.BusyResourceError("another task receives from this stream")
        self._receiver_waits = True
        if self._inbox or self._inbox_ended:
            self._receiver_waits = False
            return
        self._receiver = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort_receiver)
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise refusal

    def _abort_receiver(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._receiver = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake_receiver(self) -> None:
        if self._receiver is not None:
            take = self._taker
            if take is not None and self._inbox and not self._inbox_ended and self._deliver(take):
                return
            receiver, self._receiver = self._receiver, None
            trio.lowlevel.reschedule(receiver)

    def _take(self) -> list[Any]:
        inbox = self._inbox
        waiting = [inbox.popleft() for _ in range(len(inbox))]
        self._inbox_out += sum(map(len, waiting)) + MESSAGE_OVERHEAD_BYTES * len(waiting)
        if self._reader_parked is not None:
            self._loops.call_aio(self._wake_reader)
        return [parse(self._received_class, data) for data in waiting]

    # Trio's side: sending.

    @property
    def outbound_bytes(self) -> int:
        """Bytes that wait to be written."""
        return self._outbox_in - self._outbox_out

    def send_nowait(self, message: Message) -> None:
        """Queue a message, whatever waits already: the caller bounds it, by `outbound_bytes`.

        Raises RpcFailed when the call has ended; what was queued before may not have been sent.
        """
        if self._unwritable is not None:
            raise self._unwritable.error()
        if self._outbox_ended:
            raise trio.ClosedResourceError("nothing can be sent after the end of sending")
        data = message.SerializeToString()
        self._outbox_in += len(data) + MESSAGE_OVERHEAD_BYTES
        self._outbox.append(data)
        self._wake_writer_soon()

    async def send(self, message: Message) -> None:
        """Wait while more than the window waits to be written, then queue a message.

        It gives way to other tasks unless nothing waits.
        """
        if self._outbox:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        while self.outbound_bytes > self._window_bytes and self._unwritable is None:
            self._senders_wait = True
            if self.outbound_bytes > self._window_bytes and self._unwritable is None:
                await self._senders.park()
        self.send_nowait(message)

    def _end_outbox(self) -> None:
        self._outbox_ended = True
        self._wake_writer_soon()

    def _wake_writer_soon(self) -> None:
        if self._writer_waits:
            self._writer_waits = False
            self._loops.call_aio(self._wake_writer)

    def _wake_senders(self) -> None:
        self._senders.unpark_all()

    # Asyncio's side.

    async def _read_all(self, read: Callable[[], Awaitable[Any]]) -> None:
        """Read into the inbox until there is nothing more to read, no faster than trio takes it."""
        inbox = self._inbox
        while (data := await read()) is not EOF:
            inbox.append(data)
            self._inbox_in += len(data) + MESSAGE_OVERHEAD_BYTES
            if self._receiver_waits:
                self._receiver_waits = False
                self._loops.call_trio(self._wake_receiver)
            while self._inbox_in - self._inbox_out > self._window_bytes:
                await self._wait_for_receiver()

    async def _wait_for_receiver(self) -> None:
        self._reader_parked = asyncio.get_running_loop().create_future()
        if self._inbox_in - self._inbox_out > self._window_bytes:
            await self._reader_parked
        self._reader_parked = None

    def _wake_reader(self) -> None:
        if self._reader_parked is not None and not self._reader_parked.done():
            self._reader_parked.set_result(None)

    def _end_inbox(self, failure: Failure | None) -> None:
        self._failure = failure
        self._inbox_ended = True
        self._loops.call_trio(self._wake_receiver)

    async def _write_all(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Write what trio sends, until it has ended sending and everything is written."""
        outbox = self._outbox
        loop = asyncio.get_running_loop()
        while True:
            while outbox:
                data = outbox.popleft()
                await write(data)
                self._outbox_out += len(data) + MESSAGE_OVERHEAD_BYTES
                # Senders go on at half the window, in bursts rather than one by one.
                if self._senders_wait and self.outbound_bytes <= self._window_bytes // 2:
                    self._senders_wait = False
                    self._loops.call_trio(self._wake_senders)
            self._writer_parked = loop.create_future()
            self._writer_waits = True
            ended = self._outbox_ended
            if outbox:
                self._writer_waits = False
            elif ended:
                return
            else:
                await self._writer_parked

    def _wake_writer(self) -> None:
        if self._writer_parked is not None and not self._writer_parked.done():
            self._writer_parked.set_result(None)

    def _end_writing(self, failure: Failure) -> None:
        """Refuse what trio sends from now on."""
        if self._unwritable is None:
            self._unwritable = failure
            self._loops.call_trio(self._wake_senders)
