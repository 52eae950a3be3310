"""Members, connections and time: what is sent arrives, or not, and faults are done to them.

Everything follows from the seed. A stalled member does nothing; when it goes on its timers come first, late,
and then all that came in meanwhile on connections that still stand. Who crashes is missed within seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import Random
from typing import TYPE_CHECKING, TypeAlias

from coherd.model import Cause
from coherd.replication.parcels import Arrived, Parcels, Payload, ReceiptGrew, Reply
from coherd.sim.faults.checks import Checks
from coherd.sim.faults.links import Arrival, Connections, Pair
from coherd.sim.faults.member import Member
from coherd.sim.faults.truth import Truth
from coherd.sim.scheduler import Scheduler
from coherd.sim.streams import Conditions, Streams

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from coherd.model import Effect, Lane, Selector, Stream
    from coherd.replication.intervals import Intervals
    from coherd.replication.replica import Arrival as Rows

Action: TypeAlias = Callable[[], None]
SILENT_MIN, SILENT_MAX = 3.0, 4.0
"""Seconds of silence after which an end gives a connection up."""
CRASH_NOTICED = 3.0
"""Seconds at most after which a crash is noticed."""
DIAL_MIN, DIAL_MAX = 0.1, 2.5
"""Seconds until two members that can reach each other are linked."""
DEAD_AFTER_MIN, DEAD_AFTER_MAX = 4.0, 12.0
"""Seconds after which who is not linked is not handed anything, unless a third one still hears of it."""
SENT_AGAIN = 0.4
"""Seconds at most after which what waited for a way is sent again."""
URGENT, REST, CALLS = 0, 1, 2


class FaultWorld:
    """A cluster, and the truth about it."""

    def __init__(
        self,
        interests: Sequence[Sequence[str]],
        namespaces: Sequence[str],
        conditions: Conditions,
        seed: int,
    ) -> None:
        self.namespaces = tuple(namespaces)
        self.random = random = Random(seed)
        self._streams = Streams(conditions, Random(random.getrandbits(64)))
        self._doubled = conditions.late_replies
        self._scheduler: Scheduler[Member | Arrival | Action] = Scheduler()
        self.truth = Truth()
        self.checks = Checks(self)
        self.members = [
            Member(self, index, holds, random.getrandbits(64))
            for index, holds in enumerate(interests)
        ]
        self.by_name = {member.name: member for member in self.members}
        self.links = Connections(self.members)
        self.sizes: dict[int, int] = {}
        """Bytes of the payloads that are large."""
        self.events = 0
        self.traced = 0
        """A checksum of all that arrived, of when and where."""
        self.receipts: dict[int, list[str]] = {}
        """Per payload who is known to have applied it."""

    @property
    def now(self) -> float:
        """The true time in seconds."""
        return self._scheduler.now

    def at(self, when: float, action: Action) -> None:
        """Do something at a true time."""
        self._scheduler.add(when, action)

    def when_awake(self, member: Member, life: int, seconds: float, action: Action) -> None:
        """Let a member do something after a while, unless that life has ended by then."""

        def act() -> None:
            if member.life != life or not member.is_up:
                return
            if member.stalled_until > self.now:
                self._scheduler.add(member.stalled_until + 1e-6, act)
                return
            action()
            self.settle(member)

        self._scheduler.add(self.now + seconds, act)

    def run(self, until: float) -> None:
        """Let time go on to a moment."""
        scheduler = self._scheduler
        for event in scheduler.pass_to(until):
            now = scheduler.now
            if type(event) is Arrival:
                member = event.target
                if not member.is_up:
                    continue
                if now < member.stalled_until:
                    member.inbox.append(event)
                    continue
                self._deliver(event)
            elif type(event) is Member:
                if now < event.armed or now < event.stalled_until or not event.is_up:
                    continue  # another timer took its place, or it comes when the member goes on
                self._timer(event)
            else:
                event()  # type: ignore[operator]
            self.events += 1

    # ------------------------------------------------------------------ members

    def start(self, member: Member) -> None:
        """Begin a life of a member, and let it be dialled."""
        pairs = self.links.pairs[member.index]
        reachable = [
            other
            for other in self.members
            if other.is_up and other is not member and not self.links.is_disturbed(pairs[other.index])
        ]
        member.begin(max((m.epochs.get(member.name, 0) for m in reachable), default=0))
        self.settle(member)
        self.dial(member)

    def crash(self, member: Member, *, with_disk: bool) -> None:
        """End a life without a word."""
        lost = member.end(with_disk=with_disk)
        self._note_lost(member, lost)
        for pair in self._pairs(member):
            if pair.is_up:
                self._break(pair)
                other = pair.second if pair.first is member else pair.first
                self._notice(other, member, self.random.uniform(0.0, CRASH_NOTICED))

    def _note_lost(self, member: Member, lost: Mapping[Stream, Intervals]) -> None:
        """Find out what nobody has any more."""
        for stream, gone in lost.items():
            left = gone
            for other in self.members:
                if other is member:
                    have = member.disk.have.get(stream)
                elif other.is_up:
                    state = other.replica.vector.get(stream)
                    have = state.have if state is not None else None
                else:
                    have = other.disk.have.get(stream)
                if have:
                    left = left - have
                if not left:
                    break
            if left:
                self.truth.lose(stream, left)

    def stall(self, member: Member, seconds: float) -> None:
        """Let a member stand still for a while."""
        now = self.now
        member.stalled_until = max(member.stalled_until, now + seconds)
        until = member.stalled_until
        self.at(until, lambda: self._wake(member))
        for pair in self._pairs(member):
            if pair.is_up:
                self._break_later(pair)

    def _wake(self, member: Member) -> None:
        if self.now < member.stalled_until or not member.is_up:
            return
        member.awake_since = self.now
        self._timer(member)
        inbox, member.inbox = member.inbox, []
        for event in inbox:
            self._deliver(event)
        self.dial(member)

    # ------------------------------------------------------------------ connections

    def _pairs(self, member: Member) -> Iterable[Pair]:
        return [pair for pair in self.links.pairs[member.index] if pair is not None]

    def cut(self, ways: Sequence[tuple[int, int]]) -> None:
        """Cut ways between members, by index."""
        self.links.cut(ways)
        for source, target in ways:
            pair = self.links.pairs[source][target]
            if pair.is_up:
                self._break_later(pair)

    def mend(self, ways: Sequence[tuple[int, int]]) -> None:
        """End a cut: what waited is sent again, who is not linked is dialled."""
        self.links.mend(ways)
        for source, target in ways:
            pair = self.links.pairs[source][target]
            if self.links.is_disturbed(pair):
                continue
            if pair.is_up:
                at = self.now + self.random.uniform(0.0, SENT_AGAIN)
                held, pair.held = pair.held, []
                for event in held:
                    self._scheduler.add(at, event)
            else:
                self._dial(pair)

    def _break_later(self, pair: Pair) -> None:
        generation = pair.generation

        def look() -> None:
            if pair.generation != generation or not pair.is_up:
                return
            ends = (pair.first, pair.second)
            stalled = any(end.stalled_until > self.now for end in ends)
            if not stalled and not self.links.is_disturbed(pair):
                return
            self._break(pair)
            for end, other in (ends, ends[::-1]):
                self._notice(end, other, self.random.uniform(0.0, SILENT_MAX - SILENT_MIN))

        self.at(self.now + SILENT_MIN, look)

    def _break(self, pair: Pair) -> None:
        pair.is_up = False
        pair.generation += 1
        pair.held.clear()

    def _notice(self, member: Member, other: Member, seconds: float) -> None:
        """Let a member notice that a connection is broken."""
        pair = self.links.pairs[member.index][other.index]
        generation = pair.generation

        def notice() -> None:
            if pair.generation == generation:
                self._closed(member, other)

        self.when_awake(member, member.life, seconds, notice)

    def _closed(self, member: Member, other: Member) -> None:
        if member.linked_at.pop(other.name, None) is None:
            return
        member.peers = sorted(member.linked_at)
        now = member.now
        member.spread.closed(other.name, now)
        member.mending.closed(other.name, now)
        life, seconds = member.life, self.random.uniform(DEAD_AFTER_MIN, DEAD_AFTER_MAX)
        self.when_awake(member, life, seconds, lambda: self._dead(member, other))

    def _dead(self, member: Member, other: Member) -> None:
        if other.name in member.linked_at:
            return
        if any(other.name in self.by_name[third].linked_at for third in member.peers):
            return  # it answers others
        member.view.remove(other.name)
        member.spread.closed(other.name, member.now)

    def dial(self, member: Member) -> None:
        """Link a member with all that it can reach."""
        for pair in self._pairs(member):
            if not pair.is_up:
                self._dial(pair)

    def _dial(self, pair: Pair) -> None:
        if not pair.is_dialled:
            pair.is_dialled = True
            self.at(self.now + self.random.uniform(DIAL_MIN, DIAL_MAX), lambda: self._dialled(pair))

    def _dialled(self, pair: Pair) -> None:
        pair.is_dialled = False
        ends = (pair.first, pair.second)
        if pair.is_up or self.links.is_disturbed(pair) or not all(end.is_up for end in ends):
            return  # who starts, and who mends a cut, dials again
        if any(end.stalled_until > self.now for end in ends):
            return  # who goes on dials again
        pair.is_up = True
        pair.generation += 1
        for end, other in (ends, ends[::-1]):
            self._opened(end, other)
        for end in ends:
            self.settle(end)

    def _opened(self, member: Member, other: Member) -> None:
        name = other.name
        if name in member.linked_at:  # the old connection was not missed yet
            self._closed(member, other)
        member.spread.closed(name, member.now)  # whatever was sent into nowhere
        member.linked_at[name] = self.now
        member.peers = sorted(member.linked_at)
        if other.epochs.get(member.name, 0) > member.epoch:
            member.begin_epoch(other.epochs[member.name])
        member.epochs[name] = max(member.epochs.get(name, 0), other.epoch)
        if name not in member.unknown:
            member.view.add(name, other.interest)
        member.mending.linked(name)

    def send(self, source: Member, name: str, message: object) -> None:
        """Send a message along the connection to a member, if there is one."""
        target = self.by_name[name]
        pair = self.links.pairs[source.index][target.index]
        if not pair.is_up:
            return
        now = self._scheduler.now
        event = Arrival(target, message, source, pair.generation, now)
        if self.links.cuts and self.links.is_cut(source, target):
            pair.held.append(event)
            return
        is_reply = type(message) is Reply
        kind = CALLS
        if is_reply or type(message) is Parcels:
            kind = URGENT if message.urgent else REST  # type: ignore[attr-defined]
        way = (source.index * len(self.members) + target.index) * 3 + kind
        at = self._streams.arrival(way, now, is_reply=is_reply)
        self._scheduler.add(at, event)
        if is_reply and self._doubled and self.random.random() < self._doubled:
            self._scheduler.add(at + 0.05, event)

    # ------------------------------------------------------------------ what happens

    def _deliver(self, event: Arrival) -> None:
        member, message, source, generation, sent_at = event
        if self.links.pairs[member.index][source.index].generation != generation:
            return
        self.traced = hash((self.traced, self._scheduler.now, member.index, source.index))
        kind = type(message)
        if kind is Parcels or kind is Reply:
            member.spread.receive(message, source.name, member.now)  # type: ignore[arg-type]
            self.settle(member, sent_at)
        else:
            member.mending.receive(message, source.name)  # type: ignore[arg-type]
            self._arm(member)

    def _timer(self, member: Member) -> None:
        member.armed = inf
        member.handle_timer(member.now)
        self.settle(member)

    def settle(self, member: Member, sent_at: float = 0.0) -> None:
        """Note what a member's spreading noticed, send what it wants to send, and set its timer."""
        spread = member.spread
        for event in spread.events():
            if type(event) is Arrived:
                self._arrived(member, event.payload, sent_at)
            elif type(event) is ReceiptGrew:
                self.receipts[event.payload] = list(event.names)
                self.checks.receipt(member, event.payload, event.names)
        for target, message in spread.messages():
            self.send(member, target, message)
        self._arm(member)

    def _arm(self, member: Member) -> None:
        due = member.true_time(member.next_timer())
        if due < member.armed:
            member.armed = due
            self._scheduler.add(due, member)

    def _arrived(self, member: Member, payload: Payload, sent_at: float) -> None:
        issued = self.truth.issued[payload.id]
        member.take(issued.batch, max(0.0, sent_at - issued.at), Cause.LINK)
        if payload.wants_receipt:
            member.ask(payload.id)

    # ------------------------------------------------------------------ applications

    def invalidate(
        self,
        member: Member,
        namespace: str,
        lane: Lane,
        selectors: Sequence[Selector],
        effect: Effect,
        versions: Sequence[int] | None = None,
        *,
        receipt: bool = False,
        size_bytes: int = 100,
    ) -> bool:
        """Let an application write to the source, and tell an agent; False when that refuses."""
        if not member.is_up or member.stalled_until > self.now or member.journal.is_full:
            return False
        rows: Rows = member.replica.accept(
            namespace,
            lane,
            selectors,
            effect=effect,
            versions=versions,
            stamp=0,
            now=member.now,
        )
        issued = self.truth.issue(rows.batch, self.now)
        member.enter(rows)
        payload = Payload(issued.payload, namespace, lane, size_bytes, receipt)
        member.spread.originate(payload, member.now)
        if namespace in member.holds:
            if receipt:
                member.ask(issued.payload)
        else:
            member.mending.offer(rows.batch.stream)
        self.settle(member)
        return True

    def committed(self, member: Member, rows: Rows) -> None:
        """Note that an application hears that its rows are accepted."""
        batch = rows.batch
        for issued in self.truth.find(batch.stream, batch.numbers):
            issued.is_committed = True
