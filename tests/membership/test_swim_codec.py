"""Messages as bytes: what goes in comes out; anything else is MalformedDatagram, and takes little memory."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pair import LABEL, datagram, news, section_of

from coherd_membership import MalformedDatagram, News, Status
from coherd_membership import _codec as codec
from coherd_membership._member import ACCUSERS_MAX
from coherd_membership._messages import Kind, Message, Meta

TEXT = st.text(min_size=1, max_size=30)
NUMBER_32 = st.integers(0, 2**32 - 1)
NUMBER_64 = st.integers(0, 2**64 - 1)
ANY_NEWS = st.builds(
    News,
    name=TEXT,
    epoch=NUMBER_64,
    incarnation=NUMBER_32,
    status=st.sampled_from(Status),
    address=TEXT,
    version=NUMBER_32,
    accusers=st.lists(TEXT, max_size=ACCUSERS_MAX).map(tuple),
)
METAS = st.builds(Meta, TEXT, NUMBER_64, NUMBER_32, st.binary(max_size=100))
MESSAGES = st.builds(
    Message,
    kind=st.integers(0, 255),
    protocol_min=st.just(codec.PROTOCOL_MIN),
    protocol_max=st.just(codec.PROTOCOL_MAX),
    cluster=NUMBER_64,
    root=NUMBER_64,
    sequence=NUMBER_32,
    sender=ANY_NEWS,
    target=st.text(max_size=30),
    address=st.text(max_size=30),
    mask=NUMBER_64,
    wants_back=st.booleans(),
    buckets=st.one_of(st.just(()), st.tuples(*[NUMBER_64] * codec.BUCKETS)),
    names=st.lists(st.text(max_size=10), max_size=4).map(tuple),
    news=st.lists(ANY_NEWS, max_size=3).map(tuple),
    metas=st.lists(METAS, max_size=2).map(tuple),
)


def encode(message: Message) -> bytes:
    parts = [
        codec.head(
            message.kind, message.cluster, message.root, message.sequence,
            codec.encode_news(message.sender), message.target,
        ),
        codec.section(codec.ADDRESS, message.address.encode()),
        codec.section(codec.MASK, codec.encode_mask(message.mask, wants_back=message.wants_back)),
        codec.section(codec.NAMES, codec.encode_texts(message.names)),
    ]  # fmt: skip
    if message.buckets:
        parts.append(codec.section(codec.BUCKET_SUMS, codec.encode_buckets(message.buckets)))
    parts += map(section_of, message.news)
    parts += [codec.section(codec.METADATA, codec.encode_meta(meta)) for meta in message.metas]
    return b"".join(parts)


def attempt(data: bytes) -> Message | None:
    """Read bytes; None for what is malformed. Whatever else is raised fails the test."""
    try:
        return codec.decode(data)
    except MalformedDatagram:
        return None


@given(MESSAGES)
def test_what_goes_in_comes_out(message: Message) -> None:
    assert codec.decode(encode(message)) == message


@given(st.binary(max_size=300))
def test_any_bytes_are_malformed(data: bytes) -> None:
    assert attempt(data) is None


@given(tail=st.binary(max_size=300))
def test_any_bytes_behind_a_valid_beginning(tail: bytes) -> None:
    attempt(datagram(Kind.TELL, "a") + tail)


@given(message=MESSAGES, data=st.data())
def test_any_mutation_of_a_message(message: Message, data: st.DataObject) -> None:
    valid = encode(message)
    for _ in range(3):
        at = data.draw(st.integers(0, len(valid)))
        cut = data.draw(st.integers(0, 4))
        mutated = valid[:at] + data.draw(st.binary(max_size=4)) + valid[at + cut :]
        attempt(mutated)


@given(message=MESSAGES)
def test_every_beginning_of_a_message_is_a_message_or_malformed(message: Message) -> None:
    valid = encode(message)
    head = codec._HEAD.size + len(codec.encode_news(message.sender))
    for end in range(len(valid)):
        read = attempt(valid[:end])
        assert (read is None) >= (end <= head)


def test_numbers_at_their_ends() -> None:
    word = news("x", epoch=2**64 - 1, incarnation=2**32 - 1, version=2**32 - 1)
    assert codec.decode(datagram(Kind.TELL, word)).sender == word


def test_texts_have_their_limit() -> None:
    longest = news("n" * 255, address="a" * 255, accusers=("p" * 255,) * 3)
    assert codec.decode(datagram(Kind.TELL, longest, target="t" * 255)).sender == longest
    with pytest.raises(ValueError, match="at most 255"):
        codec.encode_news(news("n" * 256))


def malformed(data: bytes, reason: str) -> None:
    with pytest.raises(MalformedDatagram, match=reason):
        codec.decode(data)


def raw_news(status: int = 0, accusers: int = 0, name: str = "x", at: str = "x:1") -> bytes:
    return struct.pack("!BBQII", status, accusers, 1, 1, 0) + codec.encode_texts([name, at])


def with_news(item: bytes) -> bytes:
    return datagram(Kind.TELL, "a", content=codec.section(codec.NEWS, item))


def test_what_is_wrong_is_said() -> None:
    malformed(b"xx" + datagram(Kind.TELL, "a")[2:], "no datagram")
    malformed(datagram(Kind.TELL, "a") + bytes(codec.DATAGRAM_BYTES_MAX), "65536 are read")
    malformed(with_news(raw_news(accusers=4)), "at most 3")
    malformed(with_news(raw_news(name="")), "nobody")
    malformed(with_news(raw_news(at="")), "nowhere")
    malformed(with_news(raw_news(accusers=1)), "missing")
    malformed(codec.head(6, LABEL, 0, 0, raw_news(status=9)), "status")
    malformed(codec.head(6, LABEL, 0, 0, codec.encode_news(news("a")), "target")[:-1], "target")
    malformed(datagram(6, "a") + struct.pack("!BH", 1, 9) + b"short", "within a part")
    malformed(with_news(raw_news()[:-1]), "within a part")


def test_a_section_that_claims_more_than_there_is_allocates_nothing() -> None:
    malformed(datagram(6, "a") + struct.pack("!BH", codec.BUCKET_SUMS, 65_535), "within a part")
    malformed(datagram(6, "a", content=codec.section(codec.BUCKET_SUMS, bytes(8))), "buffer")


def test_the_same_bytes_give_the_same_object() -> None:
    one, other = (codec.decode(datagram(6, "a", told=[news("x")])).news[0] for _ in range(2))
    assert one is other


def test_what_follows_news_is_passed_over_and_not_kept() -> None:
    """A cache by bytes must not hold as many long datagrams as it has places."""
    codec.decode_news.cache_clear()
    tracemalloc.start()
    for number in range(100):
        tail = bytes([number]) * 60_000
        assert codec.decode(with_news(raw_news() + tail)).news == (news("x", address="x:1"),)
        codec.decode(codec.head(6, LABEL, 0, 0, raw_news() + tail))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2 * 100 * 2 * codec.NEWS_BYTES_MAX


def test_clusters_have_labels_of_their_own() -> None:
    assert codec.cluster_label("a") == codec.cluster_label("a") != codec.cluster_label("b")
    assert 0 <= codec.cluster_label("") < 2**64
