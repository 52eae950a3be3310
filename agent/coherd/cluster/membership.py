"""Finding the other agents and staying linked with them.

Seeds are asked until somebody answers, with a jittered back-off, for ever; every member that becomes known
is dialled, and dialled again whenever its link breaks, for ever. So a partition heals by itself.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from coherd.cluster.roster import State
from coherd.errors import RpcFailed, StartRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from coherd.cluster.roster import Roster
    from coherd.cluster.spreading import Spreading
    from coherd.net.peer import JoinReply, MemberInfo, Peer

log = structlog.get_logger("coherd.membership")

DIAL_MIN = 0.1
DIAL_MAX = 2.0
"""Seconds between two attempts to link with a member."""
JOIN_MIN = 0.2
JOIN_MAX = 10.0
"""Seconds between two rounds over the seeds while none has answered."""
REJOIN_INTERVAL = 60.0
"""Seconds between two rounds over the seeds afterwards: names may mean other addresses by then."""
EXCHANGE_INTERVAL = 10.0
"""Seconds between two exchanges of the roster with a random member."""
CHECK_INTERVAL = 0.5
TAKEN_ATTEMPTS = 5
"""How often a taken name is asked again: the holder may be a life of ours that just ended."""


class Membership:
    """The tasks that drive the roster."""

    def __init__(
        self,
        roster: Roster,
        spreading: Spreading,
        seeds: Sequence[str],
        dial: Callable[[str], Peer],
        random: Random,
        nursery: trio.Nursery,
    ) -> None:
        """`dial(address)` gives the door to the agent at an address."""
        self._roster = roster
        self._spreading = spreading
        self._seeds = seeds
        self._dial = dial
        self._random = random
        self._nursery = nursery
        self._nudges: dict[str, trio.Event] = {}
        self.peers: dict[str, Peer] = {}
        """The doors to the members with an open link."""
        self._own_addresses: set[str] = set()
        """Seeds at which this agent itself answers."""
        self.seed_answered = False
        """Whether a seed, or anybody else, has ever answered."""
        self.on_linked: Callable[[str], None] = lambda _name: None
        self.on_epoch: Callable[[int], None] = lambda _epoch: None
        """Called with a later epoch than ours that a peer knows for our name; 0 when it knows none."""

    @property
    def has_seeds(self) -> bool:
        """Whether there is anybody else to ask."""
        return not self._own_addresses.issuperset(self._seeds)

    def start(self) -> None:
        """Start the tasks."""
        self._roster.on_new = self._start_dialling
        for name in self._roster.members:
            self._start_dialling(name)
        self._nursery.start_soon(self._join_seeds)
        self._nursery.start_soon(self._exchange)
        self._nursery.start_soon(self._check)

    def _start_dialling(self, name: str) -> None:
        self._nursery.start_soon(self._stay_linked, name)

    async def join_once(self) -> None:
        """Ask every seed once, side by side. Raises StartRefused when the own name is taken."""
        refused: list[StartRefused] = []

        async def ask(seed: str) -> None:
            try:
                await self._join(seed)
            except StartRefused as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for seed in self._seeds:
                nursery.start_soon(ask, seed)
        if refused:
            raise refused[0]

    async def _join_seeds(self) -> None:
        pause = JOIN_MIN
        taken = 0
        while True:
            try:
                await self.join_once()
                taken = 0
            except StartRefused:
                taken += 1
                if taken >= TAKEN_ATTEMPTS:
                    raise
            settled = (self.seed_answered or not self.has_seeds) and not taken
            pause = REJOIN_INTERVAL if settled else min(pause * 2, JOIN_MAX)
            await trio.sleep(pause * self._random.uniform(0.5, 1.0))

    async def _join(self, seed: str) -> None:
        """Ask one seed; whatever does not answer is asked again later."""
        peer = self._dial(seed)
        try:
            reply = await peer.join(self._roster.me, self._roster.infos())
        except RpcFailed as error:
            if error.code == "ALREADY_EXISTS":
                raise StartRefused(error.details) from None
            if error.code in {"FAILED_PRECONDITION", "PERMISSION_DENIED", "INVALID_ARGUMENT"}:
                log.error("seed refused", seed=seed, error=error.details)
            else:
                log.debug("seed does not answer", seed=seed, error=str(error))
        else:
            if not self.take_reply(reply):
                self._own_addresses.add(seed)
        finally:
            with trio.CancelScope(shield=True):
                await peer.aclose()

    def take_reply(self, reply: JoinReply) -> bool:
        """Take what a join was answered; False when this agent itself answered it."""
        me = self._roster.me
        if (reply.me.name, reply.me.epoch) == (me.name, me.epoch):
            return False
        self.seed_answered = True
        self.on_epoch(reply.epoch)
        for info in (reply.me, *reply.members):
            self._roster.heard(info)
        return True

    async def _exchange(self) -> None:
        """Exchange rosters with a random member now and then: who joined elsewhere becomes known."""
        while True:
            await trio.sleep(EXCHANGE_INTERVAL * self._random.uniform(0.8, 1.2))
            if self.peers:
                peer = self.peers[self._random.choice(sorted(self.peers))]
                try:
                    self.take_reply(await peer.join(self._roster.me, self._roster.infos()))
                except RpcFailed as error:
                    log.debug("exchange failed", error=str(error))

    async def _check(self) -> None:
        while True:
            await trio.sleep(CHECK_INTERVAL)
            self._roster.check()

    async def _stay_linked(self, name: str) -> None:
        """Dial one member for ever."""
        pause = DIAL_MIN
        while True:
            member = self._roster.members[name]
            peer = self._dial(member.info.address)
            try:
                opened = partial(self._opened, peer)
                await self._spreading.connect(name, peer, self._roster.me, opened)
            except RpcFailed as error:
                if member.is_linked:
                    log.info("link broke", member=name, error=str(error))
                    pause = DIAL_MIN
                elif member.state is State.ALIVE:
                    log.debug("link does not open", member=name, error=str(error))
                pause = min(pause * 2, DIAL_MAX)
            finally:
                if self.peers.pop(name, None) is not None:
                    self._roster.unlinked(name)
                with trio.CancelScope(shield=True):
                    await peer.aclose()
            self._nudges[name] = trio.Event()
            with trio.move_on_after(pause * self._random.uniform(0.5, 1.0)):
                await self._nudges[name].wait()

    def seen(self, name: str) -> None:
        """A member has just spoken to us: if we pause between two attempts to link, try now."""
        if name in self._nudges:
            self._nudges[name].set()

    def _opened(self, peer: Peer, info: MemberInfo) -> None:
        self._roster.heard(info)
        self._roster.linked(info.name)
        self.peers[info.name] = peer
        self.seed_answered = True
        log.info("linked", member=info.name, address=info.address)
        self.on_linked(info.name)
