"""Payloads and protobuf messages that are not what they should be: one exception, little memory, no time."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from doors import (
    METHODS,
    PEER_ME,
    STREAM,
    Doors,
    Raw,
    exchange,
    failure_of,
    have,
    parcel,
    payload,
    told,
    word,
)

from coherd.errors import MalformedMessage
from coherd.limits import PAYLOAD_BYTES_MAX
from coherd.model import Batch
from coherd.net.bridge_method import parse
from coherd.net.peer_codec import decode_have
from coherd.replication.intervals import Intervals
from coherd.v1 import peer_service_pb2 as pb
from coherd.v1 import types_pb2 as types
from coherd.wire import decode_batch, encode_batch

BYTES_MAX = 8 * 1024 * 1024
SECONDS_MAX = 0.05

FIELDS: list[Any] = [1, "shop", "a", 7, 2, 2, 0, [1, 0], [b"kx"], None, "", ""]
NUMBERS, SELECTORS, VERSIONS = 7, 8, 9


def with_field(index: int, data: bytes) -> bytes:
    """A legal payload with the bytes of one field replaced."""
    fields = [msgpack.packb(field) for field in FIELDS]
    return b"\x9c" + b"".join(fields[:index]) + data + b"".join(fields[index + 1 :])


def assert_malformed(data: bytes, decode: Callable[[bytes], object] = decode_batch) -> None:
    """It raises the one exception that is due, within bounds of memory and time."""
    spent = []
    for _ in range(5):
        began = time.thread_time()
        with pytest.raises(MalformedMessage):
            decode(data)
        spent.append(time.thread_time() - began)
    assert min(spent) < SECONDS_MAX
    tracemalloc.start()
    with pytest.raises(MalformedMessage):
        decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < BYTES_MAX


def anywhere(data: bytes) -> list[bytes]:
    """Some bytes alone, in the place of every field, and after the last one."""
    appended = b"\x9c" + b"".join(map(msgpack.packb, FIELDS)) + data
    return [data, *(with_field(index, data) for index in range(len(FIELDS))), appended]


@pytest.mark.bad_input(15)
@pytest.mark.parametrize(
    "header", [b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xdf\xff\xff\xff\xff"]
)
def test_a_few_bytes_that_claim_a_long_list(header: bytes) -> None:
    for data in anywhere(header):
        assert_malformed(data)


@pytest.mark.bad_input(16)
@pytest.mark.parametrize("depth", [9, 1_100, 100_000])
@pytest.mark.parametrize("kind", [b"\x91", b"\x81\xa1a"], ids=["lists", "maps"])
def test_deep_nesting(depth: int, kind: bytes) -> None:
    for data in anywhere(kind * depth + b"\xc0")[:-1]:
        assert_malformed(data)


@pytest.mark.bad_input(17)
@pytest.mark.parametrize("depth", [10, 400, 1_000])
def test_long_lists_in_long_lists(depth: int) -> None:
    for header in (b"\xdd\x00\x00\x03\xe8", b"\xdc\x03\xe8", b"\xdd\x00\x08\x00\x00"):
        for data in anywhere(header * depth + b"\x90" * 500_000):
            assert_malformed(data)


@pytest.mark.bad_input(18)
def test_a_map_with_a_key_twice() -> None:
    for data in anywhere(b"\x82\xa1a\x01\xa1a\x02")[:-1]:
        assert_malformed(data)


@pytest.mark.bad_input(19)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0, 0.0, 1.0, True, False])
def test_what_is_no_integer_where_one_is_due(value: float) -> None:
    for index in (0, 3, 4, 5, 6):
        assert_malformed(with_field(index, msgpack.packb(value)))
    for index, fields in {NUMBERS: [value, 0], SELECTORS: [value], VERSIONS: [value]}.items():
        assert_malformed(with_field(index, msgpack.packb(fields)))


@pytest.mark.bad_input(20)
@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x01\x02",
        b"\x81\xc4\x01x\x02",
        b"\xc7\x0c\xff\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\xd6\xff\xff\xff\xff\xff",
        b"\xd4\x05\x00",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xc1",
    ],
    ids=["integer key", "binary key", "late time", "time", "extension", "long extension", "unused"],
)
def test_maps_extensions_and_times(data: bytes) -> None:
    for bad in anywhere(data)[:-1]:
        assert_malformed(bad)


@pytest.mark.bad_input(21, 22)
def test_every_prefix_and_every_trailing_byte() -> None:
    whole = encode_batch(
        Batch(STREAM, ((3, 4), (9, 9)), [b"ka", b"tb", b"n"], versions=[1, 2, 3], reason="why")
    )
    for end in range(len(whole)):
        assert_malformed(whole[:end])
    for byte in range(256):
        assert_malformed(whole + bytes([byte]))
    message = have((STREAM, Intervals([(1, 9)]))).SerializeToString()
    assert decode_have(parse(pb.HaveRequest, message)).changes
    accepted = []
    for end in range(len(message)):
        try:
            accepted.append(decode_have(parse(pb.HaveRequest, message[:end])))
        except MalformedMessage:
            continue
    assert all(not each.changes for each in accepted), "less is said, and nothing else"


@pytest.mark.bad_input(22)
def test_what_later_versions_append_is_passed_over_and_nothing_else() -> None:
    newer = msgpack.packb([2, *FIELDS[1:], {"new": [1, 2]}, "more"])
    assert decode_batch(newer) == decode_batch(msgpack.packb(FIELDS))
    assert_malformed(newer + b"\xc0")
    assert_malformed(b"\x9c" + newer[1:])


def nested(depth: int) -> bytes:
    """A LinkRequest whose unknown field holds groups in groups."""
    return b"\x7b" * depth + b"\x7c" * depth


PROTOBUF = {
    "a wrong wire type": b"\x0d\x01\x02\x03\x04",
    "field 0": b"\x02\x00",
    "an endless number": b"\x18" + b"\xff" * 11,
    "a length beyond the end": b"\x12\xff\xff\xff\xff\x07",
    "a negative length": b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    "a group that does not end": b"\x7b",
    "1,000 nested groups": nested(1_000),
    "a reserved wire type": b"\x0e\x00",
}


@pytest.mark.bad_input(24)
@pytest.mark.parametrize("data", PROTOBUF.values(), ids=PROTOBUF)
async def test_protobuf_that_is_none(agent: Doors, data: bytes) -> None:
    if data != PROTOBUF["a wrong wire type"]:  # which is an unknown field to protobuf
        for message in (pb.LinkRequest, pb.HaveRequest, types.Member):
            assert_malformed(data, lambda data, of=message: parse(of, data))  # type: ignore[misc]
    for rpc in ("Exchange", "Have", "Compare", "Applied", "GetReceipt", "Invalidate"):
        await agent.refused(rpc, Raw(data))
    async with agent.link() as link:
        await link.send(Raw(data))
        if data != PROTOBUF["a wrong wire type"]:
            assert (await failure_of(link)).code == "INVALID_ARGUMENT"


@pytest.mark.bad_input(24)
async def test_a_field_that_comes_twice_and_one_that_nobody_knows(agent: Doors) -> None:
    """As protobuf says: the last one counts, and what is unknown is passed over."""
    second = replace(PEER_ME, name="peer-2")
    any_ = b"\x0a\x0bexample/Any\x12\x02hi"
    unknown = b"\xfa\x07" + bytes([len(any_)]) + any_
    data = exchange(PEER_ME, cluster="nobody").SerializeToString()
    data += exchange(second, told(word(second))).SerializeToString()
    await agent.ask("Exchange", Raw(data + unknown))
    assert agent.state().members == ["peer-2"]


@pytest.mark.bad_input(24)
async def test_what_later_versions_say_survives_a_relay(agent: Doors) -> None:
    """Rows are kept and handed on as the bytes they came in."""
    fields = msgpack.unpackb(payload(1, [b"new"]))
    newer = msgpack.packb([2, *fields[1:], {"new": [1, 2]}, "more"])
    async with agent.link() as link:
        await link.send(pb.LinkRequest(parcels=[parcel(1, newer)]))
        await agent.eventually(lambda: agent.agent.replica.position == 1)
    request = pb.FetchRequest()
    request.sender.name, request.sender.epoch = PEER_ME.name, PEER_ME.epoch
    shown = have((STREAM, Intervals([(1, 1)])))
    request.origins.extend(shown.origins)
    request.wanted.extend(shown.changes)

    async with agent.peers.stream(METHODS["Fetch"], request) as stream:
        blocks = [block for part in await stream.receive() for block in part.blocks]
    assert [block.payload for block in blocks] == [newer]


@pytest.mark.bad_input(12, 23)
async def test_garbage_on_a_link_is_counted_and_the_link_goes_on(agent: Doors) -> None:
    bad = [b"", b"\xc1" * 100, bytes(PAYLOAD_BYTES_MAX + 1), payload(1)[:-1], payload(1) + b"\0"]
    async with agent.link() as link:
        before = agent.state()
        for sequence, data in enumerate(bad, 1):
            await link.send(pb.LinkRequest(parcels=[parcel(sequence, data)]))
        await agent.eventually(lambda: agent.agent.ingest.malformed == len(bad))
        assert agent.state() == before
        last = parcel(len(bad) + 1, payload(1), receipt=True)
        await link.send(pb.LinkRequest(parcels=[last]))
        await agent.eventually(lambda: agent.agent.replica.position == 1)
