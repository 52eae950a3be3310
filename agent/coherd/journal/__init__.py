"""The door to what an agent remembers on disk (floor 2).

`Journal` is the door; `sqlite` is the real thing and `memory` its twin. One contract suite runs on
both. Rows are stored in *blocks*, one a batch; a *write* is what commits together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from coherd.replication.eras import Era as Era
from coherd.replication.retention import Floor as Floor

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from coherd.model import Cause, Origin, Position, Range, Stream


class Durability(StrEnum):
    """What a committed write survives."""

    OS = "os"
    """A crash of the process (synchronous=NORMAL)."""
    DISK = "disk"
    """A loss of power (synchronous=FULL: fsync before every commit is reported)."""


class Block(NamedTuple):
    """The rows of one batch, or one reset, as they are stored."""

    position: int
    """Arrival number of its first row; the others follow without a gap."""
    rows: int
    """How many positions it takes; 1 for a reset."""
    namespace: str
    stream: Stream | None
    """None for a reset."""
    numbers: tuple[Range, ...]
    """The rows' numbers in the stream; empty for a reset."""
    accepted_at: float
    """Running time (seconds) at which its youngest row was accepted at its origin."""
    cause: Cause
    payload: bytes
    """The rows as the wire encodes them; empty for a reset."""


NOTHING: Mapping[Any, Any] = {}
"""Never changed, as its type says: a write has many parts, and most writes one."""


class Write(NamedTuple):
    """What commits in one transaction, or not at all."""

    blocks: Sequence[Block] = ()
    adopted: Mapping[Stream, Sequence[Range]] = NOTHING
    """Numbers taken into the vector without a row: covered, blank, or adopted by a reset."""
    stream_floors: Mapping[Stream, Floor] = NOTHING
    """New floors of streams, by number."""
    namespace_floors: Mapping[str, Floor] = NOTHING
    """New floors of namespaces, by position."""
    cursors: Mapping[str, Position | None] = NOTHING
    """Cursors of readers whose cache can hold none, by reader; None removes one."""
    members: Mapping[str, bytes | None] = NOTHING
    """Entries of the roster, by name, as the cluster encodes them; None removes one."""
    forgotten: Mapping[str, int] = NOTHING
    """Per namespace a position: its blocks that end at or before it may go, now or a little later."""
    max_ttls: Mapping[str, Sequence[tuple[float, float]]] = NOTHING
    """Per namespace its history of `max_ttl`: (running time since when, seconds), oldest first."""
    eras: Mapping[str, Era] = NOTHING
    """Eras of namespaces; each takes the place of the one before."""
    dropped: Collection[Stream] = ()
    """Streams of which nothing is to be known any more. Their blocks, if there are any, stay."""
    life: Origin | None = None
    """A new life that numbers rows and positions from here on."""
    healed: bool = False
    """What a loss of power took is made good: until then every opening finds the journal not clean."""


@dataclass(slots=True)
class Contents:
    """What a journal held when it was opened, blocks apart."""

    name: str
    """The agent that wrote it last: another one where a host was renamed, or cloned with its data."""
    running_time: float
    """Seconds that agents have run on this journal so far; time spent down does not count."""
    lives: Sequence[tuple[Origin, int]]
    """Every life that wrote here and the first position it could write, in order."""
    position: int
    """The last position stored, 0 when there is none."""
    vector: Mapping[Stream, Sequence[Range]]
    """What is committed: the numbers of all blocks ever written, and all adopted ones."""
    stream_floors: Mapping[Stream, Floor]
    namespace_floors: Mapping[str, Floor]
    cursors: Mapping[str, Position]
    members: Mapping[str, bytes]
    max_ttls: Mapping[str, Sequence[tuple[float, float]]]
    eras: Mapping[str, Era]
    clean: bool
    """False when a loss of power, or damage that cannot be told apart from one, may have taken committed
    writes that were not made good since."""


class Damage(NamedTuple):
    """Something that is not as it was written."""

    what: str
    """Which file, table and row, and what is wrong with it: one line for an operator."""
    namespace: str | None = None
    """Whose blocks are damaged or gone; None where anything may be: the journal is then not clean."""
    position: int = 0
    """No block of the namespace above this position is damaged or gone."""


class JournalStatistics(NamedTuple):
    """Counts since the journal was opened, and how it is now."""

    commits: int
    queued_bytes: int
    size_bytes: int
    error: str
    """Why it is closed; empty while it is open."""


class Journal(Protocol):
    """Append-only storage with one writer.

    `append_nowait` is called from the trio thread and never blocks; writes commit in the order in which
    they were appended, several at a time. After a failed write or fsync nothing is retried: the journal
    is closed, every verb that writes raises `NotDurable`, reading goes on as far as it can.
    """

    durability: Durability

    @property
    def contents(self) -> Contents:
        """What it held when it was opened."""

    def running_time(self) -> float:
        """Tell the running time in seconds now."""

    def blocks(self) -> Iterator[Block]:
        """Give all intact blocks in order; writes are taken once the last was given. Called once.

        The damaged ones are then gone. Until a floor of their namespace is committed that lies at their
        damage or above, every opening tells of it.
        """

    @property
    def damages(self) -> Sequence[Damage]:
        """What was found damaged, one of each namespace; complete once the last of `blocks` was given.

        What is found while it is read later is added.
        """

    def check_room(self) -> None:
        """Raise what `append_nowait` would raise for the largest write of one request."""

    @property
    def error(self) -> str:
        """Why it is closed; empty while it is open."""

    @property
    def committed_ticket(self) -> int:
        """The last ticket that is durable."""

    def note_running_time(self) -> None:
        """Let the running time be stored, for an agent that is idle."""

    def append_nowait(self, write: Write) -> int:
        """Queue `write` and give its ticket, 1, 2, 3 …

        Raises `Overloaded` when more than the queue's bytes wait, `NotDurable` when it is closed.
        """

    async def committed(self, ticket: int) -> None:
        """Wait until the write of `ticket` is durable. Raises `NotDurable` if it never will be."""

    async def read(self, after: int, bytes_max: int) -> Sequence[Block]:
        """Give the committed blocks with a row above position `after`, in order, until `bytes_max`.

        At least one block is given where there is one; a block that began at or below `after` is given
        whole. Raises `JournalDamaged` where the first of them is damaged; it is told once, then it counts
        as gone.
        """

    async def fetch(
        self, stream: Stream, numbers: Sequence[Range], bytes_max: int
    ) -> Sequence[Block]:
        """Give the committed blocks that share a number with `numbers`, in order of numbers.

        Raises `JournalDamaged` as `read` does.
        """

    async def aclose(self) -> None:
        """Commit what is queued, mark the clean stop and close. Calling it again does nothing."""

    def statistics(self) -> JournalStatistics:
        """Tell how it is."""
