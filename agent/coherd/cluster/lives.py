"""The lives that wrote a journal, and positions as they are written outside: name, epoch, number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coherd.model import Position

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coherd.model import Origin


class Lives:
    """Every life that wrote a journal, and the first position it could write, in order."""

    def __init__(self, name: str, stored: Sequence[tuple[Origin, int]]) -> None:
        """`name`: whose positions are read; other names may have written here before."""
        self._name = name
        self._lives = [*stored]

    def begin(self, life: Origin, first: int) -> None:
        """Note that a life begins, with its first position."""
        self._lives.append((life, first))

    def write_out(self, n: int) -> Position:
        """Give a position as it is written outside.

        What another name wrote here, before the data was cloned, counts to the own life after it.
        """
        epoch = 0
        for life, first in reversed(self._lives):
            if life.name == self._name:
                epoch = life.epoch
            if epoch and n >= first:
                break
        return Position(self._name, epoch, n)

    def locate(self, position: Position, end: int) -> int | None:
        """Read a position that was written outside; None when its name never wrote this journal.

        One that the journal, which ends at `end`, lacks is read as the last one before it that it has.
        """
        if position.name != self._name:
            return None
        for life, first in reversed(self._lives):
            if life.name == self._name and life.epoch <= position.epoch:
                return min(position.n, end)
            end = first - 1
        return 0
