"""When a row counts as applied here: handlers that come back, watchers that go away."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
import trio
import trio.testing
from integration.polling import poll_async

from coherd.cluster import delivery as delivery_module
from coherd.cluster.delivery import PROBE_AFTER, Delivery, Follower
from coherd.cluster.feed import Feed, Portion
from coherd.errors import HandlerFailed
from coherd.handlers import Resumption
from coherd.model import Batch, Cause, Lane, Origin, Position, Stream
from coherd.replication.replica import Arrival

POSITION = 7


BOUND = 30.0


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


class BusyFeed(ToyFeed):
    """A feed in which ten rows a second arrive, all of another namespace."""

    position = 0

    async def wait(self, position: int) -> None:
        with trio.move_on_after(0.1):
            await trio.sleep_forever()
        self.position = position + 1

    async def read(self, after: int) -> Portion:
        return Portion([], after + 1)


class ToyHandler:
    """Fails at the first rows it is given; then it stands where it was told."""

    label = "toy"
    namespace = "shop"

    def __init__(self, *resumptions: Resumption) -> None:
        self._resumptions = list(resumptions)
        self._has_failed = False
        self.told: list[int] = []

    async def connect(self) -> Resumption:
        await trio.lowlevel.checkpoint()
        return self._resumptions.pop(0)

    async def apply(self, batches: Sequence[Batch], cursor: Position) -> None:
        await trio.lowlevel.checkpoint()
        self.told.append(cursor.n)
        if batches and not self._has_failed:
            self._has_failed = True
            raise HandlerFailed("no answer")

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def delivery_in(
    nursery: trio.Nursery,
    feed: ToyFeed | None = None,
    remember: Callable[[str, int | None], int] = lambda _watcher, _position: 0,
) -> Delivery:
    return Delivery(
        cast("Feed", feed or ToyFeed()),
        lambda position: position.n,
        lambda n: Position("a", 1, n),
        random.Random(1),
        nursery,
        lambda _namespace: BOUND,
        remember,
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


async def test_a_quiet_cache_is_probed_and_keeps_its_cursor_new_while_others_are_busy(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        feed = BusyFeed()
        handler = ToyHandler(Resumption(None, warm=True))
        delivery_in(nursery, feed).start(cast("Any", handler))
        await poll_async(lambda: len(handler.told) > 8, "probes", 10 * PROBE_AFTER)
        assert handler.told[-1] > feed.position - 2 * PROBE_AFTER / 0.1
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
        assert trio.current_time() == began + BOUND
        await delivery.applied({"shop"})
        assert trio.current_time() == began + BOUND


async def test_a_watcher_that_does_not_acknowledge_is_not_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        delivery = delivery_in(nursery)
        with delivery.watching(Follower("watcher", ["shop"], 0, acknowledges=False)):
            await delivery.applied({"shop"})
        await delivery.applied({"shop"})
        assert trio.current_time() == 0


async def test_watchers_that_come_under_ever_new_names_are_bounded_and_displace_no_others(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "GONE_MAX", 5)
    remembered: dict[str, int] = {}

    def remember(watcher: str, position: int | None) -> int:
        if position is None:
            del remembered[watcher]
        else:
            remembered[watcher] = position
        return 0

    async with trio.open_nursery() as nursery:
        delivery = delivery_in(nursery, remember=remember)
        with delivery.watching(Follower("honest", ["other"], 0)):
            pass
        for n in range(100):
            with delivery.watching(Follower(f"watcher-{n}", ["shop"], 0)):
                pass
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 5
        assert next(gone for _, gone in delivery.followers("shop")).name == "watcher-96"
        assert set(remembered) == {"honest other", *(f"watcher-{n} shop" for n in range(96, 100))}
        assert delivery.crowded_out == 96
        await delivery.applied({"other"})
        assert trio.current_time() == BOUND, "the honest one is waited for all the same"
        await delivery.applied({"shop"})
        assert trio.current_time() == BOUND
        await trio.testing.wait_all_tasks_blocked()
        assert not remembered
        assert not nursery.child_tasks


async def test_who_is_waited_for_no_more_holds_no_question_back(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "GONE_MAX", 1)
    async with trio.open_nursery() as nursery:
        delivery = delivery_in(nursery)
        with delivery.watching(Follower("first", ["shop"], 0)):
            pass
        nursery.start_soon(delivery.applied, {"shop"})
        await trio.testing.wait_all_tasks_blocked()
        with delivery.watching(Follower("second", ["shop"], POSITION)):
            pass
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1, "the one that waits for the second to be forgotten"
        assert trio.current_time() == 0
        nursery.cancel_scope.cancel()
