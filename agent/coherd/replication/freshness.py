"""Whether this agent may vouch for the caches of its host: has it synced, with whom, when.

A sync with a holder completes when every hole that it showed is closed, or when the sums of both vectors
are equal. After a start an agent is *catching up*. Two agents that are both catching up must not declare
each other fresh: what they miss may be the same. So catching up ends with a holder that is not itself
catching up, or when all reachable holders are and they are at least half of the roster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


class Freshness:
    """When the last sync completed; None while catching up."""

    def __init__(self) -> None:
        self.synced_at: float | None = None
        self.met_whole: set[str] = set()
        """Holders that a sync was completed with while they were not themselves catching up."""
        self._behind: set[str] = set()
        """Holders that a sync was completed with although they were catching up themselves."""

    @property
    def is_catching_up(self) -> bool:
        """Whether no sync has completed since the start that ends catching up."""
        return self.synced_at is None

    def completed(self, member: str, *, catching_up: bool, now: float) -> None:
        """Note a completed sync with `member`, which said whether it is catching up itself."""
        if not catching_up:
            self.synced_at = now
            self.met_whole.add(member)
        else:
            self._behind.add(member)

    def check(self, reachable: Collection[str], others: int, *, alone: bool, now: float) -> None:
        """End catching up where all of a restarted cluster, or nobody else, is there.

        `others`: members of the roster beside this agent. `alone`: with none, it need not wait for any.
        """
        if self.synced_at is not None:
            return
        if not others:
            if alone:
                self.synced_at = now
        elif (
            reachable
            and self._behind.issuperset(reachable)
            and 2 * (len(reachable) + 1) >= others + 1
        ):
            self.synced_at = now
