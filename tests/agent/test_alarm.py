"""An alarm rings at the earliest moment it was set to, and those who set it wake nobody."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from coherd.alarm import Alarm


async def test_it_rings_at_the_earliest_moment_and_then_begins_anew(
    autojump_clock: MockClock,
) -> None:
    alarm = Alarm()
    alarm.ring_within(5.0)
    alarm.ring_within(2.0)
    alarm.ring_within(3.0)
    await alarm.wait()
    assert trio.current_time() == 2.0
    alarm.ring_within(5.0)
    await alarm.wait()
    assert trio.current_time() == 7.0, "what was set before it rang is forgotten"


async def test_it_is_moved_while_somebody_waits_without_waking_it(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    alarm, rang = Alarm(), trio.Event()

    async def wait() -> None:
        await alarm.wait()
        rang.set()

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    alarm.ring_within(10.0)
    alarm.ring_within(1.0)
    await wait_all_tasks_blocked()
    trio.lowlevel.remove_instrument(steps)
    assert not [name for name in steps.names if name.endswith(".wait")]
    mock_clock.jump(1.0)
    await wait_all_tasks_blocked()
    assert rang.is_set()


async def test_who_is_cancelled_while_it_waits_may_wait_again(autojump_clock: MockClock) -> None:
    alarm = Alarm()
    with trio.move_on_after(1.0) as scope:
        await alarm.wait()
    assert scope.cancelled_caught
    alarm.ring_within(1.0)
    await alarm.wait()
    assert trio.current_time() == 2.0


class Steps(trio.abc.Instrument):
    """Notes which tasks take steps."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.names.append(task.name)
