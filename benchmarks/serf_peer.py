"""Serf's user events: N agents as its users run them, LAN profile; one process at each agent's RPC stream."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import msgpack
import networks
from processes import free_port, server, wait_until

LABEL = "Serf user event"
SHARE = 0.0
IS_BROKER = False


def missing() -> str:
    """Tell what is missing; empty when nothing is."""
    return "" if shutil.which("serf") else "no serf (make bench-servers)"


class Connection:
    """A connection to an agent's RPC port (Serf's "RPC protocol"): a header, perhaps a body, msgpack."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._unpacker = msgpack.Unpacker(raw=True)
        self._number = 0
        self.call(b"handshake", {b"Version": 1})

    def read(self) -> Any:
        """Give the next object, a header or a body."""
        while True:
            for found in self._unpacker:
                return found
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("the agent is gone")
            self._unpacker.feed(data)

    def call(self, command: bytes, body: Any = None) -> None:
        """Send a command and wait for its header."""
        self._number += 1
        header = {b"Command": command, b"Seq": self._number}
        parts = [header] if body is None else [header, body]
        self._socket.sendall(b"".join(msgpack.packb(p, use_bin_type=False) for p in parts))
        answer = self.read()
        if answer[b"Error"]:
            raise ConnectionError(answer[b"Error"])

    def members(self) -> int:
        """Give how many members are alive."""
        self.call(b"members")
        return sum(member[b"Status"] == b"alive" for member in self.read()[b"Members"])

    def follow(self) -> Iterator[bytes]:
        """Give the payload of each user event from now on; the first is empty, when it is sure to come."""
        self.call(b"stream", {b"Type": b"user"})
        self._socket.settimeout(None)
        yield b""
        while True:
            self.read()
            yield self.read()[b"Payload"]


@contextmanager
def running(count: int, _place: networks.Host | None = None) -> Iterator[list[int]]:
    """Run agents that know each other; give their RPC ports."""
    binds, ports = ([free_port() for _ in range(count)] for _ in range(2))
    with ExitStack() as stack:
        for i, (bind, port) in enumerate(zip(binds, ports, strict=True)):
            command = ["serf", "agent", f"-node=bench-{i}", f"-bind=127.0.0.1:{bind}"]
            command += [f"-rpc-addr=127.0.0.1:{port}", "-profile=lan", "-log-level=err"]
            command += [f"-retry-join=127.0.0.1:{binds[0]}", "-retry-interval=1s"] if i else []
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            stack.enter_context(server(command, **quiet))
        wait_until(lambda: all(_sees(port, count) for port in ports), 60, 0.2)
        yield ports


def _sees(port: int, count: int) -> bool:
    try:
        return Connection(port).members() == count
    except OSError:
        return False


def listen(
    ports: list[int], number: int, note: Callable[[bytes], None], ready: Callable[[], None]
) -> None:
    """The body of one follower."""
    events = Connection(ports[number]).follow()
    next(events)
    ready()
    for payload in events:
        note(payload)


class Sender:
    """Sends events from the first agent; nothing is coalesced."""

    def __init__(self, ports: list[int]) -> None:
        self._connection = Connection(ports[0])

    def send(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            body = {b"Name": b"inv", b"Payload": key, b"Coalesce": False}
            self._connection.call(b"event", body)

    def drain(self) -> None:
        """Each send has waited for its answers."""
