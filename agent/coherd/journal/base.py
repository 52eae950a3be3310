"""What both journals share: the bounded queue, tickets, and the waiting for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import trio

from coherd.errors import NotDurable, Overloaded
from coherd.journal import JournalStatistics, Write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from coherd.journal import Block, Contents, Damage, Durability
    from coherd.model import Stream
    from coherd.replication.intervals import Intervals

QUEUE_BYTES_MAX = 16 << 20
"""How many bytes may wait for the disk, if nothing else is said."""

WRITE_OVERHEAD_BYTES = 200
"""What a write takes in the queue, and each of its blocks besides its payload, about."""

CLOSED = "it was closed in order"
"""What `statistics().error` is after `aclose`."""

BLOCK_OVERHEAD_BYTES = 64
"""What a block counts in a page besides its payload: pages of empty blocks end too."""

ROOM_BYTES = 2 * 1024 * 1024
"""More than the largest write of one request takes."""

Entry = tuple[Write, int, float]
"""A write, its bytes, and the running time at which it was queued."""


class BaseJournal(ABC):
    """A journal without its storage. All verbs belong to the trio thread.

    `_durable`, `_durable_bytes`, `_commits` and `_error` may be set by another thread, which then has
    `_wake` run in the trio thread.
    """

    def __init__(
        self,
        contents: Contents,
        durability: Durability,
        now: Callable[[], float],
        queue_bytes_max: int,
    ) -> None:
        self.durability = durability
        self._contents = contents
        self._damages: list[Damage] = []
        self._position = contents.position
        self._now = now
        self._time_offset = contents.running_time - now()
        self._queue_bytes_max = queue_bytes_max
        self._tickets = 0
        self._bytes = 0
        self._durable = 0
        self._durable_bytes = 0
        self._commits = 0
        self._loaded = False
        self._closing = False
        self._error = ""
        self._progress = trio.Event()
        self._waiting = 0

    @property
    def contents(self) -> Contents:
        """What it held when it was opened."""
        return self._contents

    def running_time(self) -> float:
        """Tell the running time now: what was stored, and the seconds since it was opened."""
        return self._time_offset + self._now()

    @abstractmethod
    def blocks(self) -> Iterator[Block]:
        """Give all intact blocks in order; writes are taken once the last was given. Called once."""

    @property
    def damages(self) -> Sequence[Damage]:
        """What was found damaged; all of it is known once the last of `blocks` was given."""
        return self._damages

    @abstractmethod
    def _enqueue(self, entry: Entry) -> None:
        """Hand a write to the storage."""

    def _hurry(self) -> None:  # noqa: B027  # only a thread that lingers needs it
        """Somebody waits for what was queued."""

    def _give_way(self, time: float) -> None:  # noqa: B027  # only a thread needs it
        """Help a writer that has a thread of its own, at running time `time`."""

    def append_nowait(self, write: Write) -> int:
        """Queue `write` and give its ticket; see the door."""
        if self._error or self._closing or not self._loaded:
            self._refuse()
        size, position = WRITE_OVERHEAD_BYTES, self._position
        for block in write.blocks:
            if block.position <= position:
                raise ValueError(f"position {block.position} follows {position}")
            position = block.position + block.rows - 1
            size += block_bytes(block)
        if write.adopted or write.members or write.cursors or write.max_ttls or write.eras:
            size += _size_beside_blocks(write)
        queued = self._bytes - self._durable_bytes
        if queued and queued + size > self._queue_bytes_max:
            self._give_way(self.running_time())
            raise Overloaded(
                f"the journal's queue is full: {queued} bytes wait for the disk; try again"
            )
        self._position = position
        self._tickets += 1
        self._bytes += size
        self._enqueue((write, size, self._time_offset + self._now()))
        return self._tickets

    def _refuse(self) -> None:
        if self._error or self._closing:
            raise NotDurable(f"the journal is closed: {self._error or CLOSED}")
        raise RuntimeError("the journal is to be used once all of its blocks() were read")

    def _check_readable(self) -> None:
        if self._closing or not self._loaded:
            self._refuse()

    def check_room(self) -> None:
        """Raise what `append_nowait` would raise for a write of up to ROOM_BYTES."""
        if self._error or self._closing or not self._loaded:
            self._refuse()
        queued = self._bytes - self._durable_bytes
        if queued and queued + ROOM_BYTES > self._queue_bytes_max:
            self._give_way(self.running_time())
            raise Overloaded(
                f"the journal's queue is full: {queued} bytes wait for the disk; try again"
            )

    @property
    def error(self) -> str:
        """Why it is closed; empty while it is open."""
        return self._error

    @property
    def committed_ticket(self) -> int:
        """The last ticket that is durable."""
        return self._durable

    def note_running_time(self) -> None:
        """Let the running time be stored, by an empty write; for an agent that is idle."""
        if not self._error and not self._closing and self._bytes == self._durable_bytes:
            self.append_nowait(Write())

    async def committed(self, ticket: int) -> None:
        """Wait until the write of `ticket` is durable; see the door."""
        if not 0 < ticket <= self._tickets:
            raise ValueError(f"no such ticket: {ticket}")
        self._waiting += 1
        try:
            if ticket > self._durable:
                self._hurry()
            await trio.lowlevel.checkpoint()
            while ticket > self._durable:
                if self._error:
                    raise NotDurable(f"not durable, may have been applied: {self._error}")
                await self._progress.wait()
        finally:
            self._waiting -= 1

    def _wake(self) -> None:
        """Let the waiting look again."""
        self._progress.set()
        self._progress = trio.Event()

    def _statistics(self, size_bytes: int) -> JournalStatistics:
        queued = 0 if self._error else self._bytes - self._durable_bytes
        return JournalStatistics(self._commits, queued, size_bytes, self._error)


def block_bytes(block: Block) -> int:
    """Tell about how many bytes a block takes."""
    return WRITE_OVERHEAD_BYTES + len(block.payload) + 32 * len(block.numbers)


def _size_beside_blocks(write: Write) -> int:
    """Tell about how many bytes of a write's other parts wait."""
    size = sum(64 + 100 * len(ranges) for ranges in write.adopted.values())
    size += sum(len(name) + len(entry or b"") for name, entry in write.members.items())
    size += sum(64 + 16 * len(history) for history in write.max_ttls.values())
    size += sum(64 + 16 * (len(era.marked) + len(era.retired)) for era in write.eras.values())
    return size + sum(len(reader) + 64 for reader in write.cursors)


def cut_page(blocks: Iterable[Block], bytes_max: int) -> Sequence[Block]:
    """Give the first of `blocks` that take no more than `bytes_max`, at least one if there is one."""
    page: list[Block] = []
    size = 0
    for block in blocks:
        size += BLOCK_OVERHEAD_BYTES + len(block.payload)
        if page and size > bytes_max:
            break
        page.append(block)
        if size >= bytes_max:
            break
    return page


def shares(block: Block, stream: Stream, wanted: Intervals) -> bool:
    """Tell whether `block` holds a number of `wanted`."""
    return block.stream == stream and any(wanted.meets(*each) for each in block.numbers)
