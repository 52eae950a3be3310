"""Caches to test handlers on: the twin in memory and a real Redis, as an application sees them."""

from __future__ import annotations

from collections.abc import Iterable

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from servers import RedisServer

from coherd.handlers import Handler
from coherd.handlers.memory import MemoryHandler
from coherd.handlers.redis import RedisHandler
from coherd.model import Batch, Effect, Kind, Lane, Origin, Position, Selector, Stream

STREAM = Stream("shop", Origin("elsewhere", 1), Lane.NORMAL)


def key(name: bytes) -> Selector:
    return bytes([Kind.KEY]) + name


def tag(name: bytes) -> Selector:
    return bytes([Kind.TAG]) + name


def prefix(name: bytes) -> Selector:
    return bytes([Kind.PREFIX]) + name


def batch(*selectors: Selector, effect: Effect = Effect.DROP) -> Batch:
    return Batch(STREAM, ((1, len(selectors)),) if selectors else (), selectors, effect)


def at(n: int, epoch: int = 1) -> Position:
    return Position("here", epoch, n)


class MemoryCache:
    """The twin is cache and handler in one."""

    def __init__(self, tagged: bool = True) -> None:
        self.only = MemoryHandler("shop", tagged=tagged)

    def handler(self) -> Handler:
        return self.only

    def put(self, name: bytes, tags: Iterable[bytes] = ()) -> None:
        self.only.put(name, b"value", tags)

    def put_many(self, names: Iterable[bytes]) -> None:
        for name in names:
            self.put(name)

    def put_stranger(self, name: bytes) -> None:
        self.only.strangers.add(name)

    def names(self) -> set[bytes]:
        return set(self.only.entries)

    def copy(self) -> object:
        return self.only.snapshot()

    def restore(self, copied: object) -> None:
        self.only.restore(copied)

    def wipe(self) -> None:
        self.restore(MemoryHandler("shop").snapshot())


class RedisCache:
    """What an application stores in Redis, and how."""

    def __init__(
        self, server: RedisServer, tagged: bool = True, template: str = "shop:{key}"
    ) -> None:
        self.server = server
        self.client = redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0))
        self.template = template
        self.tagged = tagged
        self.head, self.tail = template.encode().split(b"{key}")

    def handler(self, **changes: object) -> RedisHandler:
        settings = {
            "url": self.server.url,
            "namespace": "shop",
            "key": self.template,
            "tag": "tag:shop:{tag}" if self.tagged else None,
            "cluster": "test",
            "agent": "here",
        }
        return RedisHandler(**(settings | changes))

    def put(self, name: bytes, tags: Iterable[bytes] = ()) -> None:
        full = self.head + name + self.tail
        with self.client.pipeline() as together:
            together.set(full, b"value")
            for one in tags:
                together.sadd(b"tag:shop:" + one, full)
            together.execute()

    def put_many(self, names: Iterable[bytes]) -> None:
        self.client.mset({self.head + name + self.tail: b"value" for name in names})

    def put_stranger(self, name: bytes) -> None:
        self.client.set(name, b"value")

    def names(self) -> set[bytes]:
        return {
            name[len(self.head) : len(name) - len(self.tail)]
            for name in self.client.scan_iter(count=10_000)
            if name.startswith(self.head)
            and name.endswith(self.tail)
            and not name.startswith((b"coherd:", b"tag:"))
        }

    def copy(self) -> object:
        return {name: self.client.dump(name) for name in self.client.scan_iter(count=10_000)}

    def restore(self, copied: object) -> None:
        self.wipe()
        for name, value in copied.items():
            self.client.restore(name, 0, value)

    def wipe(self) -> None:
        self.client.flushdb()

    def is_loading(self) -> bool:
        try:
            return self.client.ping() is None
        except redis.exceptions.BusyLoadingError:
            return True
