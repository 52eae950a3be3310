"""Rows of tables ↔ what they mean, with their CRC and chain.

A row's *record* is what is hashed: the columns as `ascii` writes them (it tells the types apart and is
the same in every release of Python), and for a block its payload as it is. The chain is over records
whose payload is represented by its CRC.
"""

from __future__ import annotations

import struct
import zlib
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from coherd.journal import Block
from coherd.model import Cause

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coherd.model import Range, Stream

Row = tuple[Any, ...]
"""The columns of one row of a table as SQLite gives and takes them."""


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


def start_chain(cluster: str, name: str) -> bytes:
    """Give the link before the first block: no two journals' blocks fit into one chain."""
    return blake2b(ascii((cluster, name)).encode(), digest_size=8).digest()


def encode_block(block: Block, stream_id: int | None, chain: bytes) -> Row:
    """Give the row of `block`, linked to the chain that ends with `chain`."""
    numbers = block.numbers
    columns = (
        block.position,
        block.rows,
        stream_id,
        None if stream_id else block.namespace,
        min(numbers)[0] if numbers else None,
        max(high for _, high in numbers) if numbers else None,
        pack_ranges(numbers) if len(numbers) > 1 else None,
        float(block.accepted_at),
        block.cause.value,
    )
    crc = _checksum(ascii(columns).encode(), block.payload)
    chain = _link(chain, block.position, crc)
    return (*columns, block.payload, chain, zlib.crc32(chain, crc))


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


def _link(chain: bytes, position: int, crc: int) -> bytes:
    """Give the link of the block with the CRC `crc` that follows `chain`."""
    return blake2b(b"%b %d %d" % (chain, position, crc), digest_size=8).digest()


CHANGED = "it is not what was written"
UNLINKED = "blocks before it are missing, or it is not where it was written"


def check_block(row: Row, chain: bytes | None) -> str:
    """Tell what is wrong with the row of a block that follows `chain`, "" if nothing.

    Without a chain (None) only the row itself is looked at.
    """
    payload, stored = row[-3], row[-2]
    if not isinstance(payload, bytes) or not isinstance(stored, bytes):
        return CHANGED
    crc = _checksum(ascii(row[:-3]).encode(), payload)
    if row[-1] != zlib.crc32(stored, crc):
        return CHANGED
    if chain is not None and _link(chain, row[0], crc) != stored:
        return UNLINKED
    return ""


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
