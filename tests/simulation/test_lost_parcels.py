"""A parcel that is lost is missed soon: by the others' Haves, or by the next row of its stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random

import pytest
import trio
from simulation.hosts import NAMESPACE, Host, hosts, wait
from simulation.test_ordinary_life import settings
from trio.testing import MockClock

from coherd.net.peer import Have, HaveReply

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
