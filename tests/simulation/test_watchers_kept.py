"""A watcher that acknowledges hears nothing before the journal knows of it: the next life waits for it."""

from __future__ import annotations

import trio
from simulation.hosts import NAMESPACE, hosts
from trio.testing import MockClock, wait_all_tasks_blocked

from coherd.api.cache_service import CacheService
from coherd.v1 import cache_service_pb2 as cache


class Call:
    """A watcher's call."""

    outbound_bytes = 0

    def __init__(self, *, acknowledges: bool) -> None:
        opening = cache.WatchOpen(namespaces=[NAMESPACE], name="app", acknowledges=acknowledges)
        self._opening = [cache.WatchRequest(open=opening)]
        self.sent: list[cache.WatchResponse] = []

    async def receive(self) -> list[cache.WatchRequest]:
        if self._opening:
            return [self._opening.pop()]
        await trio.sleep_forever()
        return []

    async def send(self, message: cache.WatchResponse) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)


async def test_it_is_sent_nothing_before_it_is_remembered(autojump_clock: MockClock) -> None:
    async with hosts(1) as (one,), trio.open_nursery() as nursery:
        one.journal._automatic = False
        remembered, passive = Call(acknowledges=True), Call(acknowledges=False)
        for call in (remembered, passive):
            nursery.start_soon(CacheService(one.agent).Watch, call)
        await wait_all_tasks_blocked()
        assert passive.sent
        assert not remembered.sent
        one.journal.commit()
        await wait_all_tasks_blocked()
        assert remembered.sent
        nursery.cancel_scope.cancel()
