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

from coherd.sim.faults.host import Policy
from coherd.sim.faults.load import LARGE_BYTES, NAMESPACES, Load
from coherd.sim.faults.retiring import Short
from coherd.sim.faults.world import FaultWorld
from coherd.sim.streams import Conditions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coherd.sim.faults.member import Member

QUIET = 120.0
"""Seconds from the end of the last fault to the end."""
BEGIN = 8.0
"""Seconds until the first fault: by then all are linked."""
MENU = (
    "stall", "crash", "lose disk", "flap", "halves", "one way", "some ways", "cut off", "slow disk",
    "full disk", "cache away", "watcher away", "ignorance", "contract", "clock", "large",
    "away",
)  # fmt: skip
LOSING = ("away", "crash", "lose disk", "flap", "full disk", "contract", "large")
"""Those by which rows may be lost, or be forgotten by some while they matter to others."""
ERA_MIN = 40.0
"""Seconds: an era is long beside a sync."""
FLAP_UP, FLAP_DOWN = 15.0, 5.0


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
        self.load = Load(self.world, random, self.ends_at)
        self._set_policies()
        self.eras = self._eras()
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
        with self.eras.applied():
            self._run(tell)

    def _run(self, tell: Callable[[str], None]) -> None:
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

    def _eras(self) -> Short:
        """Draw how eras are: none at all, or so many that whoever is away for long misses some."""
        random, seconds = self.random, self.size.seconds
        lasts = random.choice((inf, seconds / 20, seconds / 8))
        streams_max = random.choice((2, 8))
        return Short(2**62 if lasts == inf else streams_max, max(lasts, ERA_MIN))

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
            self.load.burst(random.uniform(begin, begin + min(lasts, 20.0)), kind)
        for _ in range(self.size.bursts):
            self.load.burst(random.uniform(1.0, self.ends_at - 1), "")
        self.load.burst(self.ends_at - 1, "")

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
            self.load.invalidate(member.index, random.choice((100, 100, LARGE_BYTES)))
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

    def _do_away(self, lasts: float) -> None:
        """End members that others have not heard of some rows of, and start them some eras later."""
        count = self.size.members
        lasts = min(self.eras.lasts * self.random.uniform(1.0, 5.0), 3 * lasts + 60.0)
        lasts = min(lasts, max(1.0, self.ends_at - self.world.now - 5.0))
        for member in self._some():
            ways = [(member.index, i) for i in range(count) if i != member.index]
            self._cut(ways, 2.0)
            self._restart_after(member, lasts, with_disk=True)

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
            self.load.invalidate(member.index, random.choice(sizes))
        if random.random() < 0.5:
            self._restart_after(member, lasts, with_disk=random.random() < 0.5)
