"""Everything that reads what others wrote: how it is called, what it may raise, what is valid."""

from __future__ import annotations

import io
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import msgpack

from coherd.api.cache_service import order_of
from coherd.config import ConfigProblems
from coherd.config.source import read_bytes
from coherd.errors import InvalidRequest, MalformedMessage
from coherd.model import EVERYTHING, Batch, Effect, Lane, Origin, Position, Stream
from coherd.net import peer_codec as codec
from coherd.net import trace_codec
from coherd.net.bridge_method import parse
from coherd.net.peer import FetchPart, Have, LinkReply, MemberInfo, Parcel, StreamRange
from coherd.net.traces import TracedReader, TracedRow, TraceQuestion, TraceReply
from coherd.replication.intervals import Intervals
from coherd.replication.parcels import Applied, Arc
from coherd.replication.repair import Answer
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import peer_service_pb2 as pb
from coherd.wire import decode_batch, decode_ranges, encode_batch
from coherd_membership import MalformedDatagram, News, Status, Swim, SwimConfig
from coherd_membership import _codec as swim_codec
from coherd_membership._messages import Kind, Meta

ORIGIN = Origin("cache-1", 1_790_000_000_000)
STREAM = Stream("shop", ORIGIN, Lane.BULK)
BATCH = Batch(
    STREAM, ((3, 4), (9, 9)), [b"ka", b"tb", EVERYTHING], Effect.STALE, [1, 2, 0], 7, "why"
)
PAYLOAD = encode_batch(BATCH)
NUMBERS = Intervals([(1, 5), (7, 7), (10**6, 10**9)])
MEMBER = MemberInfo("cache-1", 5, "10.0.0.1:4373", "eu", ("shop", "*"), "0.1.0")
HAVE = Have(ORIGIN, [(STREAM, NUMBERS)], 2**63, True)
PART = FetchPart(
    [(PAYLOAD, 1.5)],
    {STREAM: Answer(Intervals(), NUMBERS, Intervals([(8, 9)]), 2.5, NUMBERS, NUMBERS)},
    0.25,
)
PARCELS = [Parcel(1, PAYLOAD, 0.5, True, (Arc(0, 7), Arc(1, 2**63))), Parcel(2, b"", 0.0, False)]
REPLY = LinkReply(7, [Applied(2**63, 1, ("cache-1",)), Applied(2, 0, ())])
DOTS = [StreamRange(STREAM, (1, 2**63 - 1))]
TRACED = TracedRow(
    dot=StreamRange(STREAM, (3, 3)), selector=b"ka", cause="link", reason="why", age=1.5, late=0.5,
    received_us=7, readers=[TracedReader("redis", "handler", True, 9)],
)  # fmt: skip
POSITION = Position("cache-1", 5, 7)
REQUEST = cache.InvalidateRequest(namespace="shop", keys=[b"a"], tags=[b"b"], versions=[1, 2])
NEWS = News("cache-1", 5, 2, Status.SUSPECT, "10.0.0.1:4373", 1, ("cache-2", "cache-3"))
DATAGRAMS = tuple(
    swim_codec.head(
        kind, swim_codec.cluster_label("test"), 7, 9, swim_codec.encode_news(NEWS), "me"
    )
    + b"".join(
        (
            swim_codec.section(swim_codec.NEWS, swim_codec.encode_news(NEWS._replace(name="x"))),
            swim_codec.section(swim_codec.ADDRESS, b"10.0.0.2:4373"),
            swim_codec.section(swim_codec.MASK, swim_codec.encode_mask(2**64 - 1, wants_back=True)),
            swim_codec.section(swim_codec.BUCKET_SUMS, swim_codec.encode_buckets(range(64))),
            swim_codec.section(swim_codec.NAMES, swim_codec.encode_texts(["me", "x"])),
            swim_codec.section(
                swim_codec.METADATA, swim_codec.encode_meta(Meta("x", 5, 1, b"published"))
            ),
        )
    )
    for kind in Kind
)
CONFIG = b'name = "a"\njoin = ["x:1", "[::1]:2"]\n[namespaces.shop]\nmax_ttl = "1h"\n[[handlers]]\nurl = 1\n'


def listen(data: bytes) -> Swim:
    """Let a machine of membership hear a datagram, and look at what it makes of it."""
    swim = Swim(
        SwimConfig(), name="me", epoch=1, address="10.0.0.9:1", cluster="test", random=Random(7)
    )
    swim.receive(data, "10.0.0.1:4373", 0.0)
    swim.handle_timer(60.0)
    swim.events()
    swim.datagrams()
    return swim


class Decoder(NamedTuple):
    """One way in."""

    decode: Callable[[bytes], Any]
    raises: tuple[type[Exception], ...]
    valid: tuple[bytes, ...]


def _message(of: Any, decode: Callable[[Any], Any], *valid: Any) -> Decoder:
    return Decoder(
        lambda data: decode(parse(of, data)),
        (MalformedMessage, InvalidRequest),
        tuple(message.SerializeToString() for message in valid),
    )


DECODERS = {
    "payload": Decoder(decode_batch, (MalformedMessage,), (PAYLOAD,)),
    "ranges": Decoder(
        lambda data: decode_ranges(list(msgpack.Unpacker(_reader(data), max_array_len=0))),
        (MalformedMessage, msgpack.UnpackException, ValueError),
        (b"\x01\x05\x02\x00",),
    ),
    "have": _message(pb.HaveRequest, codec.decode_have, codec.encode_have(HAVE)),
    "part": _message(pb.FetchResponse, codec.decode_part, codec.encode_part(PART)),
    "wanted": _message(
        pb.FetchRequest,
        lambda message: codec.decode_streams(message.wanted, message.origins),
        codec.encode_fetch(ORIGIN, {STREAM: NUMBERS}),
    ),
    "parcels": _message(pb.LinkRequest, codec.decode_parcels, codec.encode_parcels(PARCELS)),
    "reply": _message(pb.LinkResponse, codec.decode_link_reply, codec.encode_link_reply(REPLY)),
    "link": _message(
        pb.LinkRequest,
        lambda message: codec.decode_member(message.open.me),
        pb.LinkRequest(open=pb.LinkOpen(cluster="test", me=codec.encode_member(MEMBER))),
    ),
    "trace": _message(
        pb.TraceRequest,
        trace_codec.decode_question,
        trace_codec.encode_question(
            ORIGIN, TraceQuestion("shop", [b"ka", EVERYTHING], 7, [StreamRange(STREAM, (3, 3))])
        ),
    ),
    "traced": _message(
        pb.TraceResponse,
        lambda message: trace_codec.decode_reply(message, "shop"),
        trace_codec.encode_reply(TraceReply([TRACED, TracedRow(dot=TRACED.dot)], 5, 7)),
    ),
    "exchange": _message(
        pb.ExchangeRequest,
        lambda message: (
            codec.decode_origin_message(message.sender),
            codec.decode_datagrams(message.datagrams),
        ),
        pb.ExchangeRequest(
            cluster="test",
            sender=codec.encode_origin(ORIGIN),
            address=MEMBER.address,
            datagrams=DATAGRAMS,
        ),
    ),
    "exchanged": _message(
        pb.ExchangeResponse,
        lambda message: (
            codec.decode_origin_message(message.responder),
            codec.decode_datagrams(message.datagrams),
        ),
        pb.ExchangeResponse(responder=codec.encode_origin(ORIGIN), datagrams=DATAGRAMS, wall_us=7),
    ),
    "datagram": Decoder(swim_codec.decode, (MalformedDatagram,), DATAGRAMS),
    "published": Decoder(
        lambda data: codec.decode_published(data, "cache-1", 5, "10.0.0.1:4373"),
        (MalformedMessage,),
        (codec.encode_published(MEMBER),),
    ),
    "stranger": Decoder(listen, (), DATAGRAMS),
    "compare": _message(
        pb.CompareRequest,
        lambda message: codec.decode_buckets(message.wanted),
        pb.CompareRequest(sender=codec.encode_origin(ORIGIN), wanted=[0, 63], skip=1_000),
    ),
    "dots": _message(
        pb.AppliedRequest,
        lambda message: codec.decode_dots(message.dots),
        pb.AppliedRequest(dots=codec.encode_dots(DOTS), wait_ms=1),
    ),
    "invalidate": _message(cache.InvalidateRequest, order_of, REQUEST),
    "position": Decoder(
        lambda data: Position.parse(data.decode(errors="replace")),
        (ValueError,),
        (str(POSITION).encode(),),
    ),
    "config": Decoder(lambda data: read_bytes(data, "file"), (ConfigProblems,), (CONFIG,)),
}


def _reader(data: bytes) -> Any:
    return io.BytesIO(data)
