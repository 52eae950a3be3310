"""What only the twin in memory can do: commit by the step, lose its tail, and run in simulated time."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing
from journal_twins import MINE, PLENTY, row, store

from coherd.errors import NotDurable
from coherd.journal import Write
from coherd.journal.memory import MemoryJournal


def opened(journal: MemoryJournal) -> MemoryJournal:
    assert all(journal.blocks())
    return journal


async def test_commits_happen_by_the_step() -> None:
    journal = opened(MemoryJournal(automatic=False))
    ticket = journal.append_nowait(Write(blocks=[row(1)]))
    await trio.testing.wait_all_tasks_blocked()
    assert await journal.read(0, PLENTY) == []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.committed, ticket)
        await trio.testing.wait_all_tasks_blocked()
        journal.commit()
    assert await journal.read(0, PLENTY) == [row(1)]


async def test_a_crash_forgets_what_was_not_committed() -> None:
    journal = opened(MemoryJournal(automatic=False))
    journal.append_nowait(Write(blocks=[row(1)]))
    journal.commit()
    ticket = journal.append_nowait(Write(blocks=[row(2)]))
    successor = opened(journal.crash())
    with pytest.raises(NotDurable, match="the process died"):
        await journal.committed(ticket)
    assert successor.contents.vector == {MINE: ((1, 1),)}
    assert successor.contents.clean
    assert await successor.read(0, PLENTY) == [row(1)]


async def test_a_loss_of_power_takes_the_last_commits() -> None:
    journal = opened(MemoryJournal())
    for n in (1, 2, 3):
        await store(journal, row(n))
    successor = opened(journal.crash(boot_id="another boot", commits_lost=2))
    assert successor.contents.vector == {MINE: ((1, 1),)}
    assert successor.contents.position == 1
    assert not successor.contents.clean


async def test_a_journal_that_was_closed_is_opened_again() -> None:
    journal = opened(MemoryJournal())
    await store(journal, row(1))
    await journal.aclose()
    successor = opened(journal.reopen(boot_id="another boot"))
    assert successor.contents.clean
    assert await successor.read(0, PLENTY) == [row(1)]


async def test_it_runs_in_simulated_time_without_threads(
    autojump_clock: trio.testing.MockClock,
) -> None:
    before = threading.active_count()
    journal = opened(MemoryJournal())
    for n in range(1, 11):
        await store(journal, row(n))
        with trio.move_on_after(3600):
            await trio.sleep_forever()
    assert journal.running_time() == pytest.approx(36_000)
    journal.note_running_time()
    await journal.aclose()
    assert journal.reopen().contents.running_time == pytest.approx(36_000)
    assert threading.active_count() == before
