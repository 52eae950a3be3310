"""Bulk rows that wait together, before they are numbered: of each selector only what says something more.

A row takes the place of an earlier one of its selector only if its effect is at least as strong and its
version not lower (`ledger.supersedes`); otherwise both stay. So what is left says, of every selector, all
that the rows together said. Nobody needs to be told of the others, for they never get a number; who asked
for one of them is given the number of the row that stands for it.

Per selector and effect the rows that stand have falling versions, for a later one of no lower version would
have taken their place: it is enough to look at the newest of each, again and again while one goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from coherd.limits import BATCH_ROWS_MAX
from coherd.model import Effect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coherd.model import Selector

ROW_BYTES = 350
"""About what a row takes here besides its selector."""


class Rows(NamedTuple):
    """Rows of one issuer with one effect and one reason, as they are asked for and as they are numbered."""

    selectors: Sequence[Selector]
    effect: Effect
    versions: Sequence[int] | None
    """Source versions, one a row, 0 for a row without; None when no row has one."""
    reason: str
    issuer: str = ""

    @property
    def size_bytes(self) -> int:
        """What they take while they wait, about."""
        return sum(map(len, self.selectors)) + len(self.selectors) * ROW_BYTES + len(self.reason)


class Place(NamedTuple):
    """Where the row is that stands for one that was asked for."""

    batch: int
    offset: int


class Window:
    """The rows of one namespace that wait, in columns and in the order in which they came."""

    def __init__(self) -> None:
        self._selectors: list[Selector] = []
        self._effects: list[Effect] = []
        self._versions: list[int] = []
        self._words: list[tuple[str, str]] = []
        """Reasons and issuers."""
        self._heirs: list[int] = []
        """Per row the later one that took its place; 0, which is never later, where none did."""
        self._standing: dict[Effect, dict[Selector, list[int]]] = {effect: {} for effect in Effect}
        """Per effect and selector the rows that nothing has taken the place of."""
        self.standing = 0
        """How many there are of these."""

    def __len__(self) -> int:
        """Count the rows that came in."""
        return len(self._selectors)

    @property
    def is_full(self) -> bool:
        """Whether what stands is a whole batch."""
        return self.standing >= BATCH_ROWS_MAX

    def has_room(self, rows: Rows) -> bool:
        """Tell whether what stands after `rows` surely still fits into one batch.

        So many rows fit into a payload, too: its limit has room for the longest selectors.
        """
        return self.standing + len(rows.selectors) <= BATCH_ROWS_MAX

    def add(self, rows: Rows) -> range:
        """Take rows in; give their places in the order of coming."""
        first = len(self._selectors)
        count = len(rows.selectors)
        versions = rows.versions or [0] * count
        self._selectors += rows.selectors
        self._effects += [rows.effect] * count
        self._versions += versions
        self._words += [(rows.reason, rows.issuer)] * count
        self._heirs += [0] * count
        self.standing += count
        weaker = [self._standing[effect] for effect in Effect if effect <= rows.effect]
        own = self._standing[rows.effect]
        for row, selector, version in zip(
            range(first, first + count), rows.selectors, versions, strict=True
        ):
            for standing in weaker:
                if earlier := standing.get(selector):
                    self._replace(earlier, row, version)
            own.setdefault(selector, []).append(row)
        return range(first, first + count)

    def _replace(self, earlier: list[int], row: int, version: int) -> None:
        """Let a row take the place of those whose version is not higher."""
        while earlier and self._versions[earlier[-1]] <= version:
            self._heirs[earlier.pop()] = row
            self.standing -= 1

    def coalesce(self) -> tuple[list[Rows], list[Place]]:
        """Give what stands, a batch for each effect, reason and issuer, and where every row is."""
        members: dict[tuple[Effect, tuple[str, str]], list[int]] = {}
        numbers: dict[tuple[Effect, tuple[str, str]], int] = {}
        places: list[Place] = [Place(0, 0)] * len(self)
        for row, heir in enumerate(self._heirs):
            if not heir:
                kind = (self._effects[row], self._words[row])
                rows = members.setdefault(kind, [])
                places[row] = Place(numbers.setdefault(kind, len(numbers)), len(rows))
                rows.append(row)
        for row in range(len(self) - 1, -1, -1):  # an heir comes later: its place is known by then
            if heir := self._heirs[row]:
                places[row] = places[heir]
        return [self._batch(*kind, rows) for kind, rows in members.items()], places

    def _batch(self, effect: Effect, words: tuple[str, str], rows: list[int]) -> Rows:
        versions = [self._versions[row] for row in rows]
        selectors = [self._selectors[row] for row in rows]
        return Rows(selectors, effect, versions if any(versions) else None, *words)
