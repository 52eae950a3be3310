"""Rows of tables ↔ what they mean, with their CRC and chain.

A row's *record* is what is hashed: the columns as `ascii` writes them (it tells the types apart and is
the same in every release of Python), and for a block its payload as it is. The chain is over positions
and CRCs; a row names the link before it and its own, so that one that was changed still joins its
neighbours.
"""

from __future__ import annotations

import struct
import zlib
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from coherd.journal import Block
from coherd.model import Cause

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from coherd.model import Range, Stream

Row = tuple[Any, ...]
"""The columns of one row of a table as SQLite gives and takes them."""

LINK_BYTES = 8
"""Of a link in the chain of blocks; the column holds two, that of the block before and its own."""

_START = struct.Struct("<q8s")
_PAIR = struct.Struct("<2d")


def pack_ranges(ranges: Sequence[Range]) -> bytes:
    """Write ranges as pairs of 64-bit integers."""
    flat = [number for pair in ranges for number in pair]
    return struct.pack(f"<{len(flat)}q", *flat)


def unpack_ranges(blob: bytes) -> tuple[Range, ...]:
    """Read what `pack_ranges` wrote."""
    return tuple(struct.iter_unpack("<2q", blob))


def seal(columns: Row) -> Row:
    """Give the row of a side table: `columns` and their CRC."""
    return (*columns, zlib.crc32(ascii(columns).encode()))


def is_intact(row: Row) -> bool:
    """Tell whether the row of a side table is as it was sealed."""
    return row == seal(row[:-1])


def pack_starts(starts: Mapping[int, bytes]) -> bytes:
    """Write links by position."""
    return b"".join([_START.pack(position, start) for position, start in starts.items()])


def unpack_starts(blob: bytes) -> dict[int, bytes]:
    """Read what `pack_starts` wrote."""
    return dict(_START.iter_unpack(blob))


def pack_pairs(pairs: Sequence[tuple[float, float]]) -> bytes:
    """Write pairs of floating-point numbers."""
    return b"".join([_PAIR.pack(*pair) for pair in pairs])


def unpack_pairs(blob: bytes) -> tuple[tuple[float, float], ...]:
    """Read what `pack_pairs` wrote."""
    return tuple(_PAIR.iter_unpack(blob))


def pack_ids(ids: Collection[int]) -> bytes:
    """Write ids of streams."""
    return struct.pack(f"<{len(ids)}q", *sorted(ids))


def unpack_ids(blob: bytes) -> tuple[int, ...]:
    """Read what `pack_ids` wrote."""
    return struct.unpack(f"<{len(blob) // 8}q", blob)


def start_chain(cluster: str, name: str, namespace: str) -> bytes:
    """Give the link before a namespace's first block: no two journals' blocks fit into one chain."""
    return blake2b(ascii((cluster, name, namespace)).encode(), digest_size=LINK_BYTES).digest()


def encode_block(block: Block, stream_id: int | None, chain: bytes) -> Row:
    """Give the row of `block`, which follows the link `chain`."""
    numbers = block.numbers
    columns = (
        block.position,
        block.rows,
        stream_id,
        None if stream_id else block.namespace,
        numbers[0][0] if numbers else None,
        numbers[-1][1] if numbers else None,
        pack_ranges(numbers) if len(numbers) > 1 else None,
        float(block.accepted_at),
        block.cause.value,
    )
    crc = _checksum(ascii(columns).encode(), block.payload)
    return (*columns, block.payload, chain + _link(chain, block.position, crc), crc)


_SLICE_BYTES = 4096
"""zlib lets go of the interpreter's lock for more than 5 KiB; getting it back costs more than the CRC."""


def _checksum(head: bytes, payload: bytes) -> int:
    crc = zlib.crc32(head)
    if len(payload) <= _SLICE_BYTES:
        return zlib.crc32(payload, crc)
    view = memoryview(payload)
    for at in range(0, len(payload), _SLICE_BYTES):
        crc = zlib.crc32(view[at : at + _SLICE_BYTES], crc)
    return crc


def _link(before: bytes, position: int, crc: int) -> bytes:
    """Give the link of the block with the CRC `crc` that follows the link `before`."""
    return blake2b(b"%b %d %d" % (before, position, crc), digest_size=LINK_BYTES).digest()


CHANGED = "it is not what was written"
UNLINKED = "blocks before it are missing, or it is not where it was written"


def is_block_intact(row: Row) -> bool:
    """Tell whether the row of a block is what was written, wherever that was."""
    payload = row[-3]
    return isinstance(payload, bytes) and row[-1] == _checksum(ascii(row[:-3]).encode(), payload)


def is_block_linked(row: Row) -> bool:
    """Tell whether the links of an intact row of a block are its own."""
    before, own = links_of(row)
    return own == _link(before, row[0], row[-1])


def links_of(row: Row) -> tuple[bytes, bytes]:
    """Give the link before the row of a block, and its own; empty where they are damaged."""
    links = row[-2]
    if not isinstance(links, bytes) or len(links) != 2 * LINK_BYTES:
        return b"", b""
    return links[:LINK_BYTES], links[LINK_BYTES:]


def decode_block(row: Row, names: Mapping[int, Stream]) -> Block:
    """Read an intact row of a block; `names` are the streams by id."""
    position, rows, stream_id, namespace, first, last, blob, accepted_at, cause = row[:9]
    stream = names[stream_id] if stream_id else None
    return Block(
        position=position,
        rows=rows,
        namespace=namespace if stream is None else stream.namespace,
        stream=stream,
        numbers=unpack_ranges(blob) if blob else () if first is None else ((first, last),),
        accepted_at=accepted_at,
        cause=Cause(cause),
        payload=row[9],
    )
