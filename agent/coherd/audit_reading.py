"""Reading an audit log (floor 2): its rotated files and the one that is written, oldest first, and on.

Refusals stand in files of their own beside the others; both are read together, by the time of the events.
Whoever rotates does so while this reads: files are told apart by what they are and not by their names, so
that no line is read twice, and none is missed but of files that are gone.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from fnmatch import fnmatchcase
from heapq import merge
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from coherd.audit_lines import LINE_BYTES_MAX, Event, Kind, decode, denied_beside

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

CHUNK_BYTES = 256 * 1024


class Wanted(NamedTuple):
    """Which events are asked for; suppressed ones may have been by anybody, so they always are."""

    since_us: int | None = None
    kinds: Collection[str] = ()
    """Empty: all of them."""
    who: str | None = None
    """Who did it, in which `*` and `?` match as in a shell: the whole identity, or its end, client/web-*."""

    def fits(self, event: Event) -> bool:
        """Tell whether an event is asked for."""
        if self.since_us is not None and event.at_us < self.since_us:
            return False
        if event.kind == Kind.SUPPRESSED:
            return True
        if self.kinds and event.kind not in self.kinds:
            return False
        return self.who is None or any(
            fnmatchcase(event.who, pattern) for pattern in (self.who, f"*/{self.who}")
        )


def read(
    path: Path,
    since_us: int | None = None,
    kinds: Collection[str] = (),
    who: str | None = None,
    *,
    follow: bool = False,
) -> Reading:
    """Read the log at `path`. Iterating raises OSError."""
    return Reading(path, Wanted(since_us, kinds, who), follow=follow)


class Reading:
    """One pass over a log; one that follows may be iterated over again and gives what has come since."""

    def __init__(self, path: Path, wanted: Wanted, *, follow: bool = False) -> None:
        paths = (path, denied_beside(path))
        self._parts = [_Part(each, wanted, follow=follow) for each in paths]

    def __iter__(self) -> Iterator[Event]:
        missing: list[FileNotFoundError] = []

        def events(part: _Part) -> Iterator[Event]:
            try:
                yield from part
            except FileNotFoundError as error:  # before its first event
                missing.append(error)

        yield from merge(*map(events, self._parts), key=lambda event: event.at_us)
        if len(missing) == len(self._parts):
            raise missing[0]

    @property
    def damaged(self) -> int:
        """Lines that say nothing."""
        return sum(part.damaged for part in self._parts)

    def close(self) -> None:
        """Close the files; one that follows has some open."""
        for part in self._parts:
            part.close()


class _Part:
    """A file of the log with those that it was rotated to; iterating gives what has come since."""

    def __init__(self, path: Path, wanted: Wanted, *, follow: bool = False) -> None:
        self._path = path
        self._wanted = wanted
        self._follow = follow
        self._file: BinaryIO | None = None
        self._rest = b""
        """The beginning of a line whose end was not there yet."""
        self._is_skipping = False
        """Whether the line is too long to be one of ours; its end is looked for."""
        self.damaged = 0
        """Lines that say nothing."""

    def __iter__(self) -> Iterator[Event]:
        newer = self._newer()
        if self._file is None and not newer:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._path))
        try:
            yield from self._events()
            while newer:
                yield from self._end_file()
                self._file = newer.pop(0)
                yield from self._events()
            if not self._follow:
                yield from self._end_file()
        finally:
            _close(newer)

    def close(self) -> None:
        """Close the file; one that follows has one open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _newer(self) -> list[BinaryIO]:
        """Open the files behind the one that is read, oldest first.

        They are opened newest first: a rotation in between then shows one of them again, and hides none.
        """
        mine = None if self._file is None else _identity(self._file)
        found: dict[tuple[int, int], BinaryIO] = {}
        try:
            for path in chain((self._path,), _rotated(self._path)):
                with suppress(FileNotFoundError):
                    file = _opened(path)
                    identity = _identity(file)
                    if identity == mine or identity in found:
                        file.close()
                    else:
                        found[identity] = file
                    if identity == mine:
                        return list(found.values())[::-1]
        except OSError:
            _close(found.values())
            raise
        newest_first = list(found.values())
        if mine is not None:  # what was read was moved away: all but the newest are older than that
            _close(newest_first[1:])
            del newest_first[1:]
        return newest_first[::-1]

    def _events(self) -> Iterator[Event]:
        """Give what the file has from here on, but for a line without its end."""
        if self._file is None:
            return
        if os.fstat(self._file.fileno()).st_size < self._file.tell():  # it was emptied
            self._file.seek(0)
            self._rest, self._is_skipping = b"", False
        while chunk := self._file.read(CHUNK_BYTES):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                if self._is_skipping:
                    self._is_skipping = False
                else:
                    yield from self._event(line)
            if len(self._rest) > LINE_BYTES_MAX:
                self.damaged += not self._is_skipping
                self._rest, self._is_skipping = b"", True
            elif self._is_skipping:
                self._rest = b""

    def _end_file(self) -> Iterator[Event]:
        """Take a last line that has no end, and close the file."""
        rest, self._rest = self._rest, b""
        is_skipping, self._is_skipping = self._is_skipping, False
        self.close()
        if not is_skipping:
            yield from self._event(rest)

    def _event(self, line: bytes) -> Iterator[Event]:
        """Give the event of a line if it is asked for."""
        if not line:
            return
        event = decode(line) if len(line) <= LINE_BYTES_MAX else None
        if event is None:
            self.damaged += 1
        elif self._wanted.fits(event):
            yield event


def _rotated(path: Path) -> Iterator[Path]:
    """Give the rotated files of a log, newest first; looks anew before each, for a rotation moves them on."""
    last = -1
    while numbers := [number for number in _numbers(path) if number > last]:
        last = min(numbers)
        yield path.with_name(f"{path.name}.{last}")


def _numbers(path: Path) -> Iterator[int]:
    with suppress(FileNotFoundError):
        for name in os.listdir(path.parent):  # noqa: PTH208 # names alone are asked for
            base, _, number = name.rpartition(".")
            if base == path.name and number.isascii() and number.isdigit() and len(number) < 10:
                yield int(number)


def _opened(path: Path) -> BinaryIO:
    """Open a file; one that could be waited for is refused."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return open(descriptor, "rb", buffering=0)  # noqa: PTH123 # the caller closes it


def _identity(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino


def _close(files: Iterable[BinaryIO]) -> None:
    for file in files:
        file.close()
