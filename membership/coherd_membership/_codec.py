"""Messages as bytes.

    datagram  magic "cM" · protocol_min u8 · protocol_max u8 · kind u8 · cluster u64 · root u64 ·
              sequence u32 · length u16 · the sender's word as news · target as text · sections to the end
    section   tag u8 · length u16 · bytes          an unknown tag is passed over
    news      status u8 · accusers u8 · epoch u64 · incarnation u32 · version u32 · name · address ·
              accusers; what follows is passed over
    text      length u8 · UTF-8

All numbers are big-endian. A later version of the protocol adds sections, kinds, or bytes at the end of a
news; it changes nothing of this. Whatever else comes in raises MalformedDatagram and nothing else. Reading
takes memory in proportion to the datagram, whose size is bounded.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import TYPE_CHECKING

from coherd_membership._errors import MalformedDatagram
from coherd_membership._member import ACCUSERS_MAX, News, Status
from coherd_membership._messages import PROTOCOL_MAX, PROTOCOL_MIN, Message, Meta

if TYPE_CHECKING:
    from collections.abc import Iterable

MAGIC = b"cM"
DATAGRAM_BYTES_MAX = 65_536
"""A longer datagram is not read."""
TEXT_BYTES_MAX = 255
BUCKETS = 64
"""Into so many buckets the members are divided by name."""

_HEAD = Struct("!2sBBBQQIH")
_SECTION = Struct("!BH")
_NEWS = Struct("!BBQII")
_META = Struct("!QI")
_MASK = Struct("!QB")
_BUCKETS = Struct(f"!{BUCKETS}Q")
_NO_MASK = _MASK.pack(0, 0)
NEWS_BYTES_MAX = _NEWS.size + (2 + ACCUSERS_MAX) * (1 + TEXT_BYTES_MAX)
"""So much of a piece of news is read, and kept by the cache; what is longer comes from a later version."""

NEWS, ADDRESS, MASK, BUCKET_SUMS, NAMES, METADATA = range(1, 7)
"""The tags of sections."""


def cluster_label(cluster: str) -> int:
    """Give the label that messages of a cluster carry."""
    return int.from_bytes(blake2b(cluster.encode(), digest_size=8).digest())


def head(
    kind: int, cluster: int, root: int, sequence: int, sender: bytes, target: str = ""
) -> bytes:
    """Give the beginning of a message; `sender` is the sender's encoded word."""
    fixed = _HEAD.pack(
        MAGIC, PROTOCOL_MIN, PROTOCOL_MAX, kind, cluster, root, sequence, len(sender)
    )
    return fixed + sender + _text(target)


def section(tag: int, content: bytes) -> bytes:
    """Give one section."""
    return _SECTION.pack(tag, len(content)) + content


def encode_news(news: News) -> bytes:
    """Give news as bytes. Raises ValueError for a text over 255 bytes."""
    parts = [
        _NEWS.pack(news.status, len(news.accusers), news.epoch, news.incarnation, news.version)
    ]
    parts += [_text(text) for text in (news.name, news.address, *news.accusers)]
    return b"".join(parts)


def encode_texts(texts: Iterable[str]) -> bytes:
    """Give texts one after the other."""
    return b"".join(_text(text) for text in texts)


def encode_mask(mask: int, *, wants_back: bool) -> bytes:
    """Give which buckets a full exchange is about."""
    return _MASK.pack(mask, wants_back)


def encode_buckets(buckets: Iterable[int]) -> bytes:
    """Give the sums of all buckets."""
    return _BUCKETS.pack(*buckets)


def encode_meta(meta: Meta) -> bytes:
    """Give what a member publishes."""
    return _META.pack(meta.epoch, meta.version) + _text(meta.name) + meta.data


def decode(datagram: bytes) -> Message:
    """Read a message. Raises MalformedDatagram."""
    if len(datagram) > DATAGRAM_BYTES_MAX:
        raise MalformedDatagram(f"{len(datagram)} bytes; at most {DATAGRAM_BYTES_MAX} are read")
    try:
        return _decode(datagram)
    except (StructError, UnicodeDecodeError, IndexError) as error:
        raise MalformedDatagram(str(error)) from None


def _decode(datagram: bytes) -> Message:
    magic, low, high, kind, cluster, root, sequence, length = _HEAD.unpack_from(datagram)
    if magic != MAGIC:
        raise MalformedDatagram("this is no datagram of a member")
    at = _HEAD.size + length
    end = at + 1 + datagram[at]
    if end > len(datagram):
        raise MalformedDatagram("the datagram ends within its target")
    sender = decode_news(datagram[_HEAD.size : at][:NEWS_BYTES_MAX])
    if sender is None:
        raise MalformedDatagram("the sender is in a status that is not known here")
    target = str(datagram[at + 1 : end], "utf-8")
    if end == len(datagram):
        return Message(kind, low, high, cluster, root, sequence, sender, target)
    news, parts = _sections(datagram, end)
    if not parts:
        told = tuple(news)
        return Message(kind, low, high, cluster, root, sequence, sender, target, news=told)
    mask, wants_back = _MASK.unpack_from(_last(parts, MASK, _NO_MASK))
    names = _last(parts, NAMES, b"")
    return Message(
        kind, low, high, cluster, root, sequence, sender, target,
        address=str(_last(parts, ADDRESS, b""), "utf-8"),
        mask=mask,
        wants_back=bool(wants_back),
        buckets=_BUCKETS.unpack_from(parts[BUCKET_SUMS][-1]) if BUCKET_SUMS in parts else (),
        names=tuple(_texts(names, 0, len(names))),
        news=tuple(news),
        metas=tuple(_meta(content) for content in parts.get(METADATA, ())),
    )  # fmt: skip


def _sections(datagram: bytes, at: int) -> tuple[list[News], dict[int, list[bytes]]]:
    """Give the news, of which there is the most, and the contents of all other sections by tag."""
    news: list[News] = []
    parts: dict[int, list[bytes]] = {}
    size = len(datagram)
    while at < size:
        tag, length = _SECTION.unpack_from(datagram, at)
        start = at + _SECTION.size
        at = start + length
        if at > size:
            raise MalformedDatagram("the datagram ends within a part")
        content = datagram[start:at]
        if tag != NEWS:
            parts.setdefault(tag, []).append(content)
        elif (item := decode_news(content[:NEWS_BYTES_MAX])) is not None:
            news.append(item)
    return news, parts


def _last(parts: dict[int, list[bytes]], tag: int, default: bytes) -> bytes:
    return parts[tag][-1] if tag in parts else default


@lru_cache(maxsize=16_384)
def decode_news(data: bytes) -> News | None:
    """Read news; None when its status is of a later version. The same bytes give the same object."""
    status, accusers, epoch, incarnation, version = _NEWS.unpack_from(data)
    if accusers > ACCUSERS_MAX:
        raise MalformedDatagram(f"{accusers} accusers; at most {ACCUSERS_MAX} are kept")
    name, address, *others = _texts(data, _NEWS.size, len(data), accusers + 2)
    if not name or not address:
        raise MalformedDatagram("news of nobody, or of nowhere")
    if status not in _STATUSES:
        return None
    return News(name, epoch, incarnation, Status(status), address, version, tuple(others))


_STATUSES = frozenset(Status)


def _meta(content: bytes) -> Meta:
    epoch, version = _META.unpack_from(content)
    (name,) = _texts(content, _META.size, len(content), 1)
    return Meta(name, epoch, version, content[_META.size + 1 + content[_META.size] :])


def _slice(data: bytes, start: int, end: int) -> bytes:
    if end > len(data):
        raise MalformedDatagram("the datagram ends within a part")
    return data[start:end]


@lru_cache(maxsize=16_384)
def _text(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > TEXT_BYTES_MAX:
        raise ValueError(f"{len(encoded)} bytes of text; at most {TEXT_BYTES_MAX}: {text[:80]!r}")
    return bytes((len(encoded),)) + encoded


def _texts(data: bytes, at: int, end: int, count: int | None = None) -> list[str]:
    texts: list[str] = []
    while at < end and (count is None or len(texts) < count):
        length = data[at]
        texts.append(str(_slice(data, at + 1, at + 1 + length), "utf-8"))
        at += 1 + length
    if count is not None and len(texts) < count:
        raise MalformedDatagram("a text is missing")
    return texts
