"""The lives that wrote a journal, and positions as they are written outside: name, epoch, number.

A cursor may be of a life that this journal lacks: one that followed after the journal was copied, or one
before its disk was lost. Where the clock was behind after that, epochs do not tell which: the life that
began then has the lower epoch, and the later rows. So only a life that is *confirmed* is known to be older
than one with a higher epoch: while it lasted, others were met, and nobody knew of a later life.

That is stored as the same life beginning once more; if it proves wrong, as a third time.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from coherd.model import Origin, Position

if TYPE_CHECKING:
    from collections.abc import Sequence


CONFIRMED = 2
"""How often a life is stored that is confirmed."""


class _Span(NamedTuple):
    life: Origin
    first: int
    times: int

    @property
    def is_confirmed(self) -> bool:
        return self.times == CONFIRMED


class Lives:
    """Every life that wrote a journal, and the first position it could write, in order."""

    def __init__(self, name: str, stored: Sequence[tuple[Origin, int]]) -> None:
        """`name`: whose positions are read; other names may have written here before."""
        self._name = name
        self._lives = [*stored]

    def begin(self, life: Origin, first: int) -> None:
        """Note that a life begins, with its first position; or what is known of it changes."""
        self._lives.append((life, first))

    @property
    def is_confirmed(self) -> bool:
        """Whether the life that began last is known to be later than all others of its name."""
        return self._spans()[-1].is_confirmed

    @property
    def is_renounced(self) -> bool:
        """Whether it was confirmed, and that proved wrong."""
        return self._spans()[-1].times > CONFIRMED

    def _spans(self) -> list[_Span]:
        spans: list[_Span] = []
        for life, group in groupby(self._lives, key=itemgetter(0)):
            entries = list(group)
            spans.append(_Span(life, entries[0][1], len(entries)))
        return spans

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

        One that the journal, which ends at `end`, lacks is read as the last one before it that it has, as
        far as is known.
        """
        if position.name != self._name:
            return None
        spans = self._spans()
        for span in reversed(spans):
            if span.life.name == self._name:
                is_before = span.is_confirmed and span is not spans[-1]
                if span.life.epoch == position.epoch or (
                    is_before and span.life.epoch < position.epoch
                ):
                    return min(position.n, end)
            end = span.first - 1
        return 0
