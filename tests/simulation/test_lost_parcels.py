"""A parcel that is lost is missed soon: by the others' Haves, or by the next row of its stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
import trio
from simulation.hosts import NAMESPACE, Host, hosts, is_whole, until, wait
from simulation.test_ordinary_life import settings
from trio.testing import MockClock

from coherd.cluster.fetching import PATIENCE_LASTS
from coherd.model import Lane, Origin, Stream
from coherd.net.peer import Have, HaveReply, StreamsPage
from coherd.replication.intervals import Intervals

ROUNDS = 60


@contextmanager
def losing(source: Host, victim: Host) -> Iterator[None]:
    """Let no parcel go from one host to another."""
    links = source.agent.spreading.links[victim.name]
    for link in links:
        link.send = lambda *_: None  # type: ignore[method-assign]
    yield
    for link in links:
        del link.send  # type: ignore[attr-defined]


async def delays(all_: Sequence[Host]) -> list[float]:
    random = Random(1)
    found = []
    for n in range(ROUNDS):
        source, victim = random.sample(list(all_), 2)
        key = b"lost:%d" % n
        victim.fill([key])
        await wait(random.uniform(0.0, 3.0))
        start = trio.current_time()
        with losing(source, victim):
            await source.invalidate([key])
        while key in victim.cache.entries:
            await wait(0.01)
        found.append(trio.current_time() - start)
    return sorted(found)


@pytest.mark.parametrize("count", [3, 8])
async def test_a_lost_row_is_missed_within_half_a_second_mostly(
    autojump_clock: MockClock, count: int
) -> None:
    async with hosts(count) as all_:
        found = await delays(all_)
        assert found[len(found) // 2] <= 0.5
        assert found[-1] <= 1.5
        assert [host.resets for host in all_] == [0] * count


async def test_a_short_bound_makes_quiet_haves_come_sooner(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosts(2, **settings(staleness_bound=2.0)) as (one, two):
        heard: list[float] = []
        answer = two.agent.endpoint.have

        def have(told: Have) -> HaveReply:
            heard.append(trio.current_time())
            return answer(told)

        monkeypatch.setattr(two.agent.endpoint, "have", have)
        await wait(20)
        assert 38 <= len(heard) <= 42, "every half a second"
        assert NAMESPACE not in one.agent.replica.vector.namespaces()


async def test_rows_are_fetched_from_others_while_the_link_to_their_origin_is_silently_dead(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, two, _):
        for n in range(10):
            key = b"cut:%d" % n
            two.fill([key])
            one.network.cut(one.address, two.address)
            start = trio.current_time()
            await one.invalidate([key])
            while key in two.cache.entries:
                await wait(0.01)
            assert trio.current_time() - start <= 2.0
            one.network.heal()
            await until(lambda: is_whole(one, 3) and is_whole(two, 3))
            await wait(PATIENCE_LASTS)


class Shows:
    """A member that shows one stream in two parts on one page."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def compare_streams(self, _me: Origin, _wanted: object, _skip: int) -> StreamsPage:
        await trio.lowlevel.checkpoint()
        parts = [(self._stream, Intervals([(low, low + 9)])) for low in (1, 21)]
        return StreamsPage(parts, more=False)


async def test_a_stream_that_is_shown_in_parts_is_claimed_whole(autojump_clock: MockClock) -> None:
    async with hosts(2) as (one, two):
        stream = Stream(NAMESPACE, Origin("host-9", 1), Lane.NORMAL)
        peer: Any = Shows(stream)
        _, is_whole = await one.agent.repairing._show(two.name, peer, [0])
        assert is_whole
        assert one.agent.repair.open() == 20
