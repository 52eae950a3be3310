"""Invalidations that are followed: who has applied the rows is told as it grows, and then the answer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import trio
from simulation.hosts import NAMESPACE, Host, hosts, until
from trio.testing import MockClock

from coherd.api.cache_service import PROGRESS_INTERVAL, CacheService
from coherd.cluster.roster import State
from coherd.errors import InvalidRequest, NotDurable
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import types_pb2


class Call:
    """What is sent, and when."""

    metadata = ()
    peer = "unix:"
    holder = None

    def __init__(self) -> None:
        self.told: list[cache.InvalidateProgressResponse] = []
        self.times: list[float] = []

    async def send(self, message: cache.InvalidateProgressResponse) -> None:
        await trio.lowlevel.checkpoint()
        self.told.append(message)
        self.times.append(trio.current_time())


async def follow(host: Host, **fields: Any) -> Call:
    call = Call()
    request = cache.InvalidateRequest(
        **{"namespace": NAMESPACE, "keys": [b"k"], "wait": cache.WAIT_REGION, **fields}
    )
    asked = cache.InvalidateProgressRequest(invalidate=request)
    await CacheService(host.agent).InvalidateProgress(asked, call)  # type: ignore[arg-type]
    return call


def missing(message: cache.InvalidateProgressResponse) -> list[str]:
    return [each.name for each in message.receipt.missing]


async def test_a_receipt_is_told_as_it_grows_and_last_the_answer(autojump_clock: MockClock) -> None:
    async with hosts(4) as (one, two, three, four):
        three.cache.fail_next(2)
        four.cache.fail_next(6)
        call = await follow(one, timeout={"seconds": 60})
        *before, last = call.told
        assert [message.final for message in call.told] == [False] * len(before) + [True]
        assert last.receipt.complete
        assert last.receipt.durability
        assert last.receipt.cursor == str(one.agent.ingest.write_out(one.agent.feed.position))
        assert list(last.receipt.applied) == ["host-1", "host-2", "host-3", "host-4"]
        assert missing(before[0]) == ["host-1", "host-2", "host-3", "host-4"]
        assert missing(before[-1]) in (["host-4"], [])
        assert ["host-3", "host-4"] in map(missing, before)
        for older, newer in pairwise(before):
            assert set(older.receipt.applied) <= set(newer.receipt.applied)
            assert not newer.receipt.durability, "nothing is said of the disk before the end"
        pauses = [b - a for a, b in pairwise(call.times[:-1])]
        assert min(pauses) >= PROGRESS_INTERVAL * 0.99
        assert two.agent.replica.position == 1


async def test_the_dead_are_named_with_how_long_they_are_and_not_waited_for(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, two):
        two.crash()
        await until(lambda: one.agent.roster.members["host-2"].state is State.DEAD)
        member = one.agent.roster.members["host-2"]
        call = await follow(one, timeout={"seconds": 60})
        age = int((one.agent.clock.now() - member.since) * 1000)
        (found,) = call.told[-1].receipt.missing
        assert found.state == types_pb2.MEMBER_STATE_DEAD
        assert abs(found.state_age_ms - age) < 100


async def test_at_the_timeout_the_last_message_says_who_is_missing(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, two):
        two.cache.fail_next(1000)
        call = await follow(one, timeout={"seconds": 1})
        assert call.told[-1].final
        assert not call.told[-1].receipt.complete
        assert missing(call.told[-1]) == ["host-2"]
        assert one.agent.invalidating.outcomes.total() == 1


async def test_where_nobody_is_waited_for_there_is_an_answer_too(autojump_clock: MockClock) -> None:
    async with hosts(1) as (one,):
        call = await follow(one, wait=cache.WAIT_ACCEPTED)
        assert call.told[-1].final
        assert call.told[-1].receipt.complete


async def test_what_is_refused_is_refused_as_without_progress(autojump_clock: MockClock) -> None:
    async with hosts(1) as (one,):
        with pytest.raises(InvalidRequest):
            await follow(one, keys=[b""])
        one.agent.journal.fail_next("disk I/O error")  # type: ignore[attr-defined]
        with pytest.raises(NotDurable):
            await follow(one)
