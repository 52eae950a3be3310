"""The HTTP server: hypercorn's HTTP/1.1 on sockets of our own, so that no client can hold the agent up.

Hypercorn's own server shields what it sends from cancellation, without a limit: one client that stops
reading its answer would keep the agent from stopping. Nor does it bound the number of connections. So here
a connection is a cancel scope, each send and each connection has a limit, and one connection too many ends
the oldest.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.logging import Logger
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import TrioSingleTask, WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from coherd.config import Address
from coherd.errors import StartRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    import h11
    from hypercorn.typing import AppWrapper
    from starlette.applications import Starlette

    from coherd.net.credentials import Credentials

_Stream: TypeAlias = "trio.SocketStream | trio.SSLStream[trio.SocketStream]"

log = structlog.get_logger("coherd.http")

CONNECTIONS_MAX = 100
"""Connections at a time; one more closes the oldest."""
IDLE_MAX = 5.0
"""Seconds that a connection may take to send a request, and for a handshake before the first."""
SEND_MAX = 10.0
"""Seconds that a client may take to receive a piece of an answer."""
CONNECTION_AGE_MAX = 600.0
"""Seconds until a connection is closed, as soon as no request is being answered on it."""
CONNECTION_GRACE = 30.0
"""Seconds that it gets after that for the answer that is under way."""
FAILURES_PAUSE = 60.0
"""Seconds from one traceback in the log to the next."""
HEADERS_BYTES_MAX = 16 * 1024
"""Bytes of a request's headers."""
CERTIFICATE = "certificate"
"""Where in the state of a request the certificate is that its client has shown, in PEM."""


class _Failures:
    """What went wrong, with tracebacks now and then: whoever can cause them could fill the disk."""

    def __init__(self) -> None:
        self._told_at = float("-inf")
        self._untold = 0
        """How many there were since."""

    def tell(self, event: str, **fields: str) -> None:
        """Log the exception that is being handled, unless another was just before."""
        now = trio.current_time()
        if now < self._told_at + FAILURES_PAUSE:
            self._untold += 1
            return
        more = {"untold": self._untold} if self._untold else {}
        self._told_at, self._untold = now, 0
        log.exception(event, **fields, **more)  # noqa: LOG004  # called while one is handled


class _Log(Logger):
    """Hypercorn's words in the agent's log; it does not log requests."""

    def __init__(self, config: Config) -> None:
        self.access_logger = None
        self.error_logger = None
        self.failures = _Failures()

    async def exception(self, message: str, *_arguments: Any, **_fields: Any) -> None:
        self.failures.tell("http failed", error=message)

    async def error(self, message: str, *_arguments: Any, **_fields: Any) -> None:
        log.error("http failed", error=message)

    async def warning(self, message: str, *_arguments: Any, **_fields: Any) -> None:
        log.warning("http", warning=message)


def _settings() -> Config:
    config = Config()
    config.logger_class = _Log
    config.h11_max_incomplete_size = HEADERS_BYTES_MAX
    config.include_server_header = False
    return config


class _Http1(H11Protocol):
    """Stays with HTTP/1.1 whatever else is offered: others would be more protocols to defend."""

    async def _check_protocol(self, _event: object) -> None:
        pass

    async def _create_stream(self, request: h11.Request) -> None:
        await super()._create_stream(_without_upgrade(request))


class _Connection:
    """One client."""

    def __init__(
        self,
        stream: trio.SocketStream,
        app: AppWrapper,
        settings: Config,
        context: WorkerContext,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.scope = trio.CancelScope()
        """Ends it at once."""
        self._tcp = stream
        self._stream: _Stream = stream
        if tls is not None:
            self._stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        self._state: dict[str, Any] = {}
        self._tasks = TaskGroup()
        self._idle = TrioSingleTask()
        self._is_idle = True
        """No request is being answered."""
        self._is_ended = False
        """The client sends nothing more; it may still wait for its answer."""
        self._old_at = trio.current_time() + CONNECTION_AGE_MAX
        self.scope.deadline = self._old_at + CONNECTION_GRACE
        self._sending = trio.Lock()
        self._protocol = _Http1(
            app,
            settings,
            context,
            self._tasks,
            ConnectionState(self._state),
            tls is not None,
            _address(stream),
            None,
            self._take,
        )
        self._terminated = context.terminated

    async def run(self) -> None:
        """Answer until the client or the server ends it."""
        try:
            with self.scope:
                async with self._tasks:
                    await self._idle.restart(self._tasks, self._end_idle)
                    await self._shake_hands()
                    async for data in self._stream:
                        await self._protocol.handle(RawData(bytes(data)))
                    self._is_ended = True
                    if self._is_idle:
                        self.scope.cancel()
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _shake_hands(self) -> None:
        if isinstance(self._stream, trio.SSLStream):
            await self._stream.do_handshake()
            if der := self._stream.getpeercert(binary_form=True):
                self._state[CERTIFICATE] = ssl.DER_cert_to_PEM_cert(der).encode()

    async def _take(self, event: Event) -> None:
        """Do what hypercorn says."""
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Closed):
            await self._end()
        elif isinstance(event, Updated):
            self._is_idle = event.idle
            if not event.idle:
                await self._idle.stop()
            elif self._is_ended or trio.current_time() >= self._old_at:
                self.scope.cancel()
            else:
                await self._idle.restart(self._tasks, self._end_idle)

    async def _send(self, data: bytes) -> None:
        try:
            with trio.fail_after(SEND_MAX):
                async with self._sending:
                    await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            self.scope.cancel()

    async def _end(self) -> None:
        """Send nothing more, but what is being sent."""
        with (
            suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError),
            trio.move_on_after(SEND_MAX),
        ):
            async with self._sending:
                await self._tcp.send_eof()  # busy: TLS itself is sending
        self.scope.cancel()

    async def _end_idle(self) -> None:
        with trio.move_on_at(min(trio.current_time() + IDLE_MAX, self._old_at)):
            await self._terminated.wait()
        self.scope.cancel()


class HttpServer:
    """Serves one application."""

    def __init__(
        self,
        app: Starlette,
        listeners: Sequence[trio.SocketListener],
        credentials: Credentials | None = None,
    ) -> None:
        """Take listeners that are open already; with credentials everything is encrypted."""
        self._credentials = credentials
        self._settings = _settings()
        self._failures: _Failures = self._settings.log.failures
        framework: Any = app  # both write ASGI's types in words of their own
        self._app = wrap_app(framework, self._settings.wsgi_max_body_size, "asgi")
        self._listeners = listeners
        self._context = WorkerContext(None)
        self._accepting = trio.CancelScope()
        self._grace = 0.0
        self._open: dict[_Connection, None] = {}
        """In the order in which they came."""
        self._closed = trio.lowlevel.ParkingLot()
        self._stopped = trio.Event()

    async def run(self) -> None:
        """Serve until `stop`."""
        try:
            async with trio.open_nursery() as connections:
                with self._accepting:
                    await trio.serve_listeners(
                        self._serve, [*self._listeners], handler_nursery=connections
                    )
                await self._context.terminated.set()
                with trio.move_on_after(self._grace):
                    while self._open:
                        await self._closed.park()
                connections.cancel_scope.cancel()
        finally:
            self._stopped.set()

    async def stop(self, grace: float) -> None:
        """Accept nothing more, give running answers `grace` seconds, then cut them off."""
        self._grace = grace
        self._accepting.cancel()
        await self._stopped.wait()

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            await self._answer(stream)
        except* trio.BrokenResourceError:
            pass  # the client is gone
        except* Exception:  # whatever a stranger sends must not end the agent
            self._failures.tell("http connection failed")

    async def _answer(self, stream: trio.SocketStream) -> None:
        if len(self._open) >= CONNECTIONS_MAX:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.scope.cancel()
        tls = None if self._credentials is None else self._credentials.https
        connection = _Connection(stream, self._app, self._settings, self._context, tls)
        self._open[connection] = None
        try:
            await connection.run()
        finally:
            self._open.pop(connection, None)
            self._closed.unpark_all()


def _without_upgrade(request: h11.Request) -> h11.Request:
    headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
    if len(headers) == len(request.headers):
        return request
    return type(request)(
        method=request.method,
        target=request.target,
        headers=headers,
        http_version=request.http_version,
    )


def _address(stream: trio.SocketStream) -> tuple[str, int] | None:
    """Say where a client is; None when it is gone already."""
    try:
        host, port, *_ = stream.socket.getpeername()
    except OSError:
        return None
    return host, port


async def listen(address: Address) -> tuple[list[trio.SocketListener], Address]:
    """Open an address, port 0 as any free port; give it with the port that it got. Raises StartRefused."""
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        raise StartRefused(
            f"{address} can't be opened ({error.strerror}): set `http` to an address that is free, "
            'or to "" for none'
        ) from None
    if not address.port:  # a name may mean several addresses, and each got a port of its own
        for other in listeners[1:]:
            await other.aclose()
        del listeners[1:]
    return listeners, address._replace(port=listeners[0].socket.getsockname()[1])
