"""A watcher in a thread of its own: what it was told, in order, and what it says back."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Self

import grpc
from integration.agents import AgentProcess
from integration.polling import poll

from coherd.v1 import cache_service_pb2 as cache

Dot = tuple[str, str, int, int, int]
"""Namespace, origin's name and epoch, lane, number."""


def dots_of(ranges: Sequence[Any]) -> list[Dot]:
    """Give every single dot of some ranges."""
    return [
        (each.namespace, each.origin.name, each.origin.epoch, int(each.lane), number)
        for each in ranges
        for number in range(each.first, each.last + 1)
    ]


class Watcher:
    """Reads as fast as it is told things, unless it is made to wait with `reads=False`."""

    def __init__(
        self,
        agent: AgentProcess,
        *namespaces: str,
        cursor: str = "",
        acknowledges: bool = False,
        name: str = "watcher",
        reads: bool = True,
    ) -> None:
        self.responses: list[cache.WatchResponse] = []
        self.error: grpc.RpcError | None = None
        self._said: queue.SimpleQueue[cache.WatchRequest | None] = queue.SimpleQueue()
        opening = cache.WatchOpen(
            namespaces=namespaces or ("shop",),
            cursor=cursor,
            acknowledges=acknowledges,
            name=name,
        )
        self._said.put(cache.WatchRequest(open=opening))
        self._call = agent.watch(self._requests())
        self._thread = threading.Thread(target=self._read, daemon=True)
        if reads:
            self.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> None:
        """Begin to read, and wait for the first message or the end."""
        self._thread.start()
        poll(lambda: self.responses or self.error, "the watch to open")

    def close(self) -> None:
        """Go away without a word."""
        self._said.put(None)
        self._call.cancel()
        if self._thread.ident is not None:
            self._thread.join(10)

    @property
    def cursor(self) -> str:
        return self.responses[-1].cursor

    @property
    def changes(self) -> list[cache.Change]:
        return [change for response in list(self.responses) for change in response.changes]

    @property
    def resets(self) -> list[cache.Change]:
        return [change for change in self.changes if not change.dots]

    @property
    def dots(self) -> list[Dot]:
        return [dot for change in self.changes for dot in dots_of(change.dots)]

    @property
    def keys(self) -> dict[Dot, bytes]:
        """Which key each dot names, for changes that have nothing but keys."""
        return {
            dot: key
            for change in self.changes
            for dot, key in zip(dots_of(change.dots), change.keys, strict=True)
        }

    def acknowledge(self, cursor: str = "") -> None:
        """Say that everything up to a cursor was applied; the last one told, if none is given."""
        self._said.put(cache.WatchRequest(acknowledged=cursor or self.cursor))

    def _requests(self) -> Iterator[cache.WatchRequest]:
        while (request := self._said.get()) is not None:
            yield request

    def _read(self) -> None:
        try:
            for response in self._call:
                self.responses.append(response)
        except grpc.RpcError as error:
            self.error = error
