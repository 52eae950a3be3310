"""The client's half of the bridge: channels to other agents, unary calls and streams over them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import trio

from coherd.errors import MalformedMessage, RpcFailed
from coherd.net.bridge_method import CONNECTION_OPTIONS, parse
from coherd.net.bridge_stream import Failure, MessageStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from google.protobuf.message import Message

    from coherd.net.bridge_loops import Loops
    from coherd.net.bridge_method import Method

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.use_local_subchannel_pool", 1),  # its own connection, not one shared by all channels
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.min_reconnect_backoff_ms", 1000),  # in truth how long an attempt to connect may take
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # callers know what may be repeated
    ("grpc.service_config_disable_resolution", 1),
    *CONNECTION_OPTIONS,
)

CLOSED = Failure("CANCELLED", "the channel or the bridge was closed")
FINISHED = Failure("CANCELLED", "the other side has finished the call")


class Channel:
    """A connection to one target, opened at the first call and again whenever it is lost."""

    def __init__(
        self,
        loops: Loops,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        options: Sequence[tuple[str, int | str]],
        open_channels: set[Channel],
    ) -> None:
        self._loops = loops
        self._target = target
        self._credentials = credentials
        self._options = (*CHANNEL_OPTIONS, *options)
        self._channel: Any = None  # grpc.aio.Channel; its stubs ask for arguments that are optional
        self._unary: dict[str, Any] = {}
        self._streams: dict[str, Any] = {}
        self._open_channels = open_channels
        self._closed = False
        loops.call_aio(self._open)

    async def unary(self, method: Method, request: Message, *, timeout: float | None = None) -> Any:
        """Ask once, and give the response.

        The timeout, in seconds, reaches the server as the call's deadline. Raises RpcFailed when the
        call failed; a call that fails may have been executed. A cancelled caller cancels the call.
        """
        if self._closed:
            raise CLOSED.error()
        data = request.SerializeToString()
        answer = await self._loops.run(self._call_unary, method.path, data, timeout)
        if isinstance(answer, Failure):
            raise answer.error()
        try:
            return parse(method.response_class, answer)
        except MalformedMessage as error:
            raise RpcFailed("INTERNAL", f"the answer has {error}") from None

    @asynccontextmanager
    async def stream(
        self, method: Method, request: Message | None = None, *, timeout: float | None = None
    ) -> AsyncIterator[ClientStream]:
        """Open a call that streams requests, responses or both; leaving the block cancels it.

        A method whose client does not stream takes its request here. To be sure that everything was
        sent, `done_sending` and receive to the end. The timeout is that of the whole call.
        """
        if self._closed:
            raise CLOSED.error()
        stream = ClientStream(self._loops, self, method, timeout)
        if request is not None:
            stream.send_nowait(request)
        if not method.client_streaming:
            stream._end_outbox()
        self._loops.call_aio(stream.start)
        try:
            yield stream
        finally:
            self._loops.call_aio(stream.cancel)

    async def aclose(self) -> None:
        """Cancel the calls that go on, and disconnect."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        await self._loops.run(self._close)
        self._open_channels.discard(self)

    # Asyncio's side.

    def _open(self) -> None:
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(self._target, options=self._options)
        else:
            self._channel = grpc.aio.secure_channel(
                self._target, self._credentials, options=self._options
            )

    async def _close(self) -> None:
        # Nothing of gRPC's stays with what trio may hold for long: see `Loops`.
        channel, self._channel = self._channel, None
        self._unary.clear()
        self._streams.clear()
        if channel is not None:
            await channel.close()

    async def _call_unary(self, path: str, data: bytes, timeout: float | None) -> bytes | Failure:
        if self._channel is None:
            return CLOSED
        function = self._unary.get(path)
        if function is None:
            function = self._unary[path] = self._channel.unary_unary(path)
        try:
            answer: bytes = await function(data, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            return _failure(error)
        return answer

    def start_stream(self, path: str, timeout: float | None) -> Any:
        """On asyncio's side: begin a call that streams; None when the channel is closed."""
        if self._channel is None:
            return None
        function = self._streams.get(path)
        if function is None:
            # On the wire the kinds of streaming do not differ: one kind serves all.
            function = self._streams[path] = self._channel.stream_stream(path)
        return function(timeout=timeout)


class ClientStream(MessageStream):
    """The client's end of a call that streams."""

    def __init__(
        self, loops: Loops, channel: Channel, method: Method, timeout: float | None
    ) -> None:
        super().__init__(loops, method.response_class)
        self._channel = channel
        self._method = method
        self._timeout = timeout
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None

    async def receive(self) -> list[Any]:
        """Give every response that waits, at least one, in order; none when the call has succeeded.

        Raises RpcFailed when the call failed, after the responses that came before.
        """
        try:
            return await super().receive()
        except MalformedMessage as error:
            raise RpcFailed("INTERNAL", f"the answer has {error}") from None

    async def done_sending(self) -> None:
        """Tell the server that no more requests come, after those that wait."""
        await trio.lowlevel.checkpoint()
        self._end_outbox()

    # Asyncio's side.

    def start(self) -> None:
        """On asyncio's side: begin the call."""
        call = self._channel.start_stream(self._method.path, self._timeout)
        if call is None:
            self._end(CLOSED)
            return
        create_task = asyncio.get_running_loop().create_task
        self._reader = create_task(self._read(call))
        self._writer = create_task(self._write(call))

    def cancel(self) -> None:
        """On asyncio's side: end the call, if it has not ended."""
        if self._reader is not None:
            # Not at once: a task that has not begun would end without running at all.
            asyncio.get_running_loop().call_soon(self._reader.cancel)

    async def _read(self, call: Any) -> None:
        failure: Failure | None = CLOSED
        try:
            await self._read_all(call.read)
            failure = None
        except grpc.aio.AioRpcError as error:
            failure = _failure(error)
        finally:
            self._end(failure)
            call.cancel()
            if self._writer is not None:
                self._writer.cancel()
            self._reader = self._writer = None

    async def _write(self, call: Any) -> None:
        try:
            await call.wait_for_connection()
            # Not `call.write`: when the server has ended the call, that would replace its status and
            # the messages before it by an "internal error from Core".
            await self._write_all(call._cython_call.send_serialized_message)
            await call.done_writing()
        except (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
            self._end_writing(FINISHED)  # the reader learns why

    def _end(self, failure: Failure | None) -> None:
        self._end_writing(failure or FINISHED)  # first: who has received the end cannot send
        self._end_inbox(failure)


def _failure(error: grpc.aio.AioRpcError) -> Failure:
    return Failure(error.code().name, error.details() or "")
