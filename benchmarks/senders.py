"""The processes that publish, the same for coherd and its peers: one key at a time, a burst, or a flow."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, Self

import networks
from processes import FORK, SPAWN, Worker

BATCH = 500
"""Rows of a request, or of a round trip, in a burst."""
TICK = 0.01
"""Seconds between two requests of a flow."""


def keys(round_: int, first: int, count: int) -> list[bytes]:
    """Give the keys of a round, each of 24 bytes."""
    return [b"user:%04d:%07d:profil" % (round_, n) for n in range(first, first + count)]


def prefix(round_: int) -> bytes:
    """Give what all keys of a round begin with."""
    return b"user:%04d:" % round_


def background_keys(first: int, count: int) -> list[bytes]:
    """Give keys that are in no round, of 24 bytes too."""
    return [b"flow:%012d:profil" % n for n in range(first, first + count)]


def send(pipe: Connection, module: str, target: Any, space: str) -> None:
    """The body of a sender's process: does one order after another until the benchmark ends."""
    networks.enter(space)
    sender = import_module(module).Sender(target)
    pipe.send("ready")
    orders: dict[str, Callable[..., None]] = {"paced": _paced, "burst": _burst, "flow": _flow}
    with suppress(EOFError, BrokenPipeError):
        while True:
            name, *arguments = pipe.recv()
            orders[name](pipe, sender, *arguments)


def _paced(pipe: Connection, sender: Any, round_: int, events: int, rate: float) -> None:
    """One key at a time: tells when each call began."""
    called: list[tuple[bytes, int]] = []
    start = time.monotonic()
    for n, key in enumerate(keys(round_, 0, events)):
        time.sleep(max(0.0, start + n / rate - time.monotonic()))
        called.append((key, time.monotonic_ns()))
        sender.send([key])
        sender.drain()
    pipe.send(called)


def _burst(pipe: Connection, sender: Any, round_: int, first: int, rows: int) -> None:
    """As fast as it goes, once told to: tells when it began and when all was answered."""
    batches = [
        keys(round_, at, min(BATCH, first + rows - at)) for at in range(first, first + rows, BATCH)
    ]
    pipe.send("ready")
    pipe.recv()
    started = time.monotonic_ns()
    for batch in batches:
        sender.send(batch)
    sender.drain()
    pipe.send((started, time.monotonic_ns()))


def _flow(pipe: Connection, sender: Any, first: int, rate: float, end: bytes) -> None:
    """Rows at a rate (0: as fast as it goes) until told to stop; then `end`, if there is one.

    A sender that falls behind sends on at once, but never catches up more than a second. Tells how
    many rows it sent, without `end`, and how many a second these were.
    """
    sent, start = 0, time.monotonic()
    batch = max(1, int(rate * TICK)) if rate else BATCH
    due = start
    while not pipe.poll(0):
        sender.send(background_keys(first + sent, batch))
        sent += batch
        if rate:
            due = max(due + batch / rate, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))
    pipe.recv()
    sender.drain()
    took = time.monotonic() - start
    if end:
        sender.send([end])
        sender.drain()
    pipe.send((sent, sent / took))


class Sending:
    """A sender's process, as the benchmark sees it."""

    def __init__(self, module: str, target: Any, space: str = "") -> None:
        context = SPAWN if module == "coherd_sender" else FORK  # gRPC must not be forked
        self._worker = Worker(send, module, target, space, context=context)

    def __enter__(self) -> Self:
        self._worker.__enter__()
        self._worker.receive(90)
        return self

    def __exit__(self, *unused: object) -> None:
        self._worker.__exit__(*unused)

    def paced(self, round_: int, events: int, rate: float) -> list[tuple[bytes, int]]:
        """Send one key at a time; give them, each with the time of its call."""
        self._worker.send(("paced", round_, events, rate))
        called: list[tuple[bytes, int]] = self._worker.receive(30 + 10 * events / rate)
        return called

    def prepare_burst(self, round_: int, first: int, rows: int) -> None:
        """Have the keys made, and everything waiting for `start`."""
        self._worker.send(("burst", round_, first, rows))
        self._worker.receive()

    def start(self) -> None:
        """Begin the burst that was prepared."""
        self._worker.send("go")

    def burst_times(self) -> tuple[int, int]:
        """Give when the burst began and when all of it was answered."""
        began, answered = self._worker.receive()
        return began, answered

    def start_flow(self, first: int, rate: float, end: bytes = b"") -> None:
        """Begin a flow of rows of no round."""
        self._worker.send(("flow", first, rate, end))

    def stop_flow(self) -> tuple[int, float]:
        """End the flow; give how many rows it had, and how many a second."""
        self._worker.send("stop")
        rows, per_s = self._worker.receive()
        return rows, per_s
