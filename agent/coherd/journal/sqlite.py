"""The journal in SQLite: a thread that writes and a connection that reads."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import structlog
import trio

from coherd.alarm import Alarm
from coherd.errors import StartRefused
from coherd.journal.base import CLOSED, QUEUE_BYTES_MAX, BaseJournal, Entry
from coherd.journal.check import Scan
from coherd.journal.opening import PERMISSIONS, open_file
from coherd.journal.reader import Reader
from coherd.journal.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from coherd.journal import Block, Durability, JournalStatistics
    from coherd.journal.check import Repair
    from coherd.journal.opening import Opened
    from coherd.model import Range, Stream

_T = TypeVar("_T")

log = structlog.get_logger("coherd.journal")

_GIVE_WAY_AFTER = 0.01
_GIVE_WAY_TIMEOUT = 0.002
"""Seconds without a commit after which the trio thread steps aside, and for how long at most.

A thread that gives up the interpreter's lock only for an instant, as a busy loop does at every turn, gets
it back before one that waits for it has woken up: without this the writer of a busy agent starves.
"""


LINGER = 0.001
"""Seconds for which writes are gathered before the writer's thread is woken. What the agent does with the
same rows meanwhile, sending them above all, would otherwise share the interpreter with the writer."""
LINGER_UNAWAITED = 0.1
"""The same of rows for whose commit nobody waits: those of peers, which others have, too. A commit costs
about half as much as all else that an agent does with a lone row."""
LINGER_BYTES_MAX = 64 * 1024
LINGER_WRITES_MAX = 16
"""Bytes or writes from which the writer is woken at once."""


def read_boot_id() -> str:
    """Tell which boot of the machine this is; empty where that is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def open_journal(
    path: Path,
    *,
    cluster: str,
    name: str,
    durability: Durability,
    now: Callable[[], float],
    boot_id: str,
    queue_bytes_max: int = QUEUE_BYTES_MAX,
) -> SqliteJournal:
    """Open the journal of agent `name` at `path`, or make one where there is none.

    The caller holds the lock on the directory. `now` is a clock in seconds that goes on while the agent
    runs; where it starts is of no matter. All is checked but the blocks, which `blocks` checks; until
    they were read the file is not changed, only put aside where nothing in it can be believed. Raises
    `StartRefused` for a file that is not a journal of this cluster or cannot be read.
    """
    opened = open_file(path, cluster, name, boot_id, durability)
    return SqliteJournal(path, opened, name, durability, now, boot_id, queue_bytes_max)


class SqliteJournal(BaseJournal):
    """See the door, and `open_journal`."""

    def __init__(
        self,
        path: Path,
        opened: Opened,
        name: str,
        durability: Durability,
        now: Callable[[], float],
        boot_id: str,
        queue_bytes_max: int,
    ) -> None:
        super().__init__(opened.held.contents(opened.clean), durability, now, queue_bytes_max)
        self._path = path
        self._opened = opened
        self._reader = Reader(path, opened.connection, opened.held)
        self._damages = self._reader.damages
        self._damages += opened.damages
        self._name = name
        self._boot_id = boot_id
        self._reading = trio.CapacityLimiter(1)
        self._queue: SimpleQueue[list[Entry] | None] = SimpleQueue()
        self._lingering: list[Entry] = []
        self._lingering_bytes = 0
        self._linger_ends = Alarm()
        self._lingers = trio.CancelScope()
        self._writer: Writer | None = None
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._closing_time = 0.0
        self._progressed = threading.Event()
        self._patience_ends = self.running_time()
        self._durable_before = 0

    def blocks(self) -> Iterator[Block]:
        """Give all intact blocks in order; writes are taken once the last was given. Called once.

        Raises `StartRefused` where the journal cannot be written.
        """
        scan = Scan(self._path, self._opened.connection, self._opened.held)
        yield from scan.blocks()
        self._damages += scan.damages
        if any(damage.namespace is None for damage in scan.damages):
            self._contents.clean = False
        self._start(scan.repair(self._opened.index_broken))

    def _start(self, repair: Repair | None) -> None:
        """Mark the journal as being in use and start the writer."""
        try:
            self._writer = Writer(self._path, self._opened.held)
            self._writer.mark_open(
                self._name, self._boot_id, self.durability, self._contents.clean, repair
            )
        except sqlite3.Error as error:
            self._error = str(error)
            raise StartRefused(f"{self._path} cannot be written: {error}; {PERMISSIONS}") from error
        self._loaded = True
        self._thread = threading.Thread(
            target=self._write, args=(self._writer,), name="coherd-journal", daemon=True
        )
        self._thread.start()
        self._token = trio.lowlevel.current_trio_token()
        trio.lowlevel.spawn_system_task(self._linger)

    def _enqueue(self, entry: Entry) -> None:
        write = entry[0]
        if not write.blocks or write.adopted:  # a reset that is lost is made again
            self._linger_ends.ring_within(LINGER)
        elif not self._lingering:
            self._linger_ends.ring_within(LINGER_UNAWAITED)
        self._lingering.append(entry)
        self._lingering_bytes += entry[1]
        if self._lingering_bytes > LINGER_BYTES_MAX or len(self._lingering) >= LINGER_WRITES_MAX:
            self._hand_over()
            self._give_way(entry[2])

    def _hurry(self) -> None:
        if self._lingering:
            self._linger_ends.ring_within(LINGER)

    def _hand_over(self) -> None:
        """Let the writer have what was queued."""
        if self._lingering:
            self._queue.put(self._lingering)
            self._lingering = []
            self._lingering_bytes = 0

    async def _linger(self) -> None:
        """Hand over a little later what was queued, unless that was done meanwhile."""
        with self._lingers:
            while True:
                await self._linger_ends.wait()
                self._hand_over()

    def _give_way(self, time: float) -> None:
        """Let the writer have the interpreter for a moment if it has not got on for a while."""
        if time <= self._patience_ends:
            return
        if self._durable == self._durable_before < self._tickets - 1:
            self._progressed.clear()
            self._progressed.wait(_GIVE_WAY_TIMEOUT)
        self._durable_before = self._durable
        self._patience_ends = time + _GIVE_WAY_AFTER

    async def read(self, after: int, bytes_max: int) -> Sequence[Block]:
        """Give the committed blocks above a position; see the door."""
        return await self._in_thread(lambda: self._reader.read(after, bytes_max))

    async def fetch(
        self, stream: Stream, numbers: Sequence[Range], bytes_max: int
    ) -> Sequence[Block]:
        """Give the committed blocks of some numbers; see the door."""
        return await self._in_thread(lambda: self._reader.fetch(stream, numbers, bytes_max))

    async def _in_thread(self, read: Callable[[], _T]) -> _T:
        self._check_readable()
        return await trio.to_thread.run_sync(read, limiter=self._reading)

    async def aclose(self) -> None:
        """Commit what is queued, mark the clean stop and close. Calling it again does nothing."""
        if self._closing:
            return
        self._closing = True
        self._closing_time = self.running_time()
        with trio.CancelScope(shield=True):
            self._hand_over()
            self._lingers.cancel()
            if self._thread is not None:
                self._queue.put(None)
            await trio.to_thread.run_sync(self._close, limiter=self._reading)
        self._error = self._error or CLOSED
        self._wake()

    def _close(self) -> None:
        """Close both connections, the writer's last so that it takes the empty log away.

        After an error it is closed first: as the last one it would try again what failed.
        """
        if self._thread is not None:
            self._thread.join()
        if not self._error:
            self._reader.close()
        if self._writer is not None:
            self._writer.close()
        self._reader.close()

    def statistics(self) -> JournalStatistics:
        """Tell how it is."""
        size = 0
        for path in (self._path, self._path.with_name(f"{self._path.name}-wal")):
            with suppress(OSError):
                size += path.stat().st_size
        return self._statistics(size)

    def _write(self, writer: Writer) -> None:
        """Commit what waits, all of it at once, until told to close or until it fails; in a thread."""
        try:
            closing = False
            while not closing:
                while writer.forgets and self._queue.empty():
                    writer.forget()
                    writer.checkpoint()
                entries: list[Entry] = []
                handed = self._queue.get()
                while handed is not None:
                    entries += handed
                    if self._queue.empty():
                        break
                    handed = self._queue.get()
                closing = handed is None
                if entries:
                    size = sum(size for _, size, _ in entries)
                    writer.commit((write for write, _, _ in entries), entries[-1][2], size)
                    self._commits += 1
                    self._durable_bytes += size
                    self._durable += len(entries)
                    self._tell()
                if writer.forgets and not closing:
                    writer.forget()
                writer.checkpoint()
            writer.mark_closed(self._closing_time)
        except Exception as error:  # whatever it was: what is not committed now never will be
            self._error = f"{type(error).__name__}: {error}"
            log.error("journal closed", journal=str(self._path), error=self._error)
            while not self._queue.empty():
                self._queue.get()
            self._tell()

    def _tell(self) -> None:
        """Have the waiting look again."""
        self._progressed.set()
        if self._waiting and self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._wake)
