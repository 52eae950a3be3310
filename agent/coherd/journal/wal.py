"""What SQLite does not say about its write-ahead log: how much of it it will drop.

When SQLite opens a log it takes the commits before the first frame whose checksum is wrong, and drops
the rest without a word. After a crash that is a torn tail, as it should be; after a flipped bit it is
everything written since. Here the log is read beforehand, as https://sqlite.org/walformat.html says.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = 0x377F0682
_MASK = 0xFFFFFFFF


class Loss(NamedTuple):
    """What SQLite is going to drop from a log."""

    frames: int
    """Whole frames of the log at or behind the first wrong one; 2 stands for any more."""
    commits: int
    """How many of them end a commit; 2 stands for any more."""
    offset: int
    """Where the first of the dropped commits begins in the log."""
    size_bytes: int
    """How much there is from there on."""


NOTHING_LOST = Loss(0, 0, 0, 0)


def inspect(path: Path) -> Loss:
    """Tell what SQLite is going to drop from the log at `path`, which is there.

    A frame that repeats one of the log's salts belongs to it; one left from an earlier log has neither.
    A killed process leaves no whole frame that is wrong, but for an instant in a log that is used
    again, between the head of a frame and its page. Raises OSError.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        raw = file.read(_HEADER.size)
        if size <= _HEADER.size:
            return NOTHING_LOST
        whole = Loss(2, 2, 0, size)
        magic, _, page_bytes, _, *salts, check_1, check_2 = _HEADER.unpack(raw)
        order = ">" if magic & 1 else "<"
        checksum = _add(raw[:24], (0, 0), order)
        if magic & ~1 != _MAGIC or checksum != (check_1, check_2):
            return whole
        last_commit = offset = _HEADER.size
        frame_bytes = _FRAME.size + page_bytes
        while len(frame := file.read(frame_bytes)) == frame_bytes:
            _, pages, *found, check_1, check_2 = _FRAME.unpack_from(frame)
            if found != salts:
                break
            checksum = _add(frame[:8], checksum, order)
            checksum = _add(frame[_FRAME.size :], checksum, order)
            if checksum != (check_1, check_2):
                break
            offset += frame_bytes
            if pages:
                last_commit = offset
        frames, commits = _count(file, range(offset, size - frame_bytes + 1, frame_bytes), salts)
    return Loss(frames, commits, last_commit, size - last_commit) if frames else NOTHING_LOST


def _count(file: BinaryIO, offsets: Iterable[int], salts: list[int]) -> tuple[int, int]:
    """Count the frames at `offsets` that belong to the log, and those that end a commit."""
    frames = commits = 0
    for offset in offsets:
        file.seek(offset)
        _, pages, salt_1, salt_2, _, _ = _FRAME.unpack(file.read(_FRAME.size))
        if salt_1 == salts[0] or salt_2 == salts[1]:
            frames = min(2, frames + 1)
            commits += bool(pages)
            if commits == 2:
                break
    return frames, commits


def _add(data: bytes, checksum: tuple[int, int], order: str) -> tuple[int, int]:
    """Go on with SQLite's checksum over `data`."""
    one, two = checksum
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for left, right in zip(words[::2], words[1::2], strict=True):
        one = (one + left + two) & _MASK
        two = (two + right + one) & _MASK
    return one, two
