"""Rows that nobody waits for are gathered for a while; what would have to be done again is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from journal_twins import MINE, reset, row
from trio.testing import MockClock, wait_all_tasks_blocked

from coherd.journal import Write
from coherd.journal.sqlite import LINGER, LINGER_UNAWAITED, SqliteJournal

if TYPE_CHECKING:
    from journal_twins import SqliteTwin


@pytest.mark.parametrize(
    "other",
    [
        Write([reset(2)], adopted={MINE: ((5, 5),)}),
        Write(cursors={"app products": None}),
        Write(healed=True),
    ],
    ids=["a reset", "a watcher", "a healing"],
)
async def test_rows_linger_alone_and_not_with_anything_else(
    sqlite_twin: SqliteTwin, mock_clock: MockClock, other: Write
) -> None:
    journal = sqlite_twin.open()
    assert isinstance(journal, SqliteJournal)
    await wait_all_tasks_blocked()

    async def is_handed_over_after(seconds: float) -> bool:
        mock_clock.jump(seconds)
        await wait_all_tasks_blocked()
        return not journal._lingering

    journal.append_nowait(Write([row(1)]))
    assert not await is_handed_over_after(LINGER)
    journal.append_nowait(other)
    assert await is_handed_over_after(LINGER)
    journal.append_nowait(Write([row(3)]))
    assert not await is_handed_over_after(LINGER)
    assert await is_handed_over_after(LINGER_UNAWAITED)
