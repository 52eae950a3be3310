"""The audit log (floor 2): who was refused, who changed the cluster, who invalidated much; JSON lines.

Noting an event waits for nothing and never fails: it is encoded, queued, and written by a thread. Each kind
of event has a rate and a queue of its own, and refusals, which anybody may cause, have a file of their own:
a flood of them neither hides a change of the cluster nor rotates it away. What is beyond the rate is counted,
and a line says how much it was. While the disk refuses, events wait in the queue.

A file belongs to this agent, but who has it may move it away, or empty it, at any time. A line that a crash
or a full disk cut in two is ended before the next one, so that only it is damaged.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter, deque
from contextlib import suppress
from enum import Enum, auto
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import structlog
import trio

from coherd.audit_lines import DENIED, OK, Event, Kind, denied_beside, encode
from coherd.replication.budget import Bucket

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

__all__ = ["DENIED", "OK", "AuditLog", "AuditLogs", "Event", "Kind", "Statistics"]

log = structlog.get_logger("coherd.audit")

BYTES_MAX = 16 * 1024 * 1024
FILES_MAX = 8
RATE_MAX = 100.0
BURST_SECONDS = 10.0
"""The burst is what the rate lets through in so long."""
QUEUE_MAX = 2_000
"""Lines of one kind that wait to be written."""
BATCH_BYTES = 256 * 1024
"""About so much is written at once."""
PAUSE = 0.2
"""Seconds from one batch to the next, so that batches are not of one line each."""
SUPPRESSED_PAUSE = 1.0
"""Seconds from one line about suppressed events to the next."""
RETRY = 5.0
"""Seconds until a disk that refused is tried again."""
CLOSE_WAIT = 2.0
"""Seconds that the end of the agent waits for a disk that does not answer."""


class Statistics(NamedTuple):
    """Counts since the start."""

    written: int
    """Events that are in the file."""
    suppressed: int
    """Events that were only counted."""
    failed: int
    """Attempts to write that failed; what was to be written stays queued."""


class Wrote(Enum):
    """How an attempt to write ended."""

    ALL = auto()
    PART = auto()
    """More is queued."""
    NOTHING = auto()
    """The disk refused."""


class AuditLogs:
    """The two logs of one agent: of refusals, and of everything else."""

    def __init__(self, path: Path, **limits: Any) -> None:
        """`limits` of each are those of an `AuditLog`."""
        self.others = AuditLog(path, **limits)
        self.denied = AuditLog(denied_beside(path), **limits)

    def note(self, event: Event, now: float) -> None:
        """See `AuditLog`."""
        log = self.denied if event.kind == Kind.DENIED else self.others
        log.note(event, now)

    async def run(self) -> None:
        """See `AuditLog`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.others.run)
            nursery.start_soon(self.denied.run)


class AuditLog:
    """One log. Events may be noted from any thread; `run` writes them."""

    def __init__(
        self,
        path: Path,
        *,
        bytes_max: int = BYTES_MAX,
        files_max: int = FILES_MAX,
        rate_max: float = RATE_MAX,
    ) -> None:
        """`bytes_max` of a file, `files_max` rotated ones, `rate_max` events of a kind a second."""
        self._file = _File(path)
        self._bytes_max = bytes_max
        self._files_max = max(1, files_max)
        self._rate_max = max(0.001, rate_max)
        self._lock = Lock()
        """Over what follows."""
        self._queue: deque[_Line] = deque()
        self._queued: Counter[str] = Counter()
        self._buckets: dict[str, Bucket] = {}
        self._unwritten = _Suppressed()
        self._written = self._suppressed = self._failed = 0
        self._token: trio.lowlevel.TrioToken | None = None
        self._is_woken = False
        self._is_closed = False
        self._wake = trio.Event()
        self._suppressed_at = float("-inf")
        self._is_failing = False

    # ------------------------------------------------------------------ noting

    def note(self, event: Event, now: float) -> None:
        """Take an event, at a running time; waits for nothing, raises nothing."""
        kind = str(event.kind)
        with self._lock:
            if self._is_closed:
                return
            is_taken = self._queued[kind] < QUEUE_MAX and self._bucket(kind, now).take(1, now) == 0
            if is_taken:
                self._queued[kind] += 1
                self._queue.append(_Line(kind, encode(event)))
            else:
                self._suppressed += 1
                self._unwritten.add(kind, event.at_us)
            token = None if self._is_woken else self._token
            self._is_woken = True
        if token is not None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._ring)

    def _bucket(self, kind: str, now: float) -> Bucket:
        bucket = self._buckets.get(kind)
        if bucket is None:
            burst = max(1.0, self._rate_max * BURST_SECONDS)
            bucket = self._buckets[kind] = Bucket(self._rate_max, burst, now)
        return bucket

    def _ring(self) -> None:
        self._wake.set()

    def statistics(self) -> Statistics:
        """Give the counts since the start."""
        with self._lock:
            return Statistics(self._written, self._suppressed, self._failed)

    # ------------------------------------------------------------------ writing

    async def run(self) -> None:
        """Write what is noted until cancelled; then write the rest, unless the disk hangs, and close."""
        limiter = trio.CapacityLimiter(1)  # a disk that does not answer holds up no other thread
        self._token = trio.lowlevel.current_trio_token()
        try:
            while True:
                self._wake = trio.Event()
                with self._lock:
                    self._is_woken = False
                wrote = await trio.to_thread.run_sync(
                    self.write, trio.current_time(), abandon_on_cancel=True, limiter=limiter
                )
                if wrote is Wrote.NOTHING:
                    await trio.sleep(RETRY)
                elif wrote is Wrote.ALL:
                    await self._wait()
        finally:
            self._token = None
            with trio.move_on_after(CLOSE_WAIT, shield=True):
                await trio.to_thread.run_sync(self.close, abandon_on_cancel=True, limiter=limiter)

    async def _wait(self) -> None:
        """Wait until there is something to write."""
        await trio.sleep(PAUSE)
        with self._lock:
            waits = self._unwritten.count > 0
        with trio.move_on_after(SUPPRESSED_PAUSE if waits else float("inf")):
            await self._wake.wait()

    def write(self, now: float, *, is_last: bool = False) -> Wrote:
        """Write a batch; for one thread at a time. `is_last`: also what would be told later."""
        is_due = is_last or now >= self._suppressed_at + SUPPRESSED_PAUSE
        is_stuck = False
        try:
            size = self._file.ready()
            lines = self._batch(size, self._bytes_max, is_due=is_due)
            if size and not lines and self._waits(is_due=is_due):
                is_stuck = not self._rotate()
                size = self._file.ready()
                most = self._bytes_max * (self._files_max + 1) if is_stuck else self._bytes_max
                lines = self._batch(size, most, is_due=True)
            if is_stuck and not lines:
                return Wrote.NOTHING
            count = self._file.append([line.data for line in lines]) if lines else 0
        except OSError as error:
            self._note_failure(error)
            return Wrote.NOTHING
        self._take(lines[:count], now)
        if count < len(lines):
            self._note_failure(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            return Wrote.NOTHING
        if lines and not is_stuck:
            self._note_success()
        return Wrote.PART if self._waits(is_due=is_due) else Wrote.ALL

    def close(self) -> None:
        """Write what is left, and close the file; what is noted later is lost."""
        with self._lock:
            self._is_closed = True
        while self.write(0.0, is_last=True) is Wrote.PART:
            pass
        self._file.close()
        with self._lock:
            lost = len(self._queue) + self._unwritten.count
        if lost:
            log.error("audit events are lost: they could not be written", count=lost)

    def _batch(self, size: int, most: int, *, is_due: bool) -> list[_Line]:
        """Give what is to be written next to a file of some size, so that it has `most` bytes at most.

        The first line always fits into an empty file.
        """
        lines: list[_Line] = []
        room = min(most - size, BATCH_BYTES)
        with self._lock:
            for line in self._queue:
                room -= len(line.data)
                if room < 0 and (size or lines):
                    return lines
                lines.append(line)
            if is_due and self._unwritten.count:
                line = self._unwritten.line()
                if len(line.data) <= room or not (size or lines):
                    lines.append(line)
        return lines

    def _waits(self, *, is_due: bool) -> bool:
        with self._lock:
            return bool(self._queue) or (is_due and self._unwritten.count > 0)

    def _take(self, lines: list[_Line], now: float) -> None:
        """Take what is written out of the queue."""
        with self._lock:
            for line in lines:
                if line.stands_for is None:
                    self._queue.popleft()
                    self._queued[line.kind] -= 1
                    self._written += 1
                else:
                    self._unwritten.subtract(line.stands_for)
                    self._suppressed_at = now

    def _rotate(self) -> bool:
        """Rotate; where that is refused the file may grow to what all of them together may take."""
        try:
            self._file.rotate(self._files_max)
        except OSError as error:
            self._note_failure(error)
            return False
        return True

    def _note_failure(self, error: OSError) -> None:
        with self._lock:
            self._failed += 1
        if not self._is_failing:
            self._is_failing = True
            log.error(
                "the audit log can't be written, and is tried again",
                path=str(self._file.path),
                why=error.strerror or str(error),
            )

    def _note_success(self) -> None:
        if self._is_failing:
            self._is_failing = False
            log.info("the audit log is written again", path=str(self._file.path))


class _Line(NamedTuple):
    kind: str
    data: bytes
    stands_for: Counter[str] | None = None
    """Of a line about suppressed events: how many, by kind."""


class _Suppressed:
    """Events that no line tells of yet."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._last_us = 0

    @property
    def count(self) -> int:
        return self._kinds.total()

    def add(self, kind: str, at_us: int) -> None:
        self._kinds[kind] += 1
        self._last_us = at_us

    def subtract(self, kinds: Counter[str]) -> None:
        self._kinds -= kinds

    def line(self) -> _Line:
        kinds = self._kinds.copy()
        event = Event(
            self._last_us,
            Kind.SUPPRESSED,
            what=", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())),
            why="more came than could be written",
            count=kinds.total(),
        )
        return _Line(Kind.SUPPRESSED, encode(event), kinds)


class _File:
    """The file that is written, and its rotation; used by one thread at a time. Everything raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def ready(self) -> int:
        """Open the file unless the one at the path is open already; gives its size."""
        if self._descriptor is not None:
            status = os.fstat(self._descriptor)
            with suppress(FileNotFoundError):
                if os.path.samestat(status, self.path.stat()):
                    return status.st_size
            self.close()
        # To write and read: a pipe nobody reads is then opened at once, and refused below.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is no regular file")
        self._descriptor = descriptor
        return status.st_size

    def append(self, lines: list[bytes]) -> int:
        """Write lines at once; gives how many of them are whole in the file."""
        assert self._descriptor is not None
        size = os.fstat(self._descriptor).st_size
        is_torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"
        before = b"\n" * is_torn
        wrote = os.write(self._descriptor, before + b"".join(lines))
        end, count = len(before), 0
        for line in lines:
            end += len(line)
            if end > wrote:
                break
            count += 1
        return count

    def rotate(self, files_max: int) -> None:
        """Move the file, and the rotated ones before it, out of the way."""
        names = [self.path]
        names += [self.path.with_name(f"{self.path.name}.{i}") for i in range(1, files_max + 1)]
        free = next((i for i, name in enumerate(names) if i and not name.exists()), files_max)
        for i in range(free, 0, -1):  # up to a hole alone: what failed halfway costs no file
            names[i - 1].replace(names[i])

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
