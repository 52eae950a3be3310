"""Any bytes are a value or the one error that is due; what was encoded is decoded as it was."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from decoders import DECODERS, Decoder
from hypothesis import given
from hypothesis import strategies as st

from coherd.errors import MalformedMessage
from coherd.model import Lane, Origin, Position, Stream
from coherd.net import peer_codec as codec
from coherd.net.peer import FetchPart, Have, LinkReply, MemberInfo, Parcel, StreamRange
from coherd.replication.intervals import Intervals
from coherd.replication.parcels import Applied, Arc
from coherd.replication.repair import Answer

EVERY = pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)


def attempt(decoder: Decoder, data: bytes) -> None:
    with contextlib.suppress(*decoder.raises):
        decoder.decode(data)


@EVERY
def test_what_is_valid_is_decoded(decoder: Decoder) -> None:
    for data in decoder.valid:
        assert decoder.decode(data) is not None


@EVERY
@pytest.mark.bad_input(23)
@given(data=st.binary(max_size=400))
def test_any_bytes(decoder: Decoder, data: bytes) -> None:
    attempt(decoder, data)


@EVERY
@pytest.mark.bad_input(23)
@given(data=st.data())
def test_valid_bytes_with_some_changed(decoder: Decoder, data: st.DataObject) -> None:
    mutated = bytearray(data.draw(st.sampled_from(decoder.valid)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated)))
        mutated[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    attempt(decoder, bytes(mutated))


@EVERY
@pytest.mark.bad_input(21)
def test_every_prefix(decoder: Decoder) -> None:
    for data in decoder.valid:
        for end in range(len(data)):
            attempt(decoder, data[:end])


# ---------------------------------------------------------------- round trips

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
NAMESPACES = st.from_regex(r"[a-z0-9._-]{1,64}", fullmatch=True)
ORIGINS = st.builds(Origin, NAMES, st.integers(1, 4_102_444_800_000))
STREAMS = st.builds(Stream, NAMESPACES, ORIGINS, st.sampled_from(Lane))
NUMBERS = st.lists(st.integers(1, 2**62), max_size=8).map(
    lambda numbers: Intervals((n, n + n % 5) for n in sorted(numbers))
)
SECONDS = st.integers(0, 2**40).map(lambda quarters: quarters / 4)
SOME = st.lists(st.tuples(STREAMS, NUMBERS), max_size=5, unique_by=lambda pair: pair[0])
MEMBERS = st.builds(
    MemberInfo,
    NAMES,
    st.integers(1, 4_102_444_800_000),
    st.from_regex(r"[a-z0-9.:]{1,30}", fullmatch=True),
    NAMES,
    st.lists(NAMESPACES, max_size=4).map(tuple),
    st.from_regex(r"[a-z0-9.]{0,20}", fullmatch=True),
)


@given(st.builds(Have, ORIGINS, SOME, st.integers(0, 2**64 - 1), st.booleans()))
def test_a_have_survives_the_wire(have: Have) -> None:
    assert codec.decode_have(codec.encode_have(have)) == have


@given(MEMBERS)
def test_a_member_survives_the_wire(member: MemberInfo) -> None:
    assert codec.decode_member(codec.encode_member(member)) == member


ARCS = st.lists(st.builds(Arc, st.integers(0, 1), st.integers(0, 2**64 - 1)), max_size=2).map(tuple)


@given(
    st.lists(st.builds(Parcel, st.integers(0, 2**60), st.binary(), SECONDS, st.booleans(), ARCS))
)
def test_parcels_survive_the_wire(parcels: list[Parcel]) -> None:
    assert codec.decode_parcels(codec.encode_parcels(parcels)) == parcels


@given(
    st.builds(
        LinkReply,
        st.integers(0, 2**60),
        st.lists(
            st.builds(
                Applied, st.integers(0, 2**64 - 1), st.integers(0, 1), st.lists(NAMES).map(tuple)
            )
        ),
    )
)
def test_a_reply_survives_the_wire(reply: LinkReply) -> None:
    assert codec.decode_link_reply(codec.encode_link_reply(reply)) == reply


@given(st.lists(st.tuples(STREAMS, st.integers(1, 2**62), st.integers(0, 2**62 - 1)), min_size=1))
def test_dots_survive_the_wire(ranges: list[Any]) -> None:
    dots = [StreamRange(stream, (low, low + more)) for stream, low, more in ranges]
    assert codec.decode_dots(codec.encode_dots(dots)) == dots


@given(st.lists(st.tuples(st.binary(), SECONDS), max_size=4), SOME, NUMBERS, NUMBERS, SECONDS)
def test_the_answer_to_a_fetch_survives_the_wire(
    blocks: Any, some: Any, blank: Intervals, unknown: Intervals, age: float
) -> None:
    answers = {
        stream: Answer(Intervals(), numbers, blank, age if blank else 0.0, unknown, numbers)
        for stream, numbers in some
    }
    part = FetchPart(blocks, answers, 0.5)
    read = codec.decode_part(codec.encode_part(part))
    assert read.answers == part.answers
    assert read.blocks == blocks


@given(st.builds(Position, NAMES, st.integers(0, 4_102_444_800_000), st.integers(0, 2**63 - 1)))
def test_a_position_is_read_as_it_was_written(position: Position) -> None:
    assert Position.parse(str(position)) == position


def test_a_row_is_never_said_to_be_older_than_it_is() -> None:
    (parcel,) = codec.decode_parcels(codec.encode_parcels([Parcel(1, b"", 2097.1519, True)]))
    assert 2097.150 <= parcel.age <= 2097.1519


def test_a_message_is_not_decoded_by_half() -> None:
    """One bad part of it refuses the whole."""
    message = codec.encode_parcels([Parcel(1, b"x", 1.0, True), Parcel(2, b"y", 1.0, True)])
    message.parcels[1].age_ms = 2**60
    with pytest.raises(MalformedMessage, match="age"):
        codec.decode_parcels(message)
