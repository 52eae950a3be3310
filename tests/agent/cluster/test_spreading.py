"""A link sends at once while little is under way, gathers the rest, and counts what it drops."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from coherd.clock import ManualClock
from coherd.cluster.receipts import Receipt
from coherd.cluster.spreading import LINK_BYTES_MAX, MESSAGES_MAX, Link
from coherd.errors import RpcFailed
from coherd.net.peer import LinkReply, MemberInfo, Parcel

PEER = MemberInfo("b", 1, "b:1", "r")


class Connection:
    """An open link whose other side is the test."""

    peer = PEER

    def __init__(self) -> None:
        self.messages: list[Sequence[Parcel]] = []
        self.replies, self._incoming = trio.open_memory_channel[LinkReply](100)

    def send_nowait(self, parcels: Sequence[Parcel]) -> None:
        self.messages.append(parcels)

    async def receive(self) -> Sequence[LinkReply]:
        try:
            return [await self._incoming.receive()]
        except trio.EndOfChannel:
            return []

    async def reply(self, reply: LinkReply) -> None:
        self.replies.send_nowait(reply)
        await wait_all_tasks_blocked()


@pytest.fixture
async def link(nursery: trio.Nursery) -> Link:
    link = Link("b", urgent=False, clock=ManualClock())
    link.connection = Connection()  # type: ignore[attr-defined]
    nursery.start_soon(link.carry, link.connection)  # type: ignore[attr-defined]
    await wait_all_tasks_blocked()
    return link


def sequences(link: Link) -> list[list[int]]:
    return [[p.sequence for p in m] for m in link.connection.messages]  # type: ignore[attr-defined]


async def test_what_comes_while_enough_is_under_way_goes_together(link: Link) -> None:
    for _ in range(MESSAGES_MAX + 3):
        link.offer(b"x", 0.0, None)
    assert sequences(link) == [[n] for n in range(1, MESSAGES_MAX + 1)]
    await link.connection.reply(LinkReply(acknowledged=1))  # type: ignore[attr-defined]
    assert sequences(link)[MESSAGES_MAX:] == [
        [MESSAGES_MAX + 1, MESSAGES_MAX + 2, MESSAGES_MAX + 3]
    ]
    await link.connection.reply(LinkReply(acknowledged=MESSAGES_MAX + 3))  # type: ignore[attr-defined]
    assert link.queued_bytes == 0


async def test_what_does_not_fit_is_dropped_and_counted(link: Link) -> None:
    half = bytes(LINK_BYTES_MAX // 2)
    for _ in range(3):
        link.offer(half, 0.0, None)
    assert link.dropped == 1
    await link.connection.reply(LinkReply(acknowledged=1))  # type: ignore[attr-defined]
    link.offer(half, 0.0, None)
    assert link.dropped == 1


async def test_a_receipt_hears_who_has_applied_its_parcel(link: Link) -> None:
    receipt = Receipt([], ["a", "b", "c"])
    link.offer(b"x", 0.0, receipt)
    (parcel,) = link.connection.messages[0]  # type: ignore[attr-defined]
    assert parcel.receipt
    await link.connection.reply(LinkReply(1, [(1, ["b", "stranger"]), (7, ["c"])]))  # type: ignore[attr-defined]
    assert receipt.applied == {"b"}
    assert receipt.missing == ["a", "c"]


async def test_a_link_that_is_down_drops_and_counts() -> None:
    link = Link("b", urgent=True, clock=ManualClock())
    link.offer(b"x", 0.0, None)
    assert (link.dropped, link.is_open) == (1, False)


async def test_a_link_breaks_when_its_peer_ends_it_or_falls_silent(
    autojump_clock: MockClock,
) -> None:
    class TrioClock(ManualClock):
        def now(self) -> float:
            return trio.current_time()

    link = Link("b", urgent=True, clock=TrioClock())
    connection = Connection()
    with pytest.raises(ExceptionGroup) as silence:
        await link.carry(connection)
    assert silence.group_contains(RpcFailed, match="no reply for 3 s")
    assert connection.messages == [[], [], []], "heartbeats"
    connection.replies.close()
    with pytest.raises(ExceptionGroup) as end:
        await link.carry(connection)
    assert end.group_contains(RpcFailed, match="ended the link")
    assert not link.is_open
