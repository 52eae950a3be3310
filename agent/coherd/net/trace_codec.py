"""Where rows got to, between plain values and protobuf: both directions, checked as in `peer_codec`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from coherd.errors import MalformedMessage
from coherd.limits import (
    AGE_MAX_MS,
    ISSUER_MAX,
    LOG_TEXT_MAX,
    NUMBER_MAX,
    REASON_MAX,
    TRACE_READERS_MAX,
    TRACE_ROWS_MAX,
    TRACE_SELECTORS_MAX,
)
from coherd.model import NAMESPACE_PATTERN, Effect
from coherd.net.peer_codec import decode_dots, encode_dots, encode_origin
from coherd.net.traces import TracedReader, TracedRow, TraceQuestion, TraceReply
from coherd.v1 import peer_service_pb2 as peer_pb
from coherd.v1 import types_pb2
from coherd.wire import check_selectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coherd.model import Origin
    from coherd.net.peer import StreamRange

_EFFECTS = frozenset(map(int, Effect))


def encode_question(sender: Origin, question: TraceQuestion) -> peer_pb.TraceRequest:
    """Write which rows are meant."""
    return peer_pb.TraceRequest(
        sender=encode_origin(sender),
        namespace=question.namespace,
        selectors=question.selectors,
        rows=question.rows,
        dots=encode_dots(question.dots),
    )


def decode_question(message: peer_pb.TraceRequest) -> TraceQuestion:
    """Read which rows are meant."""
    if not NAMESPACE_PATTERN.fullmatch(message.namespace):
        raise MalformedMessage("an illegal namespace")
    if len(message.selectors) > TRACE_SELECTORS_MAX:
        raise MalformedMessage(f"more than {TRACE_SELECTORS_MAX} selectors to trace")
    check_selectors(message.selectors)
    _check_count(message.rows)
    dots = _decode_each(message.dots, message.namespace)
    return TraceQuestion(message.namespace, list(message.selectors), message.rows, dots)


def encode_reply(reply: TraceReply) -> peer_pb.TraceResponse:
    """Write what is known here."""
    return peer_pb.TraceResponse(
        rows=map(encode_row, reply.rows), started_us=reply.started_us, since_us=reply.since_us
    )


def decode_reply(message: peer_pb.TraceResponse, namespace: str) -> TraceReply:
    """Read what a peer knows of rows of a namespace."""
    _check_count(len(message.rows))
    _check_time(message.started_us)
    _check_time(message.since_us)
    rows = [decode_row(row, namespace) for row in message.rows]
    return TraceReply(rows, message.started_us, message.since_us)


def encode_row(row: TracedRow) -> types_pb2.TracedRow:
    """Write a row."""
    return types_pb2.TracedRow(
        dots=encode_dots([row.dot])[0] if row.dot else None,
        selector=row.selector,
        effect=cast("types_pb2.Effect.ValueType", int(row.effect)),
        version=row.version,
        stamp=row.stamp,
        cause=row.cause,
        reason=row.reason,
        issuer=row.issuer,
        age_ms=_ms(row.age),
        late_ms=None if row.late is None else _ms(row.late),
        received_us=row.received_us,
        readers=[
            types_pb2.TracedReader(
                label=each.label, kind=each.kind, applied=each.applied, applied_us=each.applied_us
            )
            for each in row.readers
        ],
    )


def decode_row(message: types_pb2.TracedRow, namespace: str) -> TracedRow:
    """Read a row; long texts are cut."""
    dots = _decode_each([message.dots] if message.HasField("dots") else [], namespace)
    if message.selector:
        check_selectors([message.selector])
    elif not dots:
        raise MalformedMessage("a row without a name")
    if int(message.effect) not in _EFFECTS:
        raise MalformedMessage("an unknown effect")
    if message.version > NUMBER_MAX or max(message.age_ms, message.late_ms) > AGE_MAX_MS:
        raise MalformedMessage("an illegal version or age")
    if len(message.readers) > TRACE_READERS_MAX:
        raise MalformedMessage(f"more than {TRACE_READERS_MAX} caches of one row")
    _check_time(message.received_us)
    return TracedRow(
        dot=dots[0] if dots else None,
        selector=message.selector,
        effect=Effect(int(message.effect)),
        version=message.version,
        stamp=message.stamp,
        cause=message.cause[:LOG_TEXT_MAX],
        reason=message.reason[:REASON_MAX],
        issuer=message.issuer[:ISSUER_MAX],
        age=message.age_ms / 1000,
        late=message.late_ms / 1000 if message.HasField("late_ms") else None,
        received_us=message.received_us if message.HasField("received_us") else None,
        readers=[_decode_reader(reader) for reader in message.readers],
    )


def _decode_reader(message: types_pb2.TracedReader) -> TracedReader:
    _check_time(message.applied_us)
    return TracedReader(
        message.label[:LOG_TEXT_MAX],
        message.kind[:LOG_TEXT_MAX],
        message.applied,
        message.applied_us if message.HasField("applied_us") else None,
    )


def _decode_each(messages: Sequence[types_pb2.Dots], namespace: str) -> list[StreamRange]:
    """Read single rows of a namespace."""
    _check_count(len(messages))
    dots = decode_dots(messages) if messages else []
    for stream, (first, last) in dots:
        if first != last or stream.namespace != namespace:
            raise MalformedMessage("single rows of one namespace are due")
    return dots


def _check_count(rows: int) -> None:
    if rows > TRACE_ROWS_MAX:
        raise MalformedMessage(f"{rows} rows to trace: at most {TRACE_ROWS_MAX} are due")


def _check_time(us: int) -> None:
    if us > NUMBER_MAX:
        raise MalformedMessage("an illegal time")


def _ms(seconds: float) -> int:
    return min(int(max(seconds, 0.0) * 1000), AGE_MAX_MS)
