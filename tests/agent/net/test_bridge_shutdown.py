"""The bridge opens and closes, under load and cancellation too, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from bridge_toys import METHODS, PATIENCE, PEER, Waiting, eventually, serving

from coherd.errors import RpcFailed
from coherd.net.bridge import Call, StreamCall, open_bridge
from coherd.v1 import peer_service_pb2 as pb

EXCHANGE, LINK, HAVE = METHODS["Exchange"], METHODS["Link"], METHODS["Have"]


async def exchange(request: pb.ExchangeRequest, call: Call) -> pb.ExchangeResponse:
    return pb.ExchangeResponse(wall_us=7)


async def echo(call: StreamCall) -> None:
    while requests := await call.receive():
        for _ in requests:
            await call.send(pb.LinkResponse())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Load:
    """Calls that wait, calls that come and go, and streams that are never idle."""

    def __init__(self) -> None:
        self.waiting = Waiting()
        self.failed: list[str] = []
        self.busy = 0

    async def wait(self, channel: Any) -> None:
        try:
            await channel.unary(HAVE, pb.HaveRequest())
        except RpcFailed as failed:
            self.failed.append(failed.code)

    async def ask(self, channel: Any) -> None:
        try:
            while True:
                await channel.unary(EXCHANGE, pb.ExchangeRequest())
        except RpcFailed as failed:
            self.failed.append(failed.code)

    async def link(self, channel: Any) -> None:
        try:
            async with channel.stream(LINK) as stream:
                stream.send_nowait(pb.LinkRequest())
                while await stream.receive():
                    self.busy += 1
                    await stream.send(pb.LinkRequest())
        except RpcFailed as failed:
            self.failed.append(failed.code)

    async def run(self, leave: trio.Event) -> None:
        """Open a bridge, put it under load and close it."""
        async with (
            trio.open_nursery() as nursery,
            serving(Exchange=exchange, Link=echo, Have=self.waiting) as served,
        ):
            for _ in range(100):
                nursery.start_soon(self.wait, served.channel)
                nursery.start_soon(self.ask, served.channel)
                nursery.start_soon(self.link, served.channel)
            await eventually(lambda: self.waiting.count == 100 and self.busy > 500)
            leave.set()
            await self.leave()

    async def leave(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_closing_under_load_ends_every_call_task_thread_and_descriptor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    await Load().run(trio.Event())  # gRPC keeps some descriptors once and for all
    threads, opened = threading.active_count(), descriptors()
    for _ in range(2):
        load = Load()
        await load.run(trio.Event())
        assert len(load.failed) == 300
        assert load.waiting.count == 0
        with trio.fail_after(PATIENCE):
            await eventually(lambda: threading.active_count() <= threads)
            gc.collect()
            await eventually(lambda: descriptors() <= opened)
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if "bridge" in name or "_poll_wrapper" in name]
    assert not caplog.records


async def test_cancelling_around_the_bridge_closes_it_as_well() -> None:
    load, leave = Load(), trio.Event()
    load.leave = trio.sleep_forever  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run, leave)
        await leave.wait()
        nursery.cancel_scope.cancel()
    assert load.waiting.count == 0
    assert "coherd-bridge" not in [thread.name for thread in threading.enumerate()]


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_bridge():
            raise ZeroDivisionError
    interval = sys.getswitchinterval()
    inside = interval
    with pytest.raises(ExceptionGroup, match="two"):  # noqa: PT012
        async with open_bridge():
            inside = sys.getswitchinterval()
            raise ExceptionGroup("two", [ValueError(), KeyError()])
    assert inside < interval
    assert sys.getswitchinterval() == interval


async def test_there_is_one_bridge_at_a_time() -> None:
    async with open_bridge() as bridge:
        with pytest.raises(RuntimeError, match="open already"):
            async with open_bridge():
                pass
        channel = bridge.channel("127.0.0.1:1")
    with pytest.raises(RpcFailed, match="CANCELLED"):
        bridge.channel("127.0.0.1:1")
    with pytest.raises(RpcFailed, match="CANCELLED"):
        await channel.unary(EXCHANGE, pb.ExchangeRequest())
    async with serving(Exchange=exchange) as served:
        assert (await served.channel.unary(EXCHANGE, pb.ExchangeRequest())).wall_us == 7


async def test_stopping_lets_running_calls_end_and_cancels_those_that_do_not() -> None:
    go_on, started = trio.Event(), trio.Event()
    waiting = Waiting()
    answers = []

    async def patient(request: pb.ExchangeRequest, call: Call) -> pb.ExchangeResponse:
        started.set()
        await go_on.wait()
        return pb.ExchangeResponse(wall_us=9)

    async with serving(Exchange=patient, Have=waiting) as served:

        async def ask() -> None:
            answers.append((await served.channel.unary(EXCHANGE, pb.ExchangeRequest())).wall_us)

        async def wait() -> None:
            with pytest.raises(RpcFailed):
                await served.channel.unary(HAVE, pb.HaveRequest())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(wait)
            await started.wait()
            await waiting.started.wait()
            nursery.start_soon(served.server.stop, 0.2)
            go_on.set()
        assert answers == [9]
        assert waiting.count == 0
        await served.server.stop(0)  # again is no fault


async def test_a_taken_port_is_refused_by_name_and_nothing_stays_bound() -> None:
    async with serving(Exchange=exchange) as served:
        taken = f"127.0.0.1:{served.server.ports[0]}"
        toy = SimpleNamespace(Exchange=exchange)
        with pytest.raises(OSError, match=taken):
            await served.bridge.serve([(PEER, toy)], ["127.0.0.1:0", taken])
        assert (await served.channel.unary(EXCHANGE, pb.ExchangeRequest())).wall_us == 7
        await served.server.stop(0)
        again = await served.bridge.serve([(PEER, toy)], [taken])
        assert again.ports == [served.server.ports[0]]


async def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'x.sock'}"
    async with open_bridge() as bridge:
        server = await bridge.serve(
            [(PEER, SimpleNamespace(Exchange=exchange))], [address, "127.0.0.1:0"]
        )
        assert server.ports[0] == 0
        assert server.ports[1] > 0
        response = await bridge.channel(address).unary(EXCHANGE, pb.ExchangeRequest(), timeout=5)
        assert response.wall_us == 7


async def test_a_coroutine_runs_on_the_other_side() -> None:
    seen: list[str] = []
    began = trio.Event()
    token = trio.lowlevel.current_trio_token()

    async def double(number: int) -> int:
        seen.append(threading.current_thread().name)
        return number * 2

    async def fail() -> None:
        raise ZeroDivisionError

    async def hang() -> None:
        token.run_sync_soon(began.set)
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cancelled")

    async with open_bridge() as bridge:
        assert await bridge.run(double, 21) == 42
        with pytest.raises(ZeroDivisionError):
            await bridge.run(fail)
        for wait_first in (True, False):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bridge.run, hang)
                if wait_first:
                    await began.wait()
                nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:  # what still runs at the end fails

            async def run() -> None:
                with pytest.raises(RpcFailed, match="CANCELLED"):
                    await bridge.run(hang)

            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            await bridge.close()
            await bridge._loops.close()
    assert seen == ["coherd-bridge", "cancelled", "cancelled", "cancelled"]
