"""What becomes of a message: how long it takes, whether it is lost, doubled, or cut off.

A link has a delay drawn anew for each message, so messages overtake each other. Links may lose messages,
also in one direction only; cuts swallow everything between two sets of members, both ways or one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from random import Random


@dataclass(frozen=True, slots=True)
class Links:
    """How all links are, unless something is done to them."""

    delay_min: float = 0.0005
    delay_max: float = 0.0015
    """Seconds; uniform between them."""
    loss: float = 0.0
    """Share of messages that never arrive."""
    duplication: float = 0.0
    """Share of messages that arrive twice."""


class Network:
    """The links between members, which are numbered from 0."""

    def __init__(self, links: Links, random: Random) -> None:
        self._links = links
        self._random = random.random
        self._spread = links.delay_max - links.delay_min
        self._cuts: dict[object, tuple[frozenset[int], frozenset[int]]] = {}
        self._losses: dict[tuple[int, int], float] = {}
        self._is_simple = links.loss == 0 and links.duplication == 0
        self.lost = 0

    def cut(self, key: object, sources: Collection[int], targets: Collection[int]) -> None:
        """Swallow what `sources` send to `targets`, until the same key is mended. For both ways cut twice."""
        self._cuts[key] = (frozenset(sources), frozenset(targets))

    def mend(self, key: object) -> None:
        """End a cut."""
        del self._cuts[key]

    def lose(self, source: int, target: int, share: float) -> None:
        """Let one link lose a share of its messages in one direction."""
        self._losses[source, target] = share

    def delays(self, source: int, target: int) -> tuple[float, ...]:
        """Give after how many seconds a message arrives: none when it does not, two when it does twice."""
        random = self._random
        first = self._links.delay_min + random() * self._spread
        if self._is_simple and not self._cuts and not self._losses:
            return (first,)
        share = self._losses.get((source, target), self._links.loss)
        if self._is_cut(source, target) or (share and random() < share):
            self.lost += 1
            return ()
        if self._links.duplication and random() < self._links.duplication:
            return (first, self._links.delay_min + random() * self._spread)
        return (first,)

    def _is_cut(self, source: int, target: int) -> bool:
        return any(source in ours and target in theirs for ours, theirs in self._cuts.values())
