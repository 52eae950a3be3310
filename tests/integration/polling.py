"""Wait for what is meant, with a deadline: the only place of the tests that looks again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")
PAUSE = 0.02


def poll(probe: Callable[[], T], what: str, timeout: float = 30.0) -> T:
    """Call `probe` until it gives something true, and give that; fail saying `what` was awaited."""
    deadline = time.monotonic() + timeout
    while True:
        if found := probe():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:.0f} s in vain for {what}; last: {found!r}")
        time.sleep(PAUSE)


async def poll_async(probe: Callable[[], T], what: str, timeout: float = 30.0) -> T:
    """As `poll`, without holding up the trio loop."""
    deadline = trio.current_time() + timeout
    while True:
        if found := probe():
            return found
        if trio.current_time() > deadline:
            raise AssertionError(f"waited {timeout:.0f} s in vain for {what}; last: {found!r}")
        await trio.sleep(PAUSE)


def stays(probe: Callable[[], object], seconds: float, what: str) -> None:
    """Look again and again for a while: `probe` must give something true all the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert probe(), f"{what}: not so {deadline - time.monotonic():.1f} s before the end"
        time.sleep(PAUSE)
