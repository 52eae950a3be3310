"""Forwarding between pairs of sockets: one thread for any number of them, and as few system calls as can be.

What is tested shares its processors with this: a coroutine for each direction took a fifth of them.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress

BUFFER = 1 << 17
"""Bytes forwarded at once; the others have their turn then."""
DO_TIMEOUT = 30.0
"""Seconds for what the thread is told; on a busy machine it may wait for a processor."""
OPENER, TARGET = 0, 1
"""The two ends of a connection: who opened it, and whom it is forwarded to."""


class Connection:
    """One connection; only the thread that forwards may touch it."""

    def __init__(
        self,
        ends: Sequence[socket.socket],
        cuts: Sequence[Collection[str]],
        closed: Callable[[], None],
    ) -> None:
        """`cuts`: per end the names of openers of whose connections it is swallowed what comes from there.

        `closed` is called at the end.
        """
        self.ends = ends
        self.cuts = cuts
        self.closed = closed
        self.port: int = ends[OPENER].getpeername()[1]
        """The local port of whoever opened it."""
        self.name: str | None = None
        """Who opened it; None while nobody has looked."""
        self.waiting: list[bytes | memoryview] = [b"", b""]
        """Per end what came from there and cannot be handed on yet."""
        self.is_held_up = [True, False]
        """Per end whether nothing is read from there; at first the target is not connected yet."""
        self.is_open = True


class Forwarder:
    """Moves bytes until it is closed."""

    def __init__(self, pause: float = 0.0) -> None:
        """`pause`: seconds for which bytes are gathered before they are moved, as on a link with delay."""
        self._pause = pause
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[int], None]] = {}
        """By descriptor what to do when something has happened to it."""
        self._ended: list[socket.socket] = []
        self._orders: deque[tuple[Future[None], Callable[[], None]]] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK)
        self._buffer = memoryview(bytearray(BUFFER))
        self._is_over = threading.Event()
        self._watch(self._bell, lambda _: os.eventfd_read(self._bell))
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)
        self._thread.start()

    def do(self, action: Callable[[], None]) -> None:
        """Do something in the thread that forwards, and wait until it is done."""
        done: Future[None] = Future()
        self._orders.append((done, action))
        os.eventfd_write(self._bell, 1)
        done.result(DO_TIMEOUT)

    def close(self) -> None:
        """Stop; what is open stays so as long as this process lives."""
        self._is_over.set()
        os.eventfd_write(self._bell, 1)
        self._thread.join(10)

    def _run(self) -> None:
        while not self._is_over.is_set():
            for descriptor, events in self._epoll.poll():
                if ready := self._ready.get(descriptor):
                    ready(events)
            self._close_ended()
            while self._orders:
                done, action = self._orders.popleft()
                try:
                    action()
                    self._close_ended()
                    done.set_result(None)
                except Exception as error:
                    done.set_exception(error)
            if self._pause:
                self._is_over.wait(self._pause)

    def _close_ended(self) -> None:
        """Close what has ended; not at once, lest a new connection get the descriptor of what happened."""
        for each in self._ended:
            each.close()
        self._ended.clear()

    def _watch(self, descriptor: int, ready: Callable[[int], None]) -> None:
        self._ready[descriptor] = ready
        self._epoll.register(descriptor, select.EPOLLIN)

    # ------------------------------------------------------------------ in the thread that forwards

    def listen(self, listener: socket.socket, accept: Callable[[socket.socket], None]) -> None:
        """Give `accept` every connection that comes in."""

        def ready(_events: int) -> None:
            with suppress(OSError):
                accepted, _ = listener.accept()
                accept(accepted)

        self._watch(listener.fileno(), ready)

    def leave(self, listener: socket.socket) -> None:
        """Take no more connections there."""
        self._ready.pop(listener.fileno(), None)
        listener.close()

    def forward(self, connection: Connection) -> None:
        """Forward both ways until one end closes; the target may still be connecting."""

        def ready(end: int, events: int) -> None:
            try:
                if events & (select.EPOLLERR | select.EPOLLHUP) and not events & select.EPOLLIN:
                    raise ConnectionResetError
                if events & select.EPOLLOUT:
                    self._hand_on(connection, 1 - end)
                if events & select.EPOLLIN:
                    self._move(connection, end)
            except OSError:
                self.end(connection)

        for end, each in enumerate(connection.ends):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._watch(each.fileno(), lambda events, end=end: ready(end, events))
        self._choose(connection)

    def end(self, connection: Connection) -> None:
        """Close both ends."""
        if connection.is_open:
            connection.is_open = False
            for each in connection.ends:
                del self._ready[each.fileno()]
                self._ended.append(each)
            connection.closed()

    def _move(self, connection: Connection, end: int) -> None:
        """Hand on what has come from one end, or swallow it."""
        try:
            count = connection.ends[end].recv_into(self._buffer)
        except BlockingIOError:
            return
        if not count:
            self.end(connection)
        elif connection.name not in connection.cuts[end]:
            connection.waiting[end] = self._buffer[:count]
            self._hand_on(connection, end)

    def _hand_on(self, connection: Connection, end: int) -> None:
        """Send to the other end what came from this one; what finds no room there is kept."""
        if not connection.is_open:
            return
        waiting = connection.waiting[end]
        sent = 0
        if waiting:
            with suppress(BlockingIOError):
                sent = connection.ends[1 - end].send(waiting)
        connection.waiting[end] = bytes(waiting[sent:])
        if connection.is_held_up[end] != (sent < len(waiting)):
            connection.is_held_up[end] = sent < len(waiting)
            self._choose(connection)

    def _choose(self, connection: Connection) -> None:
        """Wait for bytes of an end while it is not held up, and for room while the other one is."""
        for end, each in enumerate(connection.ends):
            wanted = 0 if connection.is_held_up[end] else select.EPOLLIN
            wanted |= select.EPOLLOUT if connection.is_held_up[1 - end] else 0
            self._epoll.modify(each.fileno(), wanted)
