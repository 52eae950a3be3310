"""The in-memory twin of a cache (floor 2): behaves as Redis does, fails when it is told to.

For tests and simulations: whole agents run on it without a server, and the contract suite of handlers
runs on both.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import trio

from coherd.errors import HandlerFailed
from coherd.handlers import SURVEY_KEYS_MAX, CursorMoved, Resumption, Survey
from coherd.model import HandlerInfo, Kind, Position

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from coherd.model import Batch, Selector


class Snapshot(NamedTuple):
    """A copy of what a cache held, its cursor included."""

    entries: dict[bytes, object]
    tags: dict[bytes, set[bytes]] | None
    cursor: Position | None


class MemoryHandler:
    """A `Handler` and the cache it serves: `entries`, `tags` and `cursor` are the cache's own.

    Without `tags` (None) the cache keeps none, and a tag row drops everything.
    """

    def __init__(self, namespace: str, *, tagged: bool = True) -> None:
        self.entries: dict[bytes, object] = {}
        self.tags: dict[bytes, set[bytes]] | None = {} if tagged else None
        self.cursor: Position | None = None
        self.strangers: set[bytes] = set()
        """Other keys in the same cache."""
        self._namespace = namespace
        self._held: Position | None = None
        self._connected = False
        self._failures = 0
        self._halfway = False

    @property
    def label(self) -> str:
        """That it is in memory."""
        return f"memory {self._namespace}"

    @property
    def namespace(self) -> str:
        """The namespace whose rows it applies."""
        return self._namespace

    @property
    def info(self) -> HandlerInfo:
        """What other agents are told of it."""
        return HandlerInfo("memory", self._namespace, self.tags is not None)

    def put(self, key: bytes, value: object = None, tags: Iterable[bytes] = ()) -> None:
        """Store an entry as an application does, with its tags."""
        self.entries[key] = value
        if self.tags is not None:
            for tag in tags:
                self.tags.setdefault(tag, set()).add(key)

    def fail_next(self, count: int = 1, *, halfway: bool = False) -> None:
        """Let the next `count` calls fail: at once, or after the rows but before the cursor."""
        self._failures = count
        self._halfway = halfway

    def snapshot(self) -> Snapshot:
        """Copy what the cache holds."""
        return _copy(Snapshot(self.entries, self.tags, self.cursor))

    def restore(self, snapshot: Snapshot) -> None:
        """Replace what the cache holds, under a handler that may be connected."""
        self.entries, self.tags, self.cursor = _copy(snapshot)

    async def connect(self) -> Resumption:
        """Read where the cache stands."""
        self._connected = False
        await trio.lowlevel.checkpoint()
        if self._fails():
            raise HandlerFailed(f"{self.label}: told to fail")
        self._held = self.cursor
        self._connected = True
        return Resumption(self.cursor, bool(self.entries))

    async def apply(self, batches: Sequence[Batch], cursor: Position) -> None:
        """Drop what the rows name, then store the cursor."""
        if not self._connected:
            raise HandlerFailed(f"{self.label}: not connected")
        self._connected = False
        await trio.lowlevel.checkpoint()
        halfway = self._halfway
        fails = self._fails()
        if not fails or halfway:
            for batch in batches:
                self._drop(batch.selectors)
        if fails:
            raise HandlerFailed(f"{self.label}: told to fail")
        if self.cursor != self._held:
            raise CursorMoved(f"{self.label}: holds {self.cursor} instead of {self._held}")
        self.cursor = self._held = cursor
        self._connected = True

    async def survey(self) -> Survey:
        """Count what the cache holds."""
        await trio.lowlevel.checkpoint()
        if self._fails():
            raise HandlerFailed(f"{self.label}: told to fail")
        tags = self.tags or {}
        kinds = [*(["entry"] * len(self.entries)), *(["tag"] * len(tags))]
        seen = list(islice([*kinds, *self.strangers], SURVEY_KEYS_MAX))
        return Survey(
            "{key}",
            len(kinds) + len(self.strangers),
            len(seen),
            seen.count("entry"),
            None if self.tags is None else seen.count("tag"),
            next((name for name in seen if isinstance(name, bytes)), None),
        )

    async def aclose(self) -> None:
        """Forget that it was connected; never raises."""
        self._connected = False

    def _fails(self) -> bool:
        if not self._failures:
            return False
        self._failures -= 1
        return True

    def _drop(self, selectors: Iterable[Selector]) -> None:
        pop = self.entries.pop
        for selector in selectors:
            kind, name = selector[0], selector[1:]
            if kind == Kind.KEY:
                pop(name, None)
            elif kind == Kind.TAG and self.tags is not None:
                for key in self.tags.pop(name, ()):
                    pop(key, None)
            else:
                prefix = name if kind == Kind.PREFIX else b""
                for key in [k for k in self.entries if k.startswith(prefix)]:
                    del self.entries[key]


def _copy(snapshot: Snapshot) -> Snapshot:
    entries, tags, cursor = snapshot
    copied = None if tags is None else {tag: set(keys) for tag, keys in tags.items()}
    return Snapshot(dict(entries), copied, cursor)
