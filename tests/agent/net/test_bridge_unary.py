"""Unary calls over the bridge: answered, refused, cancelled, timed out, and their errors as statuses."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from bridge_toys import METHODS, Waiting, serving
from structlog.testing import capture_logs

from coherd.errors import InvalidRequest, MalformedMessage, NotDurable, Overloaded, RpcFailed
from coherd.net.bridge import Call
from coherd.v1 import cache_service_pb2 as cache_pb
from coherd.v1 import peer_service_pb2 as pb

EXCHANGE = METHODS["Exchange"]


async def exchange(request: pb.ExchangeRequest, call: Call) -> pb.ExchangeResponse:
    return pb.ExchangeResponse(wall_us=int(request.cluster))


async def test_a_call_is_answered_by_a_servicer_that_knows_who_asks_and_until_when() -> None:
    calls = []

    async def invalidate(
        request: cache_pb.InvalidateRequest, call: Call
    ) -> cache_pb.InvalidateResponse:
        calls.append(call)
        return cache_pb.InvalidateResponse(receipt=cache_pb.Receipt(cursor=request.namespace))

    async with serving(Invalidate=invalidate) as served:
        request = cache_pb.InvalidateRequest(namespace="web")
        for timeout in (30.0, None):
            method = METHODS["Invalidate"]
            response = await served.channel.unary(method, request, timeout=timeout)
            assert response.receipt.cursor == "web"
    limited, unlimited = calls
    assert limited.deadline is not None
    assert 0 < limited.deadline < 31
    assert unlimited.deadline is None
    assert limited.peer.startswith("ipv4:127.0.0.1:")
    assert dict(limited.metadata)["user-agent"].startswith("grpc-python")


async def test_ten_thousand_calls_are_all_answered() -> None:
    answers: list[int] = []

    async def ask(channel: Any, first: int) -> None:
        for number in range(first, first + 100):
            response = await channel.unary(
                EXCHANGE, pb.ExchangeRequest(cluster=str(number)), timeout=30
            )
            assert response.wall_us == number
            answers.append(number)

    async with serving(Exchange=exchange) as served, trio.open_nursery() as nursery:
        for group in range(100):
            nursery.start_soon(ask, served.channel, group * 100)
    assert sorted(answers) == list(range(10_000))


@pytest.mark.parametrize(
    ("error", "code", "details"),
    [
        (
            RpcFailed("FAILED_PRECONDITION", "another cluster"),
            "FAILED_PRECONDITION",
            "another cluster",
        ),
        (InvalidRequest("no keys"), "INVALID_ARGUMENT", "no keys"),
        (MalformedMessage("no batch"), "INVALID_ARGUMENT", "no batch"),
        (Overloaded("queue is full"), "RESOURCE_EXHAUSTED", "queue is full"),
        (NotDurable("disk is full"), "UNAVAILABLE", "disk is full"),
        (ExceptionGroup("", [InvalidRequest("no keys")]), "INVALID_ARGUMENT", "no keys"),
        (InvalidRequest("x" * 100_000), "INVALID_ARGUMENT", "x" * 1024),
    ],
)
async def test_what_a_servicer_raises_becomes_the_status(
    error: Exception, code: str, details: str
) -> None:
    async def fail(*_: Any) -> None:
        raise error

    async with serving(Exchange=fail, Link=fail) as served:
        with pytest.raises(RpcFailed) as unary:
            await served.channel.unary(EXCHANGE, pb.ExchangeRequest())
        async with served.channel.stream(METHODS["Link"]) as stream:
            with pytest.raises(RpcFailed) as streaming:
                await stream.receive()
    for failed in (unary.value, streaming.value):
        assert (failed.code, failed.details) == (code, details)


async def test_overload_says_when_to_try_again() -> None:
    async def fail(*_: Any) -> None:
        raise Overloaded("queue is full", retry_after=0.25)

    async def trailers(channel: Any) -> dict[str, str]:
        call = channel._channel.unary_unary(EXCHANGE.path)(b"")
        return dict(iter(await call.trailing_metadata()))

    async with serving(Exchange=fail) as served:
        said = await served.bridge.run(trailers, served.channel)
        assert said["grpc-retry-pushback-ms"] == "250"


@pytest.mark.parametrize("name", ["Exchange", "Link", "Fetch"])
async def test_a_fault_of_a_servicer_is_logged_here_and_not_told_there(name: str) -> None:
    async def fail(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    async def ask(channel: Any) -> None:
        if METHODS[name].streaming:
            async with channel.stream(METHODS[name], pb.FetchRequest()) as stream:
                await stream.receive()
        else:
            await channel.unary(METHODS[name], pb.ExchangeRequest())

    async with serving(**{"Exchange": exchange, name: fail}) as served:
        with capture_logs() as logs, pytest.raises(RpcFailed) as failed:
            await ask(served.channel)
        assert (failed.value.code, failed.value.details) == ("INTERNAL", "internal error")
        assert [entry["method"] for entry in logs] == [METHODS[name].path]
        assert isinstance(logs[0]["exc_info"], ZeroDivisionError)
        if name != "Exchange":
            assert (
                await served.channel.unary(EXCHANGE, pb.ExchangeRequest(cluster="7"))
            ).wall_us == 7


async def test_a_servicer_that_answers_nothing_is_a_fault() -> None:
    async def nothing(*_: Any) -> None:
        pass

    async with serving(Exchange=nothing) as served:
        with capture_logs() as logs, pytest.raises(RpcFailed, match="INTERNAL"):
            await served.channel.unary(EXCHANGE, pb.ExchangeRequest())
        assert len(logs) == 1


async def test_bytes_that_are_no_message_fail_the_call_alone() -> None:
    garbage = pb.Block(payload=b"\xff")

    async def malformed(request: pb.ExchangeRequest, call: Call) -> pb.Block:
        return garbage

    async with serving(Exchange=malformed) as served:
        with pytest.raises(RpcFailed, match="INVALID_ARGUMENT"):
            await served.channel.unary(EXCHANGE, garbage)
        with pytest.raises(RpcFailed, match="INTERNAL: the answer has bytes that are no"):
            await served.channel.unary(EXCHANGE, pb.ExchangeRequest())


async def test_a_cancelled_caller_cancels_the_servicer() -> None:
    waiting = Waiting()
    async with serving(Exchange=waiting) as served:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.channel.unary, EXCHANGE, pb.ExchangeRequest())
            await waiting.started.wait()
            nursery.cancel_scope.cancel()
        await waiting.cancelled.wait()


async def test_a_deadline_ends_the_call_on_both_sides() -> None:
    waiting = Waiting()
    async with serving(Exchange=waiting) as served:
        with pytest.raises(RpcFailed, match="DEADLINE_EXCEEDED"):
            await served.channel.unary(EXCHANGE, pb.ExchangeRequest(), timeout=0.05)
        await waiting.cancelled.wait()


async def test_a_connection_that_is_cut_cancels_the_servicer() -> None:
    waiting = Waiting()
    async with serving(Exchange=waiting) as served, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(RpcFailed, match="CANCELLED"):
                await served.channel.unary(EXCHANGE, pb.ExchangeRequest())

        nursery.start_soon(ask)
        await waiting.started.wait()
        await served.channel.aclose()
        await waiting.cancelled.wait()
        with pytest.raises(RpcFailed, match="CANCELLED"):
            await served.channel.unary(EXCHANGE, pb.ExchangeRequest())


async def test_a_call_that_nobody_answers_fails() -> None:
    async with serving(Exchange=exchange) as served:
        with pytest.raises(RpcFailed, match="UNIMPLEMENTED"):
            await served.channel.unary(METHODS["Have"], pb.HaveRequest())
        await served.server.stop(0)
        with pytest.raises(RpcFailed, match="UNAVAILABLE"):
            await served.channel.unary(EXCHANGE, pb.ExchangeRequest())
