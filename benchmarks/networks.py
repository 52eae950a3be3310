"""Network namespaces for measuring: one with loopback alone, or hosts with links that lose and delay packets.

Every namespace lives as long as a process of ours that does nothing and ends with us, so nothing is left
behind, however the benchmark ends. The hosts have no other way out than a TUN device, whose other end is
held by a relay in userspace (there is no netem here): packets wait there for the delay of the link, one in
so many is dropped (drawn by a seeded generator, each way and hop), and links can be cut. Needs root.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from processes import Worker, server, wait_until

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x0001 | 0x1000
PACKET_MAX = 65_536
NETWORK = "198.18.0"
"""Reserved for measuring networks (RFC 2544); nothing beyond the namespaces is reachable from them."""
AT_ONCE = 64
"""Packets read from one device before the others have their turn."""


def missing() -> str:
    """Tell what is missing for namespaces; empty when nothing is."""
    if os.geteuid() != 0:
        return "needs root"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    try:
        subprocess.run(["unshare", "--net", "true"], check=True, capture_output=True)
        subprocess.run(["ip", "-V"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return "needs unshare, nsenter and ip, and the right to make network namespaces"
    return ""


def enter(space: str) -> None:
    """Move the calling thread, and those it will start, into a namespace; "" stays."""
    if not space:
        return
    descriptor = os.open(space, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)


def inside(space: str) -> list[str]:
    """Give what goes before a command that shall run in a namespace; it keeps its process id."""
    return ["nsenter", f"--net={space}"] if space else []


@contextmanager
def namespace() -> Iterator[str]:
    """Make a namespace in which there is loopback alone; give its path."""
    ours = Path("/proc/self/ns/net").readlink()
    with server(["unshare", "--net", "cat"], stdin=subprocess.PIPE) as holder:
        space = f"/proc/{holder.pid}/ns/net"
        wait_until(lambda: holder.poll() is not None or Path(space).readlink() != ours, 10)
        if holder.poll() is not None:
            raise SystemExit("no network namespace can be made here")
        subprocess.run([*inside(space), "ip", "link", "set", "lo", "up"], check=True)
        yield space


@contextmanager
def counted() -> Iterator[str]:
    """Make a namespace for what is sent to be counted; empty, and said, where there can be none."""
    if reason := missing():
        print(f"left out: bytes on the wire ({reason})")
        yield ""
    else:
        with namespace() as space:
            yield space


def loopback(space: str) -> tuple[int, int]:
    """Give how many bytes, IP headers included, and packets went over loopback in a namespace."""
    pid = space.split("/")[2]
    return sent(Path(f"/proc/{pid}/net/dev").read_text(), "lo")


def sent(table: str, device: str) -> tuple[int, int]:
    """Give the bytes and packets that a device has sent, from the text of a /proc/net/dev."""
    for line in table.splitlines():
        name, colon, counts = line.partition(":")
        if colon and name.strip() == device:
            sent_bytes, packets = counts.split()[8:10]
            return int(sent_bytes), int(packets)
    raise LookupError(device)


@dataclass(frozen=True)
class Host:
    """A namespace with an address of its own."""

    space: str
    address: str


class Link:
    """What happens to packets on the way; pure, so that it can be tested."""

    def __init__(self, loss: float, delay: float, seed: int) -> None:
        self._loss = loss
        self._delay = delay
        self._random = Random(seed)
        self._waiting: deque[tuple[float, int, bytes]] = deque()
        self.cuts: set[tuple[int, int]] = set()
        """Pairs of hosts, from and to, between which everything is dropped."""
        self.dropped = 0
        self.passed = 0

    def take(self, packet: bytes, now: float) -> None:
        """Take an IPv4 packet from a host; others, as of IPv6, are noise and dropped."""
        if len(packet) < 20 or packet[0] >> 4 != 4:
            return
        source, target = packet[15], packet[19]
        lost = self._loss and self._random.random() < self._loss
        if lost or (source, target) in self.cuts:
            self.dropped += 1
            return
        self.passed += 1
        self._waiting.append((now + self._delay, target, packet))

    def due(self, now: float) -> Iterator[tuple[int, bytes]]:
        """Give the packets that arrive now, each with the number of its host."""
        while self._waiting and self._waiting[0][0] <= now:
            _, target, packet = self._waiting.popleft()
            yield target, packet

    def wait(self, now: float) -> float | None:
        """Give the seconds until the next packet arrives; None when none is on the way."""
        return max(0.0, self._waiting[0][0] - now) if self._waiting else None


def relay(pipe: Connection, spaces: list[str], loss: float, delay: float, seed: int) -> None:
    """The body of the relay's process: forwards until the other end of `pipe` is gone."""
    devices = {n: _open_device(space, n) for n, space in enumerate(spaces, 1)}
    link = Link(loss, delay, seed)
    pipe.send("ready")
    waited_for: list[Any] = [pipe, *devices.values()]
    with suppress(EOFError):
        while True:
            readable, _, _ = select.select(waited_for, [], [], link.wait(time.monotonic()))
            if pipe in readable:
                readable.remove(pipe)
                link.cuts = set(pipe.recv())
                pipe.send((link.passed, link.dropped))
            for device in readable:
                for _ in range(AT_ONCE):
                    try:
                        link.take(os.read(device, PACKET_MAX), time.monotonic())
                    except BlockingIOError:
                        break
            for target, packet in link.due(time.monotonic()):
                with suppress(OSError, KeyError):
                    os.write(devices[target], packet)


def _open_device(space: str, number: int) -> int:
    enter(space)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", b"tun0", IFF_TUN_NO_PI))
    for words in (
        f"addr add {NETWORK}.{number}/24 dev tun0",
        "link set tun0 up txqueuelen 10000",
    ):
        subprocess.run(["ip", *words.split()], check=True)
    return device


class Network:
    """Hosts that reach each other through a relay."""

    def __init__(self, spaces: list[str], worker: Worker) -> None:
        self.hosts = [Host(space, f"{NETWORK}.{n}") for n, space in enumerate(spaces, 1)]
        self._worker = worker

    def cut(self, *pairs: tuple[int, int]) -> tuple[int, int]:
        """Drop all packets between these pairs of hosts (from, to; counted from 1), and no others.

        Gives how many packets passed and were dropped until now.
        """
        self._worker.send(pairs)
        passed, dropped = self._worker.receive(30)
        return passed, dropped


@contextmanager
def network(count: int, loss: float = 0.0, delay: float = 0.0, seed: int = 1) -> Iterator[Network]:
    """Make hosts; `loss` is a share of 1, `delay` seconds one way."""
    with ExitStack() as stack:
        spaces = [stack.enter_context(namespace()) for _ in range(count)]
        worker = stack.enter_context(Worker(relay, spaces, loss, delay, seed))
        worker.receive(30)
        yield Network(spaces, worker)
