"""Making good what a loss of power, or damage like it, may have taken from the journal.

Rows that were committed and are gone leave no hole: the vector is as old as the rest. A sync with a holder
that is not itself catching up brings them back. Where all are catching up, or nobody else is there, what is
gone may be gone for all: every namespace is then reset, once. Who started since this agent was here last
may have lost the same, caught up or not: only a life that went on meanwhile is known to have it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from coherd.model import Cause

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from coherd.cluster.ingest import Ingest
    from coherd.cluster.roster import Roster
    from coherd.replication.freshness import Freshness

log = structlog.get_logger("coherd.healing")


class Healing:
    """Whether something is to be made good, and how."""

    def __init__(
        self,
        ingest: Ingest,
        freshness: Freshness,
        roster: Roster,
        namespaces: Callable[[], Collection[str]],
        *,
        needed: bool,
    ) -> None:
        """`namespaces()`: all that anything is known of."""
        self._ingest = ingest
        self._freshness = freshness
        self._roster = roster
        self._namespaces = namespaces
        self.is_needed = needed

    def look(self) -> None:
        """Heal once this agent is not catching up any more."""
        if not self.is_needed or self._freshness.is_catching_up:
            return
        # Of each domain somebody has to be known to have gone on.
        met = set(filter(self._roster.went_on, self._freshness.met_whole))
        left = [members for members in self._freshness.domains.values() if not members & met]
        if not left:
            if not self._ingest.heal():
                return
            log.info("what a loss of power may have taken was fetched from the other agents")
        elif any(map(self._roster.may_have_gone_on, frozenset().union(*left))):
            return  # a sync with it is due, or it is still being dialled
        elif not self._ingest.reset(self._namespaces(), Cause.POWER_LOSS, healed=True):
            return  # the journal is busy
        self.is_needed = False
