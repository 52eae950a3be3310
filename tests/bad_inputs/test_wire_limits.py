"""Every limit of `coherd.limits` holds at its value and one over, and the page that shows them is right."""

from __future__ import annotations

import re
import resource
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import pytest
import trio
from doors import METHODS, PEER_ME, STREAM, Doors, Raw, exchange, have, payload, told, word
from google.protobuf.duration_pb2 import Duration
from h2.exceptions import TooManyStreamsError
from http2 import http2
from identities import of_one_identity

from coherd import limits, logs
from coherd.api.peer_service import PeerService
from coherd.clock import BootClock
from coherd.cluster.membership import swim_config
from coherd.errors import MalformedMessage, RpcFailed
from coherd.limits import LIMITS
from coherd.net import eras_codec, peer_codec, trace_codec
from coherd.net.peer_codec import encode_member
from coherd.replication.clock import HybridClock, is_far_ahead
from coherd.replication.intervals import Intervals
from coherd.v1 import admin_service_pb2 as admin
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import peer_service_pb2 as pb
from coherd.v1 import types_pb2 as types
from coherd.wire import decode_batch
from coherd_membership import Swim

PAGE = (Path(__file__).parents[2] / "docs" / "bad-inputs.md").read_text()

CODES = {limits.REFUSED: "INVALID_ARGUMENT", limits.TOO_LARGE: "RESOURCE_EXHAUSTED"}
Case = Callable[[Doors, int], Awaitable[bool]]
CASES: dict[str, Case] = {}
"""By limit: try so much; was it taken, whole and without an alarm?"""


def case(name: str) -> Callable[[Case], Case]:
    def add(function: Case) -> Case:
        CASES[name] = function
        return function

    return add


def by_call(name: str, rpc: str, request: Callable[[int], Any]) -> None:
    """Ask the agent."""

    async def ask(agent: Doors, value: int) -> bool:
        if rpc == "Have":
            await agent.join()
        try:
            await agent.ask(rpc, request(value))
        except RpcFailed as error:
            if error.code != CODES[LIMITS[name].beyond]:
                raise
            return False
        return True

    CASES[name] = ask


def by_decoding(name: str, decode: Callable[[int], object]) -> None:
    """Decode what a peer sends."""

    async def ask(_agent: Doors, value: int) -> bool:
        try:
            decode(value)
        except MalformedMessage:
            return False
        return True

    CASES[name] = ask


def invalidation(**fields: Any) -> cache.InvalidateRequest:
    return cache.InvalidateRequest(**{"namespace": "shop", "keys": [b"k"], **fields})


def sender(**fields: Any) -> pb.ExchangeRequest:
    return exchange(replace(PEER_ME, **fields))


def member(**fields: Any) -> types.Member:
    return encode_member(replace(PEER_ME, **fields))


def padded(data: bytes, size: int) -> bytes:
    """Append an unknown field, so that it has `size` bytes."""
    filler = size - len(data) - 6
    length = b"".join(bytes([filler >> 7 * n & 127 | 128]) for n in range(3)) + bytes(
        [filler >> 21]
    )
    return data + b"\xfa\x01" + length + bytes(filler)


def long_payload(size: int) -> bytes:
    """A payload to which a later version appended something."""
    fields = msgpack.unpackb(payload(1))
    head = b"\x9d" + b"".join(map(msgpack.packb, fields)) + b"\xc6"
    return head + (size - len(head) - 4).to_bytes(4, "big") + bytes(size - len(head) - 4)


def issued_payload(issuer: str) -> bytes:
    return bytes(msgpack.packb([*msgpack.unpackb(payload(1))[:-1], issuer]))


def holey_payload(count: int) -> bytes:
    fields = msgpack.unpackb(payload(1))
    fields[7], fields[8] = [1, 0] + [2, 0] * (count - 1), [b"kx"] * count
    return bytes(msgpack.packb(fields))


def holey_have(count: int) -> pb.HaveRequest:
    request = have((STREAM, Intervals([(1, 1)])))
    request.changes[0].ranges[:] = [1, 0] + [2, 0] * (count - 1)
    return request


def wide_have(count: int) -> pb.HaveRequest:
    request = have((STREAM, Intervals([(1, 1)])))
    request.changes.extend([request.changes[0]] * (count - 1))
    return request


ERA = pb.NamespaceEra(namespace="shop", era=1)
DOTS = types.Dots(namespace="shop", origin=types.Origin(name="a", epoch=1), lane=1, first=1, last=1)

by_call("NAMESPACE_MAX", "Invalidate", lambda n: invalidation(namespace="x" * n))
by_call("NAME_MAX", "Exchange", lambda n: sender(name="x" * n))
by_call("SELECTOR_BYTES_MAX", "Invalidate", lambda n: invalidation(keys=[b"k" * n]))
by_call("REASON_MAX", "Invalidate", lambda n: invalidation(reason="é" * n))
by_call("NUMBER_MAX", "Invalidate", lambda n: invalidation(versions=[n]))
by_call("NUMBER_AHEAD_MAX", "Have", lambda n: have((STREAM, Intervals([(1, n)]))))
by_call("EPOCH_MAX", "Exchange", lambda n: sender(epoch=n))
by_call("TIMEOUT_MAX", "Invalidate", lambda n: invalidation(timeout=Duration(seconds=n)))
by_call("BATCH_ROWS_MAX", "Invalidate", lambda n: invalidation(keys=[b"k"] * n))
by_call("STREAMS_MAX", "Have", wide_have)
by_call(
    "DOTS_MAX", "GetReceipt", lambda n: cache.GetReceiptRequest(dots=[DOTS] * n, timeout=Duration())
)
by_call(
    "REQUEST_BYTES_MAX",
    "Invalidate",
    lambda n: Raw(padded(invalidation().SerializeToString(), n)),
)
by_call("DATAGRAMS_MAX", "Exchange", lambda n: exchange(PEER_ME, *[b""] * n))
by_call("JOIN_SEEDS_MAX", "Join", lambda n: admin.JoinRequest(seeds=["127.0.0.1:1"] * n))
by_call("MESSAGE_BYTES_MAX", "Exchange", lambda n: Raw(padded(sender().SerializeToString(), n)))
by_call("TRACE_ROWS_MAX", "TraceKey", lambda n: admin.TraceKeyRequest(namespace="shop", rows=n))
by_call(
    "TRACE_SELECTORS_MAX",
    "TraceKey",
    lambda n: admin.TraceKeyRequest(namespace="shop", keys=[b"k"] * n),
)
by_decoding(
    "TRACE_READERS_MAX",
    lambda n: trace_codec.decode_row(
        types.TracedRow(selector=b"n", effect=2, readers=[types.TracedReader()] * n), "shop"
    ),
)
by_decoding("ADDRESS_MAX", lambda n: peer_codec.decode_member(member(address="x" * n)))
by_decoding("RANGES_MAX", lambda n: peer_codec.decode_have(holey_have(n)))
by_decoding("ERAS_MAX", lambda n: eras_codec.decode_eras([ERA] * n))
by_decoding("ERA_MAX", lambda n: eras_codec.decode_eras([pb.NamespaceEra(namespace="x", era=n)]))
by_decoding("BATCH_RANGES_MAX", lambda n: decode_batch(holey_payload(n)))
by_decoding("ISSUER_MAX", lambda n: decode_batch(issued_payload("r" * (n - 129) + "/" + "n" * 128)))
by_decoding("PAYLOAD_BYTES_MAX", lambda n: decode_batch(long_payload(n)))
by_decoding(
    "AGE_MAX_MS", lambda n: peer_codec.decode_parcels(pb.LinkRequest(parcels=[pb.Parcel(age_ms=n)]))
)
by_decoding(
    "PARCELS_MAX", lambda n: peer_codec.decode_parcels(pb.LinkRequest(parcels=[pb.Parcel()] * n))
)
by_decoding(
    "ARCS_MAX",
    lambda n: peer_codec.decode_parcels(pb.LinkRequest(parcels=[pb.Parcel(arcs=[pb.Arc()] * n)])),
)
by_decoding("BUCKETS", lambda n: peer_codec.decode_buckets([0] * n))
by_decoding(
    "MEMBER_BYTES_MAX",
    lambda n: peer_codec.decode_member(
        types.Member.FromString(padded(member().SerializeToString(), n))
    ),
)


@case("VERSION_MAX")
async def version(_agent: Doors, value: int) -> bool:
    return peer_codec.decode_member(member(version="v" * value)).version == "v" * value


@case("MEMBERS_MAX")
async def members(_agent: Doors, value: int) -> bool:
    """The machine alone: whole agents would dial whoever is made up."""
    me = word(PEER_ME, name="a")
    swim = Swim(
        swim_config("lan"),
        name="a",
        epoch=1,
        address="10.0.0.1:1",
        cluster="test",
        random=Random(7),
    )
    for first in range(1, value, 500):
        made_up = [me._replace(name=f"m{n}") for n in range(first, min(first + 500, value))]
        swim.receive(told(word(), *made_up), "127.0.0.1:1", 0.0)
    assert len(swim.members) == min(value, limits.MEMBERS_MAX)
    return swim.statistics().get("members", 0) == 0


@case("LOG_TEXT_MAX")
async def log_text(_agent: Doors, value: int) -> bool:
    return logs.printable("x" * value) == "x" * value


@case("EPOCH_AHEAD_MAX_MS")
async def epoch_ahead(_agent: Doors, value: int) -> bool:
    return not is_far_ahead(1_000 + value, 1_000)


@case("STAMP_AHEAD_MAX_MS")
async def stamp_ahead(_agent: Doors, value: int) -> bool:
    clock, now = HybridClock(), BootClock().wall_ms()
    assert clock.observe(now + value << 16, now) == (clock.skewed == 0)
    return clock.stamp > 0


@case("APPLIED_WAIT_MAX")
async def applied_wait(_agent: Doors, value: int) -> bool:
    waits: list[float] = []

    class Endpoint:
        async def applied(self, _dots: object, wait: float) -> bool:
            waits.append(wait)
            return True

    service = PeerService(Endpoint())  # type: ignore[arg-type]
    await service.Applied(pb.AppliedRequest(dots=[DOTS], wait_ms=value * 1000), None)  # type: ignore[arg-type]
    return waits == [value]


@case("WATCH_NAMESPACES_MAX")
async def watch_namespaces(agent: Doors, value: int) -> bool:
    async with agent.local.stream(METHODS["Watch"]) as stream:
        names = [f"n{n}" for n in range(value)]
        await stream.send(cache.WatchRequest(open=cache.WatchOpen(namespaces=names)))
        with suppress(RpcFailed):
            return bool(await stream.receive())
    return False


@case("METADATA_BYTES_MAX")
async def metadata(agent: Doors, value: int) -> bool:
    def ask() -> bytes:
        with http2(agent.local_address) as client:
            client.await_settings()  # they hold from then on
            path = METHODS["Invalidate"].path
            # RFC 9113, 10.5.1: the size of a field is that of its name and its value, plus 32.
            used = 32 + len("x") + sum(32 + len(n) + len(v) for n, v in client.headers(path))
            request = invalidation().SerializeToString()
            return client.call(path, request, (b"x", b"a" * (value - used)))[b"grpc-status"]

    status = await trio.to_thread.run_sync(ask)
    assert status in {b"0", b"8"}
    return status == b"0"


@case("CALL_STREAMS_MAX")
async def call_streams(agent: Doors, value: int) -> bool:
    def ask() -> bool:
        with http2(agent.local_address) as client:
            client.await_settings()
            with suppress(TooManyStreamsError):
                for _ in range(value):
                    client.open(METHODS["Watch"].path)
                client.send()
                return True
            return False

    return await trio.to_thread.run_sync(ask)


@case("CALLS_MAX")
async def calls(agent: Doors, value: int) -> bool:
    """The calls of `value` clients, one of them in the end."""

    def ask() -> bytes:
        with ExitStack() as stack:
            opened = 0
            while opened < value - 1:
                client = stack.enter_context(http2(agent.local_address))
                client.await_settings()  # who does not confirm them is cut off
                for _ in range(min(value - 1 - opened, 500)):
                    client.open(METHODS["Watch"].path)
                    opened += 1
                client.send()
                trio.from_thread.run(agent.until_calls, opened)
            with http2(agent.local_address) as last:
                request = invalidation().SerializeToString()
                return last.call(METHODS["Invalidate"].path, request)[b"grpc-status"]

    status = await trio.to_thread.run_sync(ask)
    await agent.until_calls(0)
    assert status in {b"0", b"8"}
    return status == b"0"


@case("CONNECTIONS_MAX")
async def connections(agent: Doors, value: int) -> bool:
    """The channel of the test is one of them."""

    def ask() -> bool:
        with ExitStack() as stack:
            for _ in range(value - 2):
                stack.enter_context(http2(agent.local_address)).await_settings()
            with suppress(ConnectionError), http2(agent.local_address) as last:
                return last.await_settings()
            return False

    await agent.invalidate(keys=[b"a"])
    with descriptors(4 * value):
        return await trio.to_thread.run_sync(ask)


@case("IDENTITY_CALLS_MAX")
async def identity_calls(agent: Doors, value: int) -> bool:
    return await of_one_identity(agent, 1, value - 1)


@case("IDENTITY_CONNECTIONS_MAX")
async def identity_connections(agent: Doors, value: int) -> bool:
    return await of_one_identity(agent, value - 1, 1)


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Allow this process so many open files."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before, count), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


@pytest.mark.parametrize("name", LIMITS)
async def test_a_limit_holds_at_its_value_and_one_over(agent: Doors, name: str) -> None:
    value = LIMITS[name].value
    assert await CASES[name](agent, value), "at the limit"
    assert not await CASES[name](agent, value + 1), "one over"


def test_every_limit_is_in_the_table_and_is_tested() -> None:
    constants = {name: value for name, value in vars(limits).items() if isinstance(value, int)}
    assert {name: limit.value for name, limit in LIMITS.items()} == constants
    assert CASES.keys() == LIMITS.keys()


def test_the_page_shows_the_table() -> None:
    shown = re.findall(r"^\| `([A-Z_]+)` \| ([\d,]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    assert shown == [
        (name, f"{limit.value:,}", limit.unit, limit.beyond) for name, limit in LIMITS.items()
    ]
