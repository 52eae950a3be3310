"""A client that speaks HTTP/2 by hand, to say what no gRPC client would."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

TIMEOUT = 20.0

Headers = list[tuple[bytes, bytes]]


class Http2:
    """One connection."""

    def __init__(self, address: str, tls: ssl.SSLContext | None) -> None:
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), TIMEOUT)
        self.scheme = b"http"
        if tls is not None:
            self.socket, self.scheme = tls.wrap_socket(self.socket), b"https"
        self._received = self.socket.makefile("rb")
        config = H2Configuration(header_encoding=None, validate_outbound_headers=False)
        self.connection = H2Connection(config)
        # Uncompressed: the server bounds what comes in.
        self.connection.encoder.encode = partial(self.connection.encoder.encode, huffman=False)
        self.connection.initiate_connection()
        self.address = address
        self.send()

    def close(self) -> None:
        """Close the connection."""
        self._received.close()  # it keeps the socket open
        self.socket.close()

    def send(self) -> None:
        """Send what waits to be sent."""
        self.socket.sendall(self.connection.data_to_send())

    def open(self, path: str, *more: tuple[bytes, bytes]) -> int:
        """Queue the headers of a call; give its stream."""
        stream = self.connection.get_next_available_stream_id()
        self.connection.send_headers(stream, [*self.headers(path), *more])
        return stream

    def headers(self, path: str) -> Headers:
        """Give the headers that every call has."""
        return [
            (b":method", b"POST"), (b":scheme", self.scheme), (b":path", path.encode()),
            (b":authority", self.address.encode()), (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ]  # fmt: skip

    def call(self, path: str, message: bytes, *more: tuple[bytes, bytes]) -> dict[bytes, bytes]:
        """Ask once; give all the headers that were answered, none when the stream was cut."""
        stream = self.open(path, *more)
        self.connection.send_data(
            stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True
        )
        self.send()
        answered: dict[bytes, bytes] = {}
        for event in self.events():
            if getattr(event, "stream_id", stream) != stream:
                continue
            if isinstance(event, ResponseReceived | TrailersReceived):
                answered.update(dict(event.headers or ()))
            if isinstance(event, StreamEnded | StreamReset | ConnectionTerminated):
                return answered
        return answered

    def events(self) -> Iterator[Event]:
        """Give what happens, until the other side closes."""
        while frame := self._frame():  # one by one: what follows the last word is an error to h2
            for event in self.connection.receive_data(frame):
                if isinstance(event, DataReceived) and event.flow_controlled_length:
                    self.connection.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id or 0
                    )
                yield event
            self.send()

    def _frame(self) -> bytes:
        """Give the next frame with its header (RFC 9113, section 4.1), nothing at the end."""
        header = self._received.read(9)
        return header + self._received.read(int.from_bytes(header[:3], "big"))

    def await_settings(self) -> bool:
        """Wait for what the other side allows; False when it closes instead."""
        return any(isinstance(event, RemoteSettingsChanged) for event in self.events())


@contextmanager
def http2(address: str, tls: ssl.SSLContext | None = None) -> Iterator[Http2]:
    """Connect; close in the end."""
    client = Http2(address, tls)
    try:
        yield client
    finally:
        client.close()


def resets(client: Http2, streams: Iterable[int]) -> None:
    """Queue the end of some streams."""
    for stream in streams:
        client.connection.reset_stream(stream, error_code=8)
