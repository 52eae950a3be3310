"""Ordinary life flushes nothing: restarts, reboots, new hosts, copies of hosts, long absences.

Every cache holds a key that nobody invalidates: it is still there in the end. Every key that was
invalidated is gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

import pytest
from simulation.hosts import NAMESPACE, Host, hosts, is_whole, until, wait
from trio.testing import MockClock

from coherd.config import NamespaceConfig

HOUR = 3600.0
DAY = 24 * HOUR
KEPT = b"kept"


def keys(first: int, count: int = 20) -> list[bytes]:
    return [b"user:%d" % n for n in range(first, first + count)]


def settled(host: Host, count: int, gone: Sequence[bytes]) -> bool:
    """Whether the host is ready, and holds none of the invalidated keys."""
    return is_whole(host, count) and not set(gone) & host.cache.entries.keys()


async def all_settle(all_: Sequence[Host], gone: Sequence[bytes]) -> None:
    await until(lambda: all(settled(host, len(all_), gone) for host in all_))


def assert_nothing_flushed(all_: Sequence[Host]) -> None:
    assert [host.name for host in all_ if KEPT not in host.cache.entries] == []
    assert {host.name: host.resets for host in all_ if host.resets} == {}


def settings(**fields: Any) -> dict[str, Any]:
    return {"namespaces": {NAMESPACE: NamespaceConfig(**fields)}}


@asynccontextmanager
async def filled(count: int, **fields: Any) -> AsyncIterator[list[Host]]:
    async with hosts(count, **fields) as all_:
        for host in all_:
            host.fill([*keys(0, 200), KEPT])
        yield all_


async def join_again(host: Host, **changes: Any) -> None:
    for name, value in changes.items():
        setattr(host, name, value)
    await host.start()


async def test_a_rolling_restart(autojump_clock: MockClock) -> None:
    async with filled(5) as all_:
        for n, host in enumerate(all_):
            await host.stop()
            await all_[n - 1].invalidate(keys(20 * n))
            await host.start()
            await all_settle(all_, keys(0, 20 * n + 20))
        assert_nothing_flushed(all_)


@pytest.mark.parametrize("in_order", [True, False], ids=["stopped", "powered off"])
async def test_a_rolling_reboot(autojump_clock: MockClock, in_order: bool) -> None:
    async with filled(5) as all_:
        for n, host in enumerate(all_):
            await host.invalidate(keys(40 * n))
            await wait(5)
            if in_order:
                await host.stop()
            else:
                host.crash()
                del host.disk.commits[-1:]  # what the disk had not taken
            await all_[n - 1].invalidate(keys(40 * n + 20))
            await join_again(host, boot=host.boot + 1)
            assert host.agent.healing is not in_order
            await all_settle(all_, keys(0, 40 * n + 40))
            assert not host.agent.healing
            assert host.disk.whole
        assert_nothing_flushed(all_)


async def test_an_eleventh_host_with_a_warm_cache(autojump_clock: MockClock) -> None:
    async with filled(10) as all_:
        await all_[3].invalidate(keys(0))
        await wait(10)
        other = Host(all_[0].network, all_[0].time, "host-11", 11, all_[0].seeds)
        other.fill([*keys(0), KEPT])
        await other.start()
        await until(lambda: settled(other, 11, keys(0)))
        assert_nothing_flushed([*all_, other])


@pytest.mark.parametrize("renamed", [True, False], ids=["with its own name", "in its place"])
async def test_a_host_cloned_with_its_data_directory(
    autojump_clock: MockClock, renamed: bool
) -> None:
    async with filled(4) as all_:
        original = all_[3]
        await all_[0].invalidate(keys(0))
        await wait(5)
        name = "host-5" if renamed else original.name
        clone = Host(original.network, original.time, name, 5, original.seeds)
        clone.disk, snapshot = deepcopy(original.disk), original.cache.snapshot()
        clone.cache.restore(snapshot._replace(cursor=None) if renamed else snapshot)
        if not renamed:
            original.crash()
        await all_[1].invalidate(keys(20))
        await clone.start()
        everybody = [*all_, clone] if renamed else [*all_[:3], clone]
        await all_settle(everybody, keys(0, 40))
        assert_nothing_flushed(everybody)


@pytest.mark.parametrize("disk", ["deleted", "older"])
async def test_a_data_directory_that_is_deleted_or_replaced_by_an_older_copy(
    autojump_clock: MockClock, disk: str
) -> None:
    async with filled(3) as all_:
        host = all_[2]
        await host.invalidate(keys(0))
        await wait(5)
        older = deepcopy(host.disk)
        await host.invalidate(keys(20))
        await all_[0].invalidate(keys(40))
        await wait(5)
        host.crash()
        await all_[1].invalidate(keys(60))
        await join_again(host, disk=older if disk == "older" else type(host.disk)())
        await all_settle(all_, keys(0, 80))
        await host.invalidate(keys(80))
        await all_settle(all_, keys(0, 100))
        assert_nothing_flushed(all_)


async def test_three_days_away_with_a_max_ttl(autojump_clock: MockClock) -> None:
    async with filled(3, **settings(max_ttl=HOUR)) as all_:
        await all_[0].invalidate(keys(0))
        await wait(10)
        away = all_[2]
        await away.stop()
        for n in range(1, 5):
            await all_[n % 2].invalidate(keys(20 * n))
            await all_[0].time.skip(0.75 * DAY)
        assert all_[0].agent.ingest.counts[NAMESPACE].forgotten >= 80
        for key in keys(0, 200):  # its copies have expired
            away.cache.entries.pop(key, None)
        await away.start()
        await until(lambda: settled(away, 3, keys(0, 100)))
        await wait(60)
        assert all(host.agent.repair.open() == 0 for host in all_)
        assert_nothing_flushed(all_)


async def test_a_loss_of_power_of_one_host_while_another_was_restarted(
    autojump_clock: MockClock,
) -> None:
    async with filled(3) as all_:
        one, two, three = all_
        await one.invalidate(keys(0))
        await wait(5)
        three.crash()
        await one.stop()
        await one.start()
        three.network.cut(two.address, three.address)  # it hears first of who has restarted
        await join_again(three, boot=2)
        await wait(3)
        assert not three.agent.freshness.is_catching_up
        assert three.agent.healing
        three.network.heal()
        await until(lambda: not three.agent.healing)
        await all_settle(all_, keys(0))
        assert_nothing_flushed(all_)


async def test_rows_that_become_too_old_while_they_are_fetched(autojump_clock: MockClock) -> None:
    async with filled(2, **settings(max_ttl=HOUR)) as (one, two):
        await two.stop()
        await one.invalidate(keys(0))
        await wait(3)
        one.agent.feed._of_stream.clear()  # as when the tail was trimmed
        await one.time.skip(3000)
        fetch = one.journal.fetch

        async def fetch_slowly(*arguments: Any) -> Any:
            one.time.skipped += 1000
            await wait(2)
            return await fetch(*arguments)

        one.journal.fetch = fetch_slowly  # type: ignore[method-assign]
        await two.start()
        await until(lambda: is_whole(two, 2))
        await wait(10)
        assert two.agent.repair.open() == 0
        assert_nothing_flushed([one, two])


async def test_a_cache_that_is_down_for_longer_than_max_ttl(autojump_clock: MockClock) -> None:
    async with filled(3, **settings(max_ttl=HOUR)) as all_:
        down = all_[2]
        down.cache.fail_next(10**9)
        for n in range(5):
            await all_[0].invalidate(keys(20 * n))
            await all_[0].time.skip(HOUR)
        assert down.agent.ingest.counts[NAMESPACE].forgotten > 0
        for key in keys(0, 200):  # its copies have expired
            down.cache.entries.pop(key, None)
        down.fill(keys(80))
        down.cache.fail_next(0)
        await until(lambda: settled(down, 3, keys(0, 100)))
        assert_nothing_flushed(all_)


async def test_a_cache_that_comes_back_as_an_older_copy_of_itself(
    autojump_clock: MockClock,
) -> None:
    async with filled(3) as all_:
        snapshot = all_[2].cache.snapshot()
        for n in range(4):
            await all_[0].invalidate(keys(20 * n))
            await wait(10)
        assert settled(all_[2], 3, keys(0, 80))
        all_[2].cache.restore(snapshot)
        await until(lambda: settled(all_[2], 3, keys(0, 80)))
        assert_nothing_flushed(all_)


async def test_months_of_traffic_leave_memory_and_disk_as_they_are(
    autojump_clock: MockClock,
) -> None:
    async with filled(2, **settings(max_ttl=HOUR, entries_max=1000)) as all_:
        sizes = []
        for n in range(20):
            await all_[n % 2].invalidate([b"%d-%d" % (n, i) for i in range(500)])
            await all_[0].time.skip(HOUR / 2)
            sizes.append([len(h.agent.replica.ledger(NAMESPACE)) for h in all_])
        assert max(map(max, sizes)) <= 2000
        for host in all_:
            assert len(host.journal._state.blocks) < 20
        assert_nothing_flushed(all_)
