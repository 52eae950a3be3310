"""Rows and sets of numbers as bytes (floor 2): the only place that knows the payload's encoding.

A payload is one batch, encoded once where it was accepted and forwarded, stored and served as the same
bytes. It is a MessagePack array; later versions may only append elements, which older ones pass on
untouched::

    [version, namespace, origin name, origin epoch, lane, effect, stamp, ranges, selectors, versions,
     reason, issuer]

`issuer` was appended: where it is missing nobody was known by a certificate.

`ranges` and every set of numbers between agents are flat lists: the first number, then by turns how many
follow it without a gap and the distance from there to the next range.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgpack

from coherd.errors import MalformedMessage
from coherd.limits import (
    BATCH_RANGES_MAX,
    BATCH_ROWS_MAX,
    EPOCH_MAX,
    NUMBER_MAX,
    PAYLOAD_BYTES_MAX,
    REASON_MAX,
    SELECTOR_BYTES_MAX,
)
from coherd.model import (
    ISSUER_PATTERN,
    NAME_PATTERN,
    NAMESPACE_PATTERN,
    Batch,
    Effect,
    Kind,
    Lane,
    Origin,
    Stream,
)
from coherd.replication.clock import STAMP_MAX
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from coherd.model import Range

PAYLOAD_VERSION = 1
_FIELDS_MIN = 11
_FIELDS = 12
_KINDS = frozenset(map(int, Kind))
_EFFECTS = {int(effect): effect for effect in Effect}
_LANES = {int(lane): lane for lane in Lane}
_WHOLE = int(Kind.NAMESPACE)
_NIL = 0xC0
_TINY_BYTES = 1024
_TINY_LIST_MAX = 64
"""A payload of so few bytes can be unpacked at once: lists in it that claim to be so long do no harm."""
_STREAMS_KEPT = 1024


def encode_batch(batch: Batch) -> bytes:
    """Give the payload of a batch."""
    stream = batch.stream
    packed: bytes = msgpack.packb(
        (
            PAYLOAD_VERSION,
            stream.namespace,
            stream.origin.name,
            stream.origin.epoch,
            int(stream.lane),
            int(batch.effect),
            batch.stamp,
            encode_ranges(batch.numbers),
            batch.selectors,
            batch.versions,
            batch.reason,
            batch.issuer,
        )
    )
    return packed


def decode_batch(payload: bytes) -> Batch:
    """Read a payload. Raises MalformedMessage for whatever is not a whole, legal batch."""
    try:
        return _decode_batch(payload)
    except MalformedMessage:
        raise
    except Exception as error:  # a peer may never raise anything else here
        raise MalformedMessage(f"not a payload: {type(error).__name__}") from None


def _decode_batch(payload: bytes) -> Batch:
    fields = _unpack_tiny(payload) if len(payload) <= _TINY_BYTES else None
    (
        version,
        namespace,
        name,
        epoch,
        lane,
        effect,
        stamp,
        flat,
        selectors,
        versions,
        reason,
        issuer,
    ) = fields or _unpack(payload)
    if type(version) is not int or version < 1:
        raise MalformedMessage("a payload without a version")
    if type(epoch) is not int or type(lane) is not int:
        raise MalformedMessage("an illegal epoch or lane")
    stream = _stream(namespace, name, epoch, lane)
    if type(effect) is not int or effect not in _EFFECTS:
        raise MalformedMessage("an unknown effect")
    _integer(stamp, STAMP_MAX, "stamp")
    numbers = decode_ranges(flat)
    check_selectors(selectors)
    if sum([high - low + 1 for low, high in numbers]) != len(selectors):
        raise MalformedMessage("as many numbers as rows are due")
    if numbers[-1][1] - numbers[0][0] >= BATCH_ROWS_MAX:  # a part of it may be too many ranges
        raise MalformedMessage("rows that were not numbered in one go")
    if versions is not None:
        _check_versions(versions, len(selectors))
    if type(reason) is not str or len(reason) > REASON_MAX:
        raise MalformedMessage("an illegal reason")
    if issuer != "" and (type(issuer) is not str or not ISSUER_PATTERN.fullmatch(issuer)):
        raise MalformedMessage("an illegal issuer")
    return Batch(stream, numbers, selectors, _EFFECTS[effect], versions, stamp, reason, issuer)


def _unpack_tiny(payload: bytes) -> list[Any] | None:
    """Give the fields of a small payload; None for one that is to be looked at more closely."""
    try:
        fields = msgpack.unpackb(
            payload, max_array_len=_TINY_LIST_MAX, max_map_len=0, max_ext_len=0
        )
    except (ValueError, msgpack.UnpackException):
        return None
    if type(fields) is not list or len(fields) != _FIELDS:
        return None
    ranges, selectors, versions = fields[7:10]
    if type(ranges) is list is type(selectors) and (versions is None or type(versions) is list):
        return fields
    return None


def _unpack(payload: bytes) -> list[Any]:
    """Give the fields of any payload, without those that later versions append."""
    size = len(payload)
    if size > PAYLOAD_BYTES_MAX:
        raise MalformedMessage(f"a payload of {size} bytes")
    # Element by element: only the lists that are due are made, and only once their length is known. A
    # few bytes can claim lists in lists in lists, each of the greatest length.
    reader = msgpack.Unpacker(
        read_size=size, max_buffer_size=size, max_array_len=0, max_map_len=0, max_ext_len=0
    )
    reader.feed(payload)
    fields = reader.read_array_header()
    scalars = list(islice(reader, 7))
    ranges = _list(reader, 2 * BATCH_RANGES_MAX)
    selectors = _list(reader, BATCH_ROWS_MAX)
    versions = reader.unpack() if payload[reader.tell()] == _NIL else _list(reader, BATCH_ROWS_MAX)
    reason = reader.unpack()
    issuer = reader.unpack() if fields > _FIELDS_MIN else ""
    for _ in range(fields - _FIELDS):  # what later versions append
        reader.skip()
    if fields < _FIELDS_MIN or reader.tell() != size:
        raise MalformedMessage("a payload with too few fields, or with something after them")
    return [*scalars, ranges, selectors, versions, reason, issuer]


@lru_cache(_STREAMS_KEPT)
def _stream(namespace: Any, name: Any, epoch: int, lane: int) -> Stream:
    """Check a stream: one object for all payloads of it. Raises MalformedMessage."""
    return decode_stream(namespace, decode_origin(name, epoch), lane)


def _list(reader: Any, longest: int) -> list[Any]:
    length = reader.read_array_header()
    if length > longest:
        raise MalformedMessage(f"a list of {length}: at most {longest} are due")
    return list(islice(reader, length))


def decode_origin(name: Any, epoch: Any) -> Origin:
    """Check a name and an epoch. Raises MalformedMessage."""
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise MalformedMessage("an illegal agent name")
    return Origin(name, _integer(epoch, EPOCH_MAX, "epoch", least=1))


def decode_stream(namespace: Any, origin: Origin, lane: Any) -> Stream:
    """Check a namespace and a lane. Raises MalformedMessage."""
    if not isinstance(namespace, str) or not NAMESPACE_PATTERN.fullmatch(namespace):
        raise MalformedMessage("an illegal namespace")
    if type(lane) is not int or lane not in _LANES:
        raise MalformedMessage("an unknown lane")
    return Stream(namespace, origin, _LANES[lane])


def check_selectors(selectors: Sequence[Any]) -> None:
    """Check kinds and lengths. Raises MalformedMessage."""
    for selector in selectors:
        if type(selector) is not bytes or not 1 <= len(selector) <= SELECTOR_BYTES_MAX + 1:
            raise MalformedMessage("an illegal selector")
        kind = selector[0]
        if kind not in _KINDS or (len(selector) == 1) != (kind == _WHOLE):
            raise MalformedMessage("an illegal selector")


def _check_versions(versions: Sequence[Any], rows: int) -> None:
    if len(versions) != rows or set(map(type, versions)) != {int}:
        raise MalformedMessage("as many versions as rows are due")
    if min(versions) < 0 or max(versions) > NUMBER_MAX:
        raise MalformedMessage("an illegal version")


def encode_ranges(ranges: Iterable[Range]) -> list[int]:
    """Write ranges as first number, run, distance, run, distance, run …"""
    result: list[int] = []
    end = 0
    for low, high in ranges:
        result += (low - end, high - low)
        end = high
    return result


def decode_ranges(flat: Sequence[Any]) -> tuple[Range, ...]:
    """Read what `encode_ranges` wrote. Raises MalformedMessage unless ascending and disjoint."""
    if not flat or len(flat) % 2:
        raise MalformedMessage("an illegal set of numbers")
    result: list[Range] = []
    end, least = 0, 1
    for at in range(0, len(flat), 2):
        gap, run = flat[at], flat[at + 1]
        if type(gap) is not int or type(run) is not int or gap < least or run < 0:
            raise MalformedMessage("an illegal set of numbers")
        low = end + gap
        end = low + run
        least = 2  # two ranges that touch would be one
        result.append((low, end))
    if end > NUMBER_MAX:
        raise MalformedMessage("a number beyond the greatest")
    return tuple(result)


def encode_numbers(numbers: Intervals) -> list[int]:
    """Write a set of numbers; an empty list when it is empty."""
    return encode_ranges(numbers.ranges())


def decode_numbers(flat: Iterable[int]) -> Intervals:
    """Read a set of numbers, which may be empty. Raises MalformedMessage."""
    ranges = list(flat)
    return Intervals.ascending(decode_ranges(ranges)) if ranges else Intervals()


def _integer(value: Any, greatest: int, what: str, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= greatest:
        raise MalformedMessage(f"an illegal {what}")
    return value
