"""What the SQLite journal asks of a file before it takes it for its own."""

from __future__ import annotations

import os
import sqlite3
import struct
import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
import trio
from journal_twins import MINE, block, row, store

from coherd.errors import Overloaded, StartRefused
from coherd.journal import Durability, Era, Write
from coherd.journal.sqlite import SqliteJournal, read_boot_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from journal_twins import SqliteTwin


def other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name)")


@pytest.mark.bad_input(71)  # empty, wrong magic
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.write_bytes(b"SQLite format 3\0"), "not a journal of coherd"),
        (lambda path: path.write_bytes(b"#!/bin/sh\n" * 1000), "not a journal of coherd"),
        (other_database, "not a journal of coherd"),
        (lambda path: path.mkdir(), "is not a file"),
        (os.mkfifo, "is not a file"),
        (lambda path: path.symlink_to("nowhere"), "cannot be read"),
        (lambda path: path.with_name("journal.db-wal").touch(), "is there without"),
    ],
)
async def test_what_is_no_journal_is_refused(
    sqlite_twin: SqliteTwin, make: Callable[[Path], None], message: str
) -> None:
    make(sqlite_twin.path)
    with pytest.raises(StartRefused, match=message) as caught:
        sqlite_twin.open()
    assert str(sqlite_twin.path) in str(caught.value)


async def test_a_directory_that_is_not_there_is_named(sqlite_twin: SqliteTwin) -> None:
    sqlite_twin.path = sqlite_twin.folder / "no" / "journal.db"
    with pytest.raises(StartRefused, match=r"cannot be made: .*No such file"):
        sqlite_twin.open()


@pytest.mark.bad_input(71)  # future format
@pytest.mark.parametrize("number", [1, 4])
async def test_another_format_is_refused_and_left_alone(
    sqlite_twin: SqliteTwin, number: int
) -> None:
    await sqlite_twin.open().aclose()
    data = bytearray(sqlite_twin.path.read_bytes())
    data[60:64] = struct.pack(">I", number)
    sqlite_twin.path.write_bytes(data)
    with pytest.raises(
        StartRefused, match=f"has format {number}, this release knows format 2 and 3"
    ):
        sqlite_twin.open()
    assert sqlite_twin.path.read_bytes() == data


async def test_a_journal_that_knows_no_eras_is_opened_and_learns_them(
    sqlite_twin: SqliteTwin,
) -> None:
    journal = sqlite_twin.open()
    await store(journal, block(1, (1, 9)))
    await journal.aclose()
    sqlite_twin.change("DROP TABLE eras", "PRAGMA user_version = 2")
    journal = sqlite_twin.open()
    assert not journal.damages
    assert journal.contents.vector == {MINE: ((1, 9),)}
    era = Era(3, 5.0, frozenset([MINE]), frozenset())
    await journal.committed(journal.append_nowait(Write(eras={"products": era})))
    await journal.aclose()
    assert sqlite_twin.open().contents.eras == {"products": era}


async def test_the_journal_of_another_cluster_is_refused(sqlite_twin: SqliteTwin) -> None:
    await sqlite_twin.open().aclose()
    with pytest.raises(StartRefused) as caught:
        sqlite_twin.open(cluster="farm")
    for word in ("'a'", "'shop'", "'farm'"):
        assert word in str(caught.value)


async def test_the_disk_is_blamed_where_it_refuses(
    sqlite_twin: SqliteTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read now is neither damaged nor put aside."""
    await sqlite_twin.open().aclose()
    refusal = sqlite3.OperationalError("disk I/O error")
    refusal.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ

    def refuse(_: object) -> None:
        raise refusal

    with monkeypatch.context() as patched:
        patched.setattr("coherd.journal.opening.load", refuse)
        with pytest.raises(StartRefused, match=r"cannot be opened: disk I/O error; look at its"):
            sqlite_twin.open()
    assert not sqlite_twin.path.with_name("journal.db.damaged").exists()
    await sqlite_twin.open().aclose()


async def test_a_first_start_that_was_interrupted_leaves_no_trace(sqlite_twin: SqliteTwin) -> None:
    for suffix in ("", "-wal", "-journal"):
        (sqlite_twin.folder / f"journal.db-new{suffix}").write_bytes(b"half")
    journal = sqlite_twin.open()
    await store(journal, row(1))
    await journal.aclose()
    assert [path.name for path in sqlite_twin.folder.iterdir()] == ["journal.db"]


async def test_closing_ends_the_thread(sqlite_twin: SqliteTwin) -> None:
    journal = sqlite_twin.open()
    names = [thread.name for thread in threading.enumerate()]
    assert "coherd-journal" in names
    await journal.aclose()
    names = [thread.name for thread in threading.enumerate()]
    assert "coherd-journal" not in names


async def test_a_stalled_disk_does_not_stop_the_loop(sqlite_twin: SqliteTwin) -> None:
    journal = sqlite_twin.open()
    await store(journal, row(1))
    with sqlite_twin.stalled(journal):
        ticket = journal.append_nowait(Write(blocks=[row(2)]))
        assert await journal.read(0, 1000) == [row(1)], "reading goes on"
        with trio.move_on_after(0.01) as scope:
            await journal.committed(ticket)
        assert scope.cancelled_caught
    await journal.committed(ticket)
    await journal.aclose()


async def test_a_busy_loop_does_not_starve_the_writer(sqlite_twin: SqliteTwin) -> None:
    """It lets go of the interpreter at every turn, but only for an instant."""
    journal = sqlite_twin.open(now=time.monotonic)
    end, n = time.monotonic() + 10, 1
    while journal.statistics().commits < 20 and time.monotonic() < end:
        with suppress(Overloaded):
            journal.append_nowait(Write(blocks=[row(n, b"x" * 9000)]))
            n += 1
        await trio.lowlevel.checkpoint()
    assert journal.statistics().commits >= 20
    await journal.aclose()


@pytest.mark.parametrize(("durability", "level"), [(Durability.OS, 1), (Durability.DISK, 2)])
async def test_durability_decides_when_sqlite_calls_fsync(
    sqlite_twin: SqliteTwin, durability: Durability, level: int
) -> None:
    journal = sqlite_twin.open(durability=durability)
    assert isinstance(journal, SqliteJournal)
    assert journal._writer is not None
    connection = journal._writer._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
    assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_an_operator_may_look_while_it_is_written(sqlite_twin: SqliteTwin) -> None:
    journal = sqlite_twin.open()
    await store(journal, row(1))
    with closing(sqlite3.connect(sqlite_twin.path)) as connection:
        connection.execute("BEGIN")
        assert connection.execute("SELECT count(*) FROM blocks").fetchone() == (1,)
        await store(journal, row(2))
        assert connection.execute("SELECT count(*) FROM blocks").fetchone() == (1,)
    await journal.aclose()


async def test_the_log_is_moved_into_the_file_while_running(sqlite_twin: SqliteTwin) -> None:
    journal = sqlite_twin.open()
    for n in range(1, 41):
        await store(journal, row(n, b"x" * (1 << 20)))
    assert sqlite_twin.path.stat().st_size > 16 << 20
    assert sqlite_twin.path.with_name("journal.db-wal").stat().st_size < 24 << 20
    assert journal.statistics().size_bytes > 30 << 20
    await journal.aclose()
    assert not sqlite_twin.path.with_name("journal.db-wal").exists()


def test_the_boot_is_known_here() -> None:
    assert len(read_boot_id()) in {0, 36}
