"""Spreading drives its core: over links in, over links out, in time, and back with who has applied it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from coherd.clock import ManualClock
from coherd.cluster.receipts import Receipt
from coherd.cluster.spreading import Spreading, payload_id
from coherd.model import Batch, Lane, Origin, Stream
from coherd.net.peer import LinkReply, MemberInfo, Parcel
from coherd.replication.parcels import Applied, Arc
from coherd.wire import encode_batch

ME = MemberInfo("me", 1, "me:1", "r")


def batch(number: int = 1, lane: Lane = Lane.NORMAL, origin: str = "me") -> Batch:
    return Batch(Stream("shop", Origin(origin, 1), lane), ((number, number),), [b"kkey"])


class TrioClock(ManualClock):
    def now(self) -> float:
        return trio.current_time()


class Connection:
    """An open link whose other side is the test."""

    def __init__(self) -> None:
        self.messages: list[Sequence[Parcel]] = []
        self.replies, self._incoming = trio.open_memory_channel[LinkReply](100)

    def send_nowait(self, parcels: Sequence[Parcel]) -> None:
        self.messages.append(parcels)

    async def receive(self) -> Sequence[LinkReply]:
        return [await self._incoming.receive()]


@pytest.fixture
async def spreading(nursery: trio.Nursery, mock_clock: MockClock) -> Spreading:
    spreading = Spreading("test", ME, TrioClock())
    spreading.view.add("b")
    nursery.start_soon(spreading.run)
    return spreading


async def linked(nursery: trio.Nursery, spreading: Spreading, name: str) -> dict[bool, Connection]:
    """Open both links to a member; gives their other ends, by whether it is the urgent one."""
    connections: dict[bool, Connection] = {}
    for link in spreading._links(name):
        connections[link.urgent] = Connection()
        nursery.start_soon(link.carry, connections[link.urgent])
    await wait_all_tasks_blocked()
    return connections


async def test_each_lane_has_its_link_and_urgent_rows_go_on_both_rings(
    nursery: trio.Nursery, spreading: Spreading
) -> None:
    connections = await linked(nursery, spreading, "b")
    data = encode_batch(batch())
    spreading.spread(batch(), data, trio.current_time(), None)
    spreading.spread(batch(lane=Lane.URGENT), b"urgent", trio.current_time(), None)
    ((rest,),) = connections[False].messages
    ((urgent,),) = connections[True].messages
    assert (rest.sequence, rest.payload, rest.receipt, len(rest.arcs)) == (1, data, False, 1)
    assert {arc.ring for arc in urgent.arcs} == {0, 1}


async def test_what_is_handed_over_before_there_is_a_link_asks_for_one_and_waits(
    nursery: trio.Nursery, spreading: Spreading
) -> None:
    needed: list[str] = []
    spreading.on_needed = needed.append
    spreading.spread(batch(), b"first", trio.current_time(), None)
    assert needed == ["b"]
    connections = await linked(nursery, spreading, "b")
    assert [p.payload for m in connections[False].messages for p in m] == [b"first"]


async def test_what_waits_for_a_link_that_does_not_open_is_given_up(
    nursery: trio.Nursery, spreading: Spreading
) -> None:
    spreading.spread(batch(), b"first", trio.current_time(), None)
    spreading.closed("b")
    connections = await linked(nursery, spreading, "b")
    spreading.spread(batch(2), b"second", trio.current_time(), None)
    assert [(p.sequence, p.payload) for m in connections[False].messages for p in m] == [
        (1, b"second")
    ]
    assert spreading.statistics["dropped"] == 1


async def test_a_parcel_is_forwarded_in_its_arc_and_acknowledged_within_ten_milliseconds(
    nursery: trio.Nursery, spreading: Spreading, mock_clock: MockClock
) -> None:
    connections = await linked(nursery, spreading, "b")
    replies: list[LinkReply] = []
    spreading.listen("a", urgent=False, say=replies.append)
    mine = Arc.nobody(0, "me").end
    parcel = Parcel(1, b"data", 2.0, True, (Arc(0, mine - 1),))
    assert spreading.take("a", urgent=False, parcels=[(parcel, batch(origin="a"))]) == [
        payload_id(b"data")
    ]
    ((forwarded,),) = connections[False].messages
    assert (forwarded.payload, forwarded.age, forwarded.receipt) == (b"data", 2.0, True)
    assert replies == []
    mock_clock.jump(0.01)
    await wait_all_tasks_blocked()
    assert replies == [LinkReply(1, ())]
    spreading.applied([payload_id(b"data")])
    mock_clock.jump(0.02)
    await wait_all_tasks_blocked()
    assert replies[1:] == [LinkReply(1, (Applied(payload_id(b"data"), 0, ("me",)),))]


async def test_what_could_not_be_read_goes_no_further(
    nursery: trio.Nursery, spreading: Spreading
) -> None:
    connections = await linked(nursery, spreading, "b")
    parcel = Parcel(1, b"\xc1", 0.0, True, (Arc(0, Arc.nobody(0, "me").end - 1),))
    assert spreading.take("a", urgent=False, parcels=[(parcel, None)]) == []
    assert connections[False].messages == []


async def test_a_receipt_hears_who_has_applied_its_payload(
    nursery: trio.Nursery, spreading: Spreading
) -> None:
    connections = await linked(nursery, spreading, "b")
    receipt = Receipt([], ["me", "b", "c"])
    spreading.spread(batch(), b"data", trio.current_time(), receipt)
    ((parcel,),) = connections[False].messages
    assert parcel.receipt
    ring = parcel.arcs[0].ring
    told = [Applied(payload_id(b"data"), ring, ("b", "stranger")), Applied(7, ring, ("c",))]
    connections[False].replies.send_nowait(LinkReply(1, told))
    await wait_all_tasks_blocked()
    assert (receipt.applied, receipt.missing) == ({"b"}, ["c", "me"])


async def test_a_member_that_does_not_acknowledge_is_hinted_at(
    nursery: trio.Nursery, spreading: Spreading, mock_clock: MockClock
) -> None:
    silent: list[str] = []
    spreading.on_silent = silent.append
    connections = await linked(nursery, spreading, "b")
    spreading.spread(batch(), b"data", trio.current_time(), None)
    await wait_all_tasks_blocked()
    mock_clock.jump(0.051)
    await wait_all_tasks_blocked()
    assert silent == ["b"]
    connections[False].replies.send_nowait(LinkReply(1))
    await wait_all_tasks_blocked()
    assert spreading.links["b"][1].queued_bytes == 0


async def test_a_later_link_of_a_member_takes_the_place_of_an_earlier(spreading: Spreading) -> None:
    first: list[LinkReply] = []
    second: list[LinkReply] = []
    spreading.listen("a", urgent=False, say=first.append)
    spreading.listen("a", urgent=False, say=second.append)
    spreading.ended("a", urgent=False, say=first.append)
    assert spreading._listeners.keys() == {("a", False)}
    spreading.ended("a", urgent=False, say=second.append)
    assert not spreading._listeners


async def test_who_has_ended_its_link_is_told_nothing_more(
    spreading: Spreading, mock_clock: MockClock
) -> None:
    told: list[LinkReply] = []
    spreading.listen("a", urgent=False, say=told.append)
    parcel = Parcel(1, b"data", 0.0, True, (Arc.nobody(0, "me"),))
    spreading.take("a", urgent=False, parcels=[(parcel, batch(origin="a"))])
    spreading.ended("a", urgent=False, say=told.append)
    mock_clock.jump(1.0)
    await wait_all_tasks_blocked()
    spreading.applied([payload_id(b"data")])
    mock_clock.jump(1.0)
    await wait_all_tasks_blocked()
    assert told == []
