"""When a row counts as applied here: handlers that come back, watchers that go away."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, cast

import pytest
import trio
import trio.testing

from coherd.cluster.delivery import GONE_AFTER, Delivery, Follower
from coherd.cluster.feed import Feed, Portion
from coherd.errors import HandlerFailed
from coherd.handlers import Resumption
from coherd.model import Batch, Cause, Lane, Origin, Position, Stream
from coherd.replication.replica import Arrival

POSITION = 7


class ToyFeed:
    """A feed with one row, at POSITION."""

    position = POSITION

    async def wait(self, position: int) -> None:
        if position >= POSITION:
            await trio.sleep_forever()

    async def read(self, _after: int) -> Portion:
        stream = Stream("shop", Origin("a", 1), Lane.NORMAL)
        batch = Batch(stream, ((1, 1),), [b"kkey"])
        return Portion([Arrival(POSITION, batch, 0.0, Cause.LOCAL)], POSITION)

    def resume(self, _namespace: str, position: int) -> int:
        return position


class ToyHandler:
    """Fails at the first rows it is given; then it stands where it was told."""

    label = "toy"
    namespace = "shop"

    def __init__(self, *resumptions: Resumption) -> None:
        self._resumptions = list(resumptions)
        self._has_failed = False

    async def connect(self) -> Resumption:
        await trio.lowlevel.checkpoint()
        return self._resumptions.pop(0)

    async def apply(self, batches: Sequence[Batch], _cursor: Position) -> None:
        await trio.lowlevel.checkpoint()
        if batches and not self._has_failed:
            self._has_failed = True
            raise HandlerFailed("no answer")

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def delivery_in(nursery: trio.Nursery) -> Delivery:
    return Delivery(
        cast("Feed", ToyFeed()),
        lambda position: position.n,
        lambda n: Position("a", 1, n),
        random.Random(1),
        nursery,
    )


@pytest.mark.parametrize(
    "second",
    [
        Resumption(Position("a", 1, 0), warm=True),
        Resumption(Position("a", 1, POSITION), warm=True),
        Resumption(None, warm=False),
    ],
    ids=["behind", "only the answer was lost", "empty"],
)
async def test_a_handler_that_comes_back_answers_who_waits(
    autojump_clock: trio.testing.MockClock, second: Resumption
) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            delivery = delivery_in(nursery)
            first = Resumption(Position("a", 1, 0), warm=True)
            delivery.start(cast("Any", ToyHandler(first, second)))
            await delivery.applied({"shop"})
            assert delivery.handlers[0].failures == 1
            nursery.cancel_scope.cancel()


async def test_a_watcher_that_went_away_counts_as_missing_for_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        delivery = delivery_in(nursery)
        with delivery.watching(Follower("watcher", ["shop"], 0)):
            pass
        began = trio.current_time()
        await delivery.applied({"other"})
        assert trio.current_time() == began
        await delivery.applied({"shop"})
        assert trio.current_time() == began + GONE_AFTER
        await delivery.applied({"shop"})
        assert trio.current_time() == began + GONE_AFTER


async def test_a_watcher_that_does_not_acknowledge_is_not_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        delivery = delivery_in(nursery)
        with delivery.watching(Follower("watcher", ["shop"], 0, acknowledges=False)):
            await delivery.applied({"shop"})
        await delivery.applied({"shop"})
        assert trio.current_time() == 0
