"""One call, as its servicer sees it, who calls, and how it ends: the server's half of the bridge shares it.

Whoever serves puts a `Gate` before its servicers. It sees each call twice: when it comes, to find out who
calls, and with its request, or the first message of a stream, before the servicer sees that. Where it wants
to know how a call that it let through has ended, it says so then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import grpc
import trio

from coherd.net.bridge_method import parse
from coherd.net.bridge_stream import MessageStream

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from coherd.net.bridge_loops import Loops
    from coherd.net.bridge_method import Method
    from coherd.net.certificates import Holder


class Status(NamedTuple):
    """How a call ends."""

    code: grpc.StatusCode
    details: str = ""
    metadata: tuple[tuple[str, str], ...] = ()


OnEnd = Callable[[Status], None]
"""Told how a call has ended, in trio's thread, before the client is; may not fail."""
OK = Status(grpc.StatusCode.OK)
STOPPING = Status(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
DEADLINE = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")
CANCELLED = Status(grpc.StatusCode.CANCELLED, "the client has cancelled the call or is gone")
EXPIRED = Status(grpc.StatusCode.UNAUTHENTICATED, "the caller's certificate has expired: renew it")
TOO_LATE = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "the request did not come in time")
NO_REQUEST = Status(grpc.StatusCode.INVALID_ARGUMENT, "the call came without a request")


class Gate(Protocol):
    """Says who calls, and what they may."""

    asks: bool
    """Whether somebody may be turned away before the request is read."""

    def identify(self, context: Any) -> Holder | None:
        """On asyncio's side: find out who calls; None where nobody is asked. Raises RpcFailed."""

    def check(self, call: Call, request: Any) -> OnEnd | None:
        """Refuse a request, or the first message of a stream, that may not be made. Raises RpcFailed.

        Gives whom to tell how the call ends, if anybody.
        """


class OpenGate:
    """Lets everybody do everything."""

    asks = False

    def identify(self, _context: Any) -> Holder | None:
        """See `Gate`."""
        return None

    def check(self, call: Call, request: Any) -> OnEnd | None:
        """See `Gate`."""
        return None


class Call:
    """One call, as its servicer sees it."""

    def __init__(self, context: Any, method: Method, gate: Gate, holder: Holder | None) -> None:
        self.method = method
        self.gate = gate
        self.holder = holder
        """Who calls, as the certificate has it; None where nobody is asked."""
        self.ending: Status | None = None
        """How the call ends when it is cancelled, unless its deadline has passed."""
        self.first: Any = None
        """Of a call that streams its request, or first message, once the gate has let it through."""
        self.deadline: float | None = context.time_remaining()
        """Seconds that were left to answer when the call came; None when there is no limit."""
        self.peer: str = context.peer()
        """Where the client is: ``ipv4:127.0.0.1:54321``."""
        self.metadata: tuple[tuple[str, str | bytes], ...] = context.invocation_metadata()
        """What the client sent along, its user agent included."""
        self.scope = trio.CancelScope()
        self.on_end: OnEnd | None = None
        """Whom the gate wants to be told how the call ends."""

    def cancel(self) -> None:
        """Cancel the servicer's task."""
        self.scope.cancel()

    async def answer(self, servicer: Callable[..., Awaitable[Any]]) -> bytes | None:
        """Have the servicer answer; give the response, serialized, if there is one."""
        raise NotImplementedError

    def finish(self, response: bytes | None, status: Status) -> None:
        """On asyncio's side: the servicer has ended."""
        raise NotImplementedError


class UnaryCall(Call):
    """A call with one request and one response, of somebody who was not asked who it is."""

    def __init__(self, context: Any, method: Method, gate: Gate, request: bytes) -> None:
        super().__init__(context, method, gate, None)
        self._request = request
        self.finished: asyncio.Future[tuple[bytes | None, Status]]
        self.finished = asyncio.get_running_loop().create_future()

    async def answer(self, servicer: Callable[..., Awaitable[Any]]) -> bytes | None:
        """See `Call`."""
        request = parse(self.method.request_class, self._request)
        self.on_end = self.gate.check(self, request)
        response = await servicer(request, self)
        return response.SerializeToString()  # type: ignore[no-any-return]

    def finish(self, response: bytes | None, status: Status) -> None:
        """See `Call`."""
        if not self.finished.done():
            self.finished.set_result((response, status))


class StreamCall(Call, MessageStream):
    """A call that streams requests, responses or both."""

    def __init__(
        self,
        loops: Loops,
        context: Any,
        method: Method,
        gate: Gate,
        holder: Holder | None,
        request: bytes | None,
    ) -> None:
        Call.__init__(self, context, method, gate, holder)
        MessageStream.__init__(self, loops, method.request_class)
        self._request = request
        self.status = OK

    async def answer(self, servicer: Callable[..., Awaitable[Any]]) -> bytes | None:
        """See `Call`."""
        if self._request is None:
            response = await servicer(self)
        else:
            request = parse(self.method.request_class, self._request)
            self.on_end = self.gate.check(self, request)
            self.first = request
            response = await servicer(request, self)
        if not self.method.server_streaming:
            self.send_nowait(response)
        return None

    def _take(self) -> list[Any]:
        """Let nothing through before the first message was looked at."""
        messages = super()._take()
        if self.first is None and messages:
            self.on_end = self.gate.check(self, messages[0])
            self.first = messages[0]
        return messages

    def finish(self, response: bytes | None, status: Status) -> None:
        """See `Call`."""
        self.status = status
        self._outbox_ended = True
        self._wake_writer()
