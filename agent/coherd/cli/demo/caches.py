"""The caches of `coherd demo`: a dict in this process, or a redis-server, each beside one agent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

import trio

from coherd.cli.demo.agents import NAMESPACE, WATCH
from coherd.cli.demo.processes import (
    LOOPBACK,
    POLL_INTERVAL,
    START_TIMEOUT,
    Child,
    DemoFailed,
    let_a_death_explain,
)
from coherd.errors import HandlerFailed, RpcFailed
from coherd.handlers.redis_connection import RedisConnection
from coherd.v1 import cache_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from coherd.cli.demo.agents import DemoAgent

RETRY_PAUSE = 0.05
"""Seconds before a watch that broke is opened again."""


class Drops:
    """When a cache lost which of its copies, by `time.perf_counter`."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self.on_drop: Callable[[Sequence[str]], None] = lambda _keys: None
        """Called with the keys of copies that were just dropped."""
        self._changed = trio.lowlevel.ParkingLot()

    def note(self, keys: Sequence[str]) -> None:
        """Note that copies were dropped just now."""
        self.at.update(dict.fromkeys(keys, time.perf_counter()))
        self._changed.unpark_all()
        self.on_drop(keys)

    async def wait(self, keys: Collection[str]) -> None:
        """Wait until all these copies were dropped."""
        while not self.at.keys() >= set(keys):
            await self._changed.park()


class Cache(Protocol):
    """What the demo needs of a cache."""

    drops: Drops
    resets: int
    """How often it lost everything because its cursor was too old."""
    children: Sequence[Child]

    @property
    def copies(self) -> set[str]:
        """What was put in and, as far as known here, was not dropped since; for show."""

    @property
    def handlers(self) -> str:
        """What its agent's file says about it."""

    async def start(self, nursery: trio.Nursery) -> None:
        """Start what it needs before its agent starts."""

    async def follow(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Be kept coherent for ever; started once copies may be put in."""

    async def fill(self, entries: Mapping[str, Collection[str]]) -> None:
        """Put in copies: keys with their tags."""

    async def held(self) -> set[str]:
        """Look which keys there are copies of in truth."""


class MemoryCache:
    """An application's cache in its own memory: a dict, kept coherent by an acknowledging watch.

    Its process outlives the agent's; when that is back, the watch goes on from its cursor.
    """

    handlers = ""
    children: Sequence[Child] = ()

    def __init__(self, agent: DemoAgent) -> None:
        self.drops = Drops()
        self.resets = 0
        self._agent = agent
        self._entries: dict[str, frozenset[str]] = {}
        self._cursor = ""

    @property
    def copies(self) -> set[str]:
        """What it holds."""
        return set(self._entries)

    async def start(self, nursery: trio.Nursery) -> None:
        """Nothing: it is there."""

    async def follow(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Watch, and whenever that breaks go on from the cursor."""
        is_new = True
        while True:
            channel = await self._agent.channel()
            try:
                async with channel.stream(WATCH) as stream:
                    opening = pb.WatchOpen(
                        namespaces=[NAMESPACE],
                        cursor=self._cursor,
                        acknowledges=True,
                        name="demo cache",
                    )
                    await stream.send(pb.WatchRequest(open=opening))
                    while responses := await stream.receive():
                        for response in responses:
                            self._apply(response.changes)
                            self._cursor = response.cursor
                        await stream.send(pb.WatchRequest(acknowledged=self._cursor))
                        if is_new:  # the first bookmark: from here on nothing is missed
                            is_new = False
                            task_status.started()
            except RpcFailed:
                await trio.sleep(RETRY_PAUSE)

    async def fill(self, entries: Mapping[str, Collection[str]]) -> None:
        """Put in copies: keys with their tags."""
        self._entries.update((key, frozenset(tags)) for key, tags in entries.items())
        await trio.lowlevel.checkpoint()

    async def held(self) -> set[str]:
        """Look which keys there are copies of."""
        await trio.lowlevel.checkpoint()
        return set(self._entries)

    def _apply(self, changes: Iterable[pb.Change]) -> None:
        entries = self._entries
        for change in changes:
            keys = {key.decode() for key in change.keys} & entries.keys()
            if change.everything:
                keys.update(entries)
                self.resets += change.cause == "cursor"
            if change.tags:
                tags = {tag.decode() for tag in change.tags}
                keys.update(key for key, own in entries.items() if not tags.isdisjoint(own))
            if change.prefixes:
                prefixes = tuple(prefix.decode() for prefix in change.prefixes)
                keys.update(key for key in entries if key.startswith(prefixes))
            for key in keys:
                del entries[key]
            if keys:
                self.drops.note(sorted(keys))


class RedisCache:
    """A redis-server of its own. That tells by keyspace events when a copy is gone."""

    resets = 0

    def __init__(self, server: str, name: str, folder: Path, port: int) -> None:
        self.drops = Drops()
        self.copies: set[str] = set()
        self._port = port
        settings = {
            "port": str(port),
            "bind": LOOPBACK,
            "dir": str(folder),
            "save": "",
            "appendonly": "no",
            "notify-keyspace-events": "Egx",
        }
        command = [server, *(word for k, v in settings.items() for word in (f"--{k}", v))]
        self._child = Child(f"the Redis of {name}", command, folder / f"{name}.redis.log")
        self.children: Sequence[Child] = (self._child,)
        self._connection = RedisConnection(f"redis://{LOOPBACK}:{port}/0")

    @property
    def handlers(self) -> str:
        """What its agent's file says about it."""
        return (
            f'\n[[handlers]]\nkind = "redis"\nurl = "redis://{LOOPBACK}:{self._port}/0"\n'
            f'namespaces = ["{NAMESPACE}"]\nkey = "{NAMESPACE}:{{key}}"\n'
            f'tag = "tag:{NAMESPACE}:{{tag}}"\n'
        )

    async def start(self, nursery: trio.Nursery) -> None:
        """Start the server, and wait until it answers. Raises DemoFailed."""
        await self._child.start(nursery)
        with trio.move_on_after(START_TIMEOUT):
            while True:
                try:
                    await self._connection.open()
                except HandlerFailed:
                    await trio.sleep(POLL_INTERVAL)
                else:
                    return
        raise DemoFailed(f"redis-server did not answer within {START_TIMEOUT:.0f} s: try again")

    async def follow(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Follow the server's own account of what is deleted; the agent alone keeps it coherent."""
        stream = await trio.open_tcp_stream(LOOPBACK, self._port)
        async with stream:
            await stream.send_all(b"SUBSCRIBE __keyevent@0__:del\r\n")
            replies = _Replies(stream)
            await replies.next()
            task_status.started()
            head = f"{NAMESPACE}:"
            while True:
                _, _, name = await replies.next()
                key = name.decode()
                if key.startswith(head):
                    self.copies.discard(key.removeprefix(head))
                    self.drops.note([key.removeprefix(head)])

    async def fill(self, entries: Mapping[str, Collection[str]]) -> None:
        """Put in copies: keys with their tags, in one step."""
        commands: list[tuple[bytes, ...]] = [(b"MULTI",)]
        for key, tags in entries.items():
            name = f"{NAMESPACE}:{key}".encode()
            commands.append((b"SET", name, b"copy of " + key.encode()))
            commands += [(b"SADD", f"tag:{NAMESPACE}:{tag}".encode(), name) for tag in tags]
        await self._connection.call([*commands, (b"EXEC",)])
        self.copies.update(entries)

    async def held(self) -> set[str]:
        """Look which keys there are copies of."""
        head = f"{NAMESPACE}:".encode()
        found: set[str] = set()
        cursor = b"0"
        while True:
            command = (b"SCAN", cursor, b"MATCH", head + b"*", b"COUNT", b"1000")
            ((cursor, names),) = await self._connection.call([command])
            found.update(name.removeprefix(head).decode() for name in names)
            if int(cursor) == 0:
                return found


class _Replies:
    """What a Redis sends to a subscriber: arrays of strings."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def next(self) -> list[bytes]:
        """Give the next array. Raises DemoFailed."""
        count = int((await self._line())[1:])
        return [await self._string() for _ in range(count)]

    async def _string(self) -> bytes:
        kind = await self._line()
        if not kind.startswith(b"$"):
            return kind[1:]  # a number
        size = int(kind[1:]) + 2
        while len(self._buffer) < size:
            await self._more()
        return self._take(size)

    async def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            await self._more()
        return self._take(end + 2)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[: size - 2])
        del self._buffer[:size]
        return taken

    async def _more(self) -> None:
        data = await self._stream.receive_some()
        if not data:
            await let_a_death_explain()
            raise DemoFailed("redis-server closed the connection: try again")
        self._buffer += data
