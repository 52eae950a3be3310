"""A TCP proxy before one agent that can swallow everything between it and some of the others.

It tells who is at the other end of a connection by the process that owns the socket, so that one agent
can be cut off from others that go on talking to each other; it looks only once that matters, for looking
takes longer than forwarding. While a pair is cut nothing is forwarded and nothing is closed, as on a link
that drops every packet.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from integration.forwarding import Connection, Forwarder
from integration.sockets import inodes

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""For SO_LINGER: a close throws away what waits, and the other end sees a reset."""


class Proxy:
    """Forwards from `port` to the agent's own port, in a thread that several proxies may share."""

    def __init__(
        self, target: int, agents: Sequence[Any], forwarder: Forwarder | None = None
    ) -> None:
        self.target = target
        """The port that new connections are forwarded to."""
        self._agents = agents
        self._deaf: set[str] = set()
        """Whose bytes are swallowed on the way here."""
        self._mute: set[str] = set()
        """For whom the answers are swallowed."""
        self._connections: set[Connection] = set()
        self._forwarder = forwarder or Forwarder()
        self._is_sharing = forwarder is not None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self._do(lambda: self._forwarder.listen(self._listener, self._accept))

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
                self._forwarder.end(connection)

        self._do(heal)

    def reset(self, names: Collection[str]) -> None:
        """Break the connections of these agents; they may open others at once."""

        def reset() -> None:
            for connection in self._of(names):
                for each in connection.ends:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                self._forwarder.end(connection)

        self._do(reset)

    def close(self) -> None:
        """Stop listening, and break what is open."""

        def close() -> None:
            self._forwarder.leave(self._listener)
            for connection in list(self._connections):
                self._forwarder.end(connection)

        self._do(close)
        if not self._is_sharing:
            self._forwarder.close()

    def _do(self, action: Callable[[], None]) -> None:
        self._forwarder.do(action)

    # ------------------------------------------------------------------ in the thread that forwards

    def _of(self, names: Collection[str] | None) -> list[Connection]:
        if names is None:
            return list(self._connections)
        self._look()
        return [each for each in self._connections if each.name in names]

    def _accept(self, opener: socket.socket) -> None:
        target = socket.socket()
        target.setblocking(False)
        with suppress(BlockingIOError):
            target.connect(("127.0.0.1", self.target))
        connection = Connection(
            (opener, target),
            (self._deaf, self._mute),
            lambda: self._connections.discard(connection),
        )
        self._connections.add(connection)
        if self._deaf or self._mute:
            self._look()
        self._forwarder.forward(connection)

    def _look(self) -> None:
        """Find the agents whose processes hold the other ends of the connections that have no name yet."""
        nameless = {each.port: each for each in self._connections if each.name is None}
        if not nameless:
            return
        found = {
            f"socket:[{inode}]": nameless[port]
            for inode, port in inodes(nameless, self.port).items()
        }
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
