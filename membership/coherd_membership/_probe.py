"""Asking members, one after the other, whether they are there (SWIM §3.1, §4.3; Lifeguard §IV-A).

Every `probe_interval` the next member in a shuffled round is asked. Without an answer within
`probe_timeout`, a few others are asked to ask it; one that hears nothing says so (NACK), which shows that
it is not this member that is cut off. When all have said so, or at the end of the interval, the probe has
failed. Both times are stretched by the local health.

A round visits everybody once in random order, so that the time to detect a crash is bounded; a new member
enters the current round at a random place. In large clusters seven of eight probes go to members with an
open connection: then probing needs no handshakes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from coherd_membership._member import Status
from coherd_membership._messages import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from coherd_membership._config import SwimConfig
    from coherd_membership._health import Health
    from coherd_membership._outbox import Outbox
    from coherd_membership._roster import Member, Roster
    from coherd_membership._timers import Timers

PERIOD = ("period", None)
PROBE = ("probe", None)
PROBED = frozenset({Status.ALIVE, Status.SUSPECT})
RELAYS_MAX = 1_000
"""Probes on behalf of others at once; more are not made."""
ANY_EVERY = 8
"""In large clusters every so many-th probe goes to anybody, linked or not."""


class Judge(Protocol):
    """Whoever acts on the outcome of a probe."""

    def probe_ended(self, name: str, now: float, *, failed: bool) -> None:
        """A member has answered, or has not."""


class Probe:
    """The question under way."""

    __slots__ = ("graced", "helpers", "nacks", "name", "sequence", "started")

    def __init__(self, name: str, sequence: int, started: float) -> None:
        self.name = name
        self.sequence = sequence
        self.started = started
        self.helpers: frozenset[str] = frozenset()
        self.nacks: set[str] = set()
        self.graced = False


class Relay(NamedTuple):
    """A question asked on behalf of another member."""

    source: str
    sequence: int
    target: str


class Prober:
    """Probes of one member, and those that it makes for others."""

    def __init__(
        self,
        config: SwimConfig,
        roster: Roster,
        outbox: Outbox,
        timers: Timers,
        health: Health,
        random: Random,
        judge: Judge,
        admits: Callable[[str, str], bool],
    ) -> None:
        self._config = config
        self._roster = roster
        self._outbox = outbox
        self._timers = timers
        self._health = health
        self._random = random
        self._judge = judge
        self._admits = admits
        self._sequence = random.getrandbits(31)
        self._probe: Probe | None = None
        self._round: list[str] = []
        self._linked_round: list[str] = []
        self._linked: frozenset[str] = frozenset()
        self._next: list[str] = []
        self._probes = 0
        self._relays: dict[int, Relay] = {}

    def start(self, now: float) -> None:
        """Begin at a random moment of the first interval: members do not probe in step."""
        self._timers.set(PERIOD, now + self._random.random() * self._config.probe_interval)

    def stop(self) -> None:
        """Probe nobody any more."""
        self._probe = None
        self._timers.clear(PERIOD)
        self._timers.clear(PROBE)

    def add(self, name: str) -> None:
        """Let a new member enter the current round at a random place."""
        # who comes and goes does not fill the round
        if len(self._round) < len(self._roster.members):
            self._round.insert(self._random.randint(0, len(self._round)), name)

    def forget(self, name: str) -> None:
        """Ask a member that is not known any more nothing further."""
        if self._probe is not None and self._probe.name == name:
            self._probe = None
            self._timers.clear(PROBE)

    def set_linked(self, names: Iterable[str]) -> None:
        """Note to whom a connection is open."""
        self._linked = frozenset(names)

    def hurry(self, name: str, now: float) -> None:
        """Probe this member next, and now if no probe is under way."""
        if name not in self._next and (self._probe is None or self._probe.name != name):
            self._next.append(name)
            if self._probe is None and PERIOD in self._timers:
                self._timers.set(PERIOD, now)

    def next_sequence(self) -> int:
        """Give a number for a question."""
        self._sequence = (self._sequence + 1) % 2**32
        return self._sequence

    # ------------------------------------------------------------------ one probe

    def begin(self, now: float) -> None:
        """End the last probe, which has failed if it is still under way, and begin the next."""
        if self._probe is not None:
            self._fail(now)
        stretch = self._health.stretch
        self._timers.set(PERIOD, now + self._config.probe_interval * stretch)
        name = self._choose()
        if name is None:
            return
        probe = self._probe = Probe(name, self.next_sequence(), now)
        self._ping(name, probe.sequence)
        self._timers.set(PROBE, now + self._config.probe_timeout * stretch)

    def ask_helpers(self, now: float) -> None:
        """Ask others to ask, now that the member has not answered in time."""
        probe = self._probe
        if probe is None or probe.helpers:
            return
        self._timers.clear(PROBE)
        able = [name for name in self._roster.names_alive() if name != probe.name]
        helpers = self._random.sample(able, min(self._config.indirect_probes, len(able)))
        probe.helpers = frozenset(helpers)
        member = self._roster.members[probe.name]
        for name in helpers:
            self._outbox.send(
                Kind.PING_REQUEST,
                self._roster.members[name].news.address,
                sequence=probe.sequence,
                target=probe.name,
                address=member.news.address,
            )

    def grace(self, now: float) -> None:
        """Give the probe under way more time, once: this member was late, and the answer may be here."""
        probe = self._probe
        if probe is not None and not probe.graced:
            probe.graced = True
            again = now + self._config.probe_timeout
            if probe.helpers:
                self._timers.set(PERIOD, again)
            else:
                self._timers.set(PROBE, again)
                self._timers.set(PERIOD, again + self._config.probe_timeout)

    def failed_to_send(self, address: str, now: float) -> None:
        """The transport could not bring a message to this address: do not wait for the answer."""
        probe = self._probe
        if probe is not None and PROBE in self._timers:
            member = self._roster.members.get(probe.name)
            if member is not None and member.news.address == address:
                self.ask_helpers(now)

    def acknowledged(self, name: str, target: str, sequence: int, now: float) -> bool:
        """Hear ACK; False for one that nobody waits for."""
        if (relay := self._relays.get(sequence)) and relay.target == name and not target:
            self._outbox.send(Kind.ACK, relay.source, sequence=relay.sequence, target=relay.target)
            self.forget_relay(sequence)
            return True
        probe = self._probe
        if probe is None or sequence != probe.sequence:
            return False
        if target:
            if target != probe.name or name not in probe.helpers:
                return False
        elif name != probe.name:
            return False
        else:
            member = self._roster.members.get(name)
            if member is not None:
                member.round_trip = now - probe.started
        self._end(now, failed=False)
        return True

    def refused(self, name: str, sequence: int, now: float) -> bool:
        """Hear NACK; False for one that nobody waits for. When all helpers say so the probe has failed."""
        probe = self._probe
        if probe is None or sequence != probe.sequence or name not in probe.helpers:
            return False
        probe.nacks.add(name)
        if len(probe.nacks) == len(probe.helpers):
            self._fail(now)
        return True

    def found_other(self, sequence: int, now: float) -> bool:
        """Hear WRONG_TARGET: somebody else is at that address; False when nobody waits for it."""
        probe = self._probe
        if probe is None or sequence != probe.sequence:
            return False
        self._end(now, failed=True)
        return True

    def _fail(self, now: float) -> None:
        probe = self._probe
        assert probe is not None
        missed = len(probe.helpers) - len(probe.nacks) if self._config.nack_after else 0
        self._health.add(1 + missed)
        self._end(now, failed=True)

    def _end(self, now: float, *, failed: bool) -> None:
        probe, self._probe = self._probe, None
        assert probe is not None
        self._timers.clear(PROBE)
        if not failed:
            self._health.add(-1)
        self._judge.probe_ended(probe.name, now, failed=failed)
        if self._next and PERIOD in self._timers:
            self._timers.set(PERIOD, now)

    def _ping(self, name: str, sequence: int) -> None:
        news = self._roster.members[name].news
        suspect = self._config.tells_suspects and news.status is Status.SUSPECT
        self._outbox.send(
            Kind.PING,
            news.address,
            sequence=sequence,
            target=name,
            first=news if suspect else None,
        )

    # ------------------------------------------------------------------ whom

    def _choose(self) -> str | None:
        while self._next:
            name = self._next.pop(0)
            if self._is_probed(self._roster.members.get(name)):
                return name
        self._probes += 1
        if (
            self._linked
            and self._roster.present > self._config.linked_above
            and self._probes % ANY_EVERY
        ):
            linked = self._draw(self._linked_round, self._linked)
            if linked is not None:
                return linked
        return self._draw(self._round, self._roster.members)

    def _draw(self, order: list[str], everybody: Iterable[str]) -> str | None:
        """Take the next of a round, and begin another round when it is over."""
        members = self._roster.members
        for _ in range(2):
            while order:
                name = order.pop()
                if self._is_probed(members.get(name)):
                    return name
            order += sorted(name for name in everybody if self._is_probed(members.get(name)))
            self._random.shuffle(order)
        return None

    @staticmethod
    def _is_probed(member: Member | None) -> bool:
        return member is not None and member.news.status in PROBED

    # ------------------------------------------------------------------ for others

    def relay(self, source: str, sequence: int, target: str, address: str, now: float) -> None:
        """Ask a member on behalf of another."""
        if not address or not self._admits(target, address) or len(self._relays) >= RELAYS_MAX:
            return
        own = self.next_sequence()
        self._relays[own] = Relay(source, sequence, target)
        self._outbox.send(Kind.PING, address, sequence=own, target=target)
        patience = self._config.nack_after or 1.0
        self._timers.set(("relay", own), now + self._config.probe_timeout * patience)

    def relay_due(self, sequence: int, now: float) -> None:
        """Say that the member has not answered yet, and later forget the question."""
        relay = self._relays[sequence]
        if not self._config.nack_after:
            self.forget_relay(sequence)
            return
        self._outbox.send(Kind.NACK, relay.source, sequence=relay.sequence, target=relay.target)
        self._timers.set(("forget relay", sequence), now + self._config.probe_timeout)

    def forget_relay(self, sequence: int) -> None:
        """Wait for this answer no more."""
        del self._relays[sequence]
        self._timers.clear(("relay", sequence))
        self._timers.clear(("forget relay", sequence))
