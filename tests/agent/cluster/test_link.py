"""What a link does with rows at the moment at which its connection breaks."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
import trio.testing

from coherd.clock import BootClock
from coherd.cluster.spreading import Link
from coherd.errors import RpcFailed
from coherd.net.peer import LinkReply, Parcel


class ToyConnection:
    """Takes parcels until it is broken; the receiving side hears of that later."""

    def __init__(self) -> None:
        self.sent: list[Parcel] = []
        self.is_broken = False
        self.was_told = trio.Event()

    def send_nowait(self, parcels: list[Parcel]) -> None:
        if self.is_broken:
            raise RpcFailed("UNAVAILABLE", "the call has ended")
        self.sent += parcels

    async def receive(self) -> list[LinkReply]:
        await self.was_told.wait()
        raise RpcFailed("UNAVAILABLE", "the call has ended")


async def test_who_accepts_rows_does_not_see_a_link_break() -> None:
    link, connection = Link("b", urgent=False, clock=BootClock()), ToyConnection()
    async with trio.open_nursery() as nursery:

        async def carry() -> None:
            with pytest.raises(ExceptionGroup):
                await link.carry(cast("Any", connection))

        nursery.start_soon(carry)
        await trio.testing.wait_all_tasks_blocked()
        link.offer(b"before", 0.0, None)
        connection.is_broken = True
        for _ in range(10):
            link.offer(b"meanwhile", 0.0, None)
        connection.was_told.set()
    assert [parcel.payload for parcel in connection.sent] == [b"before"]
    assert not link.is_open
    assert not link.queued_bytes
    link.offer(b"afterwards", 0.0, None)
    assert not link.queued_bytes
