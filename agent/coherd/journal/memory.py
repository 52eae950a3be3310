"""The journal's twin in memory: for tests and simulations, without threads and files.

What is committed is a list of writes; everything else is computed from it, so that a crash can lose any
tail of them.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import trio

from coherd.journal import Block, Contents, Damage, Durability
from coherd.journal.base import (
    CLOSED,
    QUEUE_BYTES_MAX,
    BaseJournal,
    Entry,
    block_bytes,
    cut_page,
    shares,
)
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from coherd.journal import Era, Floor, JournalStatistics, Write
    from coherd.model import Origin, Position, Range, Stream


@dataclass(slots=True)
class Disk:
    """What outlives a `MemoryJournal`."""

    commits: list[list[Entry]] = field(default_factory=list)
    running_time: float = 0.0
    whole: bool = True
    closed: bool = True
    boot_id: str = ""
    durability: Durability = Durability.OS
    name: str = ""
    lost: set[int] = field(default_factory=set)
    """Positions of blocks that are damaged; the next opening finds it."""
    gone: set[int] = field(default_factory=set)
    """Positions of blocks that were found damaged."""
    damages: dict[str, Damage] = field(default_factory=dict)
    """By namespace, what no floor accounts for yet."""


class _Sorted(NamedTuple):
    """A block in the order in which `fetch` gives them."""

    first: int
    last: int
    position: int
    block: Block


class _State:
    """What the committed writes amount to."""

    def __init__(self) -> None:
        self.position = 0
        self.size_bytes = 0
        self.blocks: list[Block] = []
        self.of_stream: dict[Stream, list[_Sorted]] = {}
        self.lives: list[tuple[Origin, int]] = []
        self.vector: dict[Stream, Intervals] = {}
        self.stream_floors: dict[Stream, Floor] = {}
        self.namespace_floors: dict[str, Floor] = {}
        self.cursors: dict[str, Position] = {}
        self.members: dict[str, bytes] = {}
        self.max_ttls: dict[str, Sequence[tuple[float, float]]] = {}
        self.eras: dict[str, Era] = {}

    def take(self, write: Write) -> None:
        """Add what `write` says."""
        if write.life is not None:
            self.lives.append((write.life, self.position + 1))
        for block in write.blocks:
            self.blocks.append(block)
            self.position = block.position + block.rows - 1
            self._take_numbers(block)
        for stream, ranges in write.adopted.items():
            for low, high in ranges:
                self.vector.setdefault(stream, Intervals()).add(low, high)
        self.stream_floors.update(write.stream_floors)
        self.namespace_floors.update(write.namespace_floors)
        self._take_side(write)
        for namespace, position in write.forgotten.items():
            of_it = [block for block in self.blocks if block.namespace == namespace]
            self.drop({b.position for b in of_it if b.position + b.rows - 1 <= position})

    def _take_side(self, write: Write) -> None:
        for reader, cursor in write.cursors.items():
            if cursor is None:
                self.cursors.pop(reader, None)
            else:
                self.cursors[reader] = cursor
        for name, entry in write.members.items():
            if entry is None:
                self.members.pop(name, None)
            else:
                self.members[name] = entry
        self.max_ttls.update(write.max_ttls)
        for stream in write.dropped:
            self.vector.pop(stream, None)
            self.stream_floors.pop(stream, None)
        self.eras.update(write.eras)

    def drop(self, positions: Collection[int]) -> None:
        """Remove blocks."""
        gone = [block for block in self.blocks if block.position in positions]
        if not gone:
            return
        self.size_bytes -= sum(map(block_bytes, gone))
        self.blocks = [block for block in self.blocks if block.position not in positions]
        for stream in {block.stream for block in gone if block.numbers}:
            if stream is not None:
                found = self.of_stream[stream]
                self.of_stream[stream] = [item for item in found if item.position not in positions]

    def _take_numbers(self, block: Block) -> None:
        if block.stream is None or not block.numbers:
            return
        numbers = self.vector.setdefault(block.stream, Intervals())
        for low, high in block.numbers:
            numbers.add(low, high)
        first, last = min(block.numbers)[0], max(high for _, high in block.numbers)
        insort(
            self.of_stream.setdefault(block.stream, []), _Sorted(first, last, block.position, block)
        )

    def contents(self, name: str, running_time: float, clean: bool) -> Contents:
        """Give a copy for the caller."""
        return Contents(
            name=name,
            running_time=running_time,
            lives=tuple(self.lives),
            position=self.position,
            vector={stream: numbers.ranges() for stream, numbers in self.vector.items() if numbers},
            stream_floors=dict(self.stream_floors),
            namespace_floors=dict(self.namespace_floors),
            cursors=dict(self.cursors),
            members=dict(self.members),
            max_ttls={namespace: h for namespace, h in self.max_ttls.items() if h},
            eras=dict(self.eras),
            clean=clean,
        )


class MemoryJournal(BaseJournal):
    """See the door. With `automatic`, what waits is committed at the loop's next turn; else by `commit`."""

    def __init__(
        self,
        disk: Disk | None = None,
        *,
        name: str = "",
        durability: Durability = Durability.OS,
        now: Callable[[], float] = trio.current_time,
        boot_id: str = "a boot",
        queue_bytes_max: int = QUEUE_BYTES_MAX,
        automatic: bool = True,
    ) -> None:
        self.disk = disk = Disk() if disk is None else disk
        self._state = _State()
        for commit in disk.commits:
            for write, size, _ in commit:
                self._state.take(write)
                self._state.size_bytes += size
        self._find_damage()
        fsynced = disk.durability is Durability.DISK
        clean = disk.whole and (disk.closed or fsynced or boot_id == disk.boot_id != "")
        contents = self._state.contents(disk.name or name, disk.running_time, clean)
        super().__init__(contents, durability, now, queue_bytes_max)
        self._damages += disk.damages.values()
        self._name = name
        self._boot_id = boot_id
        self._automatic = automatic
        self._queue: list[Entry] = []
        self._failure = ""

    def _find_damage(self) -> None:
        """Drop what is lost, and note up to where its namespaces may lack something."""
        disk = self.disk
        self._state.drop(disk.gone)
        blocks = self._state.blocks
        for lost in [block for block in blocks if block.position in disk.lost]:
            name = lost.namespace
            following = [b for b in blocks if b.namespace == name and b.position > lost.position]
            end = following[0].position - 1 if following else self._state.position
            if name not in disk.damages or disk.damages[name].position < end:
                what = f"namespace {name!r}, up to position {end}: blocks are damaged"
                disk.damages[name] = Damage(what, name, end)
        disk.gone |= disk.lost
        disk.lost.clear()
        self._state.drop(disk.gone)

    def blocks(self) -> Iterator[Block]:
        """Give all blocks in order; writes are taken once the last was given. Called once."""
        yield from tuple(self._state.blocks)
        disk = self.disk
        disk.whole, disk.closed = self._contents.clean, False
        disk.name, disk.boot_id, disk.durability = self._name, self._boot_id, self.durability
        self._loaded = True

    def _enqueue(self, entry: Entry) -> None:
        self._queue.append(entry)
        if self._automatic and len(self._queue) == 1:
            trio.lowlevel.current_trio_token().run_sync_soon(self.commit)

    def commit(self) -> None:
        """Commit what waits, all of it at once."""
        entries, self._queue = self._queue, []
        if not entries or self._error:
            return
        if self._failure:
            self._error = self._failure
            self._wake()
            return
        self.disk.commits.append(entries)
        for write, size, running_time in entries:
            self._state.take(write)
            self._state.size_bytes += size
            self._durable_bytes += size
            self.disk.running_time = max(self.disk.running_time, running_time)
            self.disk.whole = self.disk.whole or write.healed
            for namespace, floor in write.namespace_floors.items():
                damage = self.disk.damages.get(namespace)
                if damage is not None and floor.n >= damage.position:
                    del self.disk.damages[namespace]
        self._durable += len(entries)
        self._commits += 1
        self._wake()

    def fail_next(self, reason: str = "disk I/O error") -> None:
        """Let the next commit fail, as a failing disk does."""
        self._failure = reason

    def crash(self, *, boot_id: str | None = None, commits_lost: int = 0) -> MemoryJournal:
        """End without a word, and give the journal that the next process finds.

        A loss of power comes with another `boot_id`, and may take the last commits.
        """
        self._queue = []
        self._closing = True
        self._error = self._error or "the process died"
        self._wake()
        del self.disk.commits[len(self.disk.commits) - commits_lost :]
        return self.reopen(boot_id=boot_id)

    def reopen(self, *, boot_id: str | None = None) -> MemoryJournal:
        """Give the journal that the next process finds after `aclose`."""
        return MemoryJournal(
            self.disk,
            name=self._name,
            durability=self.durability,
            now=self._now,
            boot_id=self._boot_id if boot_id is None else boot_id,
            queue_bytes_max=self._queue_bytes_max,
            automatic=self._automatic,
        )

    async def read(self, after: int, bytes_max: int) -> Sequence[Block]:
        """Give the committed blocks above a position; see the door."""
        self._check_readable()
        await trio.lowlevel.checkpoint()
        blocks = self._state.blocks
        at = bisect_right(blocks, after, key=lambda block: block.position + block.rows - 1)
        return cut_page((blocks[i] for i in range(at, len(blocks))), bytes_max)

    async def fetch(
        self, stream: Stream, numbers: Sequence[Range], bytes_max: int
    ) -> Sequence[Block]:
        """Give the committed blocks of some numbers; see the door."""
        self._check_readable()
        await trio.lowlevel.checkpoint()
        return cut_page(self._find(stream, numbers), bytes_max)

    def _find(self, stream: Stream, numbers: Sequence[Range]) -> Iterator[Block]:
        wanted = Intervals(numbers)
        for first, _, _, block in self._state.of_stream.get(stream, []):
            if first > wanted.last:
                break
            if shares(block, stream, wanted):
                yield block

    async def aclose(self) -> None:
        """Commit what is queued, mark the clean stop and close. Calling it again does nothing."""
        if self._closing:
            return
        self._closing = True
        self.commit()
        if self._loaded and not self._error:
            self.disk.closed = True
            self.disk.running_time = max(self.disk.running_time, self.running_time())
        self._error = self._error or CLOSED
        self._wake()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> JournalStatistics:
        """Tell how it is."""
        return self._statistics(self._state.size_bytes)
