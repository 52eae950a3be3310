"""A followed invalidation is budgeted as any other, and is told of bulk rows once they are accepted."""

from __future__ import annotations

from typing import Any

import pytest
from simulation.hosts import NAMESPACE, hosts
from simulation.test_progress import Call
from trio.testing import MockClock

from coherd.api.cache_service import CacheService
from coherd.config import NamespaceConfig
from coherd.errors import Overloaded
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import types_pb2 as types


def request(rows: int, **fields: Any) -> cache.InvalidateProgressRequest:
    keys = [b"%d" % n for n in range(rows)]
    asked = cache.InvalidateRequest(namespace=NAMESPACE, keys=keys, **fields)
    return cache.InvalidateProgressRequest(invalidate=asked)


async def test_a_followed_bulk_invalidation_is_told_to_the_end(autojump_clock: MockClock) -> None:
    async with hosts(3) as (one, _, _):
        call = Call()
        asked = request(5, lane=types.LANE_BULK, wait=cache.WAIT_REGION)
        await CacheService(one.agent).InvalidateProgress(asked, call)  # type: ignore[arg-type]
        assert call.told[-1].final
        assert len(call.told[-1].receipt.applied) == 3
        assert all(message.receipt.dots for message in call.told)


async def test_a_followed_invalidation_is_in_the_budget_and_costs_nothing_when_there_is_no_room(
    autojump_clock: MockClock,
) -> None:
    settings = {"default": NamespaceConfig(rate_max=1)}
    async with hosts(1, namespaces=settings) as (one,):
        service = CacheService(one.agent)
        room = one.journal.check_room
        one.journal.check_room = full  # type: ignore[method-assign]
        with pytest.raises(Overloaded):
            await service.InvalidateProgress(request(1000), Call())  # type: ignore[arg-type]
        one.journal.check_room = room  # type: ignore[method-assign]
        await service.InvalidateProgress(request(1000), Call())  # type: ignore[arg-type]
        with pytest.raises(Overloaded):
            await service.InvalidateProgress(request(1), Call())  # type: ignore[arg-type]


def full() -> None:
    raise Overloaded("full")
