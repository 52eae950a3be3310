"""An agent with a bug that a soak must find: `planted_agent.py BUG agent --config FILE`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from coherd.__main__ import main
from coherd.cluster.delivery import Delivery
from coherd.handlers.redis import RedisHandler, Work
from coherd.replication.repair import Repair


def acknowledge_without_deleting() -> None:
    """The cursor in Redis moves, and nothing else does."""

    def sort(_self: RedisHandler, _batches: Any) -> Work:
        return Work([], [], [])

    RedisHandler._sort = sort  # type: ignore[assignment]


def count_too_early() -> None:
    """Having is taken for applying: no cache is waited for."""

    def ask(_self: Delivery, _namespaces: Any, callback: Callable[[], None]) -> None:
        callback()

    Delivery.ask = ask  # type: ignore[assignment]


def do_not_repair() -> None:
    """No hole is seen, so none is filled and nobody says that there is one."""

    def nothing(*_: Any) -> list[Any]:
        return []

    Repair.claim = lambda *_: None  # type: ignore[method-assign]
    Repair.touch = nothing  # type: ignore[assignment]
    Repair.open = lambda *_: 0  # type: ignore[method-assign]


BUGS = {bug.__name__: bug for bug in (acknowledge_without_deleting, count_too_early, do_not_repair)}

if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    main()
