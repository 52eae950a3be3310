"""Eras with whole agents: what is dead goes without a reset, and only who was away for too long is reset."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from simulation.hosts import NAMESPACE, Host, hosts, is_whole, until, wait
from simulation.test_ordinary_life import DAY, KEPT, settings
from trio.testing import MockClock

from coherd.model import Cause, Stream
from coherd.replication import eras
from coherd.replication.eras import Eras

LIVES = 4
UNHEARD = [b"unheard"]


@pytest.fixture(autouse=True)
def few_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eras, "STREAMS_MAX", 5)


def streams(host: Host) -> set[Stream]:
    return {s for s, state in host.agent.replica.vector.streams(NAMESPACE).items() if state.have}


def era(host: Host) -> int:
    return host.agent.retiring.eras.number(NAMESPACE)


async def next_era(all_: Sequence[Host]) -> None:
    """Let a day go by, and everybody be in another era."""
    number = max(map(era, all_)) + 1
    await all_[0].time.skip(DAY + 60)
    await until(lambda: all(era(host) == number for host in all_))
    await wait(30)


@asynccontextmanager
async def with_dead_lives() -> AsyncIterator[list[Host]]:
    """Three hosts of which the first has had some lives, whose rows are forgotten by all."""
    async with hosts(3, **settings(retention=3600.0)) as all_:
        for life in range(LIVES):
            await all_[0].invalidate([b"life-%d" % life])
            await until(lambda: len(set(map(len, map(streams, all_)))) == 1)
            await all_[0].stop()
            await all_[0].start()
            await until(lambda: all(is_whole(host, 3) for host in all_))
        for host in all_:
            host.fill([KEPT])
            await host.invalidate([b"now"])
        await until(lambda: all(len(streams(host)) == LIVES + 3 for host in all_))
        yield all_


async def test_streams_of_dead_lives_go_and_nobody_is_reset(autojump_clock: MockClock) -> None:
    async with with_dead_lives() as all_:
        dead = {s for s in streams(all_[0]) if all_[0].agent.retiring._is_dead(s.origin)}
        assert len(dead) == LIVES
        await all_[0].time.skip(2 * 3600)
        await until(lambda: all(era(host) == 1 for host in all_))
        await next_era(all_)  # they were not quiet when the first era began
        await next_era(all_)
        assert all(dead <= streams(host) for host in all_)
        assert len({host.agent.replica.vector.sum([NAMESPACE]) for host in all_}) == 1
        await all_[1].stop()  # what is retired stays so
        await all_[1].start()
        await until(lambda: is_whole(all_[1], 3))
        await wait(60)
        assert all(host.agent.replica.vector.state(s).is_retired for host in all_ for s in dead)
        await next_era(all_)
        assert not any(dead & streams(host) for host in all_)
        await all_[2].stop()  # and what is dropped is not known at the next start
        await all_[2].start()
        await until(lambda: is_whole(all_[2], 3))
        await wait(60)
        assert not any(dead & streams(host) for host in all_)
        assert [host.resets for host in all_] == [0, 0, 0]
        assert all(KEPT in host.cache.entries for host in all_)


async def away_for_long(all_: Sequence[Host]) -> set[Stream]:
    """The last host comes back after others have dropped streams; gives these."""
    away, others = all_[2], all_[:2]
    dead = {s for s in streams(away) if away.agent.retiring._is_dead(s.origin)}
    await all_[0].time.skip(2 * 3600)
    await until(lambda: all(era(host) == 1 for host in all_))
    for link in (each for pair in away.agent.spreading.links.values() for each in pair):
        link.send = lambda *_: None  # type: ignore[method-assign]
    for host in others:
        host.fill(UNHEARD)
    away.agent.ingest.changes.note = lambda _streams: None  # type: ignore[method-assign]
    await away.invalidate(UNHEARD)
    dead |= {s for s in streams(away) if s.origin == away.agent.ingest.life}
    await away.stop()
    for _ in range(3):
        await next_era(others)
    assert era(others[0]) == 4
    assert not any((dead - streams(others[0])) & streams(host) for host in others)
    dropped = {s for s in dead if s not in streams(others[0])}
    assert len(dropped) >= LIVES
    await away.start()
    await until(lambda: is_whole(away, 3))
    await wait(90)
    return dropped


async def test_who_was_away_for_two_eras_is_reset_and_nobody_else(
    autojump_clock: MockClock,
) -> None:
    async with with_dead_lives() as all_:
        dropped = await away_for_long(all_)
        away = all_[2]
        assert dict(away.agent.ingest.counts[NAMESPACE].resets) == {Cause.LEFT_BEHIND.value: 1}
        assert [host.resets for host in all_[:2]] == [0, 0]
        assert all(KEPT in host.cache.entries for host in all_[:2])
        await until(lambda: not any(UNHEARD[0] in host.cache.entries for host in all_[:2]))
        assert not any(dropped & streams(host) for host in all_), "a dropped stream never returns"
        assert len(set(map(era, all_))) == 1
        await away.stop()
        await away.start()
        await until(lambda: is_whole(away, 3))
        await wait(60)
        assert not any(dropped & streams(host) for host in all_)
        assert [host.resets for host in all_] == [0, 0, 0]


async def test_forgetting_rows_of_a_dropped_stream_does_not_make_it_known_again(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2, **settings(retention=3600.0)) as all_:
        await all_[0].invalidate([b"held"])
        await until(lambda: all(len(streams(host)) == 1 for host in all_))
        await wait(10)
        (stream,) = streams(all_[0])
        for host in all_:
            host.agent.repair.drop(stream)
            host.agent.replica.vector.drop(stream)
        await all_[0].time.skip(2 * 3600)
        for host in all_:
            assert host.agent.ingest.counts[NAMESPACE].forgotten == 1
            assert stream not in host.agent.replica.vector.streams(NAMESPACE)


async def test_without_eras_that_are_compared_who_comes_back_would_reset_everybody(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def believed(_self: Eras, _theirs: object, shown: Any, *_publisher: str) -> list[Any]:
        return list(shown)

    monkeypatch.setattr(Eras, "believed", believed)
    monkeypatch.setattr(Eras, "left_behind", lambda *_: [])
    async with with_dead_lives() as all_:
        await away_for_long(all_)
        await wait(120)
        assert all(host.resets for host in all_[:2])
