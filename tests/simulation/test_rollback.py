"""Agents that were rolled back while they ran: what they accept under used numbers reaches everybody.

The rows of the future that was lost are made where it left them: at the others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from simulation.hosts import NAMESPACE, Host, hosts, until, wait
from trio.testing import MockClock

from coherd.cluster import rollback
from coherd.errors import Overloaded
from coherd.model import Batch, Cause, Kind, Lane, Stream
from coherd.wire import encode_batch

BEFORE = [b"before:%d" % n for n in range(3)]
LOST = [b"lost:%d" % n for n in range(6)]
"""Invalidated in the future that was lost."""
AFTER = [b"after:%d" % n for n in range(2)]
"""Accepted under numbers of LOST, before anybody was met."""


def lose_future(host: Host, others: Sequence[Host], keys: Sequence[bytes] = LOST) -> None:
    """Leave at others what `host` issued after the snapshot: it knows nothing of it."""
    stream = Stream(NAMESPACE, host.agent.ingest.life, Lane.NORMAL)
    first = host.agent.replica.vector.state(stream).have.last + 1
    selectors = [bytes([Kind.KEY]) + key for key in keys]
    batch = Batch(stream, ((first, first + len(keys) - 1),), selectors)
    for other in others:
        other.agent.ingest.receive([(encode_batch(batch), 0.0)], Cause.LINK)


def left(host: Host, keys: Iterable[bytes]) -> set[bytes]:
    """Give the copies that are left in a host's cache."""
    return {key for key in keys if key in host.cache.entries}


async def fill_and_begin(all_: Sequence[Host]) -> int:
    """Have everybody hold copies, and a few of them dropped everywhere; give the first host's epoch."""
    for host in all_:
        host.fill([*BEFORE, *LOST, *AFTER])
    await all_[0].invalidate(BEFORE)
    await until(lambda: not any(left(host, BEFORE) for host in all_))
    await wait(3.0)  # syncs
    return all_[0].agent.ingest.life.epoch


@asynccontextmanager
async def rolled_back() -> AsyncIterator[list[Host]]:
    """Run three hosts; the first was rolled back, the third cut off from what it issued before that."""
    async with hosts(3) as all_:
        await fill_and_begin(all_)
        lose_future(all_[0], [all_[1]])
        await all_[0].invalidate(AFTER)
        yield all_


async def test_what_was_accepted_under_used_numbers_is_issued_again(
    autojump_clock: MockClock,
) -> None:
    async with rolled_back() as (one, two, three):
        epoch = one.agent.ingest.life.epoch
        assert left(two, AFTER), "they are rows that it has"
        await until(lambda: not any(left(host, [*LOST, *AFTER]) for host in (one, two, three)))
        assert one.agent.ingest.life.epoch > epoch
        assert one.agent.rollback.count == 1
        assert not any(host.resets for host in (one, two, three))
        await wait(30.0)
        assert one.agent.rollback.count == 1
        assert two.agent.roster.members["host-1"].info.epoch == one.agent.ingest.life.epoch


async def test_without_that_copies_would_be_left(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollback.Rollback, "shown", lambda *_: None)
    async with rolled_back() as (_, two, three):
        await wait(60.0)
        assert left(two, AFTER) == {*AFTER}
        assert left(three, LOST) == {*LOST[: len(AFTER)]}


async def test_where_nothing_was_accepted_meanwhile_only_the_lost_rows_come(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, two, three):
        epoch = await fill_and_begin((one, two, three))
        lose_future(one, [two, three])
        await until(lambda: not left(one, LOST))
        assert one.agent.ingest.life.epoch > epoch
        assert one.agent.ingest.rows[NAMESPACE, Lane.NORMAL, Cause.LOCAL] == len(BEFORE)


async def test_more_rows_than_were_lost_are_noticed_by_the_clock(autojump_clock: MockClock) -> None:
    async with hosts(3) as (one, two, three):
        epoch = await fill_and_begin((one, two, three))
        lose_future(one, [two], LOST[:1])
        await one.invalidate(AFTER)  # the second of them is new to everybody
        await wait(3.0)
        assert one.agent.ingest.life.epoch == epoch
        assert left(two, AFTER)
        one.agent.clock._behind = -3600.0
        await until(lambda: not any(left(host, AFTER) for host in (one, two, three)))
        assert one.agent.ingest.life.epoch > epoch
        await until(lambda: not any(left(host, LOST[:1]) for host in (one, two, three)))
        assert not any(host.resets for host in (one, two, three))


@pytest.mark.parametrize("seconds", [4.0, -4.0])
async def test_a_clock_that_is_kept_right_is_no_rollback(
    autojump_clock: MockClock, seconds: float
) -> None:
    async with hosts(2) as (one, _):
        one.agent.clock._behind = seconds
        await wait(10.0)
        assert one.agent.rollback.count == 0


async def test_a_member_that_says_untrue_things_causes_few_new_lives(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, two):
        for _ in range(100):
            lose_future(one, [two], LOST[:1])
            await wait(1.0)
        assert 1 <= one.agent.rollback.count <= 2


async def test_what_is_forgotten_already_ends_in_a_flush_of_everybody(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rolled_back() as (one, two, three):
        agent = one.agent
        agent.ingest.lose(NAMESPACE, agent.replica.position)
        await until(lambda: not any(host.cache.entries for host in (one, two, three)))
        assert agent.rollback.count == 1


async def test_rows_are_issued_again_once_there_is_room(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rolled_back() as (one, two, three):
        again, refused = one.agent.rollback._again, [1, 1, 1]

        def full(batch: Any) -> None:
            if refused:
                refused.pop()
                raise Overloaded("full", 1.0)
            again(batch)

        monkeypatch.setattr(one.agent.rollback, "_again", full)
        await until(lambda: not any(left(host, [*LOST, *AFTER]) for host in (one, two, three)))
        assert not refused


async def test_who_does_not_answer_is_asked_again(autojump_clock: MockClock) -> None:
    async with rolled_back() as (one, two, three):
        endpoint = two.agent.endpoint
        endpoint._fetches = 1_000  # it is busy
        await until(lambda: one.agent.rollback.count == 1)
        await wait(12.0)
        assert left(three, LOST[: len(AFTER)])
        endpoint._fetches = 0
        await until(lambda: not any(left(host, LOST) for host in (one, two, three)))
