"""The twin in memory fails when it is told to, as a server does by itself."""

from __future__ import annotations

import pytest
from caches import at, batch, key

from coherd.errors import HandlerFailed
from coherd.handlers.memory import MemoryHandler


async def test_a_call_that_is_told_to_fail_changes_nothing() -> None:
    handler = MemoryHandler("shop")
    handler.put(b"1")
    handler.fail_next(2)
    for _ in range(2):
        with pytest.raises(HandlerFailed, match="memory shop: told to fail"):
            await handler.connect()
    await handler.connect()
    handler.fail_next()
    with pytest.raises(HandlerFailed):
        await handler.apply([batch(key(b"1"))], at(1))
    assert handler.entries
    assert await handler.connect() == (None, True)


async def test_a_call_may_fail_halfway_after_the_rows_and_before_the_cursor() -> None:
    handler = MemoryHandler("shop")
    handler.put(b"1")
    await handler.connect()
    handler.fail_next(halfway=True)
    with pytest.raises(HandlerFailed):
        await handler.apply([batch(key(b"1"))], at(1))
    assert await handler.connect() == (None, False)


def test_a_snapshot_is_a_copy() -> None:
    handler = MemoryHandler("shop")
    empty = handler.snapshot()
    handler.put(b"1", tags=[b"red"])
    full = handler.snapshot()
    assert handler.tags is not None
    handler.tags[b"red"].clear()
    handler.restore(full)
    assert handler.tags == {b"red": {b"1"}}
    handler.restore(empty)
    assert (handler.entries, handler.tags) == ({}, {})
    handler.restore(full)
    assert handler.entries == {b"1": None}
