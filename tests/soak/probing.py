"""Probes of receipts: no receipt may count a host whose Redis still has the key.

A probe stores keys of its own in every Redis, invalidates them everywhere, and looks into each Redis that
the answer counts. Two things are evidence: a key that is still there, unless the data of that Redis were
replaced between call and look; and a Redis that answered nobody from before the call until after the
answer, for nothing can have been applied there.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import grpc
import redis
from integration.agents import seconds
from integration.load import LANES, RECONNECT
from soak.hosts import Host, Mark

from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import cache_service_pb2_grpc as cache_grpc

KEYS = 3
KEPT_SECONDS = 600
RECEIPT_TIMEOUTS = (0.3, 2.0)
CALL_TIMEOUT = 4.0
PAUSE = 0.1
"""Seconds between two probes of one thread."""
ASKED_AGAIN = 0.3
"""The share of receipts after which another agent is asked who has applied the rows."""


class Planted(NamedTuple):
    """What is known of a host before a call."""

    host: Host
    has_keys: bool
    before: Mark


class Findings:
    """What the probes have seen; used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.receipts = 0
        self.counted = 0
        """Hosts that receipts counted."""
        self.looked = 0
        """Those of them of which it could be told whether that was right."""
        self.wrong: list[str] = []

    def note(self, counted: int, looked: int, wrong: Iterable[str]) -> None:
        with self._lock:
            self.receipts += 1
            self.counted += counted
            self.looked += looked
            self.wrong += wrong


def look(planted: Planted, keys: Sequence[bytes], answered: Mark) -> bool | None:
    """Tell whether a host was counted rightly; None when that cannot be told.

    `answered`: how it was just after the answer that counted it.
    """
    host, has_keys, before = planted
    if before.away_since is not None and before.away_since == answered.away_since:
        return False
    if not has_keys or before.data % 2:
        return None
    try:
        left = host.cache.exists(*keys)
    except redis.RedisError:
        return None
    return not left if host.mark().data == before.data else None


class Prober(threading.Thread):
    """Probes one host after the other, chosen at random."""

    def __init__(
        self,
        number: int,
        hosts: Sequence[Host],
        findings: Findings,
        source: random.Random,
        runs: threading.Event,
        is_over: threading.Event,
    ) -> None:
        super().__init__(name=f"prober {number}", daemon=True)
        self._number = number
        self._hosts = {host.name: host for host in hosts}
        self._findings = findings
        self._random = source
        self._runs = runs
        self._is_over = is_over
        self._count = 0
        self.idle = threading.Event()
        """Set while no probe is under way."""

    def run(self) -> None:
        channels = {
            name: grpc.insecure_channel(f"unix:{host.agent.socket}", RECONNECT)
            for name, host in self._hosts.items()
        }
        stubs = {name: cache_grpc.CacheServiceStub(each) for name, each in channels.items()}
        try:
            while not self._is_over.wait(PAUSE):
                up = [name for name, host in self._hosts.items() if host.is_up.is_set()]
                self.idle.clear()
                if self._runs.is_set() and up:
                    self._probe(stubs, up)
                self.idle.set()
        finally:
            for channel in channels.values():
                channel.close()

    def _probe(self, stubs: dict[str, cache_grpc.CacheServiceStub], up: list[str]) -> None:
        self._count += 1
        keys = [b"probe/%d/%d/%d" % (self._number, self._count, n) for n in range(KEYS)]
        names = [b"shop:" + key for key in keys]
        planted = [self._plant(host, names) for host in self._hosts.values()]
        at = self._random.choice(up)
        request = cache.InvalidateRequest(
            namespace="shop",
            keys=keys,
            lane=self._random.choice(LANES),
            wait=cache.WAIT_REGION,
            timeout=seconds(self._random.choice(RECEIPT_TIMEOUTS)),
        )
        try:
            receipt = stubs[at].Invalidate(request, timeout=CALL_TIMEOUT).receipt
            self._check(f"the receipt of {at}", receipt, planted, names)
            if self._random.random() < ASKED_AGAIN:
                other = self._random.choice(up)
                question = cache.GetReceiptRequest(dots=receipt.dots, timeout=seconds(1.0))
                later = stubs[other].GetReceipt(question, timeout=CALL_TIMEOUT).receipt
                self._check(f"the later receipt of {other}", later, planted, names)
        except grpc.RpcError:
            return

    @staticmethod
    def _plant(host: Host, names: list[bytes]) -> Planted:
        try:
            with host.cache.pipeline(transaction=False) as at_once:
                for name in names:
                    at_once.set(name, b"probe", ex=KEPT_SECONDS)
                has_keys = all(at_once.execute())
        except redis.RedisError:  # it may have them later: nothing is said of it then
            has_keys = False
        return Planted(host, has_keys, host.mark())

    def _check(
        self, whose: str, receipt: cache.Receipt, planted: list[Planted], names: list[bytes]
    ) -> None:
        marks = {each.host.name: each.host.mark() for each in planted}
        counted = [each for each in planted if each.host.name in receipt.applied]
        seen = [(each, look(each, names, marks[each.host.name])) for each in counted]
        self._findings.note(
            len(counted),
            sum(right is not None for _, right in seen),
            [
                f"{whose} counted {each.host.name}, whose Redis "
                + ("answered nobody" if each.before.away_since else f"still had {names[0]!r}")
                for each, right in seen
                if right is False
            ],
        )
