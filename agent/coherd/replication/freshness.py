"""Whether this agent may vouch for the caches of its host: has it synced, with whom, when.

A sync with a holder completes when every hole that it showed is closed, or when the sums of both vectors
are equal. After a start an agent is *catching up*. Two agents that are both catching up must not declare
each other fresh: what they miss may be the same. So catching up ends with a holder that is not itself
catching up, or when all reachable holders are and they are at least half of the roster.

All of this holds for each *domain*: the namespaces that the same agents hold. Where everybody holds
everything there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coherd.model import EVERY_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def domains(
    mine: Collection[str], others: Mapping[str, Collection[str]]
) -> dict[str, frozenset[str]]:
    """Give, for each namespace that is to be told apart, the other agents that hold it.

    `mine` and `others` name what this agent and the others hold. EVERY_NAMESPACE among the domains stands
    for whatever is not named.
    """
    holders: dict[str, set[str]] = {}
    for name, held in others.items():
        for namespace in held:
            holders.setdefault(namespace, set()).add(name)
    everything = frozenset(holders.get(EVERY_NAMESPACE, ()))
    named = set(mine)
    if EVERY_NAMESPACE in named:
        named.update(holders)
    return {namespace: everything.union(holders.get(namespace, ())) for namespace in named}


class Freshness:
    """When the last sync completed; None while catching up."""

    def __init__(self) -> None:
        self._domains: Mapping[str, frozenset[str]] = {EVERY_NAMESPACE: frozenset()}
        self._synced_at: dict[str, float] = {}
        """By domain."""
        self.met_whole: set[str] = set()
        """Holders that a sync was completed with while they were not themselves catching up."""
        self._behind: set[str] = set()
        """Holders that a sync was completed with although they were catching up themselves."""

    @property
    def synced_at(self) -> float | None:
        """When the domain that waits longest for a sync had one; None while one of them had none."""
        if self.is_catching_up:
            return None
        return min((self._synced_at[each] for each in self._domains), default=None)

    @property
    def is_catching_up(self) -> bool:
        """Whether of some domain no sync has completed since the start that ends catching up."""
        return not self._domains.keys() <= self._synced_at.keys()

    @property
    def has_met_others(self) -> bool:
        """Whether a sync was completed with anybody."""
        return bool(self.met_whole or self._behind)

    @property
    def domains(self) -> Mapping[str, frozenset[str]]:
        """What has to be fresh: namespaces, with the other agents that hold them."""
        return self._domains

    def holders(self, domains: Mapping[str, frozenset[str]]) -> None:
        """Take what has to be fresh from now on.

        A namespace that others begin to name was among all the others until then.
        """
        before = self._synced_at.get(EVERY_NAMESPACE)
        if before is not None and EVERY_NAMESPACE in domains:
            for namespace in domains.keys() - self._domains.keys():
                self._synced_at.setdefault(namespace, before)
        self._domains = domains

    def completed(self, member: str, *, catching_up: bool, now: float) -> None:
        """Note a completed sync with `member`, which said whether it is catching up itself."""
        if catching_up:
            self._behind.add(member)
            return
        self.met_whole.add(member)
        for namespace, members in self._domains.items():
            if member in members:
                self._synced_at[namespace] = now

    def unmet(self, reachable: Collection[str]) -> frozenset[str]:
        """Give the reachable holders that a sync may end catching up with, and none was completed with."""
        waiting = [
            members
            for namespace, members in self._domains.items()
            if namespace not in self._synced_at
        ]
        return frozenset().union(*waiting).intersection(reachable) - self._behind

    def check(self, reachable: Collection[str], *, alone: bool, now: float) -> None:
        """End catching up where all of a restarted cluster, or nobody else, is there.

        `alone`: with no other holder known, it need not wait for one; who has met somebody need not either.
        """
        for namespace, members in self._domains.items():
            if members:
                there = members.intersection(reachable)
                if namespace not in self._synced_at and (
                    there and self._behind >= there and 2 * (len(there) + 1) >= len(members) + 1
                ):
                    self._synced_at[namespace] = now
            elif alone or reachable:
                self._synced_at[namespace] = now
