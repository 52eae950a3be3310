"""Disks that are lost or restored, clocks that are behind: caches that come back only then miss nothing."""

from __future__ import annotations

from copy import deepcopy

import pytest
from simulation.hosts import NAMESPACE, Host, hosts, until, wait
from trio.testing import MockClock

from coherd.cluster.feed import Reader
from coherd.journal.memory import Disk
from coherd.model import Position

DAY = 86_400.0


def cut_off(host: Host, others: list[Host]) -> None:
    for other in others:
        host.network.cut(host.address, other.address)


async def rows_after(host: Host, cursor: Position) -> set[bytes]:
    """What a watcher with this cursor is told when it comes back."""
    start = host.agent.ingest.locate(cursor)
    assert start is not None
    reader, found = Reader(host.agent.feed, {NAMESPACE}, start), set[bytes]()
    while reader.position < host.agent.feed.position:
        for arrival in (await reader.next()).arrivals:
            found.update(arrival.batch.selectors)
    return found


@pytest.mark.parametrize("by", ["a renewed epoch", "a later start"])
@pytest.mark.parametrize("disk", ["lost", "restored"])
async def test_rows_accepted_while_the_clock_was_behind_reach_caches_that_come_back_later(
    autojump_clock: MockClock, by: str, disk: str
) -> None:
    async with hosts(3) as (one, two, three):
        await one.invalidate([b"before"])
        await wait(2.0)
        copy = deepcopy(one.disk)
        await one.stop()
        await one.start()
        one.fill([b"late", b"other"])
        await one.invalidate([b"other"])
        await until(lambda: one.cache.entries.keys() == {b"late"})
        cursor = one.cache.cursor
        assert cursor is not None
        one.cache.fail_next(10_000)
        one.crash()
        cut_off(one, [two, three])
        one.disk = Disk() if disk == "lost" else copy
        one.clock_behind = 0.5 if disk == "restored" and by == "a later start" else DAY
        await one.start()
        assert disk == "restored" or one.agent.ingest.life.epoch < cursor.epoch
        await one.invalidate([b"late"])
        if by == "a later start":
            one.crash()
            one.clock_behind = 0.0
            await one.start()
        one.network.heal()
        await until(
            lambda: one.agent.ingest.life.epoch > cursor.epoch and bool(one.agent.linking.peers)
        )
        await wait(20.0)
        assert one.agent.ingest._lives.is_confirmed
        assert b"klate" in await rows_after(one, cursor)
        one.cache.fail_next(0)
        await until(lambda: not one.cache.entries)


async def test_a_cache_of_a_restored_journal_is_not_told_what_it_had(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, *_):
        await one.invalidate([b"before"])
        await wait(2.0)
        await one.stop()
        copy = deepcopy(one.disk)
        await one.start()
        await one.invalidate([b"later"])
        await wait(2.0)
        cursor = one.cache.cursor
        assert cursor is not None
        one.cache.fail_next(10_000)
        await one.stop()
        one.disk = copy
        await one.start()
        await wait(5.0)
        assert cursor.epoch not in {life.epoch for life, _ in one.journal.contents.lives}
        assert await rows_after(one, cursor) == {b"klater"}, "what others bring back"
