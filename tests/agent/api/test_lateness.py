"""How late the event loop ran, measured under a virtual clock."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from coherd.cluster.lateness import INTERVAL, WINDOW, Lateness


async def test_what_a_timer_was_late_is_noted(mock_clock: MockClock, nursery: trio.Nursery) -> None:
    lateness = Lateness()
    nursery.start_soon(lateness.run)
    await wait_all_tasks_blocked()
    mock_clock.jump(INTERVAL + 0.4)
    await wait_all_tasks_blocked()
    assert round(lateness.last, 6) == round(lateness.peak, 6) == 0.4
    mock_clock.jump(INTERVAL)
    await wait_all_tasks_blocked()
    assert round(lateness.last, 6) == 0
    assert round(lateness.peak, 6) == 0.4
    assert sum(lateness.histogram.counts) == 2


async def test_the_peak_is_that_of_the_last_minute(mock_clock: MockClock) -> None:
    lateness = Lateness()
    for late in (0.1, 0.5, 0.2, 0.3, 0.1):
        lateness.note(late, trio.current_time())
        mock_clock.jump(10)
    assert lateness.peak == 0.5
    mock_clock.jump(WINDOW - 39)
    assert lateness.peak == 0.3, "0.5 is too old, and 0.2 was less than what came later"
    mock_clock.jump(20)
    assert lateness.peak == 0.1
    mock_clock.jump(WINDOW)
    assert lateness.peak == 0


async def test_remembering_the_peak_takes_bounded_memory(mock_clock: MockClock) -> None:
    lateness = Lateness()
    for n in range(2000):
        lateness.note(1 / (n + 1), trio.current_time())
        mock_clock.jump(INTERVAL)
    assert len(lateness._peaks) <= WINDOW / INTERVAL + 1
