"""The bridge between trio, which owns the process, and gRPC, whose asyncio API has a thread of its own.

The only place where the two meet. Everything here is called from trio::

    async with open_bridge() as bridge:
        server = await bridge.serve([(descriptor, servicer)], ["127.0.0.1:0"])
        channel = bridge.channel("127.0.0.1:4373")
        response = await channel.unary(methods(descriptor)["Join"], request, timeout=1.0)
        async with channel.stream(methods(descriptor)["Link"]) as stream:
            await stream.send(message)
            while messages := await stream.receive(): ...

How they meet: `bridge_loops`; the messages of a stream and their windows: `bridge_stream`.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import structlog
import trio

from coherd.errors import RpcFailed
from coherd.limits import MESSAGE_BYTES_MAX
from coherd.net.bridge_call import Call, Gate, OpenGate, StreamCall
from coherd.net.bridge_client import Channel, ClientStream
from coherd.net.bridge_loops import Loops
from coherd.net.bridge_method import Method, methods
from coherd.net.bridge_server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    import grpc
    from google.protobuf.descriptor import ServiceDescriptor

__all__ = [
    "Bridge",
    "Call",
    "Channel",
    "ClientStream",
    "Gate",
    "Method",
    "Server",
    "StreamCall",
    "methods",
    "open_bridge",
]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

SWITCH_INTERVAL = 0.0005
"""Seconds after which the interpreter lets the other thread run: a tenth of the usual time, since two
threads that answer each other wait for it; measured, it takes a third off the 99th percentile."""

CLOSE_TIMEOUT = 10.0
"""Longest time that servers and channels may take to close, in seconds."""

log = structlog.get_logger()


class Bridge:
    """Servers and channels, to be used under trio; `open_bridge` makes one."""

    def __init__(self, loops: Loops, nursery: trio.Nursery) -> None:
        self._loops = loops
        self._nursery = nursery
        self._servers: set[Server] = set()
        self._channels: set[Channel] = set()
        self._closed = False

    async def serve(
        self,
        services: Sequence[tuple[ServiceDescriptor, object]],
        addresses: Sequence[str],
        *,
        extra: Sequence[grpc.GenericRpcHandler] = (),
        credentials: grpc.ServerCredentials | None = None,
        gate: Gate | None = None,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        options: Sequence[tuple[str, int | str]] = (),
        refused: Callable[[str], None] = lambda _method: None,
    ) -> Server:
        """Answer calls of some services on some addresses: ``127.0.0.1:0``, ``unix:/run/x.sock``.

        `gate` says who may call what; without one everybody may everything. `extra` are handlers that run
        in asyncio's thread, and that no gate looks at. `refused` is called with the name of the RPC
        whenever a call said something illegal. Raises OSError when an address is taken.
        """
        self._check_open()
        fixed = (("grpc.max_receive_message_length", message_bytes_max),)
        server = Server(
            self._loops,
            self._nursery,
            services,
            extra,
            (*fixed, *options),
            refused,
            self._servers,
            gate or OpenGate(),
        )
        with trio.CancelScope(shield=True):  # half a server could not be stopped
            await server.start(addresses, credentials)
        self._servers.add(server)
        return server

    def channel(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        options: Sequence[tuple[str, int | str]] = (),
    ) -> Channel:
        """Give a channel with a connection of its own, which is made at the first call."""
        self._check_open()
        fixed = (("grpc.max_receive_message_length", message_bytes_max),)
        channel = Channel(self._loops, target, credentials, (*fixed, *options), self._channels)
        self._channels.add(channel)
        return channel

    async def run(
        self,
        async_function: Callable[Arguments, Coroutine[Any, Any, Result]],
        *arguments: Arguments.args,
        **keywords: Arguments.kwargs,
    ) -> Result:
        """Run an asyncio coroutine function in gRPC's thread and give its result.

        A cancelled caller cancels the coroutine and waits for its end.
        """
        self._check_open()
        return await self._loops.run(async_function, *arguments, **keywords)

    async def close(self) -> None:
        """End all calls, channels and servers, whether or not the caller is cancelled."""
        self._closed = True
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True) as scope:
            for server in list(self._servers):
                await server.stop(0)
            for channel in list(self._channels):
                await channel.aclose()
        if scope.cancelled_caught:
            log.error("servers or channels do not close", seconds=CLOSE_TIMEOUT)

    def _check_open(self) -> None:
        if self._closed:
            raise RpcFailed("CANCELLED", "the bridge is closed")


@asynccontextmanager
async def open_bridge() -> AsyncIterator[Bridge]:
    """Start gRPC's thread and give the bridge to it; at the end all that came of it is ended.

    One bridge a process at a time, since gRPC's asyncio API belongs to one loop: a second one raises
    RuntimeError. What the block raises leaves it as it is, not wrapped in a group.
    """
    failure: BaseException | None = None
    loops = Loops()
    await loops.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        async with trio.open_nursery() as nursery:
            bridge = Bridge(loops, nursery)
            try:
                yield bridge
            except BaseException as error:
                failure = error  # raised below, outside of the nursery, which would wrap it
            await bridge.close()
            nursery.cancel_scope.cancel()
    finally:
        await loops.close()
        sys.setswitchinterval(interval)
    if failure is not None:
        raise failure
