"""What agents tell each other of where rows got to, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from coherd.model import Effect

if TYPE_CHECKING:
    from coherd.model import Selector
    from coherd.net.peer import StreamRange


class TraceQuestion(NamedTuple):
    """Which rows are meant."""

    namespace: str
    selectors: Sequence[Selector] = ()
    """The last rows that touch what one of these names."""
    rows: int = 0
    """How many of them at most."""
    dots: Sequence[StreamRange] = ()
    """Single rows beside them."""


class TracedReader(NamedTuple):
    """A cache, and whether it has applied a row."""

    label: str
    kind: str
    """handler or watcher"""
    applied: bool
    applied_us: int | None
    """When it had, by its host's wall clock; None where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedRow:
    """A row as one host has it."""

    dot: StreamRange | None
    """None for a reset."""
    selector: Selector = b""
    """Empty where the number is in the vector and the row itself is kept no more."""
    effect: Effect = Effect.DROP
    version: int = 0
    stamp: int = 0
    cause: str = ""
    """How it came, as `model.Cause` has it; a later release may know more."""
    reason: str = ""
    issuer: str = ""
    age: float = 0.0
    """Seconds since its acceptance."""
    late: float | None = None
    """Seconds that it was old when it arrived; None where that is not known."""
    received_us: int | None = None
    """When it arrived, by its host's wall clock; None where that is not known."""
    readers: Sequence[TracedReader] = ()


class TraceReply(NamedTuple):
    """What one host knows of the rows asked about."""

    rows: Sequence[TracedRow]
    started_us: int
    """When its agent started, by its wall clock."""
    since_us: int
    """What has no time arrived before that."""
