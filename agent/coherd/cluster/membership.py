"""Driving the machine of `coherd_membership`: one loop that waits, feeds it, sends what it wants sent, and
acts on what has happened.

What the machine finds out goes to the roster; who has spoken is linked with. How late the loop itself runs
is told to the machine, which then doubts itself before it doubts others.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
import trio

from coherd.cluster.admitting import admits
from coherd.cluster.exchanging import EXCHANGE_TIMEOUT_MIN
from coherd.errors import MalformedMessage, RpcFailed, StartRefused
from coherd.limits import DATAGRAMS_MAX, EPOCH_MAX, MEMBERS_MAX, MESSAGE_BYTES_MAX
from coherd.net.peer_codec import decode_published, encode_published
from coherd.replication.clock import is_far_ahead
from coherd_membership import (
    Change,
    Dropped,
    EpochNeeded,
    Evicted,
    MemberChanged,
    MetaChanged,
    NameTaken,
    Status,
    Swim,
    SwimConfig,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from random import Random

    from coherd.clock import Clock
    from coherd.cluster.exchanging import Exchanging
    from coherd.cluster.linking import Linking
    from coherd.cluster.roster import Roster
    from coherd.config import AgentConfig
    from coherd.model import Origin
    from coherd.net.peer import ExchangeReply
    from coherd_membership import Datagram, Event

log = structlog.get_logger("coherd.membership")

LOOK_INTERVAL = 0.25
"""Seconds after which the loop wakes at the latest: it sees how late it does."""
SLEEP_MIN = 0.001
"""Seconds: what is left of a deadline by rounding alone must not keep the loop busy."""
TEND_INTERVAL = 1.0
"""Seconds between two looks at what is to be stored or published."""
PUBLISH_INTERVAL = 5.0
"""Seconds between two changes of what this agent publishes: everybody fetches each of them."""
DOWN_INTERVAL = 5.0
"""Seconds between two questions to members that are down. `coherd_membership` asks every 65 s; a host that
was cut off for a moment would serve stale copies for as long."""
ANSWERS_MAX, ANSWER_BYTES_MAX = DATAGRAMS_MAX // 2, MESSAGE_BYTES_MAX // 2
"""Answers to one Exchange, and their bytes: what few questions ask for could be more than memory holds."""
CONTACTS_MAX = 17
"""Members with which rosters are compared at once."""
DROPPED = (
    "malformed", "foreign", "incompatible", "unexpected", "poison", "nowhere", "own_address",
    "forged_leaves", "names_taken", "inquiries", "members", "misnamed", "metadata",
)  # fmt: skip
"""Reasons of the machine to drop a message or a piece of news, as `Swim.statistics` names them."""
LOGGED = {
    Change.JOINED: "joined",
    Change.RESTARTING: "restarting",
    Change.SUSPECTED: "suspected",
    Change.REFUTED: "alive after all",
    Change.DIED: "dead",
    Change.RETURNED: "back",
    Change.LEFT: "left",
}


def swim_config(profile: str) -> SwimConfig:
    """Give the numbers of the machine for one of its profiles, within this agent's limits."""
    return replace(
        SwimConfig.profile(profile),
        epoch_max=EPOCH_MAX,
        members_max=MEMBERS_MAX,
        down_interval=DOWN_INTERVAL,
    )


class Membership:
    """The loop, and what it is told from outside."""

    def __init__(
        self,
        config: AgentConfig,
        roster: Roster,
        linking: Linking,
        exchanging: Exchanging,
        clock: Clock,
        random: Random,
        nursery: trio.Nursery,
    ) -> None:
        self._config = config
        self._roster = roster
        self._linking = linking
        self._exchanging = exchanging
        self._clock = clock
        self._random = random
        self._nursery = nursery
        self._seeds = [str(seed) for seed in config.join]
        self._wake = trio.Event()
        self._tend_at = self._publish_at = 0.0
        self._taken = ""
        """Where the agent is that had this name first."""
        self.swim: Swim | None = None
        """The machine, once this agent has started."""
        self._unreadable = self._crowded = 0
        self._not_believed: Counter[str] = Counter()
        """What was told of by the machine, by reason."""
        self.epochs_ahead = 0
        """How often a member showed an epoch that lies far ahead of the local clock."""
        self.is_ready: Callable[[], bool] = lambda: False
        self.on_epoch: Callable[[int], int | None] = lambda _epoch: None
        """Called with an epoch that the next life has to be later than; gives that of the new life."""

    @property
    def has_seeds(self) -> bool:
        """Whether there is anybody else to ask."""
        own = {*self._exchanging.own_addresses, self._roster.me.address}
        return not own.issuperset(self._seeds)

    @property
    def has_joined(self) -> bool:
        """Whether a seed, or anybody else, has ever answered."""
        return self.swim is not None and self.swim.has_joined

    @property
    def dropped(self) -> dict[str, int]:
        """What was not believed or could not be read, by reason."""
        counts = self.swim.statistics() if self.swim is not None else {}
        dropped = {reason: counts.get(reason, 0) for reason in DROPPED}
        crowded = self._exchanging.dropped + self._crowded
        return dropped | {"unreadable": self._unreadable, "crowded": crowded}

    def start(self) -> None:
        """Start the machine and its loop; where this agent is reached is known by now."""
        me = self._roster.me
        swim = self.swim = Swim(
            swim_config(self._config.profile),
            name=me.name,
            epoch=me.epoch,
            address=me.address,
            cluster=self._config.cluster,
            random=self._random,
            meta=encode_published(me),
            known=self._roster.recalled,
            admits=lambda name, address: admits(name, address, me.address),
        )
        self._exchanging.on_answer = self._answered
        self._exchanging.on_failure = self._failed
        self._linking.on_changed = self._link_changed
        self._linking.on_stranger = lambda name: self.contact([name])
        swim.start(self._seeds, self._clock.now())
        self.contact(self._roster.members)
        self._nursery.start_soon(self._run, swim)

    # ------------------------------------------------------------------ the loop

    async def _run(self, swim: Swim) -> None:
        while not self._taken:
            now = self._clock.now()
            due = swim.next_timer()
            until = now + LOOK_INTERVAL if due is None else min(due, now + LOOK_INTERVAL)
            self._wake = trio.Event()
            with trio.move_on_after(max(SLEEP_MIN, until - now)) as waiting:
                await self._wake.wait()
            now = self._clock.now()
            if waiting.cancelled_caught or now >= until:  # also when something came in meanwhile
                self._look(swim, now, until)
                self.pump(swim)
        raise StartRefused(
            f"the name {self._roster.me.name!r} is taken by the agent at {self._taken}: choose "
            "another `name`"
        )

    def _look(self, swim: Swim, now: float, until: float) -> None:
        """Do what is due; the loop wanted to be here at `until`."""
        late_after = swim.config.late_after
        due = swim.next_timer()
        if now - until > late_after and (due is None or now - due <= late_after):
            swim.note_late(now)  # else the machine notes it itself
        swim.handle_timer(now)
        if now >= self._tend_at:
            self._tend_at = now + TEND_INTERVAL
            self._roster.save()
            self._publish(swim, now)

    def pump(self, swim: Swim) -> None:
        """Send what the machine wants sent, and act on what has happened, until there is no more."""
        while True:
            datagrams, events = swim.datagrams(), swim.events()
            if not datagrams and not events:
                break
            self._send(swim, datagrams)
            for event in events:
                self._report(swim, event)
        self._wake.set()  # the next deadline may be another one

    def _send(self, swim: Swim, datagrams: Sequence[Datagram]) -> None:
        stretched = swim.config.probe_interval * (1 + swim.health)
        self._exchanging.send(datagrams, max(EXCHANGE_TIMEOUT_MIN, stretched))

    def _publish(self, swim: Swim, now: float) -> None:
        """Let the others know what has changed of what this agent says of itself."""
        me = replace(self._roster.me, ready=self.is_ready())
        if me != self._roster.me and now >= self._publish_at:
            is_first = self._roster.me.ready is None  # that it becomes ready follows soon
            self._publish_at = now if is_first else now + PUBLISH_INTERVAL
            self._roster.me = me
            swim.publish(encode_published(me))

    # ------------------------------------------------------------------ what comes in

    def exchange(self, sender: Origin, address: str, datagrams: Sequence[bytes]) -> list[bytes]:
        """Take datagrams of the agent at `address`; gives what can be answered at once. Raises RpcFailed."""
        swim = self.swim
        if swim is None:
            raise RpcFailed("UNAVAILABLE", "this agent is starting")
        now = self._clock.now()
        answers: list[bytes] = []
        others: list[Datagram] = []
        size = 0
        for payload in datagrams:
            if len(answers) >= ANSWERS_MAX or size >= ANSWER_BYTES_MAX:
                self._crowded += 1
                continue
            swim.receive(payload, address, now, sender.name)
            out = swim.datagrams()
            for_sender = [each.payload for each in out if each.destination == address]
            answers += for_sender
            size += sum(map(len, for_sender))
            others += [each for each in out if each.destination != address]
        self._send(swim, others)
        self.pump(swim)
        self.spoke(sender.name)
        return answers

    def _answered(self, address: str, reply: ExchangeReply) -> None:
        if self.swim is not None:
            now = self._clock.now()
            for payload in reply.datagrams:
                self.swim.receive(payload, address, now, reply.responder.name)
            self.pump(self.swim)
            self.spoke(reply.responder.name)

    def spoke(self, name: str) -> None:
        """A member has spoken to this agent: it is there, so be linked with it."""
        member = self.swim.members.get(name) if self.swim is not None else None
        if member is not None and member.heard:  # not by its name alone, which anybody can write
            self._linking.want(name)

    def _failed(self, address: str) -> None:
        if self.swim is not None:
            self.swim.failed_to_send(address, self._clock.now())
            self.pump(self.swim)

    def _link_changed(self, name: str) -> None:
        if self.swim is not None:
            self.swim.set_linked(self._linking.peers)
            self.doubt(name)

    def doubt(self, name: str) -> None:
        """Ask soon how a member is: its link has changed, or it does not acknowledge in time."""
        if self.swim is not None:
            self.swim.suspect_link(name, self._clock.now())
            self.pump(self.swim)

    def contact(self, names: Collection[str]) -> None:
        """Compare rosters with some members: one of two does not know what the other does."""
        if self.swim is not None:
            some = self._random.sample(sorted(names), min(CONTACTS_MAX, len(names)))
            for name in some:
                self.swim.contact(name, self._clock.now())
            self.pump(self.swim)

    def join(self, seeds: Sequence[str]) -> None:
        """Ask further seeds who is there, now and from now on."""
        self._seeds = list(dict.fromkeys((*self._seeds, *seeds)))
        if self.swim is not None:
            self.swim.join(seeds, self._clock.now())
            self.pump(self.swim)

    # ------------------------------------------------------------------ what has happened

    def _report(self, swim: Swim, event: Event) -> None:
        match event:
            case MemberChanged():
                self._member_changed(swim, event)
            case MetaChanged(name, meta):
                self._meta_changed(name, meta)
            case Evicted(name):
                self._roster.evict(name)
                self._linking.stop(name)
            case NameTaken(address):
                self._taken = address
            case EpochNeeded(epoch, reason):
                self.renew(reason, epoch)
            case Dropped(reason, name, source):
                self._not_believed[reason] += 1
                times = self._not_believed[reason]
                if times.bit_count() == 1:  # the 1st, 2nd, 4th, 8th …
                    log.warning(
                        "not believed", reason=reason, member=name, told_by=source, times=times
                    )

    def _member_changed(self, swim: Swim, event: MemberChanged) -> None:
        change, before, news = event
        self._roster.take(news)
        if change in LOGGED and before is not Status.LEFT:
            log.info(LOGGED[change], member=news.name, address=news.address, epoch=news.epoch)
        if news.status is Status.LEFT:
            self._linking.stop(news.name)
        elif change in {Change.JOINED, Change.RETURNED}:
            if is_far_ahead(news.epoch, self._clock.wall_ms()):
                self.epochs_ahead += 1
                log.warning("epoch far ahead: a clock is wrong", member=news.name, epoch=news.epoch)
            member = swim.members.get(news.name)
            if member is not None and member.heard:
                self._linking.want(news.name)
            elif member is not None:  # it may have had to make room since
                swim.contact(news.name, self._clock.now())

    def _meta_changed(self, name: str, meta: bytes) -> None:
        member = self._roster.members.get(name)
        if member is None:
            return
        try:
            self._roster.learn(decode_published(meta, name, member.info.epoch, member.info.address))
        except MalformedMessage as error:
            self._unreadable += 1
            log.warning("what a member publishes can't be read", member=name, error=str(error))

    def renew(self, reason: str, known: int = 0) -> bool:
        """Begin a new life, later than a known one: this one counts no more. False where it can't be now."""
        assert self.swim is not None
        later = self.on_epoch(max(known, self.swim.me.epoch))
        if later is None:
            return False
        log.warning("new epoch", reason=reason, known=known, epoch=later)
        self.swim.renew(later)
        return True
