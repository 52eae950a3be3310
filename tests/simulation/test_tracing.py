"""Where rows got to: whole agents in virtual time ask each other when and how each of them had a row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simulation.hosts import NAMESPACE, Host, hosts, is_whole, until, wait
from trio.testing import MockClock

from coherd.cluster.roster import State
from coherd.cluster.tracing import HostTrace
from coherd.errors import RpcFailed
from coherd.model import Cause
from coherd.net.traces import TracedRow, TraceQuestion
from coherd.replication.intervals import Intervals
from coherd.v1 import cache_service_pb2 as cache

KEY = b"user:42"


async def trace(host: Host, *selectors: bytes, rows: int = 5) -> dict[str, HostTrace]:
    """Ask at a host."""
    question = TraceQuestion(NAMESPACE, selectors or (b"k" + KEY,), rows)
    found = await host.agent.tracing.everywhere(question, 2.0)
    assert found[0].name == host.name
    return {each.name: each for each in found}


def mute(host: Host, *targets: str) -> Any:
    """Let a host's links to others drop all rows; gives what ends it."""
    links = [link for name in targets for link in host.agent.spreading.links[name]]
    for link in links:
        link.send = lambda *_: None  # type: ignore[method-assign]

    def end() -> None:
        for link in links:
            del link.send  # type: ignore[attr-defined]

    return end


def paths(found: dict[str, HostTrace]) -> dict[str, list[str]]:
    return {name: [row.cause for row in host.rows] for name, host in found.items()}


def is_applied(row: TracedRow) -> list[tuple[str, str, bool, bool]]:
    return [
        (each.label, each.kind, each.applied, each.applied_us is not None) for each in row.readers
    ]


async def test_every_host_says_when_how_and_how_late_a_row_came(autojump_clock: MockClock) -> None:
    async with hosts(3) as (one, _, three):
        mute(one, "host-3")
        await one.invalidate([KEY], reason="price")
        await until(lambda: bool(three.agent.feed.position), 10)
        await wait(5)
        found = await trace(one)
        assert paths(found) == {"host-1": ["local"], "host-2": ["link"], "host-3": ["repair"]}
        rows = [host.rows[0] for host in found.values()]
        assert {(row.dot, row.selector, row.reason, row.stamp) for row in rows} == {
            (rows[0].dot, b"k" + KEY, "price", rows[0].stamp)
        }
        assert rows[0].late == 0
        assert rows[1].late is not None
        assert rows[2].late is not None
        assert rows[1].late < 0.1 < rows[2].late < 5
        for row in rows:
            assert 5 <= row.age < 8
            assert is_applied(row) == [("memory shop", "handler", True, True)]
            assert row.received_us is not None
            assert row.readers[0].applied_us is not None
            assert row.received_us <= row.readers[0].applied_us
        assert paths(await trace(three)) == paths(found), "whoever is asked"


async def test_a_row_that_has_not_come_or_is_not_applied_is_told(autojump_clock: MockClock) -> None:
    async with hosts(3) as (one, two, three):
        one.network.cut(one.address, three.address)
        one.network.cut(two.address, three.address)
        two.cache.fail_next(1000)
        await one.invalidate([KEY])
        await wait(1)
        found = await trace(one)
        assert is_applied(found["host-2"].rows[0]) == [("memory shop", "handler", False, False)]
        assert (found["host-3"].error, found["host-3"].rows) == ("no answer in time", [])
        one.network.heal()
        end = mute(one, "host-2", "host-3")
        mute(two, "host-3")
        await until(lambda: all(is_whole(host, 3) for host in (one, three)), 60)
        three.agent.repairing.look = lambda: None  # type: ignore[method-assign]
        await one.invalidate([b"other"])
        found = await trace(one, b"kother")
        assert [host.error for host in found.values()] == ["", "", ""]
        assert [len(host.rows) for host in found.values()] == [1, 0, 0]
        end()


async def test_a_dead_host_is_named_and_not_asked(autojump_clock: MockClock) -> None:
    async with hosts(3) as (one, _, three):
        three.crash()
        await one.invalidate([KEY])
        await until(lambda: one.agent.roster.members["host-3"].state is State.DEAD)
        found = await trace(one)
        assert found["host-3"].error == "not asked"
        assert found["host-3"].member is not None
        assert [len(host.rows) for host in found.values()] == [1, 1, 0]


async def test_what_came_before_a_start_is_still_known_but_not_when(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, two):
        await one.invalidate([KEY], wait=cache.WAIT_REGION)
        await two.stop()
        await wait(3)
        await two.start()
        await until(lambda: is_whole(two, 2) and is_whole(one, 2))
        host = (await trace(one))["host-2"]
        assert host.started_us == host.since_us
        (row,) = host.rows
        assert (row.cause, row.late, row.received_us) == ("link", None, None)
        assert is_applied(row) == [("memory shop", "handler", True, False)]
        await one.invalidate([KEY], wait=cache.WAIT_REGION)
        host = (await trace(one))["host-2"]
        assert [row.received_us is None for row in host.rows] == [False]


async def test_rows_that_came_in_another_order_are_found_by_their_dots(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, two, three):
        end = mute(one, "host-3")
        await one.invalidate([KEY], reason="first")
        await two.invalidate([KEY], reason="second")
        end()
        await until(lambda: three.agent.feed.position == 2, 10)
        found = await trace(one)
        for host in found.values():
            assert {row.reason for row in host.rows} == {"first", "second"}, host.name
        assert [row.cause for row in found["host-3"].rows] == ["repair", "link"]


async def test_rows_that_cover_a_key_and_resets_are_shown_too(autojump_clock: MockClock) -> None:
    async with hosts(2) as (one, two):
        await one.invalidate([KEY])
        await one.invalidate([], prefixes=[b"user:"])
        await one.invalidate([], prefixes=[b"item:"])
        await one.invalidate([], tags=[b"red"])
        await one.invalidate([b"other"])
        await wait(0.1)
        found = await trace(two)
        selectors = [b"puser:", b"k" + KEY]
        assert [row.selector for row in found["host-1"].rows] == selectors
        assert [row.selector for row in found["host-2"].rows] == selectors
        found = await trace(two, b"k" + KEY, b"tred")
        assert [row.selector for row in found["host-2"].rows] == [b"tred", *selectors]
        assert [row.selector for row in (await trace(two, rows=1))["host-2"].rows] == [b"puser:"]
        two.agent.ingest.reset([NAMESPACE], Cause.UNCLAIMED)
        found = await trace(one)
        assert [row.selector for row in found["host-1"].rows] == selectors
        assert [(row.dot, row.cause) for row in found["host-2"].rows[:1]] == [(None, "unclaimed")]


async def test_a_row_for_which_something_else_stands_counts_as_had(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, two):
        mute(one, "host-2")
        ((stream, numbers),) = (await one.invalidate([KEY])).receipt.dots
        assert not (await trace(one))["host-2"].rows
        two.agent.replica.adopt(stream, Intervals([numbers]), None)
        (row,) = (await trace(one))["host-2"].rows
        assert (row.dot, row.selector, row.cause) == ((stream, numbers), b"", "")
        assert is_applied(row) == [("memory shop", "handler", True, False)]


async def test_who_is_not_linked_is_dialled_and_who_is_too_old_is_named(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, two, three):
        await one.invalidate([KEY], wait=cache.WAIT_REGION)
        del one.agent.linking.peers["host-2"]

        async def trace_(*_: object) -> None:
            raise RpcFailed("UNIMPLEMENTED", "Method not found!")

        one.network.servicers[three.address].Trace = trace_
        found = await trace(one)
        assert [len(host.rows) for host in found.values()] == [1, 1, 0]
        assert found["host-3"].error == "it does not know the question: an older release"
        assert two.agent.refused.total() == 0


async def test_a_publisher_that_is_no_holder_is_not_asked_for_what_it_need_not_have(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, two):
        one.agent.roster.me = replace(one.agent.roster.me, namespaces=("other",))
        await two.invalidate([KEY])
        found = await trace(one)
        assert [host.holds for host in found.values()] == [False, True]
        assert (await trace(two))["host-2"].holds
