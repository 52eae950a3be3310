"""How long rows matter on this host and how much is remembered: the settings, their past, and the task
that forgets.

A `max_ttl` goes on to count for a while after it was lowered, because copies were kept under it; so its
past is journaled.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio

from coherd.errors import NotDurable, Overloaded
from coherd.journal import Write
from coherd.replication.ledger import Keep
from coherd.replication.retention import EffectiveTtl, horizon

if TYPE_CHECKING:
    from coherd.clock import Clock
    from coherd.cluster.ingest import Ingest
    from coherd.config import AgentConfig
    from coherd.journal import Journal

FORGET_INTERVAL = 1.0
"""Seconds between two looks at what has become too old."""


class Retaining:
    """What `max_ttl` is and was in each namespace."""

    def __init__(self, config: AgentConfig, journal: Journal, clock: Clock) -> None:
        self._config = config
        self._journal = journal
        self._clock = clock
        self._ttls: dict[str, EffectiveTtl] = {}
        self._unsaved: set[str] = set()

    def horizon(self, namespace: str, now: float) -> float:
        """Give the age in seconds from which a row of the namespace covers no living copy."""
        effective = self._ttls.get(namespace)
        if effective is None:
            history = self._journal.contents.max_ttls.get(namespace, ())
            effective = self._ttls[namespace] = EffectiveTtl(history)
            effective.set(self._config.namespace(namespace).max_ttl or inf, now)
            if effective.history != list(history):
                self._unsaved.add(namespace)
        return horizon(effective.at(now))

    def keep(self, namespace: str) -> Keep:
        """Say how much of the namespace is remembered."""
        settings = self._config.namespace(namespace)
        age = self.horizon(namespace, self._clock.now())
        return Keep(
            settings.entries_max,
            settings.retention if age == inf else age,
            self._config.journal_bytes_max,
        )

    async def run(self, ingest: Ingest) -> None:
        """Forget what becomes too old, for ever."""
        while True:
            self._save()
            ingest.forget()
            await trio.sleep(FORGET_INTERVAL)

    def _save(self) -> None:
        histories = {name: self._ttls[name].history for name in self._unsaved}
        if histories:
            try:
                self._journal.append_nowait(Write(max_ttls=histories))
            except (Overloaded, NotDurable):
                return  # the next round tries again
            self._unsaved.clear()
