"""Clients that invalidate as fast as they are answered, over restarts of their agent, and keep account."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import grpc
import redis
from integration.agents import AgentProcess
from integration.watching import Dot, dots_of

from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import cache_service_pb2_grpc as cache_grpc
from coherd.v1 import types_pb2 as types

LANES = (types.LANE_URGENT, types.LANE_NORMAL, types.LANE_BULK)
RECONNECT = [
    (f"grpc.{which}_reconnect_backoff_ms", milliseconds)
    for which, milliseconds in (("initial", 20), ("min", 20), ("max", 50))
]
"""A client that waits for its agent's next life must not sleep through all of it."""
ROWS_MAX = 20
CALL_TIMEOUT = 5.0


class Account:
    """What was answered, and what was left open by an agent that died."""

    def __init__(self) -> None:
        self.answered: dict[Dot, bytes] = {}
        self.twice: list[Dot] = []
        self.unanswered: list[bytes] = []
        self.stale: list[bytes] = []
        """Keys that were still in the cache although the answer said they were applied here."""
        self.refusals: set[str] = set()
        self.on_answer: Callable[[], None] = lambda: None
        """Called with every answer, at once."""
        self._lock = threading.Lock()

    def accepted(self, receipt: cache.Receipt, keys: list[bytes]) -> None:
        self.on_answer()
        dots = dots_of(receipt.dots)
        assert len(dots) == len(keys)
        with self._lock:
            for dot, key in zip(dots, keys, strict=True):
                if dot in self.answered:
                    self.twice.append(dot)
                self.answered[dot] = key


class Client(threading.Thread):
    """Puts keys into the cache, invalidates them, and sees to it that they are gone if told so."""

    def __init__(
        self,
        agent: AgentProcess,
        server_port: int,
        number: int,
        seed: int,
        account: Account,
        is_over: Callable[[], bool],
    ) -> None:
        super().__init__(daemon=True)
        self._target = f"unix:{agent.socket}"
        self._port = server_port
        self._number = number
        self._random = random.Random(seed)
        self._account = account
        self._is_over = is_over
        self._count = 0

    def run(self) -> None:
        with (
            grpc.insecure_channel(self._target, RECONNECT) as channel,
            redis.Redis(port=self._port) as client,
        ):
            stub = cache_grpc.CacheServiceStub(channel)
            while not self._is_over():
                self._invalidate(stub, client)

    def _invalidate(self, stub: cache_grpc.CacheServiceStub, client: redis.Redis) -> None:
        keys = self._keys()
        client.mset({b"shop:" + key: b"value" for key in keys})
        wait = self._random.choice((cache.WAIT_ACCEPTED, cache.WAIT_ACCEPTED, cache.WAIT_LOCAL))
        request = cache.InvalidateRequest(
            namespace="shop", keys=keys, lane=self._random.choice(LANES), wait=wait
        )
        try:
            receipt = stub.Invalidate(request, timeout=CALL_TIMEOUT, wait_for_ready=True).receipt
        except grpc.RpcError as error:
            self._account.refusals.add(f"{error.code().name}: {error.details()}")
            self._account.unanswered += keys
            return
        self._account.accepted(receipt, keys)
        if wait == cache.WAIT_LOCAL and receipt.complete:
            held = client.mget([b"shop:" + key for key in keys])
            self._account.stale += [k for k, value in zip(keys, held, strict=True) if value]

    def _keys(self) -> list[bytes]:
        rows = self._random.choice((1, 1, self._random.randint(2, ROWS_MAX)))
        first = self._count
        self._count += rows
        return [b"%d-%d" % (self._number, n) for n in range(first, first + rows)]
