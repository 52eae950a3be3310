"""The server's half of the bridge: gRPC answers in its thread, servicers work as trio tasks.

A servicer is any object whose async methods are named as the RPCs:

* unary: ``async def Join(self, request, call) -> response``
* the server streams: ``async def Fetch(self, request, call) -> None``, which sends with `call.send`
* both stream: ``async def Link(self, call) -> None``, which receives and sends with `call`
* the client streams: ``async def Upload(self, call) -> response``

Each call is a trio task in a cancel scope of its own, which is cancelled when the client cancels, is
cut off or its deadline passes. What the method raises becomes the status of the call.
"""

from __future__ import annotations

import asyncio
import errno
from contextlib import nullcontext
from math import ceil
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import structlog
import trio

from coherd.errors import InvalidRequest, MalformedMessage, NotDurable, Overloaded, RpcFailed
from coherd.limits import CALL_STREAMS_MAX, CALLS_MAX, CONNECTIONS_MAX, METADATA_BYTES_MAX
from coherd.net.bridge_call import (
    CANCELLED,
    DEADLINE,
    EXPIRED,
    NO_REQUEST,
    OK,
    STOPPING,
    TOO_LATE,
    Call,
    Gate,
    Status,
    StreamCall,
    UnaryCall,
)
from coherd.net.bridge_method import CONNECTION_OPTIONS, methods
from coherd.net.bridge_stream import EOF, Failure
from coherd.net.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from google.protobuf.descriptor import ServiceDescriptor

    from coherd.net.bridge_loops import Loops
    from coherd.net.bridge_method import Method
    from coherd.net.certificates import Holder

REQUEST_TIMEOUT = 10.0
"""Seconds in which the one request of a call comes."""
SETTINGS_TIMEOUT_MS = 10_000
"""Milliseconds in which a client confirms what is allowed on its connection."""

SERVER_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.so_reuseport", 0),  # a second server on the port must fail
    ("grpc.max_concurrent_streams", CALL_STREAMS_MAX),
    ("grpc.max_allowed_incoming_connections", CONNECTIONS_MAX),
    ("grpc.max_metadata_size", METADATA_BYTES_MAX + 1),  # what reaches it is refused
    # Else what lies between the two is refused at random.
    ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX + 1),
    # Else calls of everybody are dropped at random while somebody opens and cuts them by the thousand.
    ("grpc.server.max_pending_requests", CALLS_MAX),
    ("grpc.server.max_pending_requests_hard_limit", CALLS_MAX),
    # What is allowed on a connection holds once the client has confirmed it: who never does is cut off.
    ("grpc.http2.settings_timeout", SETTINGS_TIMEOUT_MS),
    *CONNECTION_OPTIONS,
)

DETAILS_LENGTH_MAX = 1024
"""Characters of a status's text that are sent: it travels as a header, and headers are limited."""

PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""The trailing metadata by which gRPC says when to try again."""

END_DELAY = 0.005
"""Seconds in which the end of a client's messages may turn out to be the end of the client."""

CUT = Failure("CANCELLED", CANCELLED.details)

log = structlog.get_logger()


class Server:
    """Answers calls on some addresses, by servicers."""

    def __init__(
        self,
        loops: Loops,
        nursery: trio.Nursery,
        services: Sequence[tuple[ServiceDescriptor, object]],
        extra: Sequence[grpc.GenericRpcHandler],
        options: Sequence[tuple[str, int | str]],
        refused: Callable[[str], None],
        open_servers: set[Server],
        gate: Gate,
    ) -> None:
        self.gate = gate
        self._loops = loops
        self._nursery = nursery
        self._handlers = [_Handlers(self, services), *extra]
        self._options = (*SERVER_OPTIONS, *options)
        self._refused = refused
        self._open_servers = open_servers
        self._server: Any = None
        self._calls: set[Call] = set()
        self._shares = Shares()
        self._ended_calls = trio.lowlevel.ParkingLot()
        self.ports: Sequence[int] = ()
        """The port of each address; 0 for a unix socket."""

    async def start(
        self, addresses: Sequence[str], credentials: grpc.ServerCredentials | None
    ) -> None:
        """Listen on all addresses, or raise OSError which names the one that cannot be had."""
        self.ports = await self._loops.run(self._start, addresses, credentials)

    async def stop(self, grace: float) -> None:
        """Take no more calls, give those that go on `grace` seconds to end, and cancel the rest."""
        await self._loops.run(self._stop, grace)
        for call in self._calls:
            call.cancel()
        while self._calls:
            await self._ended_calls.park()
        self._open_servers.discard(self)

    def end_expired(self, now: float) -> None:
        """End the calls of those whose certificate is not valid any more, in seconds since 1970."""
        for call in self._calls:
            if call.holder is not None and call.holder.not_after < now:
                call.ending = EXPIRED
                call.cancel()

    def end_denied(self, why_not: Callable[[Call, Any], str]) -> None:
        """End the calls that stream of those who may not make them any more.

        `why_not(call, request)` says why not, and nothing where they may.
        """
        for call in self._calls:
            if call.first is not None and (why := why_not(call, call.first)):
                denied = grpc.StatusCode.PERMISSION_DENIED
                call.ending = Status(denied, why[:DETAILS_LENGTH_MAX])
                call.cancel()

    # Trio's side of a call.

    def _begin(self, call: Call, servicer: Callable[..., Awaitable[Any]]) -> None:
        if self._nursery.cancel_scope.cancel_called:
            self._loops.call_aio(call.finish, None, STOPPING)
            return
        if call.deadline is not None:
            call.scope.deadline = trio.current_time() + call.deadline
        self._calls.add(call)
        self._nursery.start_soon(self._run, call, servicer, name=call.method.path)

    async def _run(self, call: Call, servicer: Callable[..., Awaitable[Any]]) -> None:
        response, status = None, STOPPING
        try:
            with call.scope:
                try:
                    response = await call.answer(servicer)
                    status = OK
                except Exception as error:
                    status = _status(error, call.method)
            if call.scope.cancelled_caught:
                is_late = trio.current_time() >= call.scope.deadline
                status = call.ending or (DEADLINE if is_late else CANCELLED)
            if status.code is grpc.StatusCode.INVALID_ARGUMENT:
                self._refused(call.method.name)
        finally:
            if call.on_end is not None:
                call.on_end(status)
            self._loops.call_aio(call.finish, response, status)
            self._calls.discard(call)
            if not self._calls:
                self._ended_calls.unpark_all()

    # Asyncio's side.

    async def _start(
        self, addresses: Sequence[str], credentials: grpc.ServerCredentials | None
    ) -> list[int]:
        self._server = grpc.aio.server(
            handlers=self._handlers,
            options=self._options,
            maximum_concurrent_rpcs=CALLS_MAX,
        )
        try:
            ports = [self._listen(address, credentials) for address in addresses]
        except OSError:
            await self._server.start()  # one that was never started would keep its ports
            await self._stop(0)
            raise
        await self._server.start()
        return ports

    async def _stop(self, grace: float) -> None:
        if self._server is not None:
            await self._server.stop(grace)
        self._server = None  # nothing of gRPC's stays with what trio may hold for long: see `Loops`

    def _listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(errno.EADDRINUSE, f"cannot listen on {address}; is it taken?") from error
        return 0 if address.startswith("unix") else int(port)

    async def handle_unary(
        self, method: Method, servicer: Callable[..., Awaitable[Any]], request: bytes, context: Any
    ) -> bytes | None:
        """On asyncio's side: answer one call, where nobody is asked."""
        call = UnaryCall(context, method, self.gate, request)
        self._loops.call_trio(self._begin, call, servicer)
        try:
            response, status = await call.finished
        except asyncio.CancelledError:
            self._loops.call_trio(call.cancel)
            raise
        if status is not OK:
            await context.abort(*status)
        return response

    async def handle_stream(
        self, method: Method, servicer: Callable[..., Awaitable[Any]], context: Any
    ) -> None:
        """On asyncio's side: answer one call that streams, or whose caller is asked who it is.

        Who is turned away, or has too much under way, is so before the request is waited for.
        """
        try:
            holder = self.gate.identify(context)
            share = None if holder is None else self._shares.take(holder.identity, context.peer())
        except (RpcFailed, Overloaded) as error:
            await context.abort(*_status(error, method))
        with share or nullcontext():
            await self._handle_stream(method, servicer, context, holder)

    async def _handle_stream(
        self,
        method: Method,
        servicer: Callable[..., Awaitable[Any]],
        context: Any,
        holder: Holder | None,
    ) -> None:
        request = None if method.client_streaming else await self._request(context)
        call = StreamCall(self._loops, context, method, self.gate, holder, request)
        self._loops.call_trio(self._begin, call, servicer)
        reader = None
        if method.client_streaming:
            reader = asyncio.get_running_loop().create_task(self._read(call, context))
        try:
            await call._write_all(context.write)
        except BaseException:
            call._end_writing(CUT)
            self._loops.call_trio(call.cancel)
            raise
        finally:
            if reader is not None:
                reader.cancel()
        if call.status is not OK:
            await context.abort(*call.status)

    async def _request(self, context: Any) -> bytes:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                request: bytes = await context.read()
        except TimeoutError:
            await context.abort(*TOO_LATE)
        if request is EOF:
            await context.abort(*NO_REQUEST)
        return request

    async def _read(self, call: StreamCall, context: Any) -> None:
        failure = None
        try:
            await call._read_all(context.read)
            # gRPC ends the messages of a cut call as those of a finished one, and cancels a moment
            # later: the cancellation of this task. What waits for the end is not in a hurry.
            await asyncio.sleep(END_DELAY)
            for _ in range(5):
                await asyncio.sleep(0)
        except Exception:
            failure = CUT
        call._end_inbox(failure)


class _Handlers(grpc.GenericRpcHandler):
    """Finds the servicer of a call by its path."""

    def __init__(
        self, server: Server, services: Sequence[tuple[ServiceDescriptor, object]]
    ) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for descriptor, servicer in services:
            for method in methods(descriptor).values():
                answer = getattr(servicer, method.name, None)
                if answer is not None:
                    self._handlers[method.path] = _handler(server, method, answer)

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._handlers.get(handler_call_details.method)


def _handler(
    server: Server, method: Method, servicer: Callable[..., Coroutine[Any, Any, Any]]
) -> grpc.RpcMethodHandler[Any, Any]:
    async def unary(request: bytes, context: Any) -> bytes | None:
        return await server.handle_unary(method, servicer, request, context)

    async def stream(_requests: object, context: Any) -> None:
        await server.handle_stream(method, servicer, context)

    # On the wire the kinds of streaming do not differ: one kind serves all. gRPC reads the request of a unary
    # call before it hands that over: where somebody may be turned away, those are served like streams.
    if method.streaming or server.gate.asks:
        return grpc.stream_stream_rpc_method_handler(stream)
    return grpc.unary_unary_rpc_method_handler(unary)


def _status(error: Exception, method: Method) -> Status:
    """Give the status for what a servicer raised; log what is a fault of this side."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # a nursery of the servicer has wrapped it
    details = str(error)[:DETAILS_LENGTH_MAX]
    match error:
        case RpcFailed() if error.code in grpc.StatusCode.__members__ and error.code != "OK":
            return Status(grpc.StatusCode[error.code], error.details[:DETAILS_LENGTH_MAX])
        case InvalidRequest() | MalformedMessage():
            return Status(grpc.StatusCode.INVALID_ARGUMENT, details)
        case Overloaded():
            retry = ((PUSHBACK_KEY, str(ceil(error.retry_after * 1000))),)
            return Status(grpc.StatusCode.RESOURCE_EXHAUSTED, details, retry)
        case NotDurable():
            return Status(grpc.StatusCode.UNAVAILABLE, details)
        case _:
            log.error("a call failed", method=method.path, exc_info=error)
            return Status(grpc.StatusCode.INTERNAL, "internal error")
