"""What is measured, behind one door: coherd, and each peer with its server, receivers and senders.

A round is either paced (one key at a time, perhaps over a background of rows) or a burst. Both give times
of one clock, the machine's monotonic one: all processes run on it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

import networks
from agents import MeasuredAgent
from processes import FORK, Worker, wait_until
from senders import Sending, keys, prefix

PEERS = ("redis", "nats", "jetstream", "serf", "kinship")
LOST_AFTER = 15.0
"""Seconds after the last call when a delivery counts as lost (Serf and kinship may lose some)."""


@dataclass
class Paced:
    """What a paced round gave, in milliseconds to the last receiver."""

    called: list[float]
    accepted: list[float] = field(default_factory=list)
    lost: int = 0
    """Keys that did not reach everybody."""
    background_per_s: float = 0.0


@dataclass
class Burst:
    """What a burst gave."""

    per_s: float
    """Rows a second until applied everywhere."""
    accepted_per_s: float
    cpu_us: list[float] = field(default_factory=list)
    """CPU of each agent, microseconds a row."""


def installed(peers: str, known: Sequence[str] = PEERS) -> list[Any]:
    """Give the peers' modules of a comma-separated list, and say which are left out and why."""
    found = []
    for name in dict.fromkeys(filter(None, peers.split(","))):
        if name not in known:
            print(f"left out: {name} (not measured by this script)")
            continue
        module = import_module(f"{name}_peer")
        if reason := module.missing():
            print(f"left out: {name}: {reason}")
        else:
            found.append(module)
    return found


def name_of(module: Any) -> str:
    """Give a peer's name, as keys of figures begin with it."""
    return str(module.__name__).removesuffix("_peer")


# ------------------------------------------------------------------------------ coherd


class Coherd:
    """Agents, with a sender at the first of them and perhaps another for a background."""

    def __init__(
        self, running: list[MeasuredAgent], sender: Sending, background: Sending | None
    ) -> None:
        self.running = running
        self._sender = sender
        self._background = background
        self._sent = 0

    def paced(self, round_: int, events: int, rate: float, background: float | None) -> Paced:
        """Publish one at a time; `background` is rows a second, 0 as fast as it goes."""
        rows, per_s = 0, 0.0
        if self._background and background is not None:
            self._background.start_flow(self._sent, background)
            time.sleep(0.3)
        called = self._sender.paced(round_, events, rate)
        if self._background and background is not None:
            rows, per_s = self._background.stop_flow()
            self._sent += rows
        total = events + rows
        wait_until(lambda: all(agent.ask("rows") >= total for agent in self.running), 120)
        answers = [agent.ask(prefix(round_)) for agent in self.running]
        last = {key: max(times[key] for times, _ in answers) for key, _ in called}
        accepted = answers[0][1]
        return Paced(
            [(last[key] - at) / 1e6 for key, at in called],
            [(last[key] - accepted[key]) / 1e6 for key, _ in called],
            background_per_s=per_s,
        )

    def burst(self, senders: Sequence[Sending], round_: int, rows: int) -> Burst:
        """Publish so many rows, shared by the senders, as fast as it goes."""
        share = rows // len(senders)
        for n, sender in enumerate(senders):
            sender.prepare_burst(round_, n * share, share)
        before = [agent.ask("cpu") for agent in self.running]
        for sender in senders:
            sender.start()
        times = [sender.burst_times() for sender in senders]
        total = share * len(senders)
        wait_until(lambda: all(agent.ask("rows") >= total for agent in self.running), 120)
        after = [agent.ask("cpu") for agent in self.running]
        ended = max(agent.ask("last") for agent in self.running)
        for agent in self.running:
            agent.ask(b"-")  # forget
        began, accepted = min(t[0] for t in times), max(t[1] for t in times)
        return Burst(
            total / ((ended - began) / 1e9),
            total / ((accepted - began) / 1e9),
            [(b - a) / total * 1e6 for a, b in zip(before, after, strict=True)],
        )


@contextmanager
def coherd(
    running: list[MeasuredAgent], *, lane: str, background_lane: str | None = None, space: str = ""
) -> Iterator[Coherd]:
    """Give what measures these agents; senders are on the first one's host."""
    local = running[0].local
    with ExitStack() as stack:
        sender = stack.enter_context(Sending("coherd_sender", (local, lane), space))
        background = None
        if background_lane is not None:
            flow = Sending("coherd_sender", (local, background_lane), space)
            background = stack.enter_context(flow)
        yield Coherd(running, sender, background)


# ------------------------------------------------------------------------------ peers


class Notes:
    """When the keys of one round came, in a receiver's process."""

    def __init__(self) -> None:
        self._prefix = b"-"
        self._count = 0
        self._times: list[tuple[bytes, int]] = []
        self._all = threading.Event()

    def note(self, key: bytes) -> None:
        """Note that a key came now, if it is one of this round."""
        if key.startswith(self._prefix):
            self._times.append((key, time.monotonic_ns()))
            if len(self._times) >= self._count:
                self._all.set()

    def serve(self, pipe: Connection) -> None:
        """Answer orders: a prefix and a count to be ready for; then, once asked, the times."""
        pipe.send("ready")
        while True:
            beginning, self._count = pipe.recv()
            self._times, self._prefix = [], beginning
            self._all.clear()
            pipe.send("ready")
            timeout = pipe.recv()
            self._all.wait(timeout)
            self._prefix = b"-"
            pipe.send(self._times)


def receive(pipe: Connection, module: str, target: Any, number: int, space: str) -> None:
    """The body of a receiver's process."""
    networks.enter(space)
    notes = Notes()

    def answer() -> None:
        with suppress(EOFError, OSError):
            notes.serve(pipe)
        os._exit(0)  # the benchmark is gone, and `listen` would never notice

    answering = threading.Thread(target=answer, daemon=True)
    import_module(module).listen(target, number, notes.note, answering.start)
    threading.Event().wait()  # one that only says that it is there


class Peer:
    """A peer that runs: its server and receivers, and a sender."""

    def __init__(
        self, module: Any, receivers: list[Worker], sender: Sending, background: Sending | None
    ) -> None:
        self.module = module
        self.name = name_of(module)
        self.label = str(module.LABEL)
        self._receivers = receivers
        self._sender = sender
        self._background = background
        self._sent = 0

    def _order(self, round_: int, count: int) -> None:
        for receiver in self._receivers:
            receiver.send((prefix(round_), count))
        for receiver in self._receivers:
            receiver.receive()

    def _answers(self, timeout: float) -> list[list[tuple[bytes, int]]]:
        for receiver in self._receivers:
            receiver.send(timeout)
        return [receiver.receive(timeout + 60) for receiver in self._receivers]

    def paced(self, round_: int, events: int, rate: float, background: float | None) -> Paced:
        """Publish one at a time; the background's last row is awaited too, so that rounds do not mix."""
        with_background = self._background is not None and background is not None
        end = keys(round_, events, 1)[0]
        self._order(round_, events + with_background)
        per_s = 0.0
        if self._background and background is not None:
            self._background.start_flow(self._sent, background, end)
            time.sleep(0.3)
        called = self._sender.paced(round_, events, rate)
        if self._background and background is not None:
            rows, per_s = self._background.stop_flow()
            self._sent += rows
        timeout = 120.0 if with_background else LOST_AFTER
        answers = [dict(times) for times in self._answers(timeout)]
        whole = [(key, at) for key, at in called if all(key in times for times in answers)]
        return Paced(
            [(max(times[key] for times in answers) - at) / 1e6 for key, at in whole],
            lost=len(called) - len(whole),
            background_per_s=per_s,
        )

    def burst(self, round_: int, rows: int) -> Burst:
        """Publish so many rows as fast as it goes."""
        self._order(round_, rows)
        self._sender.prepare_burst(round_, 0, rows)
        self._sender.start()
        began, accepted = self._sender.burst_times()
        answers = self._answers(120)
        if any(len(times) < rows for times in answers):
            raise SystemExit(f"{self.label} did not deliver {rows} messages within 120 s")
        ended = max(times[-1][1] for times in answers)
        return Burst(rows / ((ended - began) / 1e9), rows / ((accepted - began) / 1e9))


@contextmanager
def peer(
    module: Any, count: int, *, background: bool = False, places: Sequence[networks.Host] = ()
) -> Iterator[Peer]:
    """Run a peer with so many receivers; with hosts its server and senders are on the first of them."""
    name = module.__name__
    first = places[0] if places else None
    space = first.space if first else ""
    with ExitStack() as stack:
        target = stack.enter_context(module.running(count, first))
        receivers = []
        for n in range(count):
            where = places[n].space if places else ""
            worker = Worker(receive, name, target, n, where, context=FORK)
            receivers.append(stack.enter_context(worker))
        for receiver in receivers:
            receiver.receive(90)
        sender = stack.enter_context(Sending(name, target, space))
        flow = stack.enter_context(Sending(name, target, space)) if background else None
        yield Peer(module, receivers[: _receiving(module, count)], sender, flow)


def _receiving(module: Any, count: int) -> int:
    """Give how many processes receive: of kinship's members all but the one that sends."""
    return count - 1 if name_of(module) == "kinship" else count
