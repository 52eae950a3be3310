"""Odd deadlines, heavy headers, streams by the thousand: refused or bounded, and others do not notice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest
import trio
from doors import METHODS, Doors
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated
from http2 import http2, resets

from coherd.limits import CALLS_MAX, METADATA_BYTES_MAX
from coherd.v1 import cache_service_pb2 as cache

INVALIDATE = METHODS["Invalidate"].path
WATCH = METHODS["Watch"].path
REQUEST = cache.InvalidateRequest(namespace="shop", keys=[b"k"]).SerializeToString()
YEARS = 10 * 365 * 24 * 3600


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run what blocks, while the agent goes on in this thread."""
    return await trio.to_thread.run_sync(function, *arguments)


def called(address: str, timeout: float | None, metadata: Any = ()) -> grpc.StatusCode:
    """Ask as an application does; give the status."""
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(INVALIDATE)(REQUEST, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            return error.code()  # type: ignore[no-any-return]
    return grpc.StatusCode.OK


@pytest.mark.bad_input(61)
@pytest.mark.parametrize("timeout", [YEARS, None])
async def test_deadlines_that_are_none(agent: Doors, timeout: float | None) -> None:
    assert await in_thread(called, agent.local_address, timeout) is grpc.StatusCode.OK
    watch = threading.Event()

    def follow() -> str:
        with grpc.insecure_channel(agent.local_address) as channel:
            opening = cache.WatchRequest(open=cache.WatchOpen(namespaces=["shop"]))
            call = channel.stream_stream(WATCH)(
                iter([opening.SerializeToString()]), timeout=timeout
            )
            next(call)
            watch.set()
            call.cancel()
            return "followed"

    assert await in_thread(follow) == "followed"
    await agent.eventually(lambda: not agent.agent.delivery.watchers)


def raw_call(address: str, *more: tuple[bytes, bytes]) -> dict[bytes, bytes]:
    with http2(address) as client:
        return client.call(INVALIDATE, REQUEST, *more)


@pytest.mark.bad_input(61)
@pytest.mark.parametrize("deadline", [b"0n", b"0S", b"1n"])
async def test_a_deadline_that_has_passed(agent: Doors, deadline: bytes) -> None:
    """Answered all the same or ended at once, and never left hanging."""
    answered = await in_thread(raw_call, agent.local_address, (b"grpc-timeout", deadline))
    assert answered.get(b"grpc-status", b"4") in {b"0", b"4"}
    assert (await agent.invalidate(keys=[b"a"])).complete


@pytest.mark.bad_input(61)
@pytest.mark.parametrize(
    ("deadline", "status"),
    [
        (b"99999999H", b"0"),
        (b"9" * 30 + b"H", b"0"),
        (b"soon", b"13"),
        (b"", b"13"),
        (b"-1S", b"13"),
    ],
)
async def test_deadlines_that_no_client_sends(agent: Doors, deadline: bytes, status: bytes) -> None:
    answered = await in_thread(raw_call, agent.local_address, (b"grpc-timeout", deadline))
    assert answered[b"grpc-status"] == status
    if status == b"13":
        assert answered[b"grpc-message"] == b"Error parsing 'grpc-timeout' metadata"
    assert agent.agent.replica.position == (status == b"0")
    assert (await agent.invalidate(keys=[b"a"])).complete


@pytest.mark.bad_input(62)
async def test_heavy_headers(agent: Doors) -> None:
    before = agent.state()
    for metadata in (
        [("x", "a" * 2**20)],
        [("x", "a" * METADATA_BYTES_MAX)],
        [(f"x-{n}", "a" * 16) for n in range(200)],
        [("x-bin", bytes(METADATA_BYTES_MAX))],
    ):
        code = await in_thread(called, agent.local_address, 20, metadata)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert agent.state() == before
    fits = [("x", "a" * (METADATA_BYTES_MAX - 700))]
    assert await in_thread(called, agent.local_address, 20, fits) is grpc.StatusCode.OK


@pytest.mark.bad_input(62)
@pytest.mark.parametrize("value", [b"*not base64*", b"a", b"\xff\xff"])
async def test_a_binary_header_that_is_no_base64(agent: Doors, value: bytes) -> None:
    before = agent.state()
    answered = await in_thread(raw_call, agent.local_address, (b"x-bin", value))
    assert answered[b"grpc-status"] == b"13"
    assert answered[b"grpc-message"] == b"Error parsing 'x-bin' metadata: illegal base64 encoding"
    assert agent.state() == before
    assert (await agent.invalidate(keys=[b"a"])).complete


@pytest.mark.bad_input(63)
async def test_a_thousand_streams_opened_and_reset_at_once(agent: Doors) -> None:
    def flood() -> None:
        for _ in range(CALLS_MAX // 1_000 - 1):
            with http2(agent.local_address) as client:
                streams = [client.open(WATCH) for _ in range(1_000)]
                resets(client, streams)
                client.send()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_thread, flood)
        for n in range(50):
            assert (await agent.invalidate(keys=[b"%d" % n])).complete, (
                "others are served meanwhile"
            )
    await agent.eventually(lambda: not agent.agent.delivery.watchers)
    assert (await agent.invalidate(keys=[b"afterwards"])).complete


@pytest.mark.bad_input(63)
async def test_streams_that_are_opened_and_left_alone(agent: Doors) -> None:
    """Half-open calls on one connection take nothing from the callers on others."""

    def flood(ready: Any, go: threading.Event) -> None:
        with http2(agent.local_address) as client:
            for _ in range(1_000):
                client.open(WATCH)
            client.send()
            trio.from_thread.run_sync(ready.set)
            go.wait(60)

    ready, go = trio.Event(), threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_thread, flood, ready, go)
        await ready.wait()
        for n in range(20):
            assert (await agent.invalidate(keys=[b"%d" % n])).complete
        go.set()


def pinged(address: str, calls: int, pings: int) -> ConnectionTerminated | None:
    """Open calls and ping; give what was said in the end, None when the connection was just cut."""
    with http2(address) as client:
        assert client.await_settings()
        for _ in range(calls):
            client.open(WATCH)
        for n in range(pings):
            client.connection.ping(n.to_bytes(8, "big"))
        try:
            client.send()
            ends = (each for each in client.events() if isinstance(each, ConnectionTerminated))
            return next(ends, None)
        except ConnectionError:
            return None


@pytest.mark.bad_input(64)
@pytest.mark.parametrize("calls", [0, 1])
async def test_who_pings_too_much_is_told_and_cut_off(agent: Doors, calls: int) -> None:
    for address in (agent.local_address, agent.peer_address):
        said = await in_thread(pinged, address, calls, 10)
        assert said.error_code == ErrorCodes.ENHANCE_YOUR_CALM
        assert said.additional_data == b"too_many_pings"
    await agent.eventually(lambda: not agent.agent.delivery.watchers)


@pytest.mark.bad_input(64)
async def test_a_flood_of_pings_takes_nothing_from_others(agent: Doors) -> None:
    def flood() -> None:
        for _ in range(20):
            pinged(agent.local_address, 0, 10_000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_thread, flood)
        for n in range(50):
            assert (await agent.invalidate(keys=[b"%d" % n])).complete
    assert (await agent.invalidate(keys=[b"afterwards"])).complete


@pytest.mark.slow
@pytest.mark.bad_input(62)
async def test_a_client_that_never_confirms_what_is_allowed_is_cut_off(agent: Doors) -> None:
    """Until then gRPC applies limits of its own: 16 MiB of headers."""

    def linger() -> bytes:
        with http2(agent.local_address) as client:
            while data := client.socket.recv(65_536):
                pass
            return data

    assert await in_thread(linger) == b""
