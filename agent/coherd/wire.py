"""Rows and sets of numbers as bytes (floor 2): the only place that knows the payload's encoding.

A payload is one batch, encoded once where it was accepted and forwarded, stored and served as the same
bytes. It is a MessagePack array; later versions may only append elements, which older ones pass on
untouched::

    [version, namespace, origin name, origin epoch, lane, effect, stamp, ranges, selectors, versions,
     reason]

`ranges` and every set of numbers between agents are flat lists: the first number, then by turns how many
follow it without a gap and the distance from there to the next range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from coherd.errors import MalformedMessage
from coherd.model import (
    EPOCH_MAX,
    NAME_PATTERN,
    NAMESPACE_PATTERN,
    NUMBER_MAX,
    REASON_MAX,
    SELECTOR_BYTES_MAX,
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
BATCH_ROWS_MAX = 1_000
"""Rows of one batch."""
PAYLOAD_BYTES_MAX = 2 * 1024 * 1024
"""Bytes of one payload: a batch of 1 MiB and its frame."""
RANGES_MAX = 1_000_000
"""Ranges of one set of numbers."""
_KINDS = frozenset(Kind)


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
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise MalformedMessage(f"a payload of {len(payload)} bytes")
    fields = msgpack.unpackb(payload, use_list=True, strict_map_key=True)
    version, namespace, name, epoch, lane, effect, stamp, *columns = fields[:11]
    ranges, selectors, versions, reason = columns
    if type(version) is not int or version < 1:
        raise MalformedMessage("a payload without a version")
    origin = decode_origin(name, epoch)
    stream = decode_stream(namespace, origin, lane)
    numbers = decode_ranges(ranges)
    if not isinstance(selectors, list) or not 1 <= len(selectors) <= BATCH_ROWS_MAX:
        raise MalformedMessage("a payload without rows or with too many")
    check_selectors(selectors)
    if sum(high - low + 1 for low, high in numbers) != len(selectors):
        raise MalformedMessage("as many numbers as rows are due")
    if type(effect) is not int or effect not in {Effect.DROP, Effect.STALE}:
        raise MalformedMessage("an unknown effect")
    _integer(stamp, STAMP_MAX, "stamp")
    if versions is not None:
        _check_versions(versions, len(selectors))
    if not isinstance(reason, str) or len(reason) > REASON_MAX:
        raise MalformedMessage("an illegal reason")
    return Batch(stream, numbers, selectors, Effect(effect), versions, stamp, reason)


def decode_origin(name: Any, epoch: Any) -> Origin:
    """Check a name and an epoch. Raises MalformedMessage."""
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise MalformedMessage("an illegal agent name")
    return Origin(name, _integer(epoch, EPOCH_MAX, "epoch", least=1))


def decode_stream(namespace: Any, origin: Origin, lane: Any) -> Stream:
    """Check a namespace and a lane. Raises MalformedMessage."""
    if not isinstance(namespace, str) or not NAMESPACE_PATTERN.fullmatch(namespace):
        raise MalformedMessage("an illegal namespace")
    if type(lane) is not int or lane not in {1, 2, 3}:
        raise MalformedMessage("an unknown lane")
    return Stream(namespace, origin, Lane(lane))


def check_selectors(selectors: Sequence[Any]) -> None:
    """Check kinds and lengths. Raises MalformedMessage."""
    for selector in selectors:
        if type(selector) is not bytes or not 1 <= len(selector) <= SELECTOR_BYTES_MAX + 1:
            raise MalformedMessage("an illegal selector")
        if selector[0] not in _KINDS or (len(selector) == 1) != (selector[0] == Kind.NAMESPACE):
            raise MalformedMessage("an illegal selector")


def _check_versions(versions: Any, rows: int) -> None:
    if not isinstance(versions, list) or len(versions) != rows:
        raise MalformedMessage("as many versions as rows are due")
    for each in versions:
        _integer(each, NUMBER_MAX, "version")


def encode_ranges(ranges: Iterable[Range]) -> list[int]:
    """Write ranges as first number, run, distance, run, distance, run …"""
    result: list[int] = []
    end = 0
    for low, high in ranges:
        result += (low - end, high - low)
        end = high
    return result


def decode_ranges(flat: Any) -> tuple[Range, ...]:
    """Read what `encode_ranges` wrote. Raises MalformedMessage unless ascending and disjoint."""
    if not isinstance(flat, list) or not flat or len(flat) % 2 or len(flat) > 2 * RANGES_MAX:
        raise MalformedMessage("an illegal set of numbers")
    result: list[Range] = []
    end = 0
    for i in range(0, len(flat), 2):
        gap, run = flat[i], flat[i + 1]
        # Two ranges that touch would be one.
        _integer(gap, NUMBER_MAX, "number", least=1 if i == 0 else 2)
        _integer(run, NUMBER_MAX, "number")
        low = end + gap
        end = low + run
        if end > NUMBER_MAX:
            raise MalformedMessage("a number beyond the greatest")
        result.append((low, end))
    return tuple(result)


def encode_numbers(numbers: Intervals) -> list[int]:
    """Write a set of numbers; an empty list when it is empty."""
    return encode_ranges(numbers.ranges())


def decode_numbers(flat: Iterable[int]) -> Intervals:
    """Read a set of numbers, which may be empty. Raises MalformedMessage."""
    ranges = list(flat)
    return Intervals(decode_ranges(ranges)) if ranges else Intervals()


def _integer(value: Any, greatest: int, what: str, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= greatest:
        raise MalformedMessage(f"an illegal {what}")
    return value
