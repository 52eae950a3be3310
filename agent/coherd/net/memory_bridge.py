"""The bridge's twin: channels between agents of one process, over a network that tests can break.

It carries the same messages to the same servicers under trio alone, so that whole agents run under a
virtual clock. A cut swallows what is sent, as a link does that drops every packet.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from coherd.errors import InvalidRequest, MalformedMessage, RpcFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from coherd.net.bridge import Method


class Network:
    """Who answers at which address, and who cannot reach whom."""

    def __init__(self, nursery: trio.Nursery, delay: float = 0.001) -> None:
        self.nursery = nursery
        self.delay = delay
        self.servicers: dict[str, Any] = {}
        self.cuts: set[tuple[str, str]] = set()
        """(source, target) addresses between which everything is swallowed, in that direction."""
        self._streams: set[_Stream] = set()

    def bridge(self, source: str) -> MemoryBridge:
        """Give the bridge of the agent at `source`."""
        return MemoryBridge(self, source)

    def cut(self, left: str, right: str) -> None:
        """Let two agents no longer reach each other."""
        self.cuts |= {(left, right), (right, left)}

    def heal(self) -> None:
        """Let everybody reach everybody again."""
        self.cuts.clear()

    def crash(self, address: str) -> None:
        """Let the agent at an address be gone: its streams break at once."""
        self.servicers.pop(address, None)
        for stream in [s for s in self._streams if address in {s.source, s.target}]:
            stream.break_off()

    def carries(self, source: str, target: str) -> bool:
        """Tell whether a message gets through."""
        return (source, target) not in self.cuts

    def servicer(self, target: str) -> Any:
        """Give who answers at an address. Raises RpcFailed."""
        if target not in self.servicers:
            raise RpcFailed("UNAVAILABLE", f"nobody answers at {target}")
        return self.servicers[target]

    def opened(self, stream: _Stream) -> None:
        """Keep a stream until it ends."""
        self._streams.add(stream)

    def closed(self, stream: _Stream) -> None:
        """Forget a stream."""
        self._streams.discard(stream)


class MemoryBridge:
    """Gives channels."""

    def __init__(self, network: Network, source: str) -> None:
        self._network = network
        self._source = source

    def channel(self, target: str) -> MemoryChannel:
        """Give a channel to an address."""
        return MemoryChannel(self._network, self._source, target)


class MemoryChannel:
    """As `net.bridge.Channel`."""

    def __init__(self, network: Network, source: str, target: str) -> None:
        self._network = network
        self._source = source
        self._target = target

    async def unary(self, method: Method, request: Any, *, timeout: float | None = None) -> Any:
        """Ask once, and give the response."""
        with trio.move_on_after(inf if timeout is None else timeout):
            await self._travel(self._source, self._target)
            servicer = self._network.servicer(self._target)
            copy = method.request_class.FromString(request.SerializeToString())
            try:
                response = await getattr(servicer, method.name)(copy, None)
            except (InvalidRequest, MalformedMessage) as error:
                raise RpcFailed("INVALID_ARGUMENT", str(error)) from None
            await self._travel(self._target, self._source)
            return method.response_class.FromString(response.SerializeToString())
        raise RpcFailed("DEADLINE_EXCEEDED", "the deadline has passed")

    @asynccontextmanager
    async def stream(
        self, method: Method, request: Any = None, *, timeout: float | None = None
    ) -> AsyncIterator[_End]:
        """Open a stream."""
        del timeout  # no servicer of a stream is slow here
        if not self._network.carries(self._source, self._target):
            await trio.sleep_forever()
        servicer = self._network.servicer(self._target)
        stream = _Stream(self._network, self._source, self._target)
        self._network.opened(stream)
        arguments = (stream.theirs,) if request is None else (request, stream.theirs)
        self._network.nursery.start_soon(stream.serve, getattr(servicer, method.name), arguments)
        try:
            yield stream.ours
        finally:
            self._network.closed(stream)
            stream.break_off()

    async def aclose(self) -> None:
        """Close the channel."""

    async def _travel(self, source: str, target: str) -> None:
        await trio.sleep(self._network.delay)
        if not self._network.carries(source, target):
            await trio.sleep_forever()


class _Stream:
    """Both ends of one stream."""

    def __init__(self, network: Network, source: str, target: str) -> None:
        self.source = source
        self.target = target
        to_target, from_source = trio.open_memory_channel[Any](inf)
        to_source, from_target = trio.open_memory_channel[Any](inf)
        self.ours = _End(network, (source, target), to_target, from_target)
        self.theirs = _End(network, (target, source), to_source, from_source)
        self._scope = trio.CancelScope()

    async def serve(self, servicer: Any, arguments: tuple[Any, ...]) -> None:
        """Have the servicer answer until it ends or the stream breaks."""
        with self._scope:
            try:
                await servicer(*arguments)
            except RpcFailed as error:
                self.ours.failure = error
            except (InvalidRequest, MalformedMessage) as error:
                self.ours.failure = RpcFailed("INVALID_ARGUMENT", str(error))
            self.theirs.close()

    def break_off(self) -> None:
        """End it on both sides."""
        self._scope.cancel()
        for end in (self.ours, self.theirs):
            end.failure = end.failure or RpcFailed("UNAVAILABLE", "the stream broke")
            end.close()


class _End:
    """One end of a stream; the verbs are those of `net.bridge`."""

    def __init__(
        self,
        network: Network,
        way: tuple[str, str],
        outgoing: trio.MemorySendChannel[Any],
        incoming: trio.MemoryReceiveChannel[Any],
    ) -> None:
        self._network = network
        self._way = way
        self._outgoing = outgoing
        self._incoming = incoming
        self.failure: RpcFailed | None = None

    @property
    def outbound_bytes(self) -> int:
        """Bytes that wait to be written: none, the network takes everything at once."""
        return 0

    def send_nowait(self, message: Any) -> None:
        """Queue a message."""
        if self._network.carries(*self._way):
            copy = type(message).FromString(message.SerializeToString())
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                self._outgoing.send_nowait(copy)

    async def send(self, message: Any) -> None:
        """Queue a message."""
        await trio.lowlevel.checkpoint()
        self.send_nowait(message)

    async def receive(self) -> list[Any]:
        """Give every message that waits, at least one; none once the other side has finished."""
        try:
            messages = [await self._incoming.receive()]
        except (trio.EndOfChannel, trio.ClosedResourceError):
            if self.failure is not None:
                raise self.failure from None
            return []
        await trio.sleep(self._network.delay)
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                messages.append(self._incoming.receive_nowait())
        return messages

    async def deliver_to(self, take: Callable[[list[Any]], None]) -> None:
        """Call `take` with messages as they come, until the other side has finished."""
        while messages := await self.receive():
            take(messages)

    def close(self) -> None:
        """Let the other side see the end."""
        self._outgoing.close()
