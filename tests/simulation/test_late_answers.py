"""Answers to a direct question that come at the very moment at which the asker stops waiting."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from simulation.hosts import hosts
from trio.testing import MockClock

from coherd.net.peer import Peer
from coherd.v1 import cache_service_pb2 as cache


class Late:
    """A peer that says "not yet" when nobody waits any more; real where nobody asks who has applied."""

    def __init__(self, peer: Peer, clock: MockClock, *, ends: bool) -> None:
        self._peer = peer
        self._clock = clock
        self._ends = ends
        self.asked: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._peer, name)

    async def applied(self, _sender: Any, _dots: Any, wait: float) -> bool:
        self.asked.append(wait)
        if len(self.asked) > 1:
            await trio.sleep_forever()
        if self._ends:
            # What the run loop does when the deadline has passed and the answer is there already.
            nursery = trio.lowlevel.current_task().parent_nursery
            assert nursery is not None
            nursery.cancel_scope.cancel()
        else:
            self._clock.jump(wait + 0.01)
        return False


@pytest.mark.parametrize("ends", [False, True])
async def test_who_is_asked_again_too_late_is_given_no_time_and_the_caller_its_answer(
    autojump_clock: MockClock, *, ends: bool
) -> None:
    async with hosts(2) as (one, two):
        two.cache.fail_next(10_000)
        peer = Late(one.agent.linking.peers["host-2"], autojump_clock, ends=ends)
        one.agent.linking.peers["host-2"] = peer
        outcome = await one.invalidate([b"a"], wait=cache.WAIT_REGION)
        assert outcome.receipt.missing == ["host-2"]
        assert 0 < peer.asked[0] <= 2.5
        assert peer.asked[1:] == [0]
