"""Streams over the bridge: order, ends, failures, and windows that hold when one side stalls."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from bridge_toys import METHODS, Waiting, serving, standstill

from coherd.errors import MalformedMessage, RpcFailed
from coherd.net.bridge import Call, ClientStream, StreamCall
from coherd.net.bridge_stream import WINDOW_BYTES
from coherd.v1 import cache_service_pb2 as cache_pb
from coherd.v1 import peer_service_pb2 as pb

LINK, FETCH, EXCHANGE = METHODS["Link"], METHODS["Fetch"], METHODS["Exchange"]
MEGABYTE = 1024 * 1024
BLOCK = 64 * 1024


def parcel(number: int, size: int = 10) -> pb.LinkRequest:
    return pb.LinkRequest(parcels=[pb.Parcel(sequence=number, payload=bytes(size))])


async def exchange(request: pb.ExchangeRequest, call: Call) -> pb.ExchangeResponse:
    return pb.ExchangeResponse(wall_us=7)


async def acknowledge(call: StreamCall) -> None:
    while requests := await call.receive():
        for request in requests:
            await call.send(pb.LinkResponse(acknowledged=request.parcels[0].sequence))


async def receive_all(stream: ClientStream) -> list[Any]:
    received: list[Any] = []
    while messages := await stream.receive():
        received.extend(messages)
    return received


async def test_messages_arrive_in_order_both_ways_and_ends_are_seen() -> None:
    async with serving(Link=acknowledge) as served:

        async def send(stream: ClientStream) -> None:
            for number in range(12_000):
                await stream.send(parcel(number))
            await stream.done_sending()

        async with served.channel.stream(LINK) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(send, stream)
            received = await receive_all(stream)
            assert await stream.receive() == []
            with pytest.raises((RpcFailed, trio.ClosedResourceError)):
                stream.send_nowait(parcel(0))
    assert [response.acknowledged for response in received] == list(range(12_000))


async def test_a_server_streams_responses_to_one_request() -> None:
    async def fetch(request: pb.FetchRequest, call: StreamCall) -> None:
        for number in range(request.sender.epoch):
            await call.send(pb.FetchResponse(retry_after_ms=number))

    async with serving(Fetch=fetch) as served:
        request = pb.FetchRequest()
        request.sender.epoch = 500
        async with served.channel.stream(FETCH, request) as stream:
            received = await receive_all(stream)
    assert [response.retry_after_ms for response in received] == list(range(500))


async def test_a_watcher_gets_each_change_as_it_comes() -> None:
    async def watch(call: StreamCall) -> None:
        [opening] = await call.receive()
        for cursor in "abc":
            call.send_nowait(cache_pb.WatchResponse(cursor=opening.open.name + cursor))
            [acknowledgement] = await call.receive()
            assert acknowledgement.acknowledged.endswith(cursor)

    async with serving(Watch=watch) as served, served.channel.stream(METHODS["Watch"]) as stream:
        stream.send_nowait(cache_pb.WatchRequest(open=cache_pb.WatchOpen(name="n")))
        for cursor in ("na", "nb", "nc"):
            [response] = await stream.receive()
            assert response.cursor == cursor
            await stream.send(cache_pb.WatchRequest(acknowledged=cursor))
        assert await stream.receive() == []


async def test_what_came_before_a_failure_is_received_before_it() -> None:
    async def fetch(request: pb.FetchRequest, call: StreamCall) -> None:
        for number in range(100):
            call.send_nowait(pb.FetchResponse(retry_after_ms=number))
        raise RpcFailed("DATA_LOSS", "gone")

    received: list[Any] = []
    async with (
        serving(Fetch=fetch) as served,
        served.channel.stream(FETCH, pb.FetchRequest()) as stream,
    ):
        with pytest.raises(RpcFailed, match="DATA_LOSS: gone"):  # noqa: PT012
            while True:
                received.extend(await stream.receive())
        with pytest.raises(RpcFailed, match="DATA_LOSS: gone"):
            await stream.receive()
    assert len(received) == 100


async def test_a_sender_that_does_not_stop_learns_why_the_server_refused() -> None:
    async def link(call: StreamCall) -> None:
        await call.receive()
        call.send_nowait(pb.LinkResponse(acknowledged=1))
        raise RpcFailed("FAILED_PRECONDITION", "another cluster")

    async def flood(stream: ClientStream) -> None:
        with pytest.raises(RpcFailed):  # noqa: PT012
            while True:
                await stream.send(parcel(1))

    async with serving(Link=link) as served:
        for _ in range(100):
            async with (
                served.channel.stream(LINK) as stream,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(flood, stream)
                assert [response.acknowledged for response in await stream.receive()] == [1]
                with pytest.raises(RpcFailed, match="FAILED_PRECONDITION: another cluster"):
                    await stream.receive()


async def test_leaving_a_stream_cancels_the_servicer() -> None:
    waiting = Waiting()
    async with serving(Link=waiting) as served:
        async with served.channel.stream(LINK):
            await waiting.started.wait()
        await waiting.cancelled.wait()


async def test_a_servicer_that_receives_sees_a_cut_as_cancellation_and_not_as_an_end() -> None:
    ends: list[str] = []
    over = trio.Semaphore(0)
    opened = trio.Semaphore(0)

    async def link(call: StreamCall) -> None:
        end = "cancelled"
        try:
            while await call.receive():
                opened.release()
            end = "finished"
        finally:
            ends.append(end)
            over.release()

    async with serving(Link=link) as served:
        for _ in range(50):
            async with served.channel.stream(LINK) as stream:
                stream.send_nowait(parcel(1))
                await opened.acquire()
            await over.acquire()
    assert set(ends) == {"cancelled"}


@pytest.mark.parametrize("method", [LINK, FETCH])
async def test_a_deadline_ends_a_stream_on_both_sides(method: Any) -> None:
    waiting = Waiting()
    async with serving(Link=waiting, Fetch=waiting) as served:
        request = None if method is LINK else pb.FetchRequest()
        async with served.channel.stream(method, request, timeout=0.05) as stream:
            with pytest.raises(RpcFailed, match="DEADLINE_EXCEEDED"):
                await stream.receive()
            await waiting.cancelled.wait()


async def test_a_receiver_stays_cancellable_and_is_the_only_one() -> None:
    waiting = Waiting()
    async with (
        serving(Link=waiting) as served,
        served.channel.stream(LINK) as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(stream.receive)
        await waiting.started.wait()
        with pytest.raises(trio.BusyResourceError):
            await stream.receive()
        nursery.cancel_scope.cancel()


async def test_bytes_that_are_no_message_end_the_stream() -> None:
    garbage = pb.Block(payload=b"\xff")
    seen: list[Exception] = []

    async def link(call: StreamCall) -> None:
        try:
            await call.receive()
        except MalformedMessage as error:
            seen.append(error)
        call.send_nowait(garbage)

    async with serving(Link=link) as served, served.channel.stream(LINK) as stream:
        stream.send_nowait(garbage)
        with pytest.raises(RpcFailed, match="INTERNAL"):
            await stream.receive()
    assert len(seen) == 1


async def test_a_servicer_that_does_not_receive_stops_the_sender_and_nobody_else() -> None:
    go_on = trio.Event()
    taken = []
    sent = 0

    async def link(call: StreamCall) -> None:
        await go_on.wait()
        while requests := await call.receive():
            taken.extend(request.parcels[0].sequence for request in requests)

    async with serving(Link=link, Exchange=exchange) as served:

        async def send(stream: ClientStream) -> None:
            nonlocal sent
            for number in range(512):
                await stream.send(parcel(number, BLOCK))
                sent += 1
            await stream.done_sending()

        async with served.channel.stream(LINK) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(send, stream)
            await standstill(lambda: sent)
            assert WINDOW_BYTES // 2 < stream.outbound_bytes < WINDOW_BYTES + 2 * BLOCK
            for _ in range(20):  # over the same connection
                assert (await served.channel.unary(EXCHANGE, pb.ExchangeRequest())).wall_us == 7
            assert sent * BLOCK < 16 * MEGABYTE
            go_on.set()
            assert await stream.receive() == []
    assert taken == list(range(512))


async def test_a_client_that_does_not_receive_stops_the_servicer_and_nobody_else() -> None:
    sent = 0

    async def fetch(request: pb.FetchRequest, call: StreamCall) -> None:
        nonlocal sent
        for _ in range(512):
            await call.send(pb.FetchResponse(blocks=[pb.Block(payload=bytes(BLOCK))]))
            sent += 1

    async with (
        serving(Fetch=fetch, Exchange=exchange) as served,
        served.channel.stream(FETCH, pb.FetchRequest()) as stream,
    ):
        await standstill(lambda: sent)
        assert stream._inbox_in - stream._inbox_out < WINDOW_BYTES + 2 * BLOCK
        for _ in range(20):
            assert (await served.channel.unary(EXCHANGE, pb.ExchangeRequest())).wall_us == 7
        assert sent * BLOCK < 16 * MEGABYTE
        assert len(await receive_all(stream)) == 512


async def test_a_message_over_the_limit_is_refused_and_all_else_goes_on() -> None:
    async with serving(Link=acknowledge, Exchange=exchange) as served:
        with pytest.raises(RpcFailed, match="RESOURCE_EXHAUSTED"):
            await served.channel.unary(EXCHANGE, pb.ExchangeRequest(cluster="x" * 5 * MEGABYTE))
        async with (
            served.channel.stream(LINK) as bad,
            served.channel.stream(LINK) as good,
        ):
            bad.send_nowait(parcel(1, 5 * MEGABYTE))
            with pytest.raises(RpcFailed, match="RESOURCE_EXHAUSTED"):
                await bad.receive()
            with pytest.raises(RpcFailed, match="RESOURCE_EXHAUSTED"):
                bad.send_nowait(parcel(2))
            good.send_nowait(parcel(3))
            [response] = await good.receive()
            assert response.acknowledged == 3
        assert (await served.channel.unary(EXCHANGE, pb.ExchangeRequest())).wall_us == 7


async def test_messages_are_delivered_in_order_whether_they_come_alone_or_together() -> None:
    taken: list[int] = []

    async def take(call: StreamCall) -> None:
        def note(requests: list[Any]) -> None:
            taken.extend(request.parcels[0].sequence for request in requests)
            call.send_nowait(pb.LinkResponse(acknowledged=taken[-1]))

        await call.deliver_to(note)

    async with serving(Link=take) as served, served.channel.stream(LINK) as stream:
        for number in range(100):
            stream.send_nowait(parcel(number))
            if number % 3 == 0:
                await stream.receive()
        await stream.done_sending()
        await receive_all(stream)
    assert taken == list(range(100))


async def test_what_the_taker_of_messages_raises_ends_the_call() -> None:
    async def take(call: StreamCall) -> None:
        def refuse(requests: list[Any]) -> None:
            if requests[0].parcels[0].sequence == 1:
                raise RpcFailed("DATA_LOSS", "not this one")
            call.send_nowait(pb.LinkResponse())

        await call.deliver_to(refuse)

    async with serving(Link=take) as served, served.channel.stream(LINK) as stream:
        stream.send_nowait(parcel(0))
        assert len(await stream.receive()) == 1
        stream.send_nowait(parcel(1))
        with pytest.raises(RpcFailed, match="not this one") as caught:
            await receive_all(stream)
    assert caught.value.code == "DATA_LOSS"


async def test_a_message_that_comes_alone_wakes_no_task() -> None:
    steps: list[str] = []

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            steps.append(task.name)

    async def take(call: StreamCall) -> None:
        await call.deliver_to(lambda _requests: call.send_nowait(pb.LinkResponse()))

    async with serving(Link=take) as served, served.channel.stream(LINK) as stream:
        stream.send_nowait(parcel(0))
        await stream.receive()
        trio.lowlevel.add_instrument(steps_of := Steps())
        for number in range(10):
            stream.send_nowait(parcel(number))
            await stream.receive()
        trio.lowlevel.remove_instrument(steps_of)
    assert LINK.path not in steps
