"""The membership of one agent: SWIM with Lifeguard as a pure state machine.

    receive(datagram, source, now)     something came in
    handle_timer(now)                  `next_timer()` has passed
    next_timer()                       the one moment at which `handle_timer` wants to be called
    datagrams()                        what to send now
    events()                           what happened

No clock, no socket, no thread, no logger, no randomness of its own: `now` is any monotonic clock in seconds,
and the same calls with the same `Random` give the same datagrams. What a peer sends never raises here: it
is counted in `statistics()` and dropped.

Sources: SWIM (Das, Gupta, Motivala 2002), Lifeguard (Dadgar, Phillips, Currey 2017). Each rule stands with
its section in the module that keeps it; what is ours is said to be ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coherd_membership import _suspicion
from coherd_membership._codec import TEXT_BYTES_MAX, cluster_label, decode
from coherd_membership._errors import MalformedDatagram, NotPossible
from coherd_membership._events import EventLog, MetaChanged
from coherd_membership._exchange import Exchanger
from coherd_membership._health import Health
from coherd_membership._hearing import Hearing
from coherd_membership._inquiry import Inquiries
from coherd_membership._member import News, Status
from coherd_membership._messages import PROTOCOL_MAX, PROTOCOL_MIN, Kind
from coherd_membership._outbox import Outbox
from coherd_membership._probe import Prober
from coherd_membership._roster import Roster
from coherd_membership._standing import Standing
from coherd_membership._timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from random import Random

    from coherd_membership._config import SwimConfig
    from coherd_membership._events import Event
    from coherd_membership._messages import Datagram, Message
    from coherd_membership._roster import Member
    from coherd_membership._timers import Key

GRACED = frozenset({"suspicion", "inquiry", "restart"})
"""Deadlines that end in a verdict: after a late timer they wait, once, for what has come in meanwhile."""


class Swim:
    """One member of a cluster."""

    def __init__(
        self,
        config: SwimConfig,
        *,
        name: str,
        epoch: int,
        address: str,
        cluster: str,
        random: Random,
        meta: bytes = b"",
        known: Iterable[News] = (),
        admits: Callable[[str, str], bool] = lambda _name, _address: True,
    ) -> None:
        """`address` is where others reach this member; `known` is what an earlier life knew of others.

        `admits(name, address)` tells whether a member can be called so and be reached there: news of any
        other is dropped, and nobody is asked at such an address. Raises ValueError for a name, address or
        metadata that is too long, and for an epoch that nobody would believe.
        """
        for text in (name, address):
            if not 0 < len(text.encode()) <= TEXT_BYTES_MAX:
                raise ValueError(f"1 to {TEXT_BYTES_MAX} bytes of name and address: {text!r}")
        if not 0 <= epoch <= config.epoch_max:
            raise ValueError(f"epoch {epoch} is not within 0 and {config.epoch_max}")
        self.config = config
        self._label = cluster_label(cluster)
        self._timers = Timers()
        self._roster = Roster(News(name, epoch, 1, Status.ALIVE, address))
        self._health = Health(config)
        self._outbox = Outbox(config, self._roster, self._label)
        self._prober = Prober(
            config, self._roster, self._outbox, self._timers, self._health, random, self, admits
        )
        self._exchanger = Exchanger(
            config, self._roster, self._outbox, self._timers, random, self._prober
        )
        self._log = EventLog()
        self._counts = self._log.counts
        self._standing = Standing(
            config, self._roster, self._outbox, self._health, self._exchanger, self._log
        )
        self._hearing = Hearing(
            config, self._roster, self._outbox, self._timers, self._prober, self._exchanger,
            Inquiries(config, self._outbox, self._timers, self._prober), self._standing, self._log,
            admits,
        )  # fmt: skip
        self._due: dict[str, Callable[[Any, float], None]] = {
            "period": lambda _, now: self._prober.begin(now),
            "probe": lambda _, now: self._prober.ask_helpers(now),
            "relay": self._prober.relay_due,
            "forget relay": lambda sequence, _: self._prober.forget_relay(sequence),
            "join": lambda _, now: self._exchanger.ask_seeds(now),
            "exchange": lambda _, now: self._exchanger.ask_anybody(now),
            "exchange over": lambda sequence, _: self._exchanger.expire(sequence),
            "down": lambda _, now: self._exchanger.ask_down(now),
            "suspicion": self._hearing.suspicion_due,
            "inquiry": self._hearing.inquiry_due,
            "restart": self._hearing.restart_due,
        }
        """What to do when a deadline has come, by the first part of its key."""
        self._has_stopped = False
        self._graced: set[Key] = set()
        """Deadlines that have waited, until they end: who is always late comes to its verdicts too."""
        for news in known:
            self._hearing.recall(news)
        if meta:
            self._set_meta(meta)

    # ------------------------------------------------------------------ the five verbs

    def receive(self, payload: bytes, source: str, now: float, sender: str = "") -> None:
        """Take a datagram; `source` is where an answer to it goes, and `sender`, where the transport knows
        it, the only member whose word it may carry.
        """
        try:
            message = decode(payload)
        except MalformedDatagram:
            self._counts["malformed"] += 1
            return
        if message.cluster != self._label:
            self._counts["foreign"] += 1
        elif message.protocol_min > PROTOCOL_MAX or message.protocol_max < PROTOCOL_MIN:
            self._counts["incompatible"] += 1
        elif sender and message.sender.name != sender:
            self._log.drop("misnamed", message.sender.name, sender)
        elif not self._has_stopped:
            self._counts["received"] += 1
            self._receive(message, source, now)

    def handle_timer(self, now: float) -> None:
        """Do what is due. Called late, this member doubts itself and lets verdicts wait a little."""
        due = self._timers.next()
        if due is None or due > now:
            return
        if self.config.health_max and now - due > self.config.late_after:
            self.note_late(now)
        while (key := self._timers.pop(now)) is not None:
            what, of = key
            self._graced.discard(key)
            self._due[what](of, now)

    def next_timer(self) -> float | None:
        """Give the moment at which `handle_timer` wants to be called; it changes with every other call."""
        return self._timers.next()

    def datagrams(self) -> list[Datagram]:
        """Take what is to be sent."""
        outbox = self._outbox
        queue, outbox.queue = outbox.queue, []
        return queue

    def events(self) -> list[Event]:
        """Take what has happened."""
        return self._log.take()

    # ------------------------------------------------------------------ what the shell may say

    def start(self, seeds: Iterable[str], now: float) -> None:
        """Join the cluster through its seeds, and go on asking them for ever."""
        self._exchanger.seeds = tuple(seeds)
        self._outbox.pass_on(self.me)
        for name in list(self._roster.members):
            self._hearing.watch(name, now)
        self._prober.start(now)
        self._exchanger.start(now)

    def introduce(self, everybody: Iterable[News], now: float) -> None:
        """Take others as they are said to be, unasked: for a cluster whose members are known beforehand."""
        self._roster.fill(everybody, now)

    def join(self, seeds: Iterable[str], now: float) -> None:
        """Ask further seeds, now and from now on."""
        self._exchanger.seeds = tuple(dict.fromkeys((*self._exchanger.seeds, *seeds)))
        if not self._has_stopped:
            self._exchanger.ask_seeds(now)

    def publish(self, meta: bytes) -> None:
        """Let everybody learn what this member says of itself. Raises ValueError when it is too long."""
        if meta != self._exchanger.meta:
            self._set_meta(meta)
            self._outbox.pass_on(self.me)

    def restart(self) -> None:
        """Tell everybody that this member stops and will be back; from now on it only answers."""
        self._say_goodbye(Status.RESTARTING)

    def leave(self) -> None:
        """Tell everybody that this member is gone for good; from now on it is silent."""
        self._say_goodbye(Status.LEFT)
        self._timers.clear_all()
        self._has_stopped = True

    def forget(self, name: str, now: float) -> News:
        """Let no life of a member that is down count any more. Raises NotPossible for any other."""
        member = self._roster.members.get(name)
        if member is None or member.news.status is Status.LEFT:
            raise NotPossible(f"no member {name!r} is known")
        if member.news.status is not Status.DEAD:
            raise NotPossible(
                f"{name} is {member.news.status.name.lower()}: only the dead can be forgotten"
            )
        news = member.news._replace(status=Status.LEFT, accusers=())
        self._hearing.apply(news, now)
        return news

    def renew(self, epoch: int) -> None:
        """Begin a new life. Raises ValueError for an epoch that is not later, or that nobody believes."""
        if not self.me.epoch < epoch <= self.config.epoch_max:
            raise ValueError(
                f"epoch {epoch} is not after {self.me.epoch}, or beyond {self.config.epoch_max}"
            )
        version = 1 if self._exchanger.meta else 0
        self._roster.set_me(
            self.me._replace(epoch=epoch, incarnation=1, version=version, status=Status.ALIVE)
        )
        self._standing.begin_life()
        self._outbox.pass_on(self.me)

    def set_linked(self, names: Iterable[str]) -> None:
        """Name the members to which a connection is open: in large clusters they are probed more often."""
        self._prober.set_linked(names)

    def suspect_link(self, name: str, now: float) -> None:
        """A connection to this member has broken, or opened: a hint to probe it next, never a verdict."""
        if name in self._roster.members:
            self._prober.hurry(name, now)

    def contact(self, name: str, now: float) -> None:
        """Compare rosters with a member now, whatever is thought of it."""
        if name in self._roster.members:
            self._exchanger.ask(name, now)

    def failed_to_send(self, destination: str, now: float) -> None:
        """A datagram could not be delivered: helpers are asked without waiting for the timeout."""
        self._prober.failed_to_send(destination, now)

    def note_late(self, now: float) -> None:
        """This process was slow to run: doubt oneself, and let what came in meanwhile speak first."""
        self._health.add(1)
        self._counts["late"] += 1
        self._prober.grace(now)
        due = [key for key in self._timers.due(now) if key[0] in GRACED]
        for key in due:
            if key not in self._graced:
                self._graced.add(key)
                self._timers.set(key, now + self.config.probe_timeout)

    # ------------------------------------------------------------------ looking

    @property
    def me(self) -> News:
        """What this member says of itself."""
        return self._roster.me

    @property
    def members(self) -> Mapping[str, Member]:
        """Everybody else that is known, also who is down or has left. Not to be changed."""
        return self._roster.members

    @property
    def has_joined(self) -> bool:
        """Whether anybody has answered yet."""
        return self._exchanger.has_joined

    @property
    def health(self) -> int:
        """The local health: 0 is well."""
        return self._health.score

    def statistics(self) -> dict[str, int]:
        """Give counts since the start: what was received, sent, and dropped for which reason."""
        return {
            **self._counts,
            "sent": self._outbox.sent,
            "sent_bytes": self._outbox.sent_bytes,
            "rumors": len(self._outbox.rumors),
        }

    # ------------------------------------------------------------------ messages

    def _receive(self, message: Message, source: str, now: float) -> None:
        roster, sender = self._roster, message.sender
        if not self._hearing.hear_sender(message, source, now):
            return
        me = roster.me
        if message.news:
            self._hearing.hear_all(message, now)
        refuted = me is not roster.me and self.config.tells_suspects
        notice = self._hearing.notice_for(sender)
        answered = self._answer(message, source, now, notice)
        if message.kind == Kind.TELL and any(news.name == me.name for news in message.news):
            notice = None  # else two that cannot refute would tell each other so without end
        if not answered and (refuted or notice is not None):
            self._outbox.send(Kind.TELL, source, first=notice)
        if message.root != roster.root and message.kind != Kind.ENTRIES:
            self._exchanger.compare(sender.name, now)

    def _answer(self, message: Message, source: str, now: float, notice: News | None) -> bool:
        """Do what a message asks for; True when its sender is told `notice` by that."""
        kind, sender, sequence = message.kind, message.sender.name, message.sequence
        if kind == Kind.PING:
            answer = Kind.ACK if message.target == self.me.name else Kind.WRONG_TARGET
            self._outbox.send(answer, source, sequence=sequence, first=notice)
            return True
        expected = True
        if kind == Kind.ACK:
            expected = self._prober.acknowledged(sender, message.target, sequence, now)
        elif kind == Kind.NACK:
            expected = self._prober.refused(sender, sequence, now)
        elif kind == Kind.WRONG_TARGET:
            expected = self._prober.found_other(sequence, now)
        elif kind == Kind.PING_REQUEST:
            self._prober.relay(source, sequence, message.target, message.address, now)
        elif kind == Kind.TAKEN:
            self._standing.hear_taken(message)
        else:
            self._compare(message, source)
        if not expected:
            self._counts["unexpected"] += 1
        return False

    def _compare(self, message: Message, source: str) -> None:
        """Take the messages of full exchanges."""
        if message.kind == Kind.DIGEST:
            self._exchanger.answer(message, source)
        elif message.kind == Kind.ENTRIES:
            self._exchanger.take(message, source)
        elif message.kind == Kind.WANT_META:
            self._exchanger.give_meta(message.names, source)
        elif message.kind == Kind.META:
            self._take_metas(message)

    def _take_metas(self, message: Message) -> None:
        for meta in message.metas:
            member = self._roster.members.get(meta.name)
            if (
                member is not None
                and member.lacks_meta
                and (meta.epoch, meta.version) == (member.news.epoch, member.news.version)
            ):
                if len(meta.data) > self.config.meta_bytes_max:
                    self._log.drop("metadata", meta.name, message.sender.name)
                    continue
                self._roster.set_meta(member, meta.data)
                self._log.add(MetaChanged(meta.name, meta.data))

    # ------------------------------------------------------------------ verdicts

    def probe_ended(self, name: str, now: float, *, failed: bool) -> None:
        """Hear from the prober that a member has answered, or has not."""
        if not failed:
            self._exchanger.want_any_meta(self._roster.members[name].news.address)
        # nobody falls sick by an answer
        silence = _suspicion.maximum(self.config, self._roster.present) if failed else 0.0
        if self._health.probed(failed=failed, now=now, silence=silence):
            self._counts["sick"] += 1
            self._exchanger.ask_seeds(now)
        if failed and self._health.is_sick(now):
            self._counts["withheld"] += 1
        elif failed:
            self._hearing.accuse(name, now)

    # ------------------------------------------------------------------ helpers

    def _set_meta(self, meta: bytes) -> None:
        if len(meta) > self.config.meta_bytes_max:
            raise ValueError(
                f"{len(meta)} bytes of metadata; at most {self.config.meta_bytes_max} are published"
            )
        self._exchanger.meta = meta
        incarnation = self.me.incarnation + 1
        self._roster.set_me(self.me._replace(incarnation=incarnation, version=incarnation))
        if incarnation > self.config.incarnation_ahead_max:  # newcomers would take it for poison
            self._standing.end_life()

    def _say_goodbye(self, status: Status) -> None:
        if self._has_stopped:
            return
        self._prober.stop()
        self._exchanger.stop()
        me = self.me
        self._roster.set_me(me._replace(incarnation=me.incarnation + 1, status=status))
        for member in self._roster.members.values():
            if member.news.status < Status.DEAD:
                self._outbox.send(Kind.TELL, member.news.address)
