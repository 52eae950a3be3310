"""What agents say to each other, between plain values and protobuf: both directions, checked.

Everything that comes from a peer is checked here; what is not legal is `MalformedMessage`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from google.protobuf.message import DecodeError

from coherd.errors import MalformedMessage
from coherd.limits import (
    ADDRESS_MAX,
    AGE_MAX_MS,
    ARCS_MAX,
    BUCKETS,
    DATAGRAMS_MAX,
    DOTS_MAX,
    MEMBER_BYTES_MAX,
    NUMBER_MAX,
    PARCELS_MAX,
    RANGES_MAX,
    STREAMS_MAX,
    VERSION_MAX,
)
from coherd.model import (
    EVERY_NAMESPACE,
    NAME_PATTERN,
    NAMESPACE_PATTERN,
    HandlerInfo,
    Lane,
    Origin,
    Stream,
)
from coherd.net.peer import (
    FetchPart,
    Have,
    LinkReply,
    MemberInfo,
    Parcel,
    StreamRange,
)
from coherd.replication.answers import Answer
from coherd.replication.intervals import Intervals
from coherd.replication.parcels import Applied, Arc
from coherd.replication.ring import RINGS
from coherd.v1 import peer_service_pb2 as peer_pb
from coherd.v1 import types_pb2
from coherd.wire import decode_numbers, decode_origin, decode_stream, encode_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class OriginTable:
    """The origins of one message, each written once."""

    def __init__(self) -> None:
        self._indexes: dict[Origin, int] = {}

    def index(self, origin: Origin) -> int:
        """Give the place of an origin in the table."""
        return self._indexes.setdefault(origin, len(self._indexes))

    def encode(self) -> list[types_pb2.Origin]:
        """Give the table."""
        return [encode_origin(origin) for origin in self._indexes]


def encode_origin(origin: Origin) -> types_pb2.Origin:
    """Write an origin."""
    return types_pb2.Origin(name=origin.name, epoch=origin.epoch)


def decode_origin_message(message: types_pb2.Origin) -> Origin:
    """Read an origin."""
    return decode_origin(message.name, message.epoch)


def decode_datagrams(messages: Sequence[bytes]) -> list[bytes]:
    """Read messages about membership; what is in them `coherd_membership` checks."""
    if len(messages) > DATAGRAMS_MAX:
        raise MalformedMessage(f"more than {DATAGRAMS_MAX} datagrams in one message")
    return list(messages)


def encode_lane(lane: Lane) -> types_pb2.Lane.ValueType:
    """Write a lane."""
    return cast("types_pb2.Lane.ValueType", int(lane))


def encode_stream(
    table: OriginTable, stream: Stream, numbers: Intervals | None = None
) -> peer_pb.StreamNumbers:
    """Write a stream and a set of its numbers."""
    return peer_pb.StreamNumbers(
        namespace=stream.namespace,
        origin=table.index(stream.origin),
        lane=encode_lane(stream.lane),
        ranges=encode_numbers(numbers) if numbers is not None else (),
    )


def decode_streams(
    messages: Sequence[peer_pb.StreamNumbers], origins: Sequence[types_pb2.Origin]
) -> list[tuple[Stream, Intervals]]:
    """Read streams with their numbers."""
    table = _decode_table(messages, origins)
    _check_ranges(len(message.ranges) for message in messages)
    return [
        (_decode_stream(message, table), decode_numbers(message.ranges)) for message in messages
    ]


def _decode_table(streams: Sequence[object], origins: Sequence[types_pb2.Origin]) -> list[Origin]:
    if len(streams) > STREAMS_MAX or len(origins) > STREAMS_MAX:
        raise MalformedMessage(f"more than {STREAMS_MAX} streams in one message")
    return [decode_origin_message(origin) for origin in origins]


def _check_ranges(lengths: Iterable[int]) -> None:
    if sum(lengths) > 2 * RANGES_MAX:
        raise MalformedMessage(f"more than {RANGES_MAX} ranges in one message")


def _decode_stream(message: peer_pb.StreamNumbers, table: Sequence[Origin]) -> Stream:
    if message.origin >= len(table):
        raise MalformedMessage("a stream of an origin that the message does not name")
    return decode_stream(message.namespace, table[message.origin], int(message.lane))


def encode_member(member: MemberInfo) -> types_pb2.Member:
    """Write what an agent says of itself."""
    return types_pb2.Member(
        name=member.name,
        epoch=member.epoch,
        address=member.address,
        region=member.region,
        namespaces=member.namespaces,
        version=member.version,
        protocol_min=member.protocol_min,
        protocol_max=member.protocol_max,
        handlers=[
            types_pb2.MemberHandler(kind=each.kind, namespace=each.namespace, tags=each.tags)
            for each in member.handlers
        ],
        ready=member.ready,
    )


def decode_member(message: types_pb2.Member) -> MemberInfo:
    """Read what an agent says of itself; a long version is cut."""
    if message.ByteSize() > MEMBER_BYTES_MAX:
        raise MalformedMessage(f"a member of more than {MEMBER_BYTES_MAX} bytes")
    origin = decode_origin(message.name, message.epoch)
    if (
        not message.address
        or len(message.address) > ADDRESS_MAX
        or not message.address.isprintable()
    ):
        raise MalformedMessage("an illegal address")
    if not NAME_PATTERN.fullmatch(message.region):
        raise MalformedMessage("an illegal region")
    if not all(map(str.isprintable, (message.version, *(h.kind for h in message.handlers)))):
        raise MalformedMessage("an illegal version, or kind of a handler")
    for name in (*message.namespaces, *(each.namespace for each in message.handlers)):
        if name != EVERY_NAMESPACE and not NAMESPACE_PATTERN.fullmatch(name):
            raise MalformedMessage("an illegal namespace")
    return MemberInfo(
        origin.name,
        origin.epoch,
        message.address,
        message.region,
        tuple(message.namespaces),
        message.version[:VERSION_MAX],
        message.protocol_min,
        message.protocol_max,
        tuple(HandlerInfo(each.kind, each.namespace, each.tags) for each in message.handlers),
        message.ready if message.HasField("ready") else None,
    )


def encode_published(me: MemberInfo) -> bytes:
    """Write what an agent publishes of itself."""
    message = encode_member(me)
    for field in ("name", "epoch", "address"):  # they travel with the news of it
        message.ClearField(field)
    return message.SerializeToString(deterministic=True)


def decode_published(data: bytes, name: str, epoch: int, address: str) -> MemberInfo:
    """Read what an agent publishes of itself. Raises MalformedMessage."""
    try:
        message = types_pb2.Member.FromString(data)
    except DecodeError as error:
        raise MalformedMessage(f"what {name} publishes can't be read: {error}") from None
    message.name, message.epoch, message.address = name, epoch, address
    return decode_member(message)


def decode_buckets(buckets: Sequence[int]) -> list[int]:
    """Read which buckets of a vector are meant."""
    if len(buckets) > BUCKETS or max(buckets, default=0) >= BUCKETS:
        raise MalformedMessage(f"{BUCKETS} buckets are all there are")
    return list(buckets)


def encode_have(have: Have) -> peer_pb.HaveRequest:
    """Write a Have."""
    table = OriginTable()
    changes = [encode_stream(table, stream, numbers) for stream, numbers in have.changes]
    return peer_pb.HaveRequest(
        sender=encode_origin(have.sender),
        origins=table.encode(),
        changes=changes,
        sum=have.sum,
        catching_up=have.catching_up,
        offer=have.offer,
    )


def decode_have(message: peer_pb.HaveRequest) -> Have:
    """Read a Have."""
    return Have(
        decode_origin_message(message.sender),
        decode_streams(message.changes, message.origins),
        message.sum,
        message.catching_up,
        message.offer,
    )


def encode_fetch(sender: Origin, wanted: Mapping[Stream, Intervals]) -> peer_pb.FetchRequest:
    """Write which rows are missing."""
    table = OriginTable()
    streams = [encode_stream(table, stream, numbers) for stream, numbers in wanted.items()]
    return peer_pb.FetchRequest(
        sender=encode_origin(sender), origins=table.encode(), wanted=streams
    )


def encode_part(part: FetchPart) -> peer_pb.FetchResponse:
    """Write a part of the answer to a fetch."""
    table = OriginTable()
    answers = [
        peer_pb.StreamAnswer(
            covers=encode_stream(table, stream, answer.covers),
            blank=encode_numbers(answer.blank),
            blank_age_ms=_age_ms(answer.blank_age) if answer.blank else 0,
            unknown=encode_numbers(answer.unknown),
            retained=encode_numbers(answer.retained),
        )
        for stream, answer in part.answers.items()
    ]
    return peer_pb.FetchResponse(
        blocks=[
            peer_pb.Block(payload=payload, age_ms=_age_ms(age)) for payload, age in part.blocks
        ],
        origins=table.encode(),
        answers=answers,
        retry_after_ms=_age_ms(part.retry_after),
        more=part.more,
    )


def decode_part(message: peer_pb.FetchResponse) -> FetchPart:
    """Read a part of the answer to a fetch."""
    table = _decode_table(message.answers, message.origins)
    _check_ranges(
        len(each.covers.ranges) + len(each.blank) + len(each.unknown) + len(each.retained)
        for each in message.answers
    )
    answers = {
        _decode_stream(each.covers, table): Answer(
            Intervals(),
            decode_numbers(each.covers.ranges),
            decode_numbers(each.blank),
            _decode_age(each.blank_age_ms),
            decode_numbers(each.unknown),
            decode_numbers(each.retained),
        )
        for each in message.answers
    }
    _check_parcels(message.blocks)
    blocks = [(block.payload, _decode_age(block.age_ms)) for block in message.blocks]
    return FetchPart(blocks, answers, message.retry_after_ms / 1000, message.more)


def encode_parcels(parcels: Iterable[Parcel]) -> peer_pb.LinkRequest:
    """Write parcels."""
    return peer_pb.LinkRequest(
        parcels=[
            peer_pb.Parcel(
                sequence=parcel.sequence,
                payload=parcel.payload,
                age_ms=_age_ms(parcel.age),
                receipt=parcel.receipt,
                arcs=[peer_pb.Arc(ring=ring, end=end) for ring, end in parcel.arcs],
            )
            for parcel in parcels
        ]
    )


def decode_parcels(message: peer_pb.LinkRequest) -> list[Parcel]:
    """Read parcels."""
    _check_parcels(message.parcels)
    return [
        Parcel(
            each.sequence,
            each.payload,
            _decode_age(each.age_ms),
            each.receipt,
            _decode_arcs(each.arcs),
        )
        for each in message.parcels
    ]


def _decode_arcs(messages: Sequence[peer_pb.Arc]) -> tuple[Arc, ...]:
    if len(messages) > ARCS_MAX:
        raise MalformedMessage(f"a parcel with {len(messages)} arcs: at most {ARCS_MAX} are due")
    arcs = tuple([Arc(message.ring, message.end) for message in messages])
    for arc in arcs:
        if arc.ring >= RINGS:
            raise MalformedMessage("an arc of an unknown ring")
    return arcs


def encode_link_reply(reply: LinkReply) -> peer_pb.LinkResponse:
    """Write what the receiver of parcels says back."""
    return peer_pb.LinkResponse(
        acknowledged=reply.acknowledged,
        receipts=[
            peer_pb.PayloadReceipt(payload=payload, ring=ring, applied=names)
            for payload, ring, names in reply.applied
        ],
    )


def decode_link_reply(message: peer_pb.LinkResponse) -> LinkReply:
    """Read what the receiver of parcels says back."""
    _check_parcels(message.receipts)
    return LinkReply(
        message.acknowledged,
        [Applied(each.payload, each.ring, tuple(each.applied)) for each in message.receipts],
    )


def encode_dots(dots: Iterable[StreamRange]) -> list[types_pb2.Dots]:
    """Write ranges of dots."""
    return [
        types_pb2.Dots(
            namespace=stream.namespace,
            origin=encode_origin(stream.origin),
            lane=encode_lane(stream.lane),
            first=first,
            last=last,
        )
        for stream, (first, last) in dots
    ]


def decode_dots(messages: Sequence[types_pb2.Dots]) -> list[StreamRange]:
    """Read ranges of dots."""
    if not 1 <= len(messages) <= DOTS_MAX:
        raise MalformedMessage(f"{len(messages)} ranges of dots: 1 to {DOTS_MAX} are due")
    result = []
    for message in messages:
        origin = decode_origin_message(message.origin)
        stream = decode_stream(message.namespace, origin, int(message.lane))
        if not 1 <= message.first <= message.last <= NUMBER_MAX:
            raise MalformedMessage("an illegal range of dots")
        result.append(StreamRange(stream, (message.first, message.last)))
    return result


def _check_parcels(messages: Sequence[object]) -> None:
    if len(messages) > PARCELS_MAX:
        raise MalformedMessage(f"{len(messages)} in one message: at most {PARCELS_MAX} are due")


def _decode_age(milliseconds: int) -> float:
    if milliseconds > AGE_MAX_MS:
        raise MalformedMessage("an illegal age")
    return milliseconds / 1000


def _age_ms(seconds: float) -> int:
    """Round down: a row may be called younger than it is, never older."""
    return min(int(max(seconds, 0.0) * 1000), AGE_MAX_MS)
