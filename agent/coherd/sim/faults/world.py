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
from coherd.sim.faults.connecting import CRASH_NOTICED, Connecting
from coherd.sim.faults.links import Arrival, Connections
from coherd.sim.faults.member import Member
from coherd.sim.faults.truth import Truth
from coherd.sim.scheduler import Scheduler
from coherd.sim.streams import Conditions, Streams

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coherd.model import Effect, Lane, Selector, Stream
    from coherd.replication.intervals import Intervals
    from coherd.replication.replica import Arrival as Rows

Action: TypeAlias = Callable[[], None]
URGENT, REST, CALLS = 0, 1, 2


class FaultWorld(Connecting):
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
        self.refused = 0
        """Writes that full journals refused."""

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

    def arrive(self, at: float, event: Arrival) -> None:
        """Let a message arrive."""
        self._scheduler.add(at, event)

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
            if other.is_up
            and other is not member
            and not self.links.is_disturbed(pairs[other.index])
        ]
        member.begin(max((m.epochs.get(member.name, 0) for m in reachable), default=0))
        self.settle(member)
        self.dial(member)

    def crash(self, member: Member, *, with_disk: bool) -> None:
        """End a life without a word."""
        lost = member.end(with_disk=with_disk)
        self._note_lost(member, lost)
        for pair in self.pairs_of(member):
            if pair.is_up:
                self.break_off(pair)
                other = pair.second if pair.first is member else pair.first
                self.notice(other, member, self.random.uniform(0.0, CRASH_NOTICED))

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
        for pair in self.pairs_of(member):
            if pair.is_up:
                self.break_later(pair)

    def _wake(self, member: Member) -> None:
        if self.now < member.stalled_until or not member.is_up:
            return
        member.awake_since = self.now
        self._timer(member)
        inbox, member.inbox = member.inbox, []
        for event in inbox:
            self._deliver(event)
        self.dial(member)

    # ------------------------------------------------------------------ what happens

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
        if receipt and namespace in member.holds:
            member.ask(issued.payload)
        self.settle(member)
        return True

    def committed(self, member: Member, rows: Rows) -> None:
        """Note that an application hears that its rows are accepted."""
        batch = rows.batch
        for issued in self.truth.find(batch.stream, batch.numbers):
            issued.is_committed = True
