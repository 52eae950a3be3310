"""What both ends of a call know: its path and messages, from the service's descriptor, and how to connect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from coherd.errors import MalformedMessage

if TYPE_CHECKING:
    from google.protobuf.descriptor import ServiceDescriptor
    from google.protobuf.message import Message

STREAM_WINDOW_BYTES = 1024 * 1024
CONNECTION_OPTIONS: tuple[tuple[str, int | str], ...] = (
    # No compressed messages: 64 kB may be 64 MiB of zeros.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    # A fixed window instead of one that pings the peer to learn how wide it should be, at rest after nearly
    # each message: measured, that was a third of what an agent at rest takes.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", STREAM_WINDOW_BYTES),
)
"""Options of every server and channel."""
TARGET_NAME = "grpc.ssl_target_name_override"
"""The option of a channel that says by which name TLS knows who should answer."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC of a service."""

    name: str
    """As the servicer's method that answers it: ``Have``."""
    path: str
    """As on the wire: ``/coherd.v1.PeerService/Join``."""
    request_class: type[Message]
    response_class: type[Message]
    client_streaming: bool
    """True when the client sends any number of requests."""
    server_streaming: bool
    """True when the server sends any number of responses."""

    @property
    def streaming(self) -> bool:
        """True when either side sends any number of messages."""
        return self.client_streaming or self.server_streaming


def methods(service: ServiceDescriptor) -> dict[str, Method]:
    """Give the RPCs of a service by name."""
    return {
        method.name: Method(
            name=method.name,
            path=f"/{service.full_name}/{method.name}",
            request_class=GetMessageClass(method.input_type),
            response_class=GetMessageClass(method.output_type),
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
        )
        for method in service.methods
    }


def parse(message_class: type[Message], data: bytes) -> Any:
    """Give the message that some bytes are; raises MalformedMessage when they are none."""
    try:
        return message_class.FromString(data)
    except DecodeError:
        pass
    raise MalformedMessage(f"bytes that are no {message_class.DESCRIPTOR.full_name}")
