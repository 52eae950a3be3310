"""The door to a cache on this host (floor 2): what applies rows to one namespace of one cache.

`Handler` is the door; `redis` is the real thing and `memory` its twin. One contract suite runs on both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from coherd.errors import HandlerFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coherd.model import Batch, HandlerInfo, Position


class Resumption(NamedTuple):
    """Where a cache says it stands, when it is (re)connected."""

    cursor: Position | None
    """The cursor that the cache itself holds; None when it holds none."""
    warm: bool
    """True when the cache holds at least one entry of the namespace."""


SURVEY_KEYS_MAX = 10_000
"""Keys that a survey looks at."""
SURVEY_SECONDS_MAX = 2.0
"""Seconds after which a survey ends with what it has seen."""


class Survey(NamedTuple):
    """What a cache really holds, to be compared with what it is configured to hold."""

    template: str
    """How the handler takes entries to be named."""
    total: int
    """Keys of the whole cache, without coherd's own."""
    seen: int
    """Keys that were looked at: all of them, or the first so many."""
    entries: int
    """How many of those seen are entries of the namespace."""
    tags: int | None
    """How many of those seen are sets of tags; None where the handler knows of none."""
    stranger: bytes | None
    """One of those seen that is neither; None where there is none."""


class CursorMoved(HandlerFailed):
    """The cache holds another cursor than the one last written: it was restored or replaced."""


class Handler(Protocol):
    """Applies the rows of one namespace to one cache.

    Every verb raises `HandlerFailed` for whatever the cache did not confirm. After `connect` and `apply`
    the caller then connects again and goes on from the cursor that the cache holds.
    """

    @property
    def label(self) -> str:
        """A short name for status and logs, without secrets."""

    @property
    def namespace(self) -> str:
        """The namespace whose rows it applies."""

    @property
    def info(self) -> HandlerInfo:
        """What other agents are told of it."""

    async def connect(self) -> Resumption:
        """Open or re-open the connection and read the cursor that the cache holds."""

    async def apply(self, batches: Sequence[Batch], cursor: Position) -> None:
        """Apply `batches`, then store `cursor` with them atomically; return once the cache confirmed.

        Raises `CursorMoved` when the cache no longer holds the cursor that was read or written last.
        """

    async def survey(self) -> Survey:
        """Look at a bounded part of what the cache holds; may be called beside `apply`."""

    async def aclose(self) -> None:
        """Close the connection; never raises."""
