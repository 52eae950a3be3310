"""Journals to be damaged, and what must be said of them afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from journal_twins import ME, MINE, PLENTY, THEIRS, SqliteTwin, block, reset, row, store

from coherd.journal import Block, Floor
from coherd.model import Position

if TYPE_CHECKING:
    from pathlib import Path

    from coherd.journal.base import BaseJournal


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


def lost_of(twin: SqliteTwin, journal: BaseJournal) -> list[tuple[str | None, int]]:
    """Give the damages, after looking at their words."""
    for damage in journal.damages:
        assert str(twin.folder) in damage.what
        assert "\n" not in damage.what
    return [(damage.namespace, damage.position) for damage in journal.damages]


async def check_whole(twin: SqliteTwin, expected: list[Block]) -> None:
    """The journal takes floors for what is lost, and is then as if nothing had been."""
    for _ in range(2):
        journal = twin.open()
        damages = lost_of(twin, journal)
        assert damages, "it was not made good yet"
        assert twin.loaded == expected
        await journal.aclose()
    journal = twin.open()
    await store(journal, namespace_floors={name or "": Floor(n, 0.0) for name, n in damages})
    following = journal.contents.position + 1
    added = [row(following), block(following + 1, (9, 9), stream=THEIRS), reset(following + 2)]
    await store(journal, *added)
    assert await journal.read(0, PLENTY) == [*expected, *added]
    await journal.aclose()
    journal = twin.open()
    assert twin.loaded == [*expected, *added]
    assert not journal.damages
    assert journal.contents.clean
    await journal.aclose()


async def crash_with_a_log(twin: SqliteTwin) -> Path:
    """Leave a journal whose last 20 commits are in the log only."""
    journal = twin.open()
    for n in range(1, 21):
        await store(journal, row(n))
    twin.crash(journal)
    await journal.aclose()
    return twin.path.with_name("journal.db-wal")
