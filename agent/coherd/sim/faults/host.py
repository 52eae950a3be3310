"""The clock of a simulated host, and what it has been told of namespaces."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING

from coherd.replication.ledger import Keep
from coherd.replication.retention import EffectiveTtl, horizon

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coherd.sim.faults.world import FaultWorld

DRIFT_MAX = 1e-4
"""By which share running time may go too fast or too slow."""


@dataclass(slots=True)
class Policy:
    """What is set for a namespace at one member."""

    max_ttl: float
    retention: float
    entries_max: float


class Host:
    """What outlives the agent, and the time and the settings of each of its lives."""

    def __init__(self, world: FaultWorld, name: str, holds: Sequence[str], drift: float) -> None:
        self.world = world
        self.name = name
        self.holds = tuple(holds)
        self._shared: dict[str, tuple[str, ...]] = {}
        self.is_up = False
        self.rate = 1 + drift
        self.skew = 0.0
        """Seconds that the wall clock is ahead."""
        self.epochs: dict[str, int] = {}
        """The highest epoch that it has seen of each member."""
        self.policies: dict[str, Policy] = {}
        self.past_ttls: dict[str, list[tuple[float, float]]] = {}
        """The truth per namespace: since when, in true time, and under which `max_ttl` copies are kept."""
        self._since = self._base = 0.0
        self._ttls: dict[str, EffectiveTtl] = {}

    def begin_clock(
        self, running_time: float, max_ttls: Mapping[str, Sequence[tuple[float, float]]]
    ) -> None:
        """Let time run again from where it stood, with the past of the settings that is stored."""
        self._since, self._base = self.world.now, running_time
        for namespace in self.world.namespaces:
            self._ttls[namespace] = EffectiveTtl(max_ttls.get(namespace, ()))
            self._ttls[namespace].set(self.policies[namespace].max_ttl, self.now)

    def store_ttls(self, namespaces: Sequence[str]) -> None:
        """Store the settings that count, present and past."""

    def shared(self, name: str) -> tuple[str, ...]:
        """Give the namespaces that another member holds, too."""
        shared = self._shared.get(name)
        if shared is None:
            theirs = self.world.by_name[name].holds
            shared = self._shared[name] = tuple(n for n in self.holds if n in theirs)
        return shared

    def holds_too(self, name: str, namespace: str) -> bool:
        """Tell whether another member holds a namespace."""
        return namespace in self.world.by_name[name].holds

    def hear_of(self, other: Host) -> None:
        """Hear of the lives of all members that another one knows, and of its own."""
        mine = self.epochs
        for name, epoch in other.epochs.items():
            if epoch > mine.get(name, 0) and name != self.name:
                mine[name] = epoch

    @property
    def now(self) -> float:
        """The running time of this host, which goes on from life to life and stands still between."""
        return self._base + (self.world.now - self._since) * self.rate

    def true_time(self, local: float) -> float:
        """Give when its clock will show a running time."""
        return self._since + (local - self._base) / self.rate + 1e-9

    def horizon(self, namespace: str, now: float) -> float:
        """Give the age in seconds from which a row of the namespace covers no living copy."""
        return horizon(self._ttls[namespace].at(now))

    def keep(self, namespace: str) -> Keep:
        """Say how much of a namespace is remembered."""
        policy = self.policies[namespace]
        age = self.horizon(namespace, self.now)
        return Keep(policy.entries_max, policy.retention if age == inf else age)

    def set_ttl(self, namespace: str, max_ttl: float) -> None:
        """Change the contract of a namespace as this host knows it."""
        self.policies[namespace].max_ttl = max_ttl
        self.past_ttls.setdefault(namespace, []).append((self.world.now, max_ttl))
        if self.is_up:
            self._ttls[namespace].set(max_ttl, self.now)
            self.store_ttls([namespace])

    def forget_past_ttls(self) -> None:
        """Forget under which settings older copies are kept: that was stored on the disk alone.

        An agent that begins without a journal cannot know it. That gap is known, and not looked at here.
        """
        for past in self.past_ttls.values():
            del past[:-1]

    def needed_ttl(self, namespace: str) -> float:
        """Give the truth: the longest `max_ttl` under which a copy may still be alive on this host."""
        past, now = self.past_ttls[namespace], self.world.now
        needed = past[-1][1]
        for (_, max_ttl), (end, _) in pairwise(past):
            if now - end < max_ttl:
                needed = max(needed, max_ttl)
        return needed
