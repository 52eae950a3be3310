"""Rows of the lane bulk wait for others, and their callers for what they asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
from simulation.hosts import NAMESPACE, Host, hosts, until, wait
from trio.testing import MockClock

from coherd.cluster.invalidating import Outcome
from coherd.config import NamespaceConfig
from coherd.errors import NotDurable, Overloaded
from coherd.limits import BATCH_ROWS_MAX
from coherd.model import Batch
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import types_pb2 as types

Numbers = list[tuple[int, int]]


def window(seconds: float) -> dict[str, Any]:
    return {"namespaces": {"default": NamespaceConfig(batch_window=seconds)}}


class Caller:
    """One call for bulk rows, and what became of it."""

    def __init__(self, host: Host, nursery: trio.Nursery, *keys: bytes, **fields: Any) -> None:
        self.outcome: Outcome | None = None
        self.error: Exception | None = None
        self.took = 0.0
        self.scope = trio.CancelScope()
        nursery.start_soon(self._run, host, keys, fields)

    async def _run(self, host: Host, keys: Sequence[bytes], fields: dict[str, Any]) -> None:
        began = trio.current_time()
        with self.scope:
            try:
                self.outcome = await host.invalidate(keys, lane=types.LANE_BULK, **fields)
            except (Overloaded, NotDurable) as error:
                self.error = error
            self.took = trio.current_time() - began

    @property
    def numbers(self) -> Numbers:
        assert self.outcome is not None, self.error
        return [numbers for _, numbers in self.outcome.receipt.dots]


def sent(host: Host) -> list[tuple[str, float]]:
    """Note what leaves for peers from now on: the lane and when."""
    found: list[tuple[str, float]] = []
    spread: Callable[..., None] = host.agent.spreading.spread

    def noted(batch: Batch, *rest: Any) -> None:
        found.append((batch.stream.lane.name.lower(), trio.current_time()))
        spread(batch, *rest)

    host.agent.spreading.spread = noted  # type: ignore[method-assign]
    return found


async def test_rows_that_wait_together_leave_as_one_batch_and_a_key_once(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2, **window(1.0)) as (one, two), trio.open_nursery() as nursery:
        batches = sent(one)
        for host in (one, two):
            host.fill([b"a", b"b", b"c"])
        first = Caller(one, nursery, b"a", b"b")
        await wait(0.6)
        second = Caller(one, nursery, b"b", b"c")
        await wait(0.01)
        third = Caller(one, nursery, b"a")
        await wait(0.3)
        assert one.agent.replica.position == 0, "nothing is numbered yet"
        await until(lambda: third.outcome is not None)
        assert [first.numbers, second.numbers, third.numbers] == [
            [(1, 1), (3, 3)],
            [(1, 2)],
            [(3, 3)],
        ]
        assert first.took == pytest.approx(1.0, abs=0.1)
        assert third.took == pytest.approx(0.4, abs=0.1)
        assert len(batches) == 1
        assert one.agent.replica.position == 3
        assert one.agent.invalidating.batching.coalesced == {NAMESPACE: 2}
        await until(lambda: not one.cache.entries and not two.cache.entries)


async def test_other_lanes_and_a_window_of_no_time_do_not_wait(autojump_clock: MockClock) -> None:
    async with hosts(1, **window(10.0)) as (one,), trio.open_nursery() as nursery:
        bulk = Caller(one, nursery, b"a")
        await wait(0.1)
        with trio.fail_after(0.1):
            await one.invalidate([b"a"], lane=types.LANE_URGENT)
            await one.invalidate([b"a"])
        assert bulk.outcome is None
        await until(lambda: bulk.outcome is not None)
    async with hosts(1, **window(0.0)) as (one,):
        with trio.fail_after(0.01):
            outcome = await one.invalidate([b"a", b"a"], lane=types.LANE_BULK)
        assert [numbers for _, numbers in outcome.receipt.dots] == [(1, 2)]


async def test_a_whole_batch_does_not_wait_and_what_does_not_fit_makes_room(
    autojump_clock: MockClock,
) -> None:
    async with hosts(1, **window(10.0)) as (one,), trio.open_nursery() as nursery:
        keys = [b"%d" % n for n in range(BATCH_ROWS_MAX)]
        tasks = len(one.agent._nursery.child_tasks)
        whole = Caller(one, nursery, *keys)
        await wait(0.1)
        assert whole.numbers == [(1, BATCH_ROWS_MAX)]
        assert whole.took < 0.05
        early = Caller(one, nursery, *keys[:600])
        await wait(0.1)
        late = Caller(one, nursery, *keys[500:1000])
        await wait(0.1)
        assert early.numbers == [(1001, 1600)]
        assert late.outcome is None
        rest = Caller(one, nursery, *keys[:500])
        await wait(0.1)
        assert (late.numbers, rest.numbers) == ([(1601, 2100)], [(2101, 2600)])
        assert len(one.agent._nursery.child_tasks) == tasks, "nobody waits for what has ended"


async def test_each_caller_waits_for_what_it_asked_for(autojump_clock: MockClock) -> None:
    async with hosts(3, **window(0.5)) as (one, two, three), trio.open_nursery() as nursery:
        three.cache.fail_next(10_000)
        region = Caller(one, nursery, b"a", b"b", wait=cache.WAIT_REGION)
        members = Caller(one, nursery, b"b", wait=cache.WAIT_MEMBERS, members=2)
        local = Caller(one, nursery, b"a", wait=cache.WAIT_LOCAL)
        nobody = Caller(one, nursery, b"c")
        await wait(1.0)
        for caller, applied in (
            (members, {one.name, two.name}),
            (local, {one.name}),
            (nobody, set()),
        ):
            assert caller.outcome is not None
            assert caller.outcome.is_complete
            assert caller.outcome.receipt.applied == applied
        assert region.outcome is None
        three.cache.fail_next(0)
        await until(lambda: region.outcome is not None)
        assert region.outcome is not None
        assert region.outcome.receipt.applied == {one.name, two.name, three.name}
        again = await one.agent.invalidating.receipt(region.outcome.receipt.dots, 1.0)
        assert again.is_complete


async def test_who_has_rows_in_two_batches_waits_for_both(autojump_clock: MockClock) -> None:
    async with hosts(2, **window(0.5)) as (one, two), trio.open_nursery() as nursery:
        batches = sent(one)
        awaited: list[int] = []
        committed = one.journal.committed

        async def noted(ticket: int) -> None:
            awaited.append(ticket)
            await committed(ticket)

        one.journal.committed = noted  # type: ignore[method-assign]
        both = Caller(one, nursery, b"a", b"b", effect=types.EFFECT_STALE, wait=cache.WAIT_REGION)
        await wait(0.1)
        drop = Caller(one, nursery, b"a", wait=cache.WAIT_REGION)
        await until(lambda: both.outcome is not None and drop.outcome is not None)
        assert len(batches) == 2
        assert (both.numbers, drop.numbers) == ([(1, 2)], [(2, 2)])
        assert len(set(awaited)) == 1, "the second batch is the last of both"
        for caller in (both, drop):
            assert caller.outcome is not None
            assert caller.outcome.receipt.applied == {one.name, two.name}


async def test_rows_of_a_caller_that_went_away_go(autojump_clock: MockClock) -> None:
    async with hosts(2, **window(1.0)) as (one, two), trio.open_nursery() as nursery:
        two.fill([b"a"])
        caller = Caller(one, nursery, b"a")
        await wait(0.1)
        caller.scope.cancel()
        await until(lambda: not two.cache.entries)
        assert caller.outcome is None


@pytest.mark.parametrize("reason", ["full", "broken", "closed"])
async def test_every_caller_hears_that_the_journal_does_not_take_rows(
    autojump_clock: MockClock, reason: str
) -> None:
    async with hosts(1, **window(1.0)) as (one,), trio.open_nursery() as nursery:
        callers = [Caller(one, nursery, key) for key in (b"a", b"b", b"a")]
        await wait(0.5)
        if reason == "full":
            one.journal.check_room = full  # type: ignore[method-assign]
        elif reason == "broken":
            one.journal.fail_next("disk I/O error")
        else:
            await one.journal.aclose()
        await until(lambda: all(caller.error for caller in callers))
        kind = Overloaded if reason == "full" else NotDurable
        assert [type(caller.error) for caller in callers] == [kind] * 3
        assert len({id(caller.error) for caller in callers}) == 3
        assert one.agent.replica.position == (2 if reason == "broken" else 0)
        late = Caller(one, nursery, b"c")
        await until(lambda: late.error is not None)
        assert late.took < 0.1, "who comes later need not wait for that"


def full() -> None:
    raise Overloaded("full")


async def test_no_more_rows_wait_than_there_is_room_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coherd.cluster.batching.WAITING_BYTES_MAX", 1500)
    async with hosts(1, **window(1.0)) as (one,), trio.open_nursery() as nursery:
        taken = Caller(one, nursery, b"a", b"b", b"c")
        await wait(0.4)
        refused = Caller(one, nursery, b"a", b"b")
        await wait(0.01)
        assert isinstance(refused.error, Overloaded)
        assert refused.error.retry_after == pytest.approx(0.6, abs=0.05)
        await wait(refused.error.retry_after)
        assert taken.numbers == [(1, 3)]
        again = Caller(one, nursery, b"a", b"b")
        await wait(0.1)
        more = Caller(one, nursery, b"c")
        await until(lambda: again.outcome is not None and more.outcome is not None)
        assert (again.numbers, more.numbers) == ([(4, 5)], [(6, 6)])


async def test_an_agent_that_stops_answers_everybody_at_once(autojump_clock: MockClock) -> None:
    async with hosts(2, **window(60.0)) as (one, two), trio.open_nursery() as nursery:
        callers = [Caller(one, nursery, key, wait=cache.WAIT_REGION) for key in (b"a", b"b")]
        await wait(1.0)
        one.agent.invalidating.batching.close()
        await wait(0.5)
        assert sorted(numbers for caller in callers for numbers in caller.numbers) == [
            (1, 1),
            (2, 2),
        ]
        assert two.agent.replica.position == 2
        late = Caller(one, nursery, b"c")
        await wait(0.1)
        assert late.numbers == [(3, 3)]
