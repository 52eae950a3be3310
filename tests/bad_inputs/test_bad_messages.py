"""Batches and messages of the wrong size: the exact status, nothing changed, and the channel goes on."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
import trio
from doors import METHODS, PEER_ME, STREAM, Doors, Raw, failure_of, parcel, payload

from coherd.cluster.spreading import payload_id
from coherd.limits import (
    BATCH_ROWS_MAX,
    MESSAGE_BYTES_MAX,
    NUMBER_MAX,
    PAYLOAD_BYTES_MAX,
    REQUEST_BYTES_MAX,
    SELECTOR_BYTES_MAX,
)
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import peer_service_pb2 as pb

KEYS = [b"%d" % n for n in range(BATCH_ROWS_MAX)]


@pytest.mark.bad_input(11)
async def test_batches_of_all_sizes(agent: Doors) -> None:
    for rows in (0, BATCH_ROWS_MAX + 1, 100_000):
        request = cache.InvalidateRequest(namespace="shop", keys=[b"k"] * rows)
        said = await agent.refused("Invalidate", request)
        assert said == f"{rows} rows: 1 to 1000 are due in one request"
    request = cache.InvalidateRequest(namespace="shop", keys=[b"k"] * 1_000_000)
    said = await agent.refused("Invalidate", request, "RESOURCE_EXHAUSTED", counted=False)
    assert "larger than max" in said
    for rows in (1, BATCH_ROWS_MAX):
        receipt = await agent.invalidate(keys=KEYS[:rows])
        assert receipt.dots[0].last - receipt.dots[0].first + 1 == rows


def padded(size: int) -> Raw:
    """A legal Invalidate of exactly so many bytes: an unknown field fills it."""
    data = cache.InvalidateRequest(namespace="shop", keys=[b"padded"]).SerializeToString()
    filler = size - len(data) - 6
    length = bytes(
        [filler & 127 | 128, filler >> 7 & 127 | 128, filler >> 14 & 127 | 128, filler >> 21]
    )
    return Raw(data + b"\xfa\x01" + length + bytes(filler))


@pytest.mark.bad_input(12)
async def test_messages_around_the_limit(agent: Doors) -> None:
    for size in (REQUEST_BYTES_MAX - 1, REQUEST_BYTES_MAX):
        assert (await agent.ask("Invalidate", padded(size))).receipt.complete
    for size in (REQUEST_BYTES_MAX + 1, 3 * REQUEST_BYTES_MAX):
        said = await agent.refused("Invalidate", padded(size), "RESOURCE_EXHAUSTED", counted=False)
        assert f"({size} vs. {REQUEST_BYTES_MAX})" in said
    assert (await agent.invalidate(keys=KEYS)).complete, "the same channel"


@pytest.mark.bad_input(12)
async def test_the_largest_request_that_there_is_fits(agent: Doors) -> None:
    keys = [b"%03d" % n + b"\xff" * (SELECTOR_BYTES_MAX - 3) for n in range(BATCH_ROWS_MAX)]
    receipt = await agent.invalidate(
        namespace="x" * 64,
        keys=keys,
        versions=[NUMBER_MAX] * BATCH_ROWS_MAX,
        reason="\N{PILE OF POO}" * 256,
    )
    assert receipt.complete


@pytest.mark.bad_input(12)
async def test_a_link_that_sends_too_much_ends_and_another_opens(agent: Doors) -> None:
    before = agent.state()
    async with agent.link() as link:
        await link.send(Raw(bytes(MESSAGE_BYTES_MAX + 1)))
        assert (await failure_of(link)).code == "RESOURCE_EXHAUSTED"
    assert agent.state()._replace(members=[]) == before
    async with agent.link() as link:
        await link.send(pb.LinkRequest(parcels=[parcel(1, payload(1))]))
        await agent.eventually(lambda: agent.agent.replica.position == 1)


def compressed_call(address: str, data: bytes) -> grpc.RpcError:
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(METHODS["Invalidate"].path)
        with pytest.raises(grpc.RpcError) as caught:
            call(data, timeout=30, compression=grpc.Compression.Gzip)
        return caught.value


@pytest.mark.bad_input(13)
async def test_a_gzip_bomb_is_refused_unopened(agent: Doors) -> None:
    before = agent.state()
    small = cache.InvalidateRequest(namespace="shop", keys=KEYS).SerializeToString()
    for data in (bytes(64 * 1024 * 1024), small):
        for address in (agent.local_address, agent.peer_address):
            error: Any = await trio.to_thread.run_sync(compressed_call, address, data)
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
            assert error.details() == "Compression algorithm 'gzip' is disabled."
    assert agent.state() == before
    assert (await agent.invalidate(keys=KEYS)).complete


BAD_ROWS: dict[str, dict[str, Any]] = {
    "an empty key": {"keys": [*KEYS[:-1], b""]},
    "a long key": {"keys": [*KEYS[:-1], b"x" * 1025]},
    "a version too high": {"keys": KEYS, "versions": [*range(999), NUMBER_MAX + 1]},
}


@pytest.mark.bad_input(14)
@pytest.mark.parametrize("fields", BAD_ROWS.values(), ids=BAD_ROWS)
async def test_one_bad_row_refuses_the_whole_request(agent: Doors, fields: Any) -> None:
    await agent.refused("Invalidate", cache.InvalidateRequest(namespace="shop", **fields))
    receipt = await agent.invalidate(keys=KEYS)
    assert (receipt.dots[0].first, receipt.dots[0].last) == (1, 1000), "no number was used up"


@pytest.mark.bad_input(14)
async def test_one_bad_row_drops_the_whole_payload_and_nothing_but_it(agent: Doors) -> None:
    """The hole that it leaves is repaired like any other."""
    bad = payload(1, [b"%d" % n for n in range(999)] + [b"x" * 1025])
    async with agent.link() as link:
        parcels = [
            parcel(1, bad, receipt=True),
            parcel(2, payload(1001), receipt=True),
        ]
        await link.send(pb.LinkRequest(parcels=parcels))
        replies: list[Any] = []
        while not any(reply.receipts for reply in replies):
            replies += await link.receive()
    told = [receipt.payload for reply in replies for receipt in reply.receipts]
    assert told == [payload_id(payload(1001))], "the bad one never is"
    assert agent.agent.ingest.malformed == 1
    assert agent.agent.replica.vector.state(STREAM).have.ranges() == ((1001, 1001),)
    assert agent.agent.repair.open() == 1000
    assert PEER_ME.name in agent.state().members
    assert len(bad) < PAYLOAD_BYTES_MAX
