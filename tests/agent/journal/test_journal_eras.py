"""Eras and dropped streams, in SQLite and in its twin in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from journal_twins import MINE, PLENTY, THEIRS, block, reset, store

from coherd.journal import Era, Floor

if TYPE_CHECKING:
    from journal_twins import Twin


async def test_eras_and_their_streams_come_back(twin: Twin) -> None:
    journal = twin.open()
    await store(journal, block(1, (1, 2)), block(3, (1, 1), stream=THEIRS))
    eras = {
        "products": Era(7, 12.5, frozenset([MINE]), frozenset([THEIRS])),
        "other": Era(1, 0.0, frozenset(), frozenset()),
    }
    await store(journal, eras=eras)
    await journal.aclose()
    journal = twin.open()
    assert journal.contents.eras == eras
    later = Era(8, 13.0, frozenset(), frozenset([MINE]))
    await store(journal, eras={"products": later}, dropped=[THEIRS])
    await journal.aclose()
    assert twin.open().contents.eras == eras | {"products": later}


async def test_of_a_dropped_stream_nothing_is_known_but_its_blocks_are_read(twin: Twin) -> None:
    journal = twin.open()
    await store(journal, block(1, (1, 2)), block(3, (1, 1), stream=THEIRS))
    await store(journal, dropped=[MINE], stream_floors={MINE: Floor(1, 2.0)})
    await journal.aclose()
    journal = twin.open()
    assert journal.contents.vector == {THEIRS: ((1, 1),)}
    assert not journal.contents.stream_floors
    assert [each.position for each in twin.loaded] == [1, 3]
    await store(journal, block(4, (5, 6)))
    assert [b.position for b in await journal.fetch(MINE, [(1, 9)], PLENTY)] == [1, 4]
    await journal.aclose()
    assert twin.open().contents.vector == {MINE: ((5, 6),), THEIRS: ((1, 1),)}


async def test_a_dropped_stream_without_blocks_can_come_again(twin: Twin) -> None:
    journal = twin.open()
    await store(journal, block(1, (1, 2)), block(3, (1, 1), stream=THEIRS))
    await store(journal, block(4, (2, 2), stream=THEIRS), forgotten={"products": 2})
    await journal.aclose()
    journal = twin.open()
    await store(journal, dropped=[MINE])
    await store(journal, reset(5), dropped=[THEIRS])
    await store(journal, adopted={MINE: [(1, 2)]}, stream_floors={MINE: Floor(2, 1.0)})
    await journal.aclose()
    journal = twin.open()
    assert not journal.damages
    assert journal.contents.vector == {MINE: ((1, 2),)}
