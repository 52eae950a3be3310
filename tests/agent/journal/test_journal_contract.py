"""What any journal does: the same suite on SQLite and on its twin in memory."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from journal_twins import ME, MINE, PEER, PLENTY, THEIRS, block, reset, row, store

from coherd.errors import NotDurable, Overloaded
from coherd.journal import Floor, Write
from coherd.model import Lane, Origin, Position, Stream

if TYPE_CHECKING:
    from journal_twins import Twin

    from coherd.journal.base import BaseJournal


async def test_a_new_journal_is_empty_and_clean(twin: Twin) -> None:
    journal = twin.open()
    contents = journal.contents
    assert contents.clean
    assert contents.position == 0
    assert contents.running_time == 0
    assert not contents.lives
    assert not contents.vector
    assert twin.loaded == []
    assert await journal.read(0, PLENTY) == []
    assert await journal.fetch(MINE, [(1, 100)], PLENTY) == []
    assert journal.statistics().error == ""
    await journal.aclose()


async def test_tickets_count_up_and_blocks_are_read_in_order(twin: Twin) -> None:
    journal = twin.open()
    tickets = [journal.append_nowait(Write(blocks=[row(n)])) for n in (1, 2, 3)]
    assert tickets == [1, 2, 3]
    await journal.committed(2)
    await journal.committed(3)
    await journal.committed(1)
    assert await journal.read(0, PLENTY) == [row(1), row(2), row(3)]
    await journal.aclose()


async def test_a_ticket_that_was_never_given_is_an_error(twin: Twin) -> None:
    journal = twin.open()
    with pytest.raises(ValueError, match="no such ticket: 1"):
        await journal.committed(1)
    await journal.aclose()


async def test_a_burst_commits_together(twin: Twin) -> None:
    journal = twin.open()
    with twin.stalled(journal):
        for n in range(1, 1001):
            journal.append_nowait(Write(blocks=[row(n)]))
    async with trio.open_nursery() as nursery:
        for ticket in range(1, 1001):
            nursery.start_soon(journal.committed, ticket)
    assert 1 <= journal.statistics().commits <= 3
    assert [b.position for b in await journal.read(0, PLENTY)] == list(range(1, 1001))
    await journal.aclose()


async def test_all_kinds_of_blocks_come_back_as_they_were(twin: Twin) -> None:
    blocks = [
        block(1, (1, 500), payload=b"\0\xff" * 5000),
        reset(501),
        block(502, (3, 3), (5, 9), (1000, 1000), stream=THEIRS, accepted_at=1e6 / 3),
        block(509, (2**62, 2**62 + 3), stream=Stream("ns", Origin("é", 0), Lane.BULK), payload=b""),
        reset(600, "another"),
    ]
    journal = twin.open()
    await store(journal, *blocks)
    assert await journal.read(0, PLENTY) == blocks
    await journal.aclose()
    journal = twin.open()
    assert twin.loaded == blocks
    assert journal.contents.position == 600
    assert await journal.read(0, PLENTY) == blocks
    await journal.aclose()


async def test_the_vector_holds_blocks_and_adopted_numbers(twin: Twin) -> None:
    journal = twin.open()
    await store(journal, block(1, (1, 10)), block(11, (12, 13)))
    await store(journal, adopted={MINE: [(20, 29)], THEIRS: [(1, 5), (7, 7)]})
    await store(journal, block(13, (11, 11)))
    await journal.aclose()
    vector = twin.open().contents.vector
    assert {stream: tuple(ranges) for stream, ranges in vector.items()} == {
        MINE: ((1, 13), (20, 29)),
        THEIRS: ((1, 5), (7, 7)),
    }


async def test_everything_beside_the_rows_is_kept(twin: Twin) -> None:
    journal = twin.open()
    await store(journal, life=ME)
    await store(
        journal,
        block(1, (1, 7)),
        stream_floors={MINE: Floor(3, 0.5), THEIRS: Floor(9, 0)},
        namespace_floors={"products": Floor(2, 7.25)},
        cursors={"memcached:x": Position("a", ME.epoch, 3), "gone": Position("a", ME.epoch, 4)},
        members={"a": b"", "b": b"\0entry", "c": b"left"},
        max_ttls={"products": [(0.0, inf), (1.5, 3600.0)], "gone": [(0.0, 1.0)]},
    )
    await store(journal, life=Origin("a", ME.epoch + 1))
    await store(
        journal,
        block(8, (8, 8)),
        stream_floors={MINE: Floor(5, 0.75)},
        cursors={"gone": None, "memcached:x": Position("a", ME.epoch, 8), "never": None},
        members={"c": None},
        max_ttls={"products": [(1.5, 3600.0), (1e6 / 3, 60)], "gone": [], "idle": [(0, inf)]},
    )
    await journal.aclose()
    contents = twin.open().contents
    assert list(contents.lives) == [(ME, 1), (Origin("a", ME.epoch + 1), 8)]
    assert contents.stream_floors == {MINE: Floor(5, 0.75), THEIRS: Floor(9, 0)}
    assert contents.namespace_floors == {"products": Floor(2, 7.25)}
    assert contents.cursors == {"memcached:x": Position("a", ME.epoch, 8)}
    assert contents.members == {"a": b"", "b": b"\0entry"}
    assert {name: tuple(history) for name, history in contents.max_ttls.items()} == {
        "products": ((1.5, 3600.0), (1e6 / 3, 60)),
        "idle": ((0, inf),),
    }
    assert list(contents.vector) == [MINE]


async def test_parts_set_and_removed_in_one_commit_end_as_the_last_write_says(twin: Twin) -> None:
    journal = twin.open()
    with twin.stalled(journal):
        journal.append_nowait(Write())
        journal.append_nowait(Write(members={"b": b"1", "c": b"1"}))
        journal.append_nowait(Write(members={"b": None, "c": b"2"}))
        last = journal.append_nowait(Write(members={"d": b"3"}))
    await journal.committed(last)
    await journal.aclose()
    assert twin.open().contents.members == {"c": b"2", "d": b"3"}


async def test_the_journal_of_another_name_is_taken_over(twin: Twin) -> None:
    """A host that was renamed, or cloned with its data directory."""
    journal = twin.open(name="old")
    assert journal.contents.name == "old"
    await store(journal, row(1))
    await journal.aclose()
    for name, before in (("new", "old"), ("new", "new")):
        journal = twin.open(name=name)
        assert journal.contents.name == before
        await store(journal, row(journal.contents.position + 1), row(100 * len(twin.loaded)))
        assert not journal.damages
        await journal.aclose()
    assert twin.open(name="new").contents.clean
    assert len(twin.loaded) == 5


async def test_a_reopened_journal_goes_on(twin: Twin) -> None:
    for n in (1, 2, 3):
        journal = twin.open()
        assert journal.contents.position == n - 1
        with pytest.raises(ValueError, match=f"position {n - 1} follows {n - 1}"):
            journal.append_nowait(Write(blocks=[row(n - 1)]))
        await store(journal, row(n), life=Origin("a", n))
        await journal.aclose()
    assert [life for life, _ in twin.open().contents.lives] == [Origin("a", n) for n in (1, 2, 3)]
    assert twin.loaded == [row(1), row(2), row(3)]


async def test_pages_are_cut_by_bytes_but_never_empty(twin: Twin) -> None:
    journal = twin.open()
    blocks = [block(1 + 10 * i, (1 + 10 * i, 10 + 10 * i), payload=b"x" * 900) for i in range(9)]
    await store(journal, *blocks)
    assert await journal.read(0, 1) == blocks[:1]
    assert await journal.read(0, 3000) == blocks[:3]
    assert await journal.read(9, PLENTY) == blocks, "begun below, ends above: given whole"
    assert await journal.read(10, 3000) == blocks[1:4]
    assert await journal.read(89, 3000) == blocks[8:]
    assert await journal.read(90, 3000) == []
    assert await journal.fetch(MINE, [(1, 1000)], 1) == blocks[:1]
    assert await journal.fetch(MINE, [(15, 1000)], 3000) == blocks[1:4]
    await journal.aclose()


async def test_pages_of_blocks_without_bytes_end_too(twin: Twin) -> None:
    journal = twin.open()
    await store(journal, *(reset(n) for n in range(1, 1001)))
    assert 1 < len(await journal.read(0, 10_000)) < 1000
    await journal.aclose()


async def test_fetch_finds_by_numbers_whatever_the_order_of_arrival(twin: Twin) -> None:
    journal = twin.open()
    wide = block(1, (1, 1), (1000, 1000))
    late = block(3, (500, 509))
    early = block(13, (2, 3))
    other = block(15, (500, 501), stream=THEIRS)
    await store(journal, wide, late, early, other, reset(17))
    assert await journal.fetch(MINE, [(1, 2000)], PLENTY) == [wide, early, late]
    assert await journal.fetch(MINE, [(2, 499)], PLENTY) == [early]
    assert await journal.fetch(MINE, [(505, 999)], PLENTY) == [late]
    assert await journal.fetch(MINE, [(3, 3), (509, 509), (1000, 1000)], PLENTY) == [
        wide,
        early,
        late,
    ]
    assert await journal.fetch(MINE, [(510, 999)], PLENTY) == []
    assert await journal.fetch(MINE, [], PLENTY) == []
    assert await journal.fetch(THEIRS, [(501, 501)], PLENTY) == [other]
    await journal.aclose()
    journal = twin.open()
    assert await journal.fetch(MINE, [(1000, 1000)], PLENTY) == [wide]
    await journal.aclose()


async def test_a_full_queue_refuses_and_stores_nothing_of_it(twin: Twin) -> None:
    journal = twin.open(queue_bytes_max=10_000)
    with twin.stalled(journal):
        assert journal.append_nowait(Write(blocks=[row(1, b"x" * 20_000)])) == 1, (
            "an empty one takes any"
        )
        with pytest.raises(Overloaded, match="queue is full"):
            journal.append_nowait(Write(blocks=[row(2)], members={"b": b"entry"}))
        assert journal.statistics().queued_bytes > 20_000
    await journal.committed(1)
    assert journal.statistics().queued_bytes == 0
    await store(journal, row(2))
    await journal.aclose()
    journal = twin.open()
    assert twin.loaded == [row(1, b"x" * 20_000), row(2)]
    assert not journal.contents.members
    await journal.aclose()


async def test_a_failing_disk_closes_the_journal_and_reading_goes_on(twin: Twin) -> None:
    journal = twin.open()
    await store(journal, row(1))
    twin.fail(journal)
    ticket = journal.append_nowait(
        Write(blocks=[row(2), row(3)], adopted={THEIRS: [(1, 9)]}, members={"b": b"entry"})
    )
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(_expect_not_durable, journal, ticket)
    with pytest.raises(NotDurable, match="the journal is closed"):
        journal.append_nowait(Write())
    journal.note_running_time()
    await journal.committed(1)
    assert journal.statistics().error
    assert journal.statistics().queued_bytes == 0
    assert await journal.read(0, PLENTY) == [row(1)]
    assert await journal.fetch(MINE, [(1, 3)], PLENTY) == [row(1)]
    await journal.aclose()
    contents = twin.open().contents
    assert twin.loaded == [row(1)]
    assert contents.vector == {MINE: ((1, 1),)}
    assert not contents.members
    assert contents.clean, "no power was lost"


async def _expect_not_durable(journal: BaseJournal, ticket: int) -> None:
    with pytest.raises(NotDurable, match="may have been applied"):
        await journal.committed(ticket)


async def test_closing_commits_what_is_queued(twin: Twin) -> None:
    journal = twin.open()
    with twin.stalled(journal):
        for n in range(1, 101):
            journal.append_nowait(Write(blocks=[row(n)]))
    await journal.aclose()
    await journal.aclose()
    await journal.committed(100)
    assert journal.statistics().error == "it was closed in order"
    with pytest.raises(NotDurable, match="closed in order"):
        journal.append_nowait(Write())
    with pytest.raises(NotDurable, match="closed in order"):
        await journal.read(0, PLENTY)
    await twin.open().aclose()
    assert len(twin.loaded) == 100


async def test_a_journal_is_not_used_before_its_blocks_were_read(twin: Twin) -> None:
    journal = twin.open()
    await store(journal, row(1), row(2))
    await journal.aclose()
    unread = twin._open(
        {"now": lambda: 0.0, "boot_id": "another boot", "durability": twin.durability}
    )
    with pytest.raises(RuntimeError, match="once all of its blocks"):
        unread.append_nowait(Write())
    with pytest.raises(RuntimeError, match="once all of its blocks"):
        await unread.read(0, PLENTY)
    assert next(unread.blocks()) == row(1)
    await unread.aclose()
    assert twin.open().contents.clean, "an opening that went no further changes nothing"


async def test_what_was_committed_survives_a_crash(twin: Twin) -> None:
    journal = twin.open()
    await store(journal, *(row(n) for n in range(1, 51)), members={"b": b"entry"}, life=PEER)
    twin.crash(journal)
    await journal.aclose()
    contents = twin.open().contents
    assert len(twin.loaded) == 50
    assert contents.vector == {MINE: ((1, 50),)}
    assert contents.members == {"b": b"entry"}
    assert list(contents.lives) == [(PEER, 1)]


async def test_giving_up_waiting_leaves_the_write(twin: Twin) -> None:
    journal = twin.open()
    with twin.stalled(journal):
        ticket = journal.append_nowait(Write(blocks=[row(1)]))
        with trio.CancelScope() as scope:
            scope.cancel()
            await journal.committed(ticket)
        assert scope.cancelled_caught
    await journal.committed(ticket)
    assert await journal.read(0, PLENTY) == [row(1)]
    await journal.aclose()


async def test_running_time_counts_only_while_it_is_open(twin: Twin) -> None:
    journal = twin.open()
    twin.time += 100
    assert journal.running_time() == 100
    await store(journal, row(1))
    twin.time += 5
    twin.crash(journal)
    await journal.aclose()
    twin.time += 1_000_000
    journal = twin.open()
    assert journal.contents.running_time == 100, "what was stored last"
    twin.time += 10
    journal.note_running_time()
    await journal.committed(1)
    twin.crash(journal)
    await journal.aclose()
    journal = twin.open()
    assert journal.contents.running_time == 110
    twin.time += 1
    await journal.aclose()
    twin.time -= 5_000_000
    assert twin.open().contents.running_time == 111


async def test_whoever_waits_lets_others_run(twin: Twin) -> None:
    """A reader waits at a checkpoint in either journal, so that no caller starves the others."""
    journal = twin.open()
    ticket = journal.append_nowait(Write())
    with trio.testing.assert_checkpoints():
        await journal.committed(ticket)
    with trio.testing.assert_checkpoints():
        await journal.committed(ticket)
    with trio.testing.assert_checkpoints():
        await journal.read(0, PLENTY)
    with trio.testing.assert_checkpoints():
        await journal.aclose()
