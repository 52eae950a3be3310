"""The faults of a soak: each takes a part of some hosts for itself, breaks it for a while, and mends it."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import combinations
from typing import NamedTuple

import grpc
from soak.hosts import Host
from soak.truth import Truth

from coherd.v1 import types_pb2 as types

PAUSE_MAX = 20.0
DOWN_MAX = 10.0
CUT_MAX = 25.0
CACHE_AWAY_MAX = 15.0
"""Seconds that a fault lasts at most."""
BETWEEN_MAX = 3.0
"""Seconds between two faults of one thread, at most."""
SAFE_WITHIN = 3.0
"""Seconds that an agent is given to bring its rows to others before its disk is lost."""
LOOKS_AT_DISK = 100
SNAPSHOTS = 0.3
"""The share of faults before which a Redis is saved, to be restored from that dump later."""


class Kind(NamedTuple):
    """A kind of fault."""

    weight: int
    break_: Callable[[Faults], bool]
    """Breaks something and mends it; False when nothing of that kind can be broken at the moment."""


class Faults:
    """Breaks things at random until it is told to stop; one thread of several, which overlap."""

    def __init__(
        self,
        hosts: Sequence[Host],
        links: dict[frozenset[str], threading.Lock],
        truth: Truth,
        source: random.Random,
        is_over: threading.Event,
        disk: threading.Lock,
        counts: Counter[str],
        only: Sequence[str] = (),
    ) -> None:
        """`disk`: held by the one agent that may lose its disk before the next heal. `only`: kinds."""
        self._hosts = hosts
        self._links = links
        self._truth = truth
        self._random = source
        self._is_over = is_over
        self._disk = disk
        self._counts = counts
        self._only = only

    def run(self) -> None:
        """Break one thing after the other; when it is over, nothing is broken."""
        names = list(self._only or KINDS)
        weights = [KINDS[name].weight for name in names]
        while not self._is_over.wait(self._random.uniform(0, BETWEEN_MAX)):
            if self._random.random() < SNAPSHOTS:
                with self._part("redis_part") as host:
                    if host is not None:
                        host.snapshot()
            name = self._random.choices(names, weights)[0]
            if KINDS[name].break_(self):
                self._counts[name] += 1

    # ------------------------------------------------------------------ parts

    @contextmanager
    def _part(self, part: str) -> Iterator[Host | None]:
        """Take a part of a random host; None when all are taken."""
        for host in self._random.sample(self._hosts, len(self._hosts)):
            lock: threading.Lock = getattr(host, part)
            if lock.acquire(blocking=False):
                try:
                    yield host
                finally:
                    lock.release()
                return
        yield None

    @contextmanager
    def _some_links(self, most: int) -> Iterator[list[tuple[Host, Host]]]:
        """Take up to `most` links of one host."""
        one = self._random.choice(self._hosts)
        others = self._random.sample(self._hosts, len(self._hosts))
        with ExitStack() as stack:
            taken: list[tuple[Host, Host]] = []
            for other in others:
                lock = self._links.get(frozenset((one.name, other.name)))
                if lock is not None and len(taken) < most and lock.acquire(blocking=False):
                    stack.callback(lock.release)
                    taken.append((one, other))
            yield taken

    def _hold(self, least: float, most: float) -> None:
        """Let it be broken for a while, or until the soak heals."""
        self._is_over.wait(self._random.uniform(least, most))

    # ------------------------------------------------------------------ agents

    def kill(self) -> bool:
        """SIGKILL; sometimes a copy of the data directory is kept, to be restored later."""
        with self._part("agent_part") as host:
            if host is None:
                return False
            host.end_agent(host.agent.kill)
            if self._random.random() < 0.5:
                host.copy_data()
            self._hold(0, DOWN_MAX)
            host.start_agent()
            return True

    def stop(self) -> bool:
        """SIGTERM, as at a rolling restart."""
        with self._part("agent_part") as host:
            if host is None:
                return False
            host.end_agent(host.agent.stop)
            self._hold(0, DOWN_MAX / 2)
            host.start_agent()
            return True

    def pause(self) -> bool:
        """SIGSTOP and SIGCONT."""
        with self._part("agent_part") as host:
            if host is None:
                return False
            host.agent.signal(signal.SIGSTOP)
            self._hold(0.2, PAUSE_MAX)
            host.agent.signal(signal.SIGCONT)
            return True

    def wipe(self) -> bool:
        """SIGKILL, and a start without the data directory."""
        return self._lose_disk(Host.delete_data)

    def rewind(self) -> bool:
        """SIGKILL, and a start with an older copy of the data directory."""
        return self._lose_disk(Host.restore_data)

    def _lose_disk(self, lose: Callable[[Host], None]) -> bool:
        with ExitStack() as stack:
            host = stack.enter_context(self._part("agent_part"))
            if host is None or (lose is Host.restore_data and not host.has_copied_data):
                return False
            if not self._disk.acquire(blocking=False):  # free again after the next heal
                return False
            host.is_up.clear()
            with host.calls:
                if self._others_have_all(host):
                    self._truth.settle(host.name)
                else:
                    self._truth.doubt(host.name)
                host.end_agent(host.agent.kill)
            lose(host)
            self._hold(0, DOWN_MAX)
            host.start_agent()
            return True

    def _others_have_all(self, host: Host) -> bool:
        """Tell whether the disk of another agent has every row that this one has accepted lately."""
        dots = [
            types.Dots(
                namespace="shop",
                origin=types.Origin(name=host.name, epoch=epoch),
                lane=lane,
                first=1,
                last=last,
            )
            for (epoch, lane), last in self._truth.streams(host.name).items()
        ]
        if not dots:
            return True
        others = {other.name: other for other in self._hosts if other is not host}
        lives = {name: life_of(other) for name, other in others.items()}
        try:
            receipt = host.agent.receipt(dots, SAFE_WITHIN)
        except grpc.RpcError:
            return False
        return any(
            is_stored(others[name], lives[name]) for name in receipt.applied if name in others
        )

    # ------------------------------------------------------------------ links

    def cut(self) -> bool:
        """Swallow both ways what one agent and some others say to each other."""
        return self._swallow(there=True, back=True)

    def cut_one_way(self) -> bool:
        """Swallow what one agent says to some others, and let it hear them."""
        return self._swallow(there=True, back=False)

    def _swallow(self, *, there: bool, back: bool) -> bool:
        with self._some_links(self._random.randint(1, len(self._hosts) - 1)) as links:
            for one, other in links:
                other.agent.proxy.cut([one.name], inward=there, outward=back)
                one.agent.proxy.cut([other.name], inward=back, outward=there)
            self._hold(0.2, CUT_MAX)
            for one, other in links:
                other.agent.proxy.heal([one.name])
                one.agent.proxy.heal([other.name])
            return bool(links)

    def reset_links(self) -> bool:
        """Break the connections between one agent and some others; they may open others at once."""
        with self._some_links(self._random.randint(1, len(self._hosts) - 1)) as links:
            for one, other in links:
                other.agent.proxy.reset([one.name])
                one.agent.proxy.reset([other.name])
            return bool(links)

    # ------------------------------------------------------------------ caches

    def freeze_redis(self) -> bool:
        """SIGSTOP and SIGCONT."""
        with self._part("redis_part") as host:
            if host is None:
                return False
            with host.redis_frozen():
                self._hold(0.2, CACHE_AWAY_MAX)
            return True

    def empty_redis(self) -> bool:
        """SIGKILL, and a start without data."""
        with self._part("redis_part") as host:
            if host is None:
                return False
            with host.redis_down():
                self._hold(0, CACHE_AWAY_MAX / 2)
            return True

    def restore_redis(self) -> bool:
        """SIGKILL, and a start with what it held some time ago."""
        with self._part("redis_part") as host:
            if host is None or not host.snapshots:
                return False
            with host.redis_down():
                self._hold(0, CACHE_AWAY_MAX / 2)
                host.place(self._random.choice(host.snapshots))
            return True

    def reload_redis(self) -> bool:
        """Replace what it holds by an older copy under its connections, as a failover behind a proxy."""
        with self._part("redis_part") as host:
            if host is None or not host.snapshots:
                return False
            with host.replacing_data(), host.client(timeout=10.0) as client:
                host.place(self._random.choice(host.snapshots))
                client.execute_command("DEBUG", "RELOAD", "NOSAVE")
            return True

    def flush_redis(self) -> bool:
        """FLUSHALL."""
        with self._part("redis_part") as host:
            if host is None:
                return False
            with host.replacing_data(), host.client(timeout=10.0) as client:
                client.flushall()
            return True


KINDS = {
    "kill": Kind(4, Faults.kill),
    "stop": Kind(1, Faults.stop),
    "pause": Kind(4, Faults.pause),
    "wipe": Kind(2, Faults.wipe),
    "rewind": Kind(2, Faults.rewind),
    "cut": Kind(4, Faults.cut),
    "cut-one-way": Kind(3, Faults.cut_one_way),
    "reset-links": Kind(3, Faults.reset_links),
    "freeze-redis": Kind(3, Faults.freeze_redis),
    "empty-redis": Kind(1, Faults.empty_redis),
    "restore-redis": Kind(3, Faults.restore_redis),
    "reload-redis": Kind(2, Faults.reload_redis),
    "flush-redis": Kind(1, Faults.flush_redis),
}


def links_of(hosts: Sequence[Host]) -> dict[frozenset[str], threading.Lock]:
    """Give a lock for every pair of hosts."""
    return {frozenset((a.name, b.name)): threading.Lock() for a, b in combinations(hosts, 2)}


def life_of(host: Host) -> int:
    """Give the epoch of an agent; 0 when it does not answer."""
    try:
        return int(host.agent.status(timeout=1.0).me.epoch) if host.is_up.is_set() else 0
    except grpc.RpcError:
        return 0


def is_stored(host: Host, life: int) -> bool:
    """Tell whether the disk of an agent, still in this life, has all that the agent has."""
    try:
        for _ in range(LOOKS_AT_DISK):
            status = host.agent.status(timeout=1.0)
            if status.me.epoch == life and not status.journal.queued_bytes:
                return True
    except grpc.RpcError:
        pass
    return False
