"""A link waits for its connection, beats while it is quiet, and breaks without a word to who accepts rows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from coherd.clock import ManualClock
from coherd.cluster.link import HEARTBEAT_AFTER, LOOK_INTERVAL, SILENT_MAX, Link
from coherd.errors import RpcFailed
from coherd.net.peer import LinkReply, MemberInfo, Parcel

PEER = MemberInfo("b", 1, "b:1", "r")


class Connection:
    """An open link whose other side is the test."""

    peer = PEER

    def __init__(self) -> None:
        self.messages: list[Sequence[Parcel]] = []
        self.is_broken = False
        self.replies, self._incoming = trio.open_memory_channel[LinkReply](100)

    def send_nowait(self, parcels: Sequence[Parcel]) -> None:
        if self.is_broken:
            raise RpcFailed("UNAVAILABLE", "the call has ended")
        self.messages.append(parcels)

    async def receive(self) -> Sequence[LinkReply]:
        try:
            return [await self._incoming.receive()]
        except trio.EndOfChannel:
            return []


class TrioClock(ManualClock):
    def now(self) -> float:
        return trio.current_time()


def a_link(clock: ManualClock, heard: list[LinkReply] | None = None) -> Link:
    replies: list[LinkReply] = [] if heard is None else heard
    return Link(
        "b",
        urgent=False,
        clock=clock,
        core=lambda: None,
        heard=lambda _link, reply: replies.append(reply),
    )


def parcel(number: int) -> Parcel:
    return Parcel(number, b"x", 0.0, False)


async def test_what_comes_before_the_connection_goes_first(nursery: trio.Nursery) -> None:
    heard: list[LinkReply] = []
    link, connection = a_link(ManualClock(), heard), Connection()
    link.send([parcel(1)])
    nursery.start_soon(link.carry, connection)
    await wait_all_tasks_blocked()
    link.send([parcel(2)])
    assert connection.messages == [[parcel(1)], [parcel(2)]]
    connection.replies.send_nowait(LinkReply(2))
    await wait_all_tasks_blocked()
    assert heard == [LinkReply(2)]
    assert link.is_open


async def test_what_waits_can_be_dropped(nursery: trio.Nursery) -> None:
    link, connection = a_link(ManualClock()), Connection()
    link.send([parcel(1)])
    link.drop()
    nursery.start_soon(link.carry, connection)
    await wait_all_tasks_blocked()
    assert connection.messages == []


async def test_who_accepts_rows_does_not_see_a_link_break() -> None:
    link, connection = a_link(ManualClock()), Connection()
    async with trio.open_nursery() as nursery:

        async def carry() -> None:
            with pytest.raises(RpcFailed):
                await link.carry(connection)

        nursery.start_soon(carry)
        await wait_all_tasks_blocked()
        link.send([parcel(1)])
        connection.is_broken = True
        for number in range(2, 12):
            link.send([parcel(number)])
        connection.replies.close()
    assert connection.messages == [[parcel(1)]]
    assert not link.is_open


async def test_a_link_breaks_when_its_peer_ends_it() -> None:
    link, connection = a_link(ManualClock()), Connection()
    connection.replies.close()
    with pytest.raises(RpcFailed, match="ended the link"):
        await link.carry(connection)
    assert not link.is_open


async def test_a_quiet_link_beats_and_breaks_when_nobody_answers(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    link, connection, broken = await a_carried_link(nursery)
    await let_pass(mock_clock, link, HEARTBEAT_AFTER)
    assert connection.messages == [()], "a heartbeat"
    await let_pass(mock_clock, link, SILENT_MAX - LOOK_INTERVAL)
    assert connection.messages == [()]
    assert not broken.is_set()
    await let_pass(mock_clock, link, LOOK_INTERVAL)
    assert broken.is_set()


async def test_a_heartbeat_that_is_answered_tells_the_round_trip(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    link, connection, broken = await a_carried_link(nursery)
    while not connection.messages:
        await let_pass(mock_clock, link, LOOK_INTERVAL)
    assert connection.messages == [()]
    mock_clock.jump(0.25)
    connection.replies.send_nowait(LinkReply())
    await wait_all_tasks_blocked()
    assert link.round_trip == 0.25
    await let_pass(mock_clock, link, SILENT_MAX)
    assert not broken.is_set()


async def test_a_busy_link_is_as_soon_found_to_be_silent(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    link, _, broken = await a_carried_link(nursery)
    link.send([parcel(1)])
    for _ in range(3):
        assert not broken.is_set()
        await let_pass(mock_clock, link, LOOK_INTERVAL)
        link.send([parcel(2)])
    assert broken.is_set()


async def a_carried_link(nursery: trio.Nursery) -> tuple[Link, Connection, trio.Event]:
    """A link with an open connection, and an event that tells when nobody answered on it."""
    link, connection, broken = a_link(TrioClock()), Connection(), trio.Event()

    async def carry() -> None:
        with pytest.raises(RpcFailed, match="no reply for 3 s"):
            await link.carry(connection)
        broken.set()

    nursery.start_soon(carry)
    await wait_all_tasks_blocked()
    return link, connection, broken


async def let_pass(clock: MockClock, link: Link, seconds: float) -> None:
    """Let time pass, with the looks that are due meanwhile."""
    for _ in range(int(seconds / LOOK_INTERVAL)):
        clock.jump(LOOK_INTERVAL)
        link.look(trio.current_time())
        await wait_all_tasks_blocked()
