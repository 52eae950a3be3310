"""A journal of which nothing can be believed, or whose log is not whole: said, and gone on without."""

from __future__ import annotations

import pytest
from damaging import crash_with_a_log, fill, lost_of
from journal_twins import MINE, SqliteTwin, row, store

from coherd.errors import StartRefused
from coherd.journal import Durability
from coherd.journal.codec import seal
from coherd.journal.wal import NOTHING_LOST, inspect


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM streams WHERE id = 2", "a row is missing, or is an older one"),
        ("DELETE FROM lives", "a row is missing, or is an older one"),
        ("DELETE FROM namespaces", "a row is missing, or is an older one"),
        ("UPDATE streams SET vector = x'' WHERE id = 1", "table streams, id 1: it is not what was"),
        ("UPDATE namespaces SET floor = 6", "table namespaces, namespace 'products': it is not"),
        ("UPDATE cursors SET n = n + 1", "table cursors, reader 'reader': it is not what was"),
        ("UPDATE members SET entry = 'b' WHERE name = 'b'", "table members, name 'b': it is not"),
        ("UPDATE meta SET position = 41", "table meta: its row is not what was written"),
        ("UPDATE meta SET cluster = 'farm'", "table meta: its row is not what was written"),
        ("DELETE FROM meta", "table meta: its row is not what was written"),
        ("CREATE INDEX mine ON blocks (last)", "its tables are not those of a journal"),
        ("DROP TABLE members", "its tables are not those of a journal"),
        (
            f"UPDATE members SET entry = x'01', crc = {seal(('c', bytes([1])))[-1]} WHERE name = 'c'",
            "a row is missing, or is an older one",
        ),
    ],
)
async def test_a_journal_that_cannot_be_believed_is_put_aside(
    sqlite_twin: SqliteTwin, statement: str, message: str
) -> None:
    await fill(sqlite_twin)
    aside = sqlite_twin.path.with_name("journal.db.damaged")
    aside.write_bytes(b"an older one")
    sqlite_twin.change(statement)
    bad = sqlite_twin.path.read_bytes()
    journal = sqlite_twin.open()
    assert sqlite_twin.loaded == []
    assert aside.read_bytes() == bad
    assert lost_of(sqlite_twin, journal) == [(None, 0)]
    assert (
        f"{message}; it is now journal.db.damaged"
        in journal.damages[0].what.replace(" what was written", "")
        or message in journal.damages[0].what
    )
    assert not journal.contents.clean
    await store(journal, row(1))
    await journal.aclose()
    journal = sqlite_twin.open()
    assert not journal.damages
    assert not journal.contents.clean, "until it is healed"
    await store(journal, healed=True)
    await journal.aclose()
    assert sqlite_twin.open().contents.clean
    assert sqlite_twin.loaded == [row(1)]


@pytest.mark.bad_input(71)  # header only
async def test_a_journal_of_which_only_the_header_is_left_is_put_aside(
    sqlite_twin: SqliteTwin,
) -> None:
    await fill(sqlite_twin)
    sqlite_twin.path.write_bytes(sqlite_twin.path.read_bytes()[:100])
    journal = sqlite_twin.open()
    assert lost_of(sqlite_twin, journal) == [(None, 0)]
    assert not journal.contents.clean
    assert sqlite_twin.loaded == []
    await journal.aclose()


async def test_the_log_of_a_journal_that_is_put_aside_goes_with_it(sqlite_twin: SqliteTwin) -> None:
    log = await crash_with_a_log(sqlite_twin)
    raw = log.read_bytes()
    data = bytearray(sqlite_twin.path.read_bytes())
    data[18:20] = b"\1\1"  # "no log": SQLite would take the file for the whole
    sqlite_twin.path.write_bytes(data)
    journal = sqlite_twin.open()
    assert lost_of(sqlite_twin, journal) == [(None, 0)]
    assert sqlite_twin.path.with_name("journal.db.damaged-wal").read_bytes() == raw
    assert sqlite_twin.loaded == []
    await journal.aclose()


async def test_a_start_that_only_put_a_journal_aside_is_remembered(sqlite_twin: SqliteTwin) -> None:
    await fill(sqlite_twin)
    sqlite_twin.path.rename(sqlite_twin.path.with_name("journal.db.damaged"))
    assert not sqlite_twin.open().contents.clean


async def test_a_journal_that_cannot_be_put_aside_is_refused(
    sqlite_twin: SqliteTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(sqlite_twin)
    sqlite_twin.change("DELETE FROM meta")
    bad = sqlite_twin.path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.rename", refuse)
        with pytest.raises(StartRefused, match=r"put aside: .*Read-only file system; move it away"):
            sqlite_twin.open()
    assert sqlite_twin.path.read_bytes() == bad
    assert not sqlite_twin.open().contents.clean


async def test_a_loss_of_power_takes_the_tail_of_the_log(sqlite_twin: SqliteTwin) -> None:
    log = await crash_with_a_log(sqlite_twin)
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    journal = sqlite_twin.open(boot_id="another boot")
    assert 0 < len(sqlite_twin.loaded) < 20
    assert not journal.contents.clean
    assert journal.contents.vector == {MINE: ((1, len(sqlite_twin.loaded)),)}
    await journal.aclose()


async def test_a_commit_torn_by_a_loss_of_power_is_as_if_it_had_not_been(
    sqlite_twin: SqliteTwin,
) -> None:
    sqlite_twin.durability = Durability.DISK
    log = await crash_with_a_log(sqlite_twin)
    data = bytearray(log.read_bytes())
    data[-5000] ^= 1
    log.write_bytes(data)
    journal = sqlite_twin.open(boot_id="another boot")
    assert sqlite_twin.loaded == [row(n) for n in range(1, 20)]
    assert journal.contents.clean
    await journal.aclose()


async def test_a_log_that_is_gone_is_noticed(sqlite_twin: SqliteTwin) -> None:
    log = await crash_with_a_log(sqlite_twin)
    log.unlink()
    journal = sqlite_twin.open()
    assert not journal.contents.clean
    assert [damage.what for damage in journal.damages] == [
        f"{log} is gone: the last commits are lost"
    ]
    await journal.aclose()


async def test_a_log_that_a_loss_of_power_took_is_no_damage(sqlite_twin: SqliteTwin) -> None:
    log = await crash_with_a_log(sqlite_twin)
    log.unlink()
    journal = sqlite_twin.open(boot_id="another boot")
    assert not journal.contents.clean
    assert not journal.damages
    await journal.aclose()


async def test_a_log_that_ends_too_soon_is_told_and_gone_on_with(sqlite_twin: SqliteTwin) -> None:
    log = await crash_with_a_log(sqlite_twin)
    assert inspect(log) == NOTHING_LOST
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    journal = sqlite_twin.open()
    held = len(sqlite_twin.loaded)
    assert 0 < held < 20
    assert not journal.contents.clean
    ((namespace, position),) = lost_of(sqlite_twin, journal)
    assert (namespace, position) == (None, 0)
    assert "bytes too soon: the last commits are lost" in journal.damages[0].what
    await store(journal, row(held + 1))
    await journal.aclose()
    journal = sqlite_twin.open()
    assert not journal.damages
    assert not journal.contents.clean
    assert len(sqlite_twin.loaded) == held + 1
    await journal.aclose()


@pytest.mark.parametrize("offset", [4, 8, 12])
async def test_a_last_frame_that_is_not_the_logs_own_any_more_is_noticed(
    sqlite_twin: SqliteTwin, offset: int
) -> None:
    """Its salts, or that it ends a commit: to SQLite it is as if it had never been."""
    log = await crash_with_a_log(sqlite_twin)
    data = bytearray(log.read_bytes())
    frame = len(data) - 24 - 4096
    data[frame + offset : frame + offset + 4] = bytes(4)
    log.write_bytes(data)
    journal = sqlite_twin.open()
    assert len(sqlite_twin.loaded) == 19
    assert lost_of(sqlite_twin, journal) == [(None, 0)]
    await journal.aclose()
