"""What is encoded is decoded as it was, and whatever else is MalformedMessage and nothing else."""

from __future__ import annotations

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coherd import wire
from coherd.errors import MalformedMessage
from coherd.limits import BATCH_ROWS_MAX
from coherd.model import EVERYTHING, Batch, Effect, Lane, Origin, Stream
from coherd.replication.intervals import Intervals
from coherd.wire import (
    decode_batch,
    decode_numbers,
    decode_ranges,
    encode_batch,
    encode_numbers,
)

STREAM = Stream("shop", Origin("cache-1", 1_790_000_000_000), Lane.BULK)
SELECTORS = st.one_of(
    st.builds(
        lambda kind, text: kind + text, st.sampled_from([b"k", b"t", b"p"]), st.binary(min_size=1)
    ),
    st.just(EVERYTHING),
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    selectors = draw(st.lists(SELECTORS, min_size=1, max_size=20))
    numbers = Intervals()
    n = 0
    for _ in selectors:
        n += draw(st.integers(1, 3))
        numbers.add(n, n)
    versions = draw(
        st.none()
        | st.lists(st.integers(0, 2**63 - 1), min_size=len(selectors), max_size=len(selectors))
    )
    return Batch(
        STREAM,
        numbers.ranges(),
        selectors,
        draw(st.sampled_from(Effect)),
        versions,
        2**64 - 1,
        "why",
    )


@given(batches(), st.integers(0, 400), st.integers(0, 255), st.integers(0, 400))
def test_a_small_payload_is_read_as_a_large_one_is(
    batch: Batch, at: int, byte: int, length: int
) -> None:
    payload = bytearray(encode_batch(batch))
    if at < len(payload):
        payload[at] = byte
    damaged = bytes(payload) if length > len(payload) else bytes(payload[:length])
    results = []
    for tiny_bytes in (wire._TINY_BYTES, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wire, "_TINY_BYTES", tiny_bytes)
            try:
                results.append(repr(decode_batch(damaged)))
            except MalformedMessage:
                results.append("malformed")
    assert results[0] == results[1]


@pytest.mark.parametrize("lane", [True, 2.0])
def test_what_equals_a_number_is_none(lane: object) -> None:
    fields = msgpack.unpackb(
        encode_batch(Batch(STREAM._replace(lane=Lane.NORMAL), ((1, 1),), [b"kx"]))
    )
    decode_batch(msgpack.packb(fields))
    fields[4] = lane
    with pytest.raises(MalformedMessage):
        decode_batch(msgpack.packb(fields))


@given(batches())
def test_a_batch_survives_the_wire(batch: Batch) -> None:
    assert decode_batch(encode_batch(batch)) == batch


@given(batches(), st.data())
def test_a_damaged_payload_is_malformed_or_another_legal_batch(
    batch: Batch, data: st.DataObject
) -> None:
    payload = bytearray(encode_batch(batch))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedMessage):
        encode_batch(decode_batch(bytes(payload)))


@given(batches())
def test_every_prefix_and_a_trailing_byte_are_malformed(batch: Batch) -> None:
    payload = encode_batch(batch)
    for end in range(len(payload)):
        with pytest.raises(MalformedMessage):
            decode_batch(payload[:end])
    with pytest.raises(MalformedMessage):
        decode_batch(payload + b"\0")


@given(st.binary(max_size=200))
def test_any_bytes_are_malformed_or_a_batch(data: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        decode_batch(data)


FIELDS = [1, "shop", "a", 7, 2, 2, 0, [1, 0], [b"kx"], None, "", ""]


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, 0), (0, "1"), (0, True), (1, "Shop"), (1, "../etc"), (1, "x" * 65), (1, b"shop"), (2, ""),
        (2, "a\n"), (3, 0), (3, -1), (3, 2**62), (3, 1.0), (4, 0), (4, 4), (4, True), (5, 0), (5, 3),
        (5, True), (5, []), (5, {}),
        (6, -1), (6, float("nan")), (7, []), (7, [0, 0]), (7, [1, 1]), (7, [1, -1]),
        (7, [2**63, 0]), (7, [1]), (7, {}), (8, []), (8, [b""]), (8, [b"k"]), (8, [b"nx"]), (8, [b"zx"]),
        (8, ["kx"]), (8, [b"k" + b"x" * 1025]), (8, [b"kx"] * 2), (9, []), (9, [-1]), (9, [2**63]), (9, 1),
        (10, None), (10, "x" * 257), (11, None), (11, 1), (11, "a"), (11, "a/"), (11, "/a"), (11, b""),
        (11, "A/a"), (11, "client/" + "x" * 129), (11, "x" * 16 + "/a"),
    ],
)  # fmt: skip
def test_an_illegal_field_is_malformed(index: int, value: object) -> None:
    fields = [*FIELDS]
    decode_batch(msgpack.packb(fields))
    fields[index] = value
    with pytest.raises(MalformedMessage):
        decode_batch(msgpack.packb(fields))


def test_what_a_newer_version_appends_is_passed_over() -> None:
    newer = [2, *FIELDS[1:], "something new", {"more": 1}]
    assert decode_batch(msgpack.packb(newer)) == decode_batch(msgpack.packb(FIELDS))


def test_a_batch_of_the_greatest_size_is_legal_and_one_more_row_is_not() -> None:
    for rows in (BATCH_ROWS_MAX, BATCH_ROWS_MAX + 1):
        payload = encode_batch(Batch(STREAM, ((1, rows),), [b"kx"] * rows))
        if rows == BATCH_ROWS_MAX:
            assert len(decode_batch(payload)) == rows
        else:
            with pytest.raises(MalformedMessage):
                decode_batch(payload)


def test_a_part_of_a_legal_batch_is_legal() -> None:
    """It is stored as it is: one that could not be read again would end the agent at every start."""
    wide = tuple((n, n + 2) for n in range(1, 4 * BATCH_ROWS_MAX // 3 - 3, 4))
    payload = encode_batch(Batch(STREAM, wide, [b"kx"] * 3 * len(wide)))
    with pytest.raises(MalformedMessage, match="in one go"):
        decode_batch(payload)
    legal = decode_batch(encode_batch(Batch(STREAM, ((1, 1000),), [b"kx"] * BATCH_ROWS_MAX)))
    part = legal.select(tuple((n, n) for n in range(1, BATCH_ROWS_MAX, 2)))
    assert decode_batch(encode_batch(part)) == part


@given(st.sets(st.integers(1, 60)))
def test_a_set_of_numbers_survives_the_wire(numbers: set[int]) -> None:
    intervals = Intervals((n, n) for n in sorted(numbers))
    assert decode_numbers(encode_numbers(intervals)) == intervals


@given(st.lists(st.integers(-3, 9)))
def test_ranges_are_malformed_or_ascending_and_disjoint(flat: list[int]) -> None:
    try:
        ranges = decode_ranges(flat)
    except MalformedMessage:
        return
    assert Intervals(ranges).ranges() == ranges


def test_who_issued_rows_is_read_and_is_nobody_in_what_earlier_versions_wrote() -> None:
    batch = Batch(STREAM, ((1, 1),), [b"kx"], issuer="client/web-1")
    assert decode_batch(encode_batch(batch)) == batch
    assert batch.select(((1, 1),)).issuer == "client/web-1"
    older = [*FIELDS[:10], "why"]
    assert decode_batch(msgpack.packb(older)).issuer == ""
    long = [*FIELDS[:8], [b"k" + b"x" * 1000], None, "why" * 40]  # is read field by field
    for fields in (long, [*long, "operator/ann"]):
        assert decode_batch(msgpack.packb(fields)).issuer == "".join(fields[11:])
