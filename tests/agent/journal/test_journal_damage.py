"""Blocks that are not what was written are told of; the intact ones are given, and the journal goes on."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
from damaging import check_whole, fill, lost_of
from journal_twins import MINE, PLENTY, SqliteTwin, block, row, store

from coherd.errors import JournalDamaged
from coherd.journal import Floor
from coherd.journal.codec import encode_block
from coherd.journal.schema import INDEX
from coherd.journal.sqlite import SqliteJournal
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from pathlib import Path

    from journal_twins import Twin


async def test_damaged_blocks_are_told_until_a_floor_accounts_for_them(twin: Twin) -> None:
    journal = twin.open()
    rows = [row(n, namespace="other" if n % 3 == 0 else "products") for n in range(1, 31)]
    await store(journal, *rows, namespace_floors={"products": Floor(30, 1.0)})
    await journal.aclose()
    twin.damage(4, 7, 9)
    intact = [b for b in rows if b.position not in {4, 7, 9}]
    for floor in (None, {"products": Floor(6, 2.0), "third": Floor(99, 2.0)}):
        journal = twin.open()
        assert twin.loaded == intact
        assert await journal.read(0, PLENTY) == intact
        assert {(d.namespace, d.position) for d in journal.damages} == {
            ("products", 7),
            ("other", 11),
        }
        assert journal.contents.clean
        assert sum(len(Intervals(r)) for r in journal.contents.vector.values()) == 30
        if floor is not None:
            await store(journal, namespace_floors=floor)
        await journal.aclose()
    journal = twin.open()
    assert len(journal.damages) == 2, "a floor below the damage does not account for it"
    await store(journal, row(31), namespace_floors={"products": Floor(7, 3.0)})
    await journal.aclose()
    journal = twin.open()
    assert [(d.namespace, d.position) for d in journal.damages] == [("other", 11)]
    await store(journal, namespace_floors={"other": Floor(12, 3.0)})
    await journal.aclose()
    assert not twin.open().damages
    assert twin.loaded == [*intact, row(31)]


async def test_a_damaged_last_block_is_told_and_its_place_not_used_again(twin: Twin) -> None:
    journal = twin.open()
    await store(journal, row(1), row(2))
    await journal.aclose()
    twin.damage(2)
    journal = twin.open()
    assert twin.loaded == [row(1)]
    assert [(d.namespace, d.position) for d in journal.damages] == [("products", 2)]
    assert journal.contents.position == 2
    await store(journal, row(3), namespace_floors={"products": Floor(2, 0.0)})
    await journal.aclose()
    assert not twin.open().damages
    assert twin.loaded == [row(1), row(3)]


async def test_later_damage_does_not_hide_what_was_damaged_before(twin: Twin) -> None:
    journal = twin.open()
    await store(journal, *(row(n) for n in range(1, 31)))
    await journal.aclose()
    for position in (20, 4):
        twin.damage(position)
        journal = twin.open()
        assert [(d.namespace, d.position) for d in journal.damages] == [("products", 20)]
        await journal.aclose()
    assert [b.position for b in twin.loaded] == [n for n in range(1, 31) if n not in {4, 20}]


INTACT = range(1, 400, 10)
"""Positions of the blocks of `fill`, but for the last two: (401, THEIRS) and (405, a reset)."""


@pytest.mark.bad_input(72)
@pytest.mark.parametrize(
    ("statements", "position", "gone", "message"),
    [
        (["DELETE FROM blocks WHERE position = 401"], 404, [401], "405: blocks before it are miss"),
        (["DELETE FROM blocks WHERE position >= 391"], 405, [391, 401, 405], "the last ones up to"),
        (["DELETE FROM blocks WHERE position <= 11"], 20, [1, 11], "21: blocks before it are miss"),
        (
            ["DELETE FROM blocks"],
            405,
            [*INTACT, 401, 405],
            "42 of 42 blocks are damaged or missing",
        ),
        (["UPDATE blocks SET payload = x'00' WHERE position = 21"], 30, [21], "21: it is not what"),
        (["UPDATE blocks SET payload = NULL WHERE position = 21"], 30, [21], "21: it is not what"),
        (["UPDATE blocks SET stream = 2 WHERE position = 21"], 30, [21], "21: it is not what was"),
        (["UPDATE blocks SET stream = 9 WHERE position = 21"], 30, [21], "21: it is not what was"),
        (["UPDATE blocks SET rows = 0 WHERE position = 21"], 30, [21], "21: it is not what was wr"),
        (
            ["UPDATE blocks SET rows = 4294967295 WHERE position = 21"],
            30,
            [21],
            "21: it is not what was",
        ),
        (["UPDATE blocks SET cause = CAST(x'ff' AS TEXT) WHERE position = 21"], 30, [21], "21: it"),
        (["UPDATE blocks SET crc = 'x' WHERE position = 405"], 405, [405], "405: it is not what"),
        (["UPDATE blocks SET crc = crc + 1 WHERE position = 21"], 30, [21], "21: it is not what"),
        (["UPDATE blocks SET links = x'0011' WHERE position = 21"], 30, [21], "31: blocks before"),
        (["UPDATE blocks SET links = NULL WHERE position = 1"], 10, [1], "11: blocks before"),
        (["UPDATE blocks SET position = 402 WHERE position = 401"], 404, [401], "402: it is not"),
        (["UPDATE blocks SET position = -7 WHERE position = 401"], 404, [401], "405: blocks bef"),
        (
            [
                "UPDATE blocks SET payload = x'00' WHERE position IN (21, 31)",
                "DELETE FROM blocks WHERE position BETWEEN 100 AND 130",
            ],
            130,
            [21, 31, 101, 111, 121],
            "5 of 42 blocks are damaged or missing: table blocks, position 21",
        ),
        (
            [
                "UPDATE blocks SET payload = x'00' WHERE position = 21",
                "DELETE FROM blocks WHERE position = 405",
            ],
            405,
            [21, 405],
            "2 of 42 blocks are damaged or missing",
        ),
        (
            [
                "DELETE FROM blocks WHERE position = 21",
                "DELETE FROM blocks WHERE position = 61",
            ],
            70,
            [21, 31, 41, 51, 61],  # those between the gaps are linked to nothing known
            "5 of 42 blocks are damaged or missing",
        ),
    ],
)
async def test_blocks_that_are_missing_or_changed(
    sqlite_twin: SqliteTwin,
    statements: list[str],
    position: int,
    gone: list[int],
    message: str,
) -> None:
    await fill(sqlite_twin)
    journal = sqlite_twin.open()
    expected = [b for b in sqlite_twin.loaded if b.position not in gone]
    contents = journal.contents
    await journal.aclose()
    sqlite_twin.change(*statements)
    journal = sqlite_twin.open()
    assert sqlite_twin.loaded == expected
    assert journal.contents == contents
    assert lost_of(sqlite_twin, journal) == [("products", position)]
    assert message in journal.damages[0].what
    await journal.aclose()
    await check_whole(sqlite_twin, expected)


async def test_each_namespace_has_damage_of_its_own(sqlite_twin: SqliteTwin) -> None:
    journal = sqlite_twin.open()
    names = ["products", "other", "third"]
    rows = [row(n, namespace=names[n % 3]) for n in range(1, 31)]
    await store(journal, *rows)
    await journal.aclose()
    sqlite_twin.change("DELETE FROM blocks WHERE position IN (7, 10, 20, 29)")
    journal = sqlite_twin.open()
    assert dict(lost_of(sqlite_twin, journal)) == {"other": 12, "third": 29}
    # 7, 10: other; 20, 29: third, of which 23 and 26 are linked to nothing known... but each other
    assert [b.position for b in sqlite_twin.loaded if b.namespace == "third"] == [
        2,
        5,
        8,
        11,
        14,
        17,
    ]
    assert [b for b in sqlite_twin.loaded if b.namespace == "products"] == rows[2::3]
    await journal.aclose()


@pytest.mark.bad_input(72)  # segments of two nodes
@pytest.mark.parametrize("taken", ["position < 99", "position = 2", "position IN (2, 3)"])
async def test_the_blocks_of_another_journal_are_noticed(tmp_path: Path, taken: str) -> None:
    """Each row is intact, and so is each chain, but it begins elsewhere."""
    twins = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        twin = SqliteTwin(tmp_path / name)
        journal = twin.open(name=name)
        await store(journal, *(row(n, name.encode()) for n in range(1, 6)))
        await journal.aclose()
        twins.append(twin)
    twin = twins[0]
    twin.change(
        f"ATTACH '{twins[1].path}' AS other",
        f"DELETE FROM blocks WHERE {taken}",
        f"INSERT INTO blocks SELECT * FROM other.blocks WHERE {taken}",
    )
    journal = twin.open()
    assert all(b.payload == b"a" for b in twin.loaded)
    ((namespace, position),) = lost_of(twin, journal)
    assert namespace == "products"
    assert position >= max({1, 2, 3, 4, 5} - {b.position for b in twin.loaded})
    await journal.aclose()
    await check_whole(twin, list(twin.loaded))


async def test_blocks_that_belong_to_nobody_are_said_and_removed(sqlite_twin: SqliteTwin) -> None:
    await fill(sqlite_twin)
    columns = "rows, 7, namespace, first, last, numbers, accepted_at, cause, payload, links, crc"
    sqlite_twin.change(f"INSERT INTO blocks SELECT 1000, {columns} FROM blocks WHERE position = 1")
    journal = sqlite_twin.open()
    assert len(sqlite_twin.loaded) == 42
    assert lost_of(sqlite_twin, journal) == [(None, 0)]
    assert "1 rows of table blocks belong to no namespace" in journal.damages[0].what
    assert not journal.contents.clean
    await journal.aclose()
    journal = sqlite_twin.open()
    assert not journal.damages
    await journal.aclose()


@pytest.mark.bad_input(72)  # the CRC is right, the chain is not
@pytest.mark.parametrize("position", [1, 21, 405])
async def test_a_changed_block_with_a_checksum_of_its_own_is_noticed(
    sqlite_twin: SqliteTwin, position: int
) -> None:
    await fill(sqlite_twin)
    journal = sqlite_twin.open()
    good = list(sqlite_twin.loaded)
    changed = next(b for b in good if b.position == position)
    await journal.aclose()
    stream_id = None if changed.stream is None else 1
    forged = encode_block(changed._replace(accepted_at=7.0), stream_id, b"")
    sqlite_twin.change(
        f"UPDATE blocks SET accepted_at = 7.0, crc = {forged[-1]} WHERE position = {position}"
    )
    journal = sqlite_twin.open()
    assert sqlite_twin.loaded == [b for b in good if b.position != position]
    ((namespace, upto),) = lost_of(sqlite_twin, journal)
    assert (namespace, upto >= position) == ("products", True)
    await journal.aclose()


async def test_an_index_that_lies_is_made_anew(sqlite_twin: SqliteTwin) -> None:
    await fill(sqlite_twin)
    change_index = "UPDATE sqlite_schema SET sql = '{}' WHERE name = 'blocks_of_stream'"
    sqlite_twin.change("PRAGMA writable_schema = ON", change_index.format(f"{INDEX} WHERE false"))
    sqlite_twin.change("UPDATE blocks SET first = 7, last = 8 WHERE position = 1")
    sqlite_twin.change("PRAGMA writable_schema = ON", change_index.format(INDEX))
    journal = sqlite_twin.open()
    assert lost_of(sqlite_twin, journal) == [(None, 0), ("products", 10)]
    assert "the index is made anew" in journal.damages[0].what
    assert not journal.contents.clean
    good = list(sqlite_twin.loaded)
    assert len(good) == 41
    assert await journal.fetch(MINE, [(1, 400)], PLENTY) == good[:39]
    await journal.aclose()
    journal = sqlite_twin.open()
    assert lost_of(sqlite_twin, journal) == [("products", 10)]
    await journal.aclose()


async def test_damage_met_while_running_is_told_once(sqlite_twin: SqliteTwin) -> None:
    journal = sqlite_twin.open()
    other = MINE._replace(namespace="other")
    await store(journal, row(1), row(2), row(3), block(4, (1, 3), stream=other), row(9))
    sqlite_twin.damage(2)
    sqlite_twin.damage(4)
    assert await journal.read(0, PLENTY) == [row(1)], "what comes before is given"
    with pytest.raises(JournalDamaged, match="position 2: it is not what was written") as caught:
        await journal.read(1, PLENTY)
    assert (caught.value.namespace, caught.value.positions) == ("products", (2, 2))
    assert await journal.read(1, PLENTY) == [row(3)]
    with pytest.raises(JournalDamaged, match="position 4") as caught:
        await journal.fetch(other, [(1, 1)], PLENTY)
    assert (caught.value.namespace, caught.value.positions) == ("other", (4, 8))
    assert await journal.fetch(other, [(1, 1)], PLENTY) == []
    assert await journal.fetch(MINE, [(1, 9)], PLENTY) == [row(1), row(3), row(9)]
    assert await journal.read(0, PLENTY) == [row(1), row(3), row(9)]
    assert lost_of(sqlite_twin, journal) == [("products", 2), ("other", 8)]
    await store(journal, row(10))
    await journal.aclose()
    journal = sqlite_twin.open()
    assert dict(lost_of(sqlite_twin, journal)) == {"products": 2, "other": 6}
    assert sqlite_twin.loaded == [row(1), row(3), row(9), row(10)]
    await journal.aclose()


async def test_pages_that_sqlite_cannot_read_while_running_are_told(
    sqlite_twin: SqliteTwin,
) -> None:
    journal = sqlite_twin.open()
    await store(journal, *(row(n) for n in range(1, 200)))
    assert isinstance(journal, SqliteJournal)

    class Broken:
        """A connection whose file does not answer."""

        def execute(self, *_: object) -> None:
            raise sqlite3.DatabaseError("database disk image is malformed")

        def close(self) -> None:
            pass

    connection, journal._reader._connection = journal._reader._connection, Broken()
    for _ in range(2):
        with pytest.raises(JournalDamaged, match=r"SQLite says: .*malformed") as caught:
            await journal.read(20, PLENTY)
        assert (caught.value.namespace, caught.value.positions) == (None, (21, 199))
    with pytest.raises(JournalDamaged) as caught:
        await journal.fetch(MINE, [(3, 3)], PLENTY)
    assert (caught.value.namespace, caught.value.positions) == ("products", (1, 199))
    assert len(journal.damages) == 2
    journal._reader._connection = connection
    sqlite_twin.damage(21)
    with pytest.raises(JournalDamaged, match="position 21"):
        await journal.read(20, PLENTY)
    await journal.aclose()
