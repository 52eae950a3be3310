"""What opening a journal asks of its file; and how one that cannot be believed is put aside."""

from __future__ import annotations

import os
import sqlite3
import stat
import struct
from contextlib import closing, suppress
from typing import TYPE_CHECKING, NamedTuple

from coherd.errors import JournalDamaged, StartRefused
from coherd.journal import Damage, Durability
from coherd.journal.check import UNREADABLE, load
from coherd.journal.codec import seal
from coherd.journal.held import Held, Meta
from coherd.journal.reader import connect
from coherd.journal.schema import (
    APPLICATION_ID,
    FORMAT,
    FORMAT_BEFORE_ERAS,
    INDEX,
    META,
    PAGE_BYTES,
    TABLES,
)
from coherd.journal.wal import NOTHING_LOST, inspect

if TYPE_CHECKING:
    from pathlib import Path

    from coherd.journal.wal import Loss

PERMISSIONS = "look at its permissions and its disk"

_DISK_REFUSES = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}
"""SQLite's codes that say nothing of what is in the file."""

_SUFFIXES = ("-wal", "-shm", "")
"""The files of a journal; the one that makes it one comes last."""


class Opened(NamedTuple):
    """A journal whose side tables were read."""

    connection: sqlite3.Connection
    held: Held
    clean: bool
    index_broken: bool
    """The index of blocks is to be made anew."""
    damages: list[Damage]


class _Mine(NamedTuple):
    """Whose journal it is to be, and on which boot."""

    path: Path
    cluster: str
    name: str
    boot_id: str
    durability: Durability


def open_file(path: Path, cluster: str, name: str, boot_id: str, durability: Durability) -> Opened:
    """Open the journal at `path`, or make one where there is none; the file itself is not changed.

    One of which nothing can be believed is put aside, and a new one made that is not clean. Raises
    StartRefused for what is no journal of this cluster, or where the disk refuses.
    """
    mine = _Mine(path, cluster, name, boot_id, durability)
    if not os.path.lexists(path):
        _create(mine)
    try:
        return _open(mine)
    except JournalDamaged as error:
        aside = _put_aside(path)
        _create(mine)
        opened = _open(mine)
        what = f"{path} is damaged: {error}; it is now {aside.name}, and a new journal was begun"
        opened.damages.append(Damage(what))
        return opened


def _create(mine: _Mine) -> None:
    """Make an empty journal beside its path and give it its name when it is whole."""
    path = mine.path
    new = path.with_name(f"{path.name}-new")
    for suffix in ("-wal", "-journal"):  # SQLite would put it into the new file
        stray = path.with_name(path.name + suffix)
        if stray.exists():
            raise StartRefused(
                f"{stray} is there without {path}; move it away, or {path.name} back"
            )
    # Also if the start that put one aside got no further.
    whole = not os.path.lexists(_aside(path))
    meta = Meta(
        1, mine.cluster, mine.name, mine.boot_id, mine.durability.value, 1, int(whole), 0.0, 0, 0, 0
    )
    try:
        for suffix in ("", "-wal", "-journal"):
            new.with_name(new.name + suffix).unlink(missing_ok=True)
        new.touch(mode=0o600)  # who may read it knows every key; its log gets the same rights
        with closing(sqlite3.connect(new, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            for table in TABLES:
                connection.execute(table.create)
            connection.execute(INDEX)
            connection.execute(META.inserts[1], seal(meta.row()))
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode = WAL")
        new.rename(path)
        _fsync_directory(path)
    except (OSError, sqlite3.Error) as error:
        raise StartRefused(f"{path} cannot be made: {error}; {PERMISSIONS}") from error


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")


def _put_aside(path: Path) -> Path:
    """Rename a journal and what belongs to it, and tell its new name; an earlier one is replaced."""
    aside = _aside(path)
    try:
        for suffix in _SUFFIXES:
            aside.with_name(aside.name + suffix).unlink(missing_ok=True)
        for suffix in _SUFFIXES:
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
        _fsync_directory(path)
    except OSError as error:
        raise StartRefused(
            f"{path} is damaged and cannot be put aside: {error}; move it away and start again: "
            "the agent fetches what it needs from its peers"
        ) from error
    return aside


def _fsync_directory(path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _open(mine: _Mine) -> Opened:
    """Read all but the blocks. Raises JournalDamaged when nothing can be believed, and StartRefused."""
    path = mine.path
    try:
        _check_header(path)
        log = path.with_name(f"{path.name}-wal")
        loss = inspect(log) if log.exists() else None
    except OSError as error:
        raise StartRefused(f"{path} cannot be read: {error}; {PERMISSIONS}") from error
    connection = None
    try:
        connection = connect(path)
        held, index_fault = load(connection)
        _check_owner(mine, held.meta)
    except UNREADABLE as error:
        _close(connection)
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DISK_REFUSES:
            raise StartRefused(f"{path} cannot be opened: {error}; {PERMISSIONS}") from error
        raise JournalDamaged(f"SQLite says: {error}") from error
    except BaseException:
        _close(connection)
        raise
    damages = []
    if index_fault:
        damages.append(Damage(f"{path}: SQLite says: {index_fault}; the index is made anew"))
    fault, clean = _check_log(loss, held.meta, mine.boot_id)
    if fault:
        damages.append(Damage(f"{log} {fault}: the last commits are lost"))
    return Opened(connection, held, clean and not damages, bool(index_fault), damages)


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        connection.close()


def _check_header(path: Path) -> None:
    """Refuse what is not a journal, or one of another format, before SQLite touches it.

    Raises JournalDamaged where SQLite would take the file for one without a log.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise StartRefused(f"{path} is not a file; name another data directory")
    with path.open("rb") as file:
        header = file.read(100)
    if not header:
        raise StartRefused(f"{path} is empty, which no journal is; move it away and start again")
    magic, versions, format_, application = struct.unpack(
        ">16s2x2s40xI4xI28x", header.ljust(100, b"\0")
    )
    if magic != b"SQLite format 3\0" or application != APPLICATION_ID:
        raise StartRefused(
            f"{path} is not a journal of coherd; name another data directory, or move it away"
        )
    if format_ not in {FORMAT, FORMAT_BEFORE_ERAS}:
        raise StartRefused(
            f"{path} has format {format_}, this release knows format {FORMAT_BEFORE_ERAS} and {FORMAT}; "
            "start the release that wrote it, or move it away"
        )
    if versions != b"\2\2":
        raise JournalDamaged("its header says that it has no log")


def _check_owner(mine: _Mine, meta: Meta) -> None:
    """Refuse the journal of another cluster. That of another name is one that was moved or cloned."""
    if meta.cluster != mine.cluster:
        raise StartRefused(
            f"{mine.path} is the journal of agent {meta.name!r} in cluster {meta.cluster!r}, "
            f"not of {mine.name!r} in {mine.cluster!r}; give this agent a data directory of its own"
        )


def _check_log(loss: Loss | None, meta: Meta, boot_id: str) -> tuple[str, bool]:
    """Tell what is wrong with the log that no crash explains, and whether the journal is clean.

    A crash of the process, and with fsync a loss of power, tears at most the commit that was being
    written and that nobody was told of; a loss of power without fsync may take any.
    """
    same_boot = bool(boot_id) and boot_id == meta.boot_id
    power_lost = not meta.closed and not same_boot
    fsynced = meta.durability == Durability.DISK
    if power_lost and not fsynced:
        return "", False
    if loss is None and not meta.closed:  # an open journal always has its log
        return "is gone", False
    loss = loss or NOTHING_LOST
    # Starts that a full disk refused leave frames of commits that were never ended, over each other.
    torn = loss.commits or loss.frames == 1
    if loss.commits > 1 or (torn and not power_lost):
        return f"ends at byte {loss.offset}, {loss.size_bytes} bytes too soon", False
    return "", bool(meta.whole)
