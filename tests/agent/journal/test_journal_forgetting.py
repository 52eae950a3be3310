"""What a journal forgets on request: the oldest blocks of one namespace, whatever the others keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.polling import poll_async
from journal_twins import ME, MINE, PLENTY, block, reset, row, store

from coherd.journal import Durability
from coherd.journal.sqlite import SqliteJournal
from coherd.journal.writer import FORGOTTEN_AT_ONCE, Writer
from coherd.model import Lane, Stream
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    import pytest
    from journal_twins import SqliteTwin, Twin

    from coherd.journal.base import BaseJournal


async def held(journal: BaseJournal) -> list[int]:
    return [b.position for b in await journal.read(0, PLENTY)]


async def wait_for(journal: BaseJournal, positions: list[int]) -> None:
    """Wait until no other blocks are held."""

    def is_idle() -> bool:
        if isinstance(journal, SqliteJournal):
            assert journal._writer is not None
            return not journal._writer.forgets
        return True

    await poll_async(is_idle, "the writer to forget")
    # The last slice is committed before the next write is.
    await store(journal)
    assert await held(journal) == positions


async def test_the_oldest_blocks_of_a_namespace_go(twin: Twin) -> None:
    journal = twin.open()
    rows = [row(n, namespace="other" if n % 3 == 0 else "products") for n in range(1, 31)]
    await store(journal, *rows)
    await store(journal, forgotten={"products": 20, "never": 7})
    left = [b for b in rows if b.namespace == "other" or b.position > 20]
    await wait_for(journal, [b.position for b in left])
    assert await journal.fetch(MINE, [(1, 40)], PLENTY) == [b for b in left if b.position % 3]
    await store(journal, row(31))
    await journal.aclose()
    journal = twin.open()
    assert twin.loaded == [*left, row(31)]
    assert not journal.damages
    assert sum(len(Intervals(ranges)) for ranges in journal.contents.vector.values()) == 31
    await journal.aclose()


async def test_a_block_that_ends_above_stays(twin: Twin) -> None:
    journal = twin.open()
    blocks = [block(1 + 10 * i, (1 + 10 * i, 10 + 10 * i)) for i in range(3)]
    await store(journal, *blocks)
    await store(journal, forgotten={"products": 19})
    await wait_for(journal, [11, 21])
    await store(journal, forgotten={"products": 20})
    await wait_for(journal, [21])
    await store(journal, forgotten={"products": 7})
    await wait_for(journal, [21])
    await store(journal, forgotten={"products": 30})
    await wait_for(journal, [])
    await journal.aclose()
    journal = twin.open()
    assert twin.loaded == []
    assert not journal.damages
    assert journal.contents.position == 30
    assert journal.contents.vector == {MINE: ((1, 30),)}
    await store(journal, row(31), reset(32))
    await journal.aclose()
    assert not twin.open().damages
    assert twin.loaded == [row(31), reset(32)]


async def test_what_comes_in_the_same_write_may_go_too(twin: Twin) -> None:
    journal = twin.open()
    await store(journal, row(1), row(2), row(3), forgotten={"products": 2})
    await wait_for(journal, [3])
    await journal.aclose()


async def test_a_crash_leaves_whole_what_was_not_forgotten_yet(sqlite_twin: SqliteTwin) -> None:
    journal = sqlite_twin.open()
    count = 3 * FORGOTTEN_AT_ONCE
    await store(journal, *(row(n) for n in range(1, count + 1)))
    writer, slices = journal._writer, []  # type: ignore[attr-defined]
    forget = writer.forget

    def forget_once() -> None:
        if not slices:
            slices.append(1)
            writer._committed_blocks = 0
            forget()
        else:
            writer._forgotten.clear()

    writer.forget = forget_once
    await store(journal, forgotten={"products": count})
    await wait_for(journal, list(range(FORGOTTEN_AT_ONCE + 1, count + 1)))
    sqlite_twin.crash(journal)
    await journal.aclose()
    journal = sqlite_twin.open()
    assert [b.position for b in sqlite_twin.loaded] == [*range(FORGOTTEN_AT_ONCE + 1, count + 1)]
    assert not journal.damages
    await store(journal, forgotten={"products": count})
    await wait_for(journal, [])
    await journal.aclose()
    assert not sqlite_twin.open().damages


async def test_a_steady_flood_leaves_the_file_as_it_is(
    sqlite_twin: SqliteTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many more blocks than a slice drops come with every commit."""
    monkeypatch.setattr("coherd.journal.writer.FORGOTTEN_AT_ONCE", 10)
    monkeypatch.setattr("coherd.journal.writer.CHECKPOINT_BYTES", 100_000)
    journal = sqlite_twin.open()
    assert isinstance(journal, SqliteJournal)
    kept = []
    for turn in range(30):
        first = 1 + 400 * turn
        odd, even = Stream("odd", ME, Lane.NORMAL), Stream("even", ME, Lane.NORMAL)
        blocks = [
            block(n, (n // 2, n // 2), stream=odd if n % 2 else even, payload=b"x" * 100)
            for n in range(first, first + 400)
        ]
        await store(journal, *blocks, forgotten={"odd": first - 200, "even": first - 200})
        kept.append(sum(len(entry.positions) for entry in journal._opened.held.namespaces.values()))
    assert max(kept) <= 2000, kept
    await journal.aclose()
    assert sqlite_twin.path.stat().st_size < 500_000, "a sixth of what was written"


async def test_forgetting_costs_no_fsync(sqlite_twin: SqliteTwin) -> None:
    journal = sqlite_twin.open(durability=Durability.DISK)
    writer = journal._writer  # type: ignore[attr-defined]
    levels: list[tuple[str, int]] = []
    drop = Writer._forget

    def seen(when: str) -> None:
        levels.append((when, *writer._connection.execute("PRAGMA synchronous").fetchone()))

    def forget(self: Writer, *arguments: object) -> None:
        seen("forgetting")
        drop(self, *arguments)  # type: ignore[arg-type]

    writer._forget = forget.__get__(writer)
    await store(journal, row(1))
    await store(journal, forgotten={"products": 1})
    await wait_for(journal, [])
    seen("after")
    assert levels == [("forgetting", 1), ("after", 2)]
    await journal.aclose()
