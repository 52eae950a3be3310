"""A small random world of replicas: loss, duplication, reordering, compaction, forgetting, resets.

Every member has copies of some keys of the namespaces that it holds; some only publish. A copy carries the
time of its fill and lives as long as the member's setting of that time said. The world is a function of its
seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Any
from unittest.mock import patch

from coherd.model import Cause, Effect, Lane, Origin, Stream
from coherd.replication import answers as answering
from coherd.replication import ledger, repair, retention
from coherd.replication.intervals import Intervals
from coherd.replication.replica import Arrival, Replica

NAMESPACE = "shop"
DIVIDED = (("shop", "farm"), ("shop",), ("farm",), ())
"""What members may hold where not everybody holds everything."""
KEYS = 10
TTLS = (5.0, 120.0)


class Stale(AssertionError):
    """A copy outlived a row that its member's vector contains."""


@dataclass
class Copy:
    filled_at: float
    ttl: float
    marked: bool = False


@dataclass
class Member:
    name: str
    random: Random
    holds: tuple[str, ...] = (NAMESPACE,)
    replica: Replica = field(init=False)
    entries_max: float = inf
    copies: dict[bytes, Copy] = field(default_factory=dict)
    ttl: float = TTLS[1]
    effective: retention.EffectiveTtl = field(default_factory=retention.EffectiveTtl)
    arrivals: dict[tuple[Stream, int], Arrival] = field(default_factory=dict)
    resets: int = 0

    def __post_init__(self) -> None:
        self.now = 0.0
        self.effective.set(self.ttl, 0.0)
        self.replica = Replica(self.keep)
        self.replica.begin_life(Origin(self.name, 1))
        self.repair = repair.Repair(self.replica.vector, self.random, self.horizon)

    def horizon(self, _namespace: str, now: float) -> float:
        return retention.horizon(self.effective.at(now))

    def keep(self, _namespace: str) -> ledger.Keep:
        return ledger.Keep(self.entries_max, self.horizon(NAMESPACE, self.now))

    def keeps(self, stream: Stream) -> bool:
        return stream.namespace in self.holds or stream.origin.name == self.name

    def apply(self, arrival: Arrival | None) -> None:
        """Do to the copies what a cache does, and remember the rows as a journal does."""
        if arrival is None:
            return
        batch = arrival.batch
        if arrival.cause.is_reset:
            of_it = arrival.namespace.encode() + b":"
            self.copies = {k: c for k, c in self.copies.items() if not k.startswith(of_it)}
            self.resets += 1
        for selector in batch.selectors:
            if batch.effect is Effect.DROP:
                self.copies.pop(selector, None)
            elif selector in self.copies:
                self.copies[selector].marked = True
        for n in Intervals(batch.numbers):
            self.arrivals[batch.stream, n] = Arrival(
                arrival.position, batch.select([(n, n)]), arrival.accepted_at, arrival.cause
            )
        if not arrival.cause.is_reset:
            self.repair.touch(batch.stream)


class World:
    """Members, what is on its way between them, and the truth about every row."""

    def __init__(self, seed: int, members: int = 4, *, divided: bool = False) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.members = [Member(f"m{i}", Random(seed * 31 + i)) for i in range(members)]
        self.namespaces = DIVIDED[0] if divided else (NAMESPACE,)
        if divided:  # the first two hold everything
            for i, member in enumerate(self.members):
                member.holds = DIVIDED[0] if i < 2 else self.random.choice(DIVIDED[1:])
        self.by_name = {member.name: member for member in self.members}
        for member in self.members:
            member.repair.holds = lambda name, namespace: namespace in self.by_name[name].holds
        self.truth: dict[tuple[Stream, int], tuple[bytes, Effect, float]] = {}
        self.network: list[tuple[Any, ...]] = []
        self.covered = self.blanked = self.paged = 0

    # ---------------------------------------------------------------- what happens

    def step(self) -> None:
        if self.random.random() < 0.4:
            self.now += self.random.expovariate(1 / 4)
        self.expire()
        weights = {
            self.invalidate: 20, self.fill: 25, self.compact: 5, self.forget_by_age: 5,
            self.forget_half: 1.5, self.forget_due: 4, self.change_ttl: 3, self.exchange: 12,
            self.deliver: 25, self.repair: 10,
        }  # fmt: skip
        self.random.choices(list(weights), list(weights.values()))[0]()
        self.check()

    def expire(self) -> None:
        for member in self.members:
            member.copies = {
                key: copy
                for key, copy in member.copies.items()
                if self.now - copy.filled_at <= copy.ttl
            }

    def invalidate(self) -> None:
        member = self.random.choice(self.members)
        namespace = self.random.choice(self.namespaces)
        key = b"%s:%d" % (namespace.encode(), self.random.randrange(KEYS))
        effect = self.random.choice([Effect.DROP, Effect.STALE])
        arrival = member.replica.accept(
            namespace, Lane.NORMAL, [key], effect=effect, versions=None, stamp=0, now=self.now
        )
        number = arrival.batch.numbers[0][0]
        self.truth[arrival.batch.stream, number] = (key, effect, self.now)
        member.apply(arrival)
        for other in self.members:
            if other is not member and self.random.random() < 0.6:
                for _ in range(1 + (self.random.random() < 0.1)):
                    self.network.append(("row", other, arrival))

    def fill(self) -> None:
        for member in self.members:
            for name in member.holds:
                for i in range(KEYS):
                    key = b"%s:%d" % (name.encode(), i)
                    member.copies.setdefault(key, Copy(self.now, member.ttl))

    def compact(self) -> None:
        """Drop what a later held row of the same stream and key supersedes."""
        member = self.random.choice(self.members)
        newest: dict[tuple[Stream, bytes], tuple[Effect, int]] = {}
        for stream, number in sorted(member.arrivals, reverse=True):
            batch = member.arrivals[stream, number].batch
            key = (stream, batch.selectors[0])
            mine = (batch.effect, 0)
            if key in newest and ledger.supersedes(newest[key], mine):
                member.replica.vector.compact(stream, [(number, number)])
                del member.arrivals[stream, number]
            else:
                newest[key] = mine

    def forget_by_age(self) -> None:
        member = self.random.choice(self.members)
        age = retention.horizon(
            member.effective.at(self.now) if self.random.random() < 0.7 else member.ttl
        )
        self.forget(
            member, [d for d, a in member.arrivals.items() if self.now - a.accepted_at >= age]
        )

    def forget_half(self) -> None:
        """A limit on entries, or a damaged segment."""
        member = self.random.choice(self.members)
        dots = sorted(member.arrivals)
        self.forget(member, dots[: len(dots) // 2])

    def forget(self, member: Member, dots: list[tuple[Stream, int]]) -> None:
        for dot in dots:
            member.replica.forget(member.arrivals.pop(dot))

    def forget_due(self) -> None:
        """What an agent does every second, under a limit that changes."""
        member = self.random.choice(self.members)
        member.now = self.now
        member.entries_max = self.random.choice([8, 32, inf])
        member.replica.forget_due(self.now)
        vector = member.replica.vector
        for stream, number in list(member.arrivals):
            if number not in vector.state(stream).held:
                del member.arrivals[stream, number]

    def change_ttl(self) -> None:
        member = self.random.choice(self.members)
        member.ttl = self.random.choice(TTLS)
        member.effective.set(member.ttl, self.now)

    # ---------------------------------------------------------------- exchanges

    def exchange(self) -> None:
        """One member tells another what it has."""
        teller, hearer = self.random.sample(self.members, 2)
        self.network.append(("claim", hearer, teller.name, self.shown(teller, hearer)))

    def shown(self, teller: Member, hearer: Member) -> list[tuple[Stream, Intervals]]:
        """What is told: of what both hold everything, of the rest the teller's own streams."""
        return [
            (stream, state.have.copy())
            for stream, state in teller.replica.vector
            if teller.keeps(stream) and stream.namespace in hearer.holds
        ]

    def reachable(self, member: Member) -> list[str]:
        return [other.name for other in self.members if other is not member]

    def repair(self) -> None:
        member = self.random.choice(self.members)
        with patch.object(repair, "ASK_ROWS_MAX", self.random.choice([2, 10_000])):
            asks = member.repair.plan(self.now, self.reachable(member))
        for ask in asks:
            server = self.by_name[ask.member]
            if self.random.random() < 0.1:  # somebody else answers there, who may never have had it
                server = self.random.choice(self.members)
            answers, arrivals = {}, []
            for stream, wanted in ask.wanted.items():
                reply = repair.answer(server.replica.vector.get(stream), wanted, self.now)
                answers[stream] = reply
                arrivals += [server.arrivals[stream, n] for n in reply.rows]
                self.covered += bool(reply.covers)
                self.blanked += bool(reply.blank)
            few = self.random.random() < 0.6
            pages = list(answering.pages(answers, 2 if few else 1000, 1 if few else 1000))
            self.paged += len(pages) > 1
            self.network.append(("answer", member, ask, pages, arrivals))
        with patch.object(repair, "LATE_MAX", inf):  # time goes by in big steps here
            resets = member.repair.resets(self.now, self.reachable(member))
        for namespace, cause in resets:
            self.reset(member, namespace, cause)

    def reset(self, member: Member, namespace: str, cause: Cause) -> None:
        adopted = member.repair.reset(namespace)
        member.apply(member.replica.reset(namespace, adopted, cause, self.now))

    def deliver(self) -> None:
        """Bring something that is under way, in any order, or lose it."""
        if self.network:
            kind, member, *rest = self.network.pop(self.random.randrange(len(self.network)))
            lost = self.random.random() < 0.1
            getattr(self, f"deliver_{kind}")(member, lost, *rest)

    def deliver_row(self, member: Member, lost: bool, arrival: Arrival) -> None:
        if not lost and member.keeps(arrival.batch.stream):
            member.apply(
                member.replica.receive(arrival.batch, arrival.accepted_at, Cause.LINK, self.now)
            )

    def deliver_claim(self, member: Member, lost: bool, teller: str, claims: list) -> None:
        if not lost:
            member.repair.claim(teller, claims)

    def deliver_answer(
        self, member: Member, lost: bool, ask: repair.Ask, pages: list[dict], arrivals: list
    ) -> None:
        if lost:
            member.repair.failed(ask, self.now, 0.0)
            return
        for arrival in arrivals:
            if self.random.random() < 0.05:  # cut short: what came is kept, the answer is not
                member.repair.failed(ask, self.now, 0.0)
                return
            receive = member.replica.receive
            member.apply(receive(arrival.batch, arrival.accepted_at, Cause.REPAIR, self.now))
        member.repair.answered(ask, self.read(pages), self.now)

    def read(self, pages: list[dict]) -> dict[Stream, repair.Answer]:
        """Join what several messages say."""
        whole: dict[Stream, repair.Answer] = {}
        for page in pages:
            for stream, part in page.items():
                whole[stream] = whole[stream].joined(part) if stream in whole else part
        return whole

    # ---------------------------------------------------------------- what must hold

    def check(self) -> None:
        """No copy is served that a row in the vector forbids."""
        for member in self.members:
            for stream, state in member.replica.vector:
                for number in state.have:
                    key, effect, accepted_at = self.truth[stream, number]
                    copy = member.copies.get(key)
                    if copy is None or copy.filled_at >= accepted_at:
                        continue
                    if self.now - copy.filled_at > copy.ttl:
                        continue
                    if effect is Effect.DROP or not copy.marked:
                        raise Stale(f"{member.name} serves {key!r} against {stream} {number}")
                if state.have and not member.keeps(stream):
                    raise Stale(f"{member.name} keeps {stream}, which it does not hold")

    def heal(self) -> None:
        """Let faults end: every vector becomes the same, and nothing stale is left."""
        self.network.clear()
        for member in self.members:
            for ask in list(member.repair._flight.values()):
                member.repair.failed(ask, self.now, 0.0)
        for _ in range(400):
            self.now += 0.5
            self.expire()
            for teller in self.members:
                for hearer in self.members:
                    if hearer is not teller:
                        hearer.repair.claim(teller.name, self.shown(teller, hearer))
            for _ in self.members:
                self.repair()
            while self.network:
                self.deliver()
            self.check()
            if self.converged():
                return
        raise AssertionError("the members did not become equal")

    def converged(self) -> bool:
        """The first member holds everything, and all has what they hold, and their own."""
        first = {s: state.have for s, state in self.members[0].replica.vector if state.have}
        return all(
            {s: state.have for s, state in m.replica.vector if state.have}
            == {s: have for s, have in first.items() if m.keeps(s)}
            and not m.repair.open()
            for m in self.members
            if m.holds
        )


def run(seed: int, steps: int = 500, *, divided: bool = False) -> World:
    world = World(seed, divided=divided)
    for _ in range(steps):
        world.step()
    world.heal()
    return world
