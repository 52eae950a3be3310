"""A journal whose bytes are not what was written says so, and is left as it is."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from journal_twins import ME, MINE, PLENTY, THEIRS, SqliteTwin, block, reset, row, store

from coherd.errors import JournalDamaged, StartRefused
from coherd.journal import Durability, Floor
from coherd.journal.check import Damage, load, scan
from coherd.journal.codec import seal
from coherd.journal.reader import connect
from coherd.journal.wal import NOTHING_LOST, inspect
from coherd.model import Position

if TYPE_CHECKING:
    from pathlib import Path

FLIPS = 200


async def fill(twin: SqliteTwin) -> None:
    """Store some of everything, on pages of all kinds."""
    journal = twin.open()
    await store(journal, life=ME, members={"b": b"entry" * 9, "c": b"x"})
    for n in range(40):
        first = 1 + 10 * n
        await store(journal, block(first, (first, first + 9), payload=b"x" * (25 * n)))
    await store(
        journal,
        block(401, (1, 1), (7, 9), stream=THEIRS, payload=b"y" * 9000),
        reset(405),
        stream_floors={MINE: Floor(5, 0.5)},
        namespace_floors={"products": Floor(7, 0.25)},
        cursors={"reader": Position("a", 3, 4)},
    )
    await journal.aclose()


async def contents_of(twin: SqliteTwin) -> Any:
    """Give everything that can be learnt from the journal."""
    journal = twin.open()
    try:
        return (
            journal.contents,
            twin.loaded,
            await journal.read(200, PLENTY),
            await journal.fetch(MINE, [(1, 15), (300, 333)], PLENTY),
            await journal.fetch(THEIRS, [(8, 8)], PLENTY),
        )
    finally:
        await journal.aclose()


async def test_a_flipped_byte_is_noticed_or_means_nothing(sqlite_twin: SqliteTwin) -> None:
    await fill(sqlite_twin)
    path = sqlite_twin.path
    expected = await contents_of(sqlite_twin)
    assert expected == await contents_of(sqlite_twin)
    good = path.read_bytes()
    chance = random.Random(7)
    headers = [*range(0, 100, 4), 100, 103, 105, 108]
    noticed = 0
    for offset in headers + [chance.randrange(len(good)) for _ in range(FLIPS - len(headers))]:
        bad = bytearray(good)
        bad[offset] ^= chance.randrange(1, 256)
        path.write_bytes(bad)
        try:
            found = await contents_of(sqlite_twin)
        except (JournalDamaged, StartRefused):
            noticed += 1
            found = expected
            assert path.read_bytes() == bad, "what is damaged is left as it is"
        assert found == expected, f"byte {offset}"
    assert noticed > FLIPS // 3


async def test_a_file_cut_short_is_noticed(sqlite_twin: SqliteTwin) -> None:
    await fill(sqlite_twin)
    good = sqlite_twin.path.read_bytes()
    chance = random.Random(8)
    for length in [0, 1, 99, 100, 4095, 4096, len(good) - 1] + [
        chance.randrange(len(good)) for _ in range(20)
    ]:
        sqlite_twin.path.write_bytes(good[:length])
        with pytest.raises((JournalDamaged, StartRefused)):
            sqlite_twin.open()


def change(twin: SqliteTwin, *statements: str) -> None:
    with closing(sqlite3.connect(twin.path)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount
        connection.commit()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM blocks WHERE position = 401", "position 405: blocks before it are missing"),
        ("DELETE FROM blocks WHERE position >= 391", "39 blocks up to position 390, not 42"),
        ("DELETE FROM blocks WHERE position <= 11", "position 21: blocks before it are missing"),
        ("DELETE FROM blocks", "0 blocks up to position 0, not 42 up to 405"),
        (
            "UPDATE blocks SET payload = x'00' WHERE position = 21",
            "position 21: it is not what was",
        ),
        ("UPDATE blocks SET stream = 2 WHERE position = 21", "position 21: it is not what was"),
        ("UPDATE blocks SET position = 402 WHERE position = 401", "position 402: it is not what"),
        ("DELETE FROM streams WHERE id = 2", "a row is missing, or is an older one"),
        ("DELETE FROM lives", "a row is missing, or is an older one"),
        ("UPDATE streams SET vector = x'' WHERE id = 1", "table streams, id 1: it is not what was"),
        ("UPDATE floors SET n = 6", "table floors, namespace 'products': it is not what was"),
        ("UPDATE cursors SET n = n + 1", "table cursors, reader 'reader': it is not what was"),
        ("UPDATE members SET entry = 'b' WHERE name = 'b'", "table members, name 'b': it is not"),
        ("UPDATE meta SET blocks = 41", "table meta: its row is not what was written"),
        ("DELETE FROM meta", "table meta: its row is not what was written"),
        ("CREATE INDEX mine ON blocks (last)", "its tables are not those of a journal"),
        ("DROP TABLE members", "its tables are not those of a journal"),
    ],
)
async def test_what_is_missing_or_changed_is_named(
    sqlite_twin: SqliteTwin, statement: str, message: str
) -> None:
    await fill(sqlite_twin)
    change(sqlite_twin, statement)
    for _ in range(2):
        with pytest.raises(JournalDamaged, match=message) as caught:
            sqlite_twin.open()
        assert "\n" not in str(caught.value)
        await sqlite_twin.aclose()


async def test_an_older_row_with_its_own_right_checksum_is_noticed(sqlite_twin: SqliteTwin) -> None:
    await fill(sqlite_twin)
    crc = seal(("products", 6, 0.25))[-1]
    change(sqlite_twin, f"UPDATE floors SET n = 6, crc = {crc}")
    with pytest.raises(JournalDamaged, match="a row is missing, or is an older one"):
        sqlite_twin.open()


async def test_the_blocks_of_another_journal_are_noticed(tmp_path: Path) -> None:
    """Each row is intact, and so is each chain, but it begins elsewhere."""
    twins = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        twin = SqliteTwin(tmp_path / name)
        journal = twin.open(name=name)
        await store(journal, row(1), row(2))
        await journal.aclose()
        twins.append(twin)
    change(
        twins[0],
        f"ATTACH '{twins[1].path}' AS other",
        "DELETE FROM blocks",
        "INSERT INTO blocks SELECT * FROM other.blocks",
    )
    with pytest.raises(JournalDamaged, match="position 1: blocks before it are missing"):
        twins[0].open()
    await twins[0].aclose()


async def test_damage_is_reported_by_positions_and_the_rest_is_read(
    sqlite_twin: SqliteTwin,
) -> None:
    await fill(sqlite_twin)
    change(
        sqlite_twin,
        "UPDATE blocks SET payload = x'00' WHERE position IN (21, 31)",
        "DELETE FROM blocks WHERE position BETWEEN 100 AND 130",
        "DELETE FROM blocks WHERE position > 400",
    )
    with closing(connect(sqlite_twin.path)) as connection:
        held, damages = load(connection)
        assert damages == []
        found = list(scan(connection, held))
    damaged = [item.positions for item in found if isinstance(item, Damage)]
    assert damaged == [(21, 40), (101, 130), (401, 405)]
    blocks = [item for item in found if not isinstance(item, Damage)]
    assert [b.position for b in blocks] == [1, 11, *range(41, 100, 10), *range(131, 400, 10)]


async def test_damage_met_while_running_is_not_handed_on(sqlite_twin: SqliteTwin) -> None:
    journal = sqlite_twin.open()
    await store(journal, row(1), row(2))
    change(sqlite_twin, "UPDATE blocks SET payload = x'00' WHERE position = 2")
    assert await journal.read(0, 1) == [row(1)]
    with pytest.raises(JournalDamaged, match="position 2"):
        await journal.read(0, PLENTY)
    with pytest.raises(JournalDamaged, match="position 2"):
        await journal.fetch(MINE, [(2, 2)], PLENTY)
    await journal.aclose()


async def crash_with_a_log(twin: SqliteTwin) -> Path:
    """Leave a journal whose last 20 commits are in the log only."""
    journal = twin.open()
    for n in range(1, 21):
        await store(journal, row(n))
    twin.crash(journal)
    await journal.aclose()
    return twin.path.with_name("journal.db-wal")


async def test_a_flipped_byte_in_the_log_is_noticed(sqlite_twin: SqliteTwin) -> None:
    """SQLite drops all that follows it, and says nothing."""
    log = await crash_with_a_log(sqlite_twin)
    database, good = sqlite_twin.path.read_bytes(), log.read_bytes()
    assert inspect(log) == NOTHING_LOST
    chance = random.Random(9)
    damaged = 0
    for offset in [0, 7, 12, 31, 32, 36, 40] + [chance.randrange(len(good)) for _ in range(60)]:
        bad = bytearray(good)
        bad[offset] ^= chance.randrange(1, 256)
        sqlite_twin.path.write_bytes(database)
        log.write_bytes(bad)
        log.with_name("journal.db-shm").unlink(missing_ok=True)
        try:
            journal = sqlite_twin.open()
        except JournalDamaged:
            assert log.read_bytes() == bad
            damaged += 1
            continue
        assert sqlite_twin.loaded == [row(n) for n in range(1, 20)], "the last commit is torn"
        assert journal.contents.clean
        await journal.aclose()
    assert damaged > 50


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
    assert not sqlite_twin.open().contents.clean
