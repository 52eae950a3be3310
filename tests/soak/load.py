"""The load of a soak: so many rows a second, spread over the agents that are up, and what became of them."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import grpc
from integration.agents import seconds
from integration.load import LANES, RECONNECT
from soak.filling import key, prefix, tag
from soak.hosts import Host
from soak.truth import Selector, Truth, now

from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import cache_service_pb2_grpc as cache_grpc

ROWS_MAX = 59
CALL_TIMEOUT = 2.0
LOCAL_TIMEOUT = 0.3
AFTER_FAILURE = 0.1
"""Seconds."""
BURST = 2.0
"""Seconds whose rows may be made up for at once after a time in which nobody took any."""


class Pacer:
    """Hands out rows, so many a second, to whoever comes."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._left = 0.0
        self._at = time.monotonic()

    def take(self, rows: int) -> float:
        """Take rows; gives 0, or in how many seconds they will be there."""
        with self._lock:
            at = time.monotonic()
            self._left = min(self._left + (at - self._at) * self._rate, BURST * self._rate)
            self._at = at
            if self._left < rows:
                return (rows - self._left) / self._rate
            self._left -= rows
            return 0.0

    def give_back(self, rows: int) -> None:
        """Give back rows that nobody accepted: others may take them."""
        with self._lock:
            self._left += rows


class Client(threading.Thread):
    """An application of one host that invalidates; one call at a time."""

    def __init__(
        self,
        host: Host,
        keys: int,
        pacer: Pacer,
        truth: Truth,
        source: random.Random,
        runs: threading.Event,
        is_over: threading.Event,
    ) -> None:
        """It calls while `runs` is set, until `is_over` is."""
        super().__init__(name=f"load of {host.name}", daemon=True)
        self._host = host
        self._keys = keys
        self._pacer = pacer
        self._truth = truth
        self._random = source
        self._runs = runs
        self._is_over = is_over

    def run(self) -> None:
        target = f"unix:{self._host.agent.socket}"
        with grpc.insecure_channel(target, RECONNECT) as channel:
            stub = cache_grpc.CacheServiceStub(channel)
            while not self._is_over.is_set():
                if not (self._runs.is_set() and self._host.is_up.is_set()):
                    self._is_over.wait(AFTER_FAILURE)
                    continue
                self._invalidate(stub)

    def _invalidate(self, stub: cache_grpc.CacheServiceStub) -> None:
        request, selectors = self._request()
        while pause := self._pacer.take(len(selectors)):
            if self._is_over.wait(pause):
                return
        # Whoever holds the lock may have stopped the load, or be about to end this agent.
        with self._host.calls:
            is_wanted = self._runs.is_set() and self._host.is_up.is_set()
            if is_wanted and self._call(stub, request, selectors):
                return
        self._pacer.give_back(len(selectors))
        self._is_over.wait(AFTER_FAILURE)

    def _call(
        self,
        stub: cache_grpc.CacheServiceStub,
        request: cache.InvalidateRequest,
        selectors: list[Selector],
    ) -> bool:
        called_at = now()
        try:
            receipt = stub.Invalidate(request, timeout=CALL_TIMEOUT).receipt
        except grpc.RpcError:
            self._truth.fail(len(selectors))
            return False
        last = receipt.dots[-1]
        self._truth.accept(
            self._host.name, called_at, selectors, last.origin.epoch, last.lane, last.last
        )
        return True

    def _request(self) -> tuple[cache.InvalidateRequest, list[Selector]]:
        source = self._random
        fields: dict[str, Any] = {
            "namespace": "shop",
            "lane": source.choice(LANES),
            "wait": cache.WAIT_LOCAL if source.random() < 0.05 else cache.WAIT_ACCEPTED,
            "timeout": seconds(LOCAL_TIMEOUT),
        }
        drawn = source.random()
        n = source.randrange(self._keys)
        if drawn < 0.01:
            fields["prefixes"] = [prefix(n)]
            return cache.InvalidateRequest(**fields), [Selector("prefix", prefix(n))]
        if drawn < 0.03:
            fields["tags"] = [tag(n)]
            return cache.InvalidateRequest(**fields), [Selector("tag", tag(n))]
        numbers = source.sample(range(self._keys), source.randint(1, min(ROWS_MAX, self._keys)))
        fields["keys"] = [key(each) for each in numbers]
        return cache.InvalidateRequest(**fields), [Selector("key", key(n)) for n in numbers]
