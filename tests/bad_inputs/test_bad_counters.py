"""Numbers, vectors and clocks that cannot be: refused or ignored, and own clock and vector stay."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from doors import METHODS, PEER_ME, STREAM, Doors, exchange, failure_of, have, parcel, payload

from coherd.clock import BootClock
from coherd.limits import EPOCH_MAX, NUMBER_AHEAD_MAX, NUMBER_MAX, RANGES_MAX, STREAMS_MAX
from coherd.model import Effect, Lane, Origin, Stream
from coherd.replication.intervals import Intervals
from coherd.v1 import peer_service_pb2 as pb
from coherd.v1 import types_pb2 as types

NUMBERS = [0, -1, NUMBER_MAX, NUMBER_MAX + 1, 2**64 - 1, NUMBER_AHEAD_MAX + 1, NUMBER_AHEAD_MAX + 5]


def claim(flat: list[int]) -> pb.HaveRequest:
    """A Have that claims these numbers of one stream, as they stand on the wire."""
    request = have((STREAM, Intervals([(1, 1)])))
    request.changes[0].ranges[:] = flat
    return request


async def send(link: Any, *payloads: bytes) -> None:
    parcels = [parcel(n, data) for n, data in enumerate(payloads, 1)]
    await link.send(pb.LinkRequest(parcels=parcels))


@pytest.mark.bad_input(25)
@pytest.mark.parametrize("number", NUMBERS)
async def test_a_number_that_no_row_has(agent: Doors, number: int) -> None:
    await agent.join()
    before = agent.state()
    if number >= 0:
        await agent.refused("Have", claim([number, 0]))
        if number:
            await agent.refused("Have", claim([1, number]))
        await agent.refused("Have", claim([1, 0, number, 0]))
    async with agent.link() as link:
        await send(link, payload_of(number))
        await agent.eventually(lambda: agent.agent.ingest.malformed == 1)
        assert agent.state() == before
    dots = types.Dots(
        namespace="shop", origin=types.Origin(name="a", epoch=1), lane=2, last=number % 2**64
    )
    for rpc, request in (
        ("Applied", pb.AppliedRequest(dots=[dots])),
        ("GetReceipt", METHODS["GetReceipt"].request_class(dots=[dots])),
    ):
        await agent.refused(rpc, request)


def payload_of(number: int) -> bytes:
    """A payload with a number that no set of numbers can write down."""
    fields = msgpack.unpackb(payload(1))
    fields[7] = [number, 0]
    return bytes(msgpack.packb(fields))


@pytest.mark.bad_input(26)
async def test_a_great_gap_costs_nothing_and_one_beyond_belief_is_refused(agent: Doors) -> None:
    """A gap of 10^9 may be true, of who was away: at worst one reset. One of 10^12 may not."""
    async with agent.link() as link:
        await send(link, payload(1))
        await agent.eventually(lambda: agent.agent.replica.position == 1)
        before = agent.state()
        for first in (NUMBER_AHEAD_MAX + 2, 2**62):
            await agent.refused("Have", have((STREAM, Intervals([(1, first)]))))
        await send_later(link, payload(NUMBER_AHEAD_MAX + 2))
        await agent.eventually(lambda: agent.agent.ingest.malformed == 1)
        assert agent.state() == before
        tracemalloc.start()
        await agent.ask("Have", have((STREAM, Intervals([(1, 10**9), (10**9 + 7, 10**11)]))))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**20
        after = agent.state()
        assert after.gaps == 10**11 - 7
        assert after._replace(gaps=0) == before, "it is only claimed"


async def send_later(link: Any, data: bytes) -> None:
    await link.send(pb.LinkRequest(parcels=[parcel(9, data)]))


@pytest.mark.bad_input(27)
async def test_another_content_for_a_known_dot_is_dropped_as_a_repetition(agent: Doors) -> None:
    """The vector is the only memory of what was seen: who comes first counts."""
    async with agent.link() as link:
        await send(link, payload(1, [b"first"]))
        await agent.eventually(lambda: agent.agent.replica.position == 1)
        before = agent.state()
        agent.handler.put(b"other", "value", ())
        again = [payload(1, [b"other"]), payload(1, [b"first"], effect=Effect.STALE)]
        parcels = [parcel(n, data, receipt=True) for n, data in enumerate(again, 2)]
        await link.send(pb.LinkRequest(parcels=parcels))
        receipts: set[int] = set()
        while len(receipts) < 2:
            receipts.update(r.payload for reply in await link.receive() for r in reply.receipts)
        assert agent.state() == before
        assert b"other" in agent.handler.entries


def many(count: int) -> pb.HaveRequest:
    """A Have of so many streams."""
    request = have((STREAM, Intervals([(1, 1)])))
    for _ in range(count - 1):
        request.changes.append(request.changes[0])
    return request


@pytest.mark.bad_input(28)
async def test_a_vector_of_a_hundred_thousand_entries(agent: Doors) -> None:
    await agent.join()
    said = await agent.refused("Have", many(100_000))
    assert said == "more than 10000 streams in one message"
    request = have((STREAM, Intervals([(1, 1)])))
    request.origins.extend([request.origins[0]] * STREAMS_MAX)
    await agent.refused("Have", request)
    holey = have((STREAM, Intervals([(1, 1)])))
    holey.changes[0].ranges[:] = [1, 0] + [2, 0] * RANGES_MAX
    assert await agent.refused("Have", holey) == f"more than {RANGES_MAX} ranges in one message"
    wanted = pb.FetchRequest(sender=holey.sender, origins=holey.origins, wanted=holey.changes)
    before = agent.state()
    async with agent.peers.stream(METHODS["Fetch"], wanted) as stream:
        assert (await failure_of(stream)).code == "INVALID_ARGUMENT"
    assert agent.state() == before


@pytest.mark.bad_input(29)
async def test_a_vector_of_writers_that_cannot_be(agent: Doors) -> None:
    await agent.join()
    good = have((STREAM, Intervals([(1, 1)])))
    beyond = pb.HaveRequest()
    beyond.CopyFrom(good)
    beyond.changes[0].origin = 1
    assert "does not name" in await agent.refused("Have", beyond)
    for name, epoch in (
        ("", 1),
        ("a b", 1),
        ("x" * 129, 1),
        ("a\n", 1),
        ("b", 0),
        ("b", EPOCH_MAX + 1),
    ):
        illegal = pb.HaveRequest()
        illegal.CopyFrom(good)
        illegal.origins[0].name, illegal.origins[0].epoch = name, epoch
        await agent.refused("Have", illegal)
    for field, value in (("namespace", "Shop"), ("namespace", ""), ("lane", 0), ("lane", 4)):
        illegal = pb.HaveRequest()
        illegal.CopyFrom(good)
        setattr(illegal.changes[0], field, value)
        await agent.refused("Have", illegal)


@pytest.mark.bad_input(29)
async def test_who_has_not_joined_is_not_listened_to(agent: Doors) -> None:
    said = await agent.refused("Have", claim([1, 0]), "FAILED_PRECONDITION", counted=False)
    assert said == "peer-1 has not joined"


@pytest.mark.bad_input(29)
async def test_an_unknown_writer_is_one_whose_rows_are_missing(agent: Doors) -> None:
    """Nobody can tell a writer that was never heard of from one that does not exist."""
    await agent.join()
    before = agent.state()
    unknown = Stream("shop", Origin("nobody", 7), Lane.BULK)
    await agent.ask("Have", have((unknown, Intervals([(1, 5)]))))
    assert agent.state() == before._replace(gaps=5)


@pytest.mark.bad_input(30)
async def test_a_vector_that_goes_backwards_is_ignored(agent: Doors) -> None:
    async with agent.link() as link:
        await send(link, payload(1, [b"a", b"b", b"c"]))
        await agent.eventually(lambda: agent.agent.replica.position == 3)
        before = agent.state()
        for numbers in ([(1, 3)], [(1, 2)], [(2, 2)], []):
            await agent.ask("Have", have((STREAM, Intervals(numbers))))
            assert agent.state() == before


@pytest.mark.bad_input(31)
async def test_a_stamp_of_tomorrow_is_an_alarm_and_the_row_counts(agent: Doors) -> None:
    tomorrow = BootClock().wall_ms() + 24 * 3_600_000
    await agent.invalidate(keys=[b"own"])
    stamp = agent.agent.stamps.stamp
    async with agent.link() as link:
        agent.handler.put(b"x", "value", ())
        await send(link, payload(1, stamp=tomorrow << 16))
        await agent.eventually(lambda: not agent.handler.entries)
        assert agent.agent.stamps.stamp == stamp
        assert agent.agent.stamps.skewed == 1
        await send_later(link, payload(2, stamp=2**64 - 1))
        await agent.eventually(lambda: agent.agent.stamps.skewed == 2)
    assert agent.agent.stamps.stamp == stamp


@pytest.mark.bad_input(34)
async def test_an_epoch_far_ahead_is_an_alarm_and_one_beyond_2100_is_refused(agent: Doors) -> None:
    tomorrow = BootClock().wall_ms() + 25 * 3_600_000
    for epoch in (EPOCH_MAX + 1, 2**64 - 1, 0):
        beyond = exchange(replace(PEER_ME, epoch=epoch))
        assert await agent.refused("Exchange", beyond) == "an illegal epoch"
    assert agent.agent.membership.epochs_ahead == 0
    await agent.join(replace(PEER_ME, epoch=tomorrow))
    assert agent.agent.membership.epochs_ahead == 1
    assert agent.state().members == [PEER_ME.name]
    assert agent.agent.ingest.life.epoch < tomorrow, "nobody else's epoch moves the own one"
