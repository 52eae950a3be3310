"""Eras, and the answers to Haves and offers, between plain values and protobuf: checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coherd.errors import MalformedMessage
from coherd.limits import ERA_MAX, ERAS_MAX
from coherd.model import NAMESPACE_PATTERN
from coherd.net.peer import HaveReply
from coherd.net.peer_codec import OriginTable, decode_streams, encode_stream
from coherd.v1 import peer_service_pb2 as peer_pb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def encode_have_reply(reply: HaveReply) -> peer_pb.HaveResponse:
    """Write the answer to a Have."""
    table = OriginTable()
    streams = [encode_stream(table, stream, numbers) for stream, numbers in reply.streams]
    return peer_pb.HaveResponse(
        quiet=reply.quiet,
        sum=reply.sum,
        catching_up=reply.catching_up,
        origins=table.encode(),
        streams=streams,
    )


def decode_have_reply(message: peer_pb.HaveResponse) -> HaveReply:
    """Read the answer to a Have."""
    streams = decode_streams(message.streams, message.origins)
    return HaveReply(message.quiet, message.sum, message.catching_up, streams)


def encode_eras(eras: Mapping[str, int]) -> list[peer_pb.NamespaceEra]:
    """Write eras, as many as a message takes: the highest."""
    chosen = sorted(eras.items(), key=lambda item: -item[1])[:ERAS_MAX]
    return [peer_pb.NamespaceEra(namespace=name, era=era) for name, era in chosen]


def decode_eras(messages: Sequence[peer_pb.NamespaceEra]) -> dict[str, int]:
    """Read eras."""
    if len(messages) > ERAS_MAX:
        raise MalformedMessage(f"more than {ERAS_MAX} eras in one message")
    for message in messages:
        if not NAMESPACE_PATTERN.fullmatch(message.namespace) or message.era > ERA_MAX:
            raise MalformedMessage("an illegal era")
    return {message.namespace: message.era for message in messages}
