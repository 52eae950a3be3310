"""What applications do in a simulated world: bursts of calls that invalidate, and copies that are filled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coherd.model import EVERYTHING, Effect, Lane
from coherd.sim.faults.readers import Copy
from coherd.sim.faults.truth import KEYS, PREFIX, TAGS, key_of, tag_of

if TYPE_CHECKING:
    from random import Random

    from coherd.sim.faults.member import Member
    from coherd.sim.faults.world import FaultWorld

NAMESPACES = ("catalog", "prices", "users")
FILL_MAX = 1.0
"""Seconds at most from a load from the source to its commit."""
FILLS = 3
"""For each call to invalidate."""
LARGE_BYTES = 2_000_000
LANES = tuple(Lane)
HOT_KEYS = 4
COMPACTIONS = 6
"""In each burst of load."""


class Load:
    """What applications do until some time before the end."""

    def __init__(self, world: FaultWorld, random: Random, ends_at: float) -> None:
        self.world = world
        self.random = random
        self.ends_at = ends_at

    def burst(self, begin: float, kind: str) -> None:
        """Let some applications invalidate for a while; `kind`: of the fault that it belongs to."""
        random = self.random
        calls = random.randint(3, 20)
        lasts = random.choice((0.05, 1.0, 10.0))
        publishers = random.sample(range(len(self.world.members)), random.randint(1, 5))
        size = LARGE_BYTES if kind == "large" else 100
        narrow = (
            (random.choice(NAMESPACES), random.choice(LANES)) if random.random() < 0.5 else None
        )
        if narrow is not None:
            del publishers[2:]
        for _ in range(calls):
            at = min(begin + random.uniform(0.0, lasts), self.ends_at)
            self.world.at(at, lambda: self.invalidate(random.choice(publishers), size, narrow))
            for _ in range(FILLS):
                self.world.at(max(0.0, at + random.uniform(-5.0, 2.0)), self._fill)
        for _ in range(COMPACTIONS):
            self.world.at(begin + random.uniform(0.0, lasts + 1.0), self._compact)

    def _compact(self) -> None:
        """Let those that compact do so: an idle slice."""
        for member in self.world.members:
            if member.compacts and member.is_up and member.stalled_until <= self.world.now:
                member.compact()
                self.world.settle(member)

    def invalidate(
        self, index: int, size_bytes: int, narrow: tuple[str, Lane] | None = None
    ) -> None:
        """Let an application invalidate; `narrow`: in one namespace and lane, where few keys are hot."""
        random = self.random
        member = self.world.members[index]
        namespace, lane = narrow or (random.choice(NAMESPACES), random.choice(LANES))
        effect = random.choice((Effect.DROP, Effect.DROP, Effect.STALE))
        keys = KEYS if narrow is None else HOT_KEYS
        selectors = [self._selector(keys) for _ in range(random.choice((1, 1, 2, 8)))]
        versions = None
        if random.random() < 0.3:
            versions = [random.choice((0, random.randint(1, 100))) for _ in selectors]
        self.world.invalidate(
            member,
            namespace,
            lane,
            selectors,
            effect,
            versions,
            receipt=random.random() < 0.3,
            size_bytes=size_bytes,
        )

    def _selector(self, keys: int) -> bytes:
        random = self.random
        kind = random.random()
        key = key_of(random.randrange(keys))
        if kind < 0.8:
            return b"k" + key
        if kind < 0.9:
            return b"t" + tag_of(key_of(random.randrange(TAGS * 2)))
        return b"p" + key[:PREFIX] if kind < 0.97 else EVERYTHING

    def _fill(self) -> None:
        """Let an application load a value and, a little later, ask whether it may stay."""
        random, world = self.random, self.world
        member = random.choice(world.members)
        if not member.is_up or not member.holds or member.stalled_until > world.now:
            return
        namespace, key = random.choice(member.holds), key_of(random.randrange(KEYS))
        token, life, loaded_at = member.replica.position, member.life, world.now
        self.world.at(
            world.now + random.uniform(0.0, FILL_MAX),
            lambda: self._commit_fill(member, life, namespace, key, token, loaded_at),
        )

    def _commit_fill(
        self, member: Member, life: int, namespace: str, key: bytes, token: int, loaded_at: float
    ) -> None:
        if not member.is_up or member.life != life or not member.cache.is_open:
            return
        replica = member.replica
        standing = replica.ledger(namespace).check(key, [tag_of(key)])
        if max(standing.drop, standing.stale) > token or token < replica.floor(namespace).n:
            return  # refused: the agent drops the copy
        expires_at = loaded_at + member.policies[namespace].max_ttl
        member.cache.store(namespace, key, Copy(loaded_at, expires_at))
