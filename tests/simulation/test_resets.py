"""Resets: where rows do not suffice, once, spread, with their cause, and nowhere else."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

import trio
from simulation.hosts import NAMESPACE, Host, hosts, is_whole, until, wait
from simulation.test_ordinary_life import KEPT, filled, keys, settings
from trio.testing import MockClock

from coherd.errors import JournalDamaged, Overloaded
from coherd.journal import Block
from coherd.model import Cause

STORM = 17


def causes(host: Host) -> dict[str, int]:
    return dict(host.agent.ingest.counts[NAMESPACE].resets)


async def test_a_host_that_was_away_for_longer_than_rows_are_kept_resets_once_and_nobody_else(
    autojump_clock: MockClock,
) -> None:
    async with filled(3, **settings(retention=3600.0)) as all_:
        away = all_[2]
        await away.stop()
        await all_[0].invalidate(keys(0))
        await all_[0].time.skip(2 * 3600)
        await away.start()
        await until(lambda: is_whole(away, 3) and bool(away.resets))
        await wait(120)
        assert causes(away) == {Cause.BELOW_FLOOR.value: 1}
        assert away.agent.ingest.counts[NAMESPACE].last_reset.missing == 20
        assert not away.cache.entries
        assert [host.resets for host in all_[:2]] == [0, 0]
        assert KEPT in all_[0].cache.entries


async def test_too_many_entries_reset_who_missed_them_and_only_that_namespace(
    autojump_clock: MockClock,
) -> None:
    async with filled(3, **settings(entries_max=1000)) as all_:
        away = all_[1]
        await away.stop()
        for n in range(30):
            await all_[0].invalidate([b"%d-%d" % (n, i) for i in range(100)])
        assert all_[0].agent.ingest.counts[NAMESPACE].forgotten >= 2000
        await away.start()
        await until(lambda: is_whole(away, 3) and bool(away.resets))
        assert causes(away) == {Cause.BELOW_FLOOR.value: 1}
        assert [all_[0].resets, all_[2].resets] == [0, 0]


async def test_a_power_cut_of_the_whole_cluster_resets_every_namespace_once_on_each(
    autojump_clock: MockClock,
) -> None:
    async with filled(4) as all_:
        await all_[0].invalidate(keys(0), reason="before")
        await wait(5)
        for host in all_:
            host.crash()
            del host.disk.commits[-2:]
            host.boot += 1
        for host in all_:
            await host.start()
            assert host.agent.healing
        await until(lambda: all(is_whole(host, 4) and not host.agent.healing for host in all_))
        await wait(60)
        assert [causes(host) for host in all_] == [{Cause.POWER_LOSS.value: 1}] * 4
        assert not any(host.cache.entries for host in all_)
        for host in all_:  # and not again at the next start
            await host.stop()
        for host in all_:
            host.fill([KEPT])
            await host.start()
        await until(lambda: all(is_whole(host, 4) for host in all_))
        assert [host.resets for host in all_] == [0] * 4


async def cut_power(all_: list[Host]) -> None:
    await all_[0].invalidate(keys(0))
    await wait(5)
    for host in all_:
        host.crash()
        del host.disk.commits[-2:]
        host.boot += 1


async def test_who_boots_after_the_others_have_caught_up_resets_too(
    autojump_clock: MockClock,
) -> None:
    """They may have lost the same rows as it, although they are not catching up any more."""
    async with filled(4) as all_:
        await cut_power(all_)
        for host in all_[:3]:
            await host.start()
        await until(lambda: not any(host.agent.healing for host in all_[:3]))
        await all_[3].start()
        await until(lambda: all(is_whole(host, 4) and not host.agent.healing for host in all_))
        assert [causes(host) for host in all_] == [{Cause.POWER_LOSS.value: 1}] * 4


async def test_a_crash_while_it_is_catching_up_does_not_spare_it_the_reset(
    autojump_clock: MockClock,
) -> None:
    async with filled(5) as all_:
        await cut_power(all_)
        await all_[3].start()
        await all_[4].start()
        await wait(30)  # two of five are not enough
        assert all_[4].agent.healing
        assert all_[4].agent.linking.peers
        all_[4].crash()
        for host in all_[:3]:
            await host.start()
        await until(lambda: not any(host.agent.healing for host in all_[:4]))
        await all_[4].start()
        await until(lambda: all(is_whole(host, 5) and not host.agent.healing for host in all_))
        assert [causes(host) for host in all_] == [{Cause.POWER_LOSS.value: 1}] * 5


async def test_a_dirty_agent_that_is_alone_resets_what_it_knows_of(
    autojump_clock: MockClock,
) -> None:
    async with hosts(1) as (one,):
        await one.invalidate(keys(0))
        one.fill(keys(20))
        one.crash()
        one.boot += 1
        await one.start()
        await until(lambda: not one.agent.healing)
        await until(lambda: not one.cache.entries)
        assert causes(one) == {Cause.POWER_LOSS.value: 1}


async def test_no_storm_when_everybody_shares_a_hole_that_nobody_can_fill(
    autojump_clock: MockClock,
) -> None:
    """The origin told of number 2, lost number 1 on the way to everybody, and its disk with it."""
    async with hosts(STORM) as all_:
        origin, others = all_[0], all_[1:]
        for host in others:
            host.fill([KEPT])
        offers = []
        for links in origin.agent.spreading.links.values():
            for link in links:
                offers.append((link, link.send))
                link.send = lambda *_: None  # type: ignore[method-assign]
        await origin.invalidate(keys(0))
        for link, offer in offers:
            link.send = offer  # type: ignore[method-assign]
        await origin.invalidate(keys(20))
        await wait(0.1)  # it is everywhere, and the hole below it too young to be fetched
        origin.crash()
        flushed: dict[str, float] = {}
        start = trio.current_time()

        def all_reset() -> bool:
            for host in others:
                if host.resets:
                    flushed.setdefault(host.name, trio.current_time() - start)
            return len(flushed) == len(others)

        await until(all_reset)
        await wait(20)
        for host in others:  # whoever comes later finds that the first ones have given it up
            assert causes(host) in [{Cause.UNCLAIMED.value: 1}, {Cause.BELOW_FLOOR.value: 1}]
        assert max(flushed.values()) - min(flushed.values()) > 2.0, "spread over reset_jitter"
        per_second = Counter(int(at) for at in flushed.values())
        assert max(per_second.values()) <= (STORM - 1) // 2


async def test_no_storm_when_one_of_seventeen_comes_back_from_a_long_absence(
    autojump_clock: MockClock,
) -> None:
    async with hosts(STORM, **settings(retention=3600.0)) as all_:
        away, others = all_[-1], all_[:-1]
        for host in all_:
            host.fill([KEPT])
        await away.stop()
        for host in others:  # sixteen streams below the floor: one reset
            await host.invalidate([b"gone"])
        await all_[0].time.skip(2 * 3600)
        await away.start()
        await until(lambda: is_whole(away, STORM) and bool(away.resets))
        await wait(20)
        assert causes(away) == {Cause.BELOW_FLOOR.value: 1}
        assert sum(host.resets for host in others) == 0
        assert all(KEPT in host.cache.entries for host in others)


async def test_a_reset_waits_for_room_in_the_journal(autojump_clock: MockClock) -> None:
    """What is adopted by a reset that is not stored would be claimed after a crash without a flush."""
    async with filled(3, **settings(retention=3600.0)) as all_:
        away = all_[2]
        await away.stop()
        await all_[0].invalidate(keys(0))
        await all_[0].time.skip(2 * 3600)
        await away.start()
        check_room = away.journal.check_room
        away.journal.check_room = _overloaded  # type: ignore[method-assign]
        await wait(60)
        assert away.agent.repair.open() == 20
        assert KEPT in away.cache.entries
        away.journal.check_room = check_room  # type: ignore[method-assign]
        await until(lambda: is_whole(away, 3))
        disk = deepcopy(away.disk)
        assert causes(away) == {Cause.BELOW_FLOOR.value: 1}
        [adopted] = [w.adopted for commit in disk.commits for w, *_ in commit if w.adopted]
        assert sum(high - low + 1 for ranges in adopted.values() for low, high in ranges) == 20


async def test_rows_that_the_journal_has_lost_are_served_by_others_or_reset_who_asks(
    autojump_clock: MockClock,
) -> None:
    async with filled(3) as all_:
        one, two, three = all_
        await three.stop()
        await one.invalidate(keys(0))
        await wait(5)
        for host in (one, two):  # as when the tail was trimmed
            feed = host.agent.feed
            feed._of_stream.clear()

        async def fetch(*_: object) -> list[Block]:
            raise JournalDamaged("table blocks, position 1", NAMESPACE, (1, 20))

        one.journal.fetch = fetch  # type: ignore[method-assign]
        await three.start()
        await until(lambda: is_whole(three, 3) and not set(keys(0)) & three.cache.entries.keys())
        assert three.resets == 0
        assert three.agent.ingest.counts[NAMESPACE].repaired == 20
        await three.stop()
        await two.stop()
        await one.invalidate(keys(20))
        one.agent.feed._of_stream.clear()
        await three.start()
        await until(lambda: bool(three.resets))
        assert causes(three) == {Cause.BELOW_FLOOR.value: 1}
        assert one.agent.replica.vector.state(*one.agent.replica.vector.streams(NAMESPACE)).floor.n


def _overloaded() -> None:
    raise Overloaded("full")
