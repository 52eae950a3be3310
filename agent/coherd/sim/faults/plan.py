"""What befalls a simulated world, drawn from the seed: its members, their settings, load in bursts, faults.

Each seed draws a menu, so that some histories know one kind of fault only and others all. Everything is over
some time before the end: then it is quiet, and what was accepted must be everywhere.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import exp, inf, log
from random import Random
from typing import TYPE_CHECKING

from coherd.model import EVERYTHING, Effect, Lane
from coherd.sim.faults.host import Policy
from coherd.sim.faults.readers import Copy
from coherd.sim.faults.truth import KEYS, PREFIX, TAGS, key_of, tag_of
from coherd.sim.faults.world import FaultWorld
from coherd.sim.streams import Conditions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coherd.sim.faults.member import Member

NAMESPACES = ("catalog", "prices", "users")
QUIET = 120.0
"""Seconds from the end of the last fault to the end."""
BEGIN = 8.0
"""Seconds until the first fault: by then all are linked."""
MENU = (
    "stall", "crash", "lose disk", "flap", "halves", "one way", "some ways", "cut off", "slow disk",
    "full disk", "cache away", "watcher away", "ignorance", "contract", "clock", "large",
)  # fmt: skip
LOSING = ("crash", "lose disk", "flap", "full disk", "contract", "large")
"""Those by which rows may be lost, or be forgotten by some while they matter to others."""
FLAP_UP, FLAP_DOWN = 15.0, 5.0
FILL_MAX = 1.0
"""Seconds at most from a load from the source to its commit."""
FILLS = 3
"""For each call to invalidate."""
LARGE_BYTES = 2_000_000
LANES = tuple(Lane)
HOT_KEYS = 4
COMPACTIONS = 6
"""In each burst of load."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a history is."""

    members: int = 24
    seconds: float = 1_200.0
    faults: tuple[int, int] = (6, 14)
    """The fewest and the most."""
    bursts: int = 8
    """Of load, beside one in each fault."""


class Plan:
    """One history that is to be."""

    def __init__(self, size: Size, seed: int, menu: Sequence[str] = ()) -> None:
        """`menu`: the kinds of faults that are drawn from, if not all kinds may be."""
        self.size = size
        self.random = random = Random(seed)
        self.befell: Counter[str] = Counter()
        drawn = random.sample(MENU, random.choice((1, 2, 4, 8, len(MENU))))
        self.menu = menu or drawn
        conditions = Conditions(
            loss=random.choice((0.0, 0.0, 0.01, 0.05, 0.2)),
            late_replies=random.choice((0.0, 0.0, 0.1, 0.5)),
        )
        self.world = FaultWorld(self._interests(), NAMESPACES, conditions, random.getrandbits(64))
        self.ends_at = size.seconds - QUIET
        self._set_policies()
        for member in self.world.members:
            member.compacts = random.random() < 0.5
            member.reset_jitter = random.choice((0.0, 0.5, 5.0))
            member.usual_interval = random.choice((0.005, 0.005, 0.05, 0.5))
            member.commit_interval = member.usual_interval
            member.skew = random.choice((0.0, random.uniform(-5, 5), random.uniform(-9e4, 9e4)))
            self.world.start(member)
        self._schedule()

    def run(self, tell: Callable[[str], None]) -> None:
        """Let it happen, and look at it."""
        world, step = self.world, 30.0
        world.checks.resets_max = 1 + self.befell.total()
        world.checks.loses_nothing = self.loses_nothing()
        while world.now < self.size.seconds:
            world.run(min(world.now + step, self.size.seconds))
            world.checks.memory()
            for member in world.members:
                if member.compacts and member.is_up and member.stalled_until <= world.now:
                    member.compact()
                    world.settle(member)
            tell(f"{world.now:,.0f} of {self.size.seconds:,.0f} s")
        world.checks.final()

    def loses_nothing(self) -> bool:
        """Tell whether no row can be lost, and all that is forgotten has expired for everybody.

        Whoever was away for however long is then brought what it missed, or told that it has expired.
        """
        policies = self.world.members[0].policies.values()
        early = any(
            policy.entries_max < inf
            or (policy.max_ttl == inf and policy.retention < self.size.seconds)
            for policy in policies
        )
        return not early and not any(self.befell[kind] for kind in LOSING)

    # ------------------------------------------------------------------ members

    def _interests(self) -> list[Sequence[str]]:
        random, count = self.random, self.size.members
        choosy = random.choice((0.0, 0.4, 0.8))
        result: list[Sequence[str]] = []
        for index in range(count):
            if index < 3 or random.random() >= choosy:
                result.append(NAMESPACES)
            else:
                number = random.choice((0, 1, 2))
                result.append(sorted(random.sample(NAMESPACES, number)))
        return result

    def _set_policies(self) -> None:
        random = self.random
        long = self.size.seconds / 4
        for namespace in NAMESPACES:
            max_ttl = random.choice((20.0, 60.0, long / 2, long, 4 * long, inf))
            retention = random.choice((long / 2, 4 * long))
            entries_max = random.choice((inf, inf, 60.0))
            for member in self.world.members:
                member.policies[namespace] = Policy(inf, retention, entries_max)
                member.set_ttl(namespace, max_ttl)

    # ------------------------------------------------------------------ what happens when

    def _schedule(self) -> None:
        random = self.random
        for _ in range(random.randint(*self.size.faults)):
            begin = random.uniform(BEGIN, self.ends_at - 1)
            longest = max(1.0, self.ends_at - begin)
            lasts = min(longest, exp(random.uniform(log(0.3), log(self.size.seconds / 3))))
            kind = random.choice(self.menu)
            self.befell[kind] += 1
            self.world.at(begin, self._fault(kind, lasts))
            self._burst(random.uniform(begin, begin + min(lasts, 20.0)), kind)
        for _ in range(self.size.bursts):
            self._burst(random.uniform(1.0, self.ends_at - 1), "")
        self._burst(self.ends_at - 1, "")

    def _fault(self, kind: str, lasts: float) -> Callable[[], None]:
        action = getattr(self, "_do_" + kind.replace(" ", "_"))
        return lambda: action(lasts)

    def _some(self, most: int | None = None) -> list[Member]:
        """Draw members that are up, one as a rule."""
        up = [member for member in self.world.members if member.is_up]
        most = most or max(1, len(up) // 6)
        count = self.random.choice((1, 1, self.random.randint(1, most)))
        return self.random.sample(up, min(len(up), count))

    def _do_stall(self, lasts: float) -> None:
        for member in self._some():
            self.world.stall(member, min(lasts, 300.0))

    def _do_crash(self, lasts: float, *, with_disk: bool = True) -> None:
        for member in self._some():
            self._restart_after(member, lasts, with_disk=with_disk)

    def _restart_after(self, member: Member, seconds: float, *, with_disk: bool) -> None:
        """End a member, as a rule while it publishes, and start it again."""
        random, life = self.random, member.life
        for _ in range(random.choice((0, 1, 6))):
            self._invalidate(member.index, random.choice((100, 100, LARGE_BYTES)))
        self.world.at(
            self.world.now + random.choice((0.0, 0.001, 0.01, 0.3)),
            lambda: self._end(member, life, seconds, with_disk=with_disk),
        )

    def _end(self, member: Member, life: int, seconds: float, *, with_disk: bool) -> None:
        if member.is_up and member.life == life:
            self.world.crash(member, with_disk=with_disk)
            self.world.at(self.world.now + seconds, lambda: self._start(member))

    def _start(self, member: Member) -> None:
        if not member.is_up:
            self.world.start(member)

    def _do_lose_disk(self, lasts: float) -> None:
        self._do_crash(lasts, with_disk=False)

    def _do_flap(self, lasts: float) -> None:
        end = self.world.now + lasts
        for member in self._some():
            self._flap(member, end)

    def _flap(self, member: Member, end: float) -> None:
        random, now = self.random, self.world.now
        if member.is_up:
            down = min(random.uniform(0.0, FLAP_DOWN), max(0.0, end - now))
            self._restart_after(member, down, with_disk=True)
        again = now + random.uniform(0.0, FLAP_UP)
        if again < end:
            self.world.at(again, lambda: self._flap(member, end))

    def _cut(self, ways: Sequence[tuple[int, int]], lasts: float) -> None:
        self.world.cut(ways)
        self.world.at(self.world.now + lasts, lambda: self.world.mend(ways))

    def _do_halves(self, lasts: float) -> None:
        count = self.size.members
        here = set(self.random.sample(range(count), self.random.randint(1, count - 1)))
        there = [index for index in range(count) if index not in here]
        ways = [(a, b) for a in sorted(here) for b in there]
        self._cut(ways + [(b, a) for a, b in ways], lasts)

    def _do_one_way(self, lasts: float) -> None:
        count = self.size.members
        here = set(self.random.sample(range(count), self.random.randint(1, count // 2)))
        self._cut([(a, b) for a in sorted(here) for b in range(count) if b not in here], lasts)

    def _do_some_ways(self, lasts: float) -> None:
        count, share = self.size.members, self.random.choice((0.1, 0.5, 0.8))
        ways = [(a, b) for a in range(count) for b in range(a) if self.random.random() < share]
        self._cut(ways + [(b, a) for a, b in ways], lasts)

    def _do_cut_off(self, lasts: float) -> None:
        for member in self._some():
            others = [index for index in range(self.size.members) if index != member.index]
            ways = [(member.index, other) for other in others]
            self._cut(ways + [(b, a) for a, b in ways], lasts)

    def _do_slow_disk(self, lasts: float) -> None:
        for member in self._some():
            member.commit_interval = self.random.uniform(0.1, 5.0)
            self.world.at(self.world.now + lasts, lambda m=member: self._quicken(m))  # type: ignore[misc]

    def _do_full_disk(self, lasts: float) -> None:
        for member in self._some():
            member.commit_interval = self.random.uniform(5.0, 60.0)
            member.rows_max = member.journal.rows_max = self.random.randint(60, 200)
            self.world.at(self.world.now + lasts, lambda m=member: self._quicken(m))  # type: ignore[misc]

    def _quicken(self, member: Member) -> None:
        member.commit_interval = member.usual_interval
        member.rows_max = member.journal.rows_max = 20_000

    def _do_cache_away(self, lasts: float) -> None:
        for member in self._some():
            self._away(member, "cache", lasts)

    def _do_watcher_away(self, lasts: float) -> None:
        for member in self._some():
            self._away(member, "watcher", lasts)

    def _away(self, member: Member, which: str, lasts: float) -> None:
        member.close_reader(getattr(member, which))
        self.world.at(self.world.now + lasts, lambda: self._back(member, which))

    def _back(self, member: Member, which: str) -> None:
        member.open_reader(getattr(member, which))
        if member.is_up and member.stalled_until <= self.world.now:
            self.world.settle(member)

    def _do_ignorance(self, lasts: float) -> None:
        for member in self._some():
            names = [m.name for m in self._some(self.size.members // 3) if m is not member]
            for name in names:
                member.unknown.add(name)
                member.view.remove(name)
            self.world.at(self.world.now + lasts, lambda m=member, n=names: self._learn(m, n))  # type: ignore[misc]

    def _learn(self, member: Member, names: Sequence[str]) -> None:
        for name in names:
            member.unknown.discard(name)
            if member.is_up and name in member.linked_at:
                member.view.add(name, self.world.by_name[name].interest)

    def _do_contract(self, _lasts: float) -> None:
        random, namespace = self.random, self.random.choice(NAMESPACES)
        max_ttl = random.choice((10.0, 60.0, self.size.seconds / 4, self.size.seconds, inf))
        share = random.choice((0.1, 0.5, 1.0))
        for member in self.world.members:
            if random.random() < share:
                at = self.world.now + random.uniform(0.0, 10.0)
                self.world.at(at, lambda m=member: m.set_ttl(namespace, max_ttl))  # type: ignore[misc]

    def _do_clock(self, _lasts: float) -> None:
        for member in self._some():
            member.skew += self.random.choice((-1, 1)) * self.random.choice((1.0, 600.0, 9e4))

    def _do_large(self, lasts: float) -> None:
        """Fill the queues of links: those to members that stand still, or all those of one in an instant."""
        random = self.random
        if random.random() < 0.5:
            for member in self._some():
                self.world.stall(member, min(lasts, 30.0))
            return
        member, sizes = self._some()[0], (100, LARGE_BYTES, LARGE_BYTES)
        for _ in range(random.randint(5, 12)):
            self._invalidate(member.index, random.choice(sizes))
        if random.random() < 0.5:
            self._restart_after(member, lasts, with_disk=random.random() < 0.5)

    # ------------------------------------------------------------------ load

    def _burst(self, begin: float, kind: str) -> None:
        random = self.random
        calls = random.randint(3, 20)
        lasts = random.choice((0.05, 1.0, 10.0))
        publishers = random.sample(range(self.size.members), random.randint(1, 5))
        size = LARGE_BYTES if kind == "large" else 100
        narrow = (
            (random.choice(NAMESPACES), random.choice(LANES)) if random.random() < 0.5 else None
        )
        if narrow is not None:
            del publishers[2:]
        for _ in range(calls):
            at = min(begin + random.uniform(0.0, lasts), self.ends_at)
            self.world.at(at, lambda: self._invalidate(random.choice(publishers), size, narrow))
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

    def _invalidate(
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
