"""Finding the other agents and staying linked with them.

Seeds are asked until somebody answers, with a jittered back-off, for ever; every member that becomes known
is dialled, and dialled again whenever its link breaks, until it is forgotten. So a partition heals by
itself. Who is forgotten is told to everybody at once, and exchanged with the roster from then on.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import structlog
import trio

from coherd.cluster.roster import State
from coherd.errors import RpcFailed, StartRefused
from coherd.model import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from coherd.cluster.roster import Member, Roster
    from coherd.cluster.spreading import Spreading
    from coherd.net.peer import JoinReply, MemberInfo, Peer

log = structlog.get_logger("coherd.membership")

DIAL_MIN = 0.1
DIAL_MAX = 2.0
"""Seconds between two attempts to link with a member."""
JOIN_MIN = 0.2
JOIN_MAX = 10.0
"""Seconds between two rounds over the seeds while none has answered."""
SEEDS_AT_ONCE = 100
"""Seeds asked side by side: each costs connections and memory."""
REJOIN_INTERVAL = 60.0
"""Seconds between two rounds over the seeds afterwards: names may mean other addresses by then."""
EXCHANGE_INTERVAL = 10.0
"""Seconds between two exchanges of the roster with a random member."""
CHECK_INTERVAL = 0.5
TAKEN_ATTEMPTS = 5
"""How often a taken name is asked again: the holder may be a life of ours that just ended."""
STOP_TIMEOUT = 0.5
LEAVE_TIMEOUT = 2.0
"""Seconds for telling the others that this agent stops, and that it leaves."""
NAMES_SHOWN_MAX = 20


class Told(NamedTuple):
    """Who heard something, and who could not be told; sorted names."""

    told: list[str]
    missed: list[str]


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
        self.dial = dial
        """Gives the door to the agent at an address."""
        self._random = random
        self._nursery = nursery
        self._nudges: dict[str, trio.Event] = {}
        self._dialling: dict[str, trio.CancelScope] = {}
        self._has_left = False
        self.peers: dict[str, Peer] = {}
        """The doors to the members with an open link."""
        self._own_addresses: set[str] = set()
        """Seeds at which this agent itself answers."""
        self.seed_answered = False
        """Whether a seed, or anybody else, has ever answered."""
        self.on_linked: Callable[[str], None] = lambda _name: None
        self.on_epoch: Callable[[int], None] = lambda _epoch: None
        """Called with a later epoch than ours that a peer knows for our name; 0 when it knows none."""
        self.on_left: Callable[[], None] = lambda: None
        """Called once the others were told that this agent is gone for good."""

    @property
    def has_seeds(self) -> bool:
        """Whether there is anybody else to ask."""
        return not self._own_addresses.issuperset(self._seeds)

    def start(self) -> None:
        """Start the tasks."""
        self._roster.on_new = self._start_dialling
        self._roster.on_gone = self._stop_dialling
        self._roster.on_forgotten = self._was_forgotten
        for name in self._roster.members:
            self._start_dialling(name)
        self._nursery.start_soon(self._join_seeds)
        self._nursery.start_soon(self._exchange)
        self._nursery.start_soon(self._check)

    def _start_dialling(self, name: str) -> None:
        self._dialling[name] = trio.CancelScope()
        self._nursery.start_soon(self._stay_linked, name, self._dialling[name])

    def _stop_dialling(self, name: str) -> None:
        """End the links to a member that was forgotten; a later life of it is dialled anew."""
        self._dialling.pop(name).cancel()
        self.peers.pop(name, None)
        self._nudges.pop(name, None)
        self._spreading.links.pop(name, None)
        log.info("forgotten", member=name)

    def _was_forgotten(self, epoch: int) -> None:
        """No life of this name up to `epoch` counts any more, and this one is alive: begin a later one."""
        if not self._has_left:
            self.on_epoch(epoch + 1)
            self._exchange_with_all()

    async def join_once(self) -> None:
        """Ask every seed once, side by side. Raises StartRefused when the own name is taken."""
        refused: list[StartRefused] = []

        limiter = trio.CapacityLimiter(SEEDS_AT_ONCE)

        async def ask(seed: str) -> None:
            try:
                async with limiter:
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
        peer = self.dial(seed)
        try:
            is_other = await self.ask(peer) is not None
        except RpcFailed as error:
            if error.code == "ALREADY_EXISTS":
                raise StartRefused(error.details) from None
            if error.code in {"FAILED_PRECONDITION", "PERMISSION_DENIED", "INVALID_ARGUMENT"}:
                log.error("seed refused", seed=seed, error=error.details)
            else:
                log.debug("seed does not answer", seed=seed, error=str(error))
        else:
            if not is_other:
                self._own_addresses.add(seed)
        finally:
            with trio.CancelScope(shield=True):
                await peer.aclose()

    async def ask(self, peer: Peer) -> JoinReply | None:
        """Exchange rosters with an agent; None when this agent itself answered. Raises RpcFailed."""
        me = self._roster.me
        reply = await peer.join(me, self._roster.infos(), self._roster.forgotten)
        if (reply.me.name, reply.me.epoch) == (me.name, me.epoch):
            return None
        self.seed_answered = True
        self.on_epoch(reply.epoch)
        for origin in reply.forgotten:
            self._roster.forget(*origin)
        for info in (reply.me, *reply.members):
            self._roster.heard(info)
        return reply

    async def _exchange(self) -> None:
        """Exchange rosters with a random member now and then: who joined elsewhere becomes known."""
        while True:
            await trio.sleep(EXCHANGE_INTERVAL * self._random.uniform(0.8, 1.2))
            if self.peers:
                await self._exchange_with(self.peers[self._random.choice(sorted(self.peers))])

    async def _exchange_with(self, peer: Peer) -> None:
        try:
            await self.ask(peer)
        except RpcFailed as error:
            log.debug("exchange failed", error=str(error))

    def _exchange_with_all(self) -> None:
        for peer in self.peers.values():
            self._nursery.start_soon(self._exchange_with, peer)

    async def _check(self) -> None:
        while True:
            await trio.sleep(CHECK_INTERVAL)
            self._roster.check()

    async def _stay_linked(self, name: str, scope: trio.CancelScope) -> None:
        """Dial one member until it is forgotten."""
        pause = DIAL_MIN
        with scope:
            while True:
                pause = await self._link(name, pause)
                self._nudges[name] = trio.Event()
                with trio.move_on_after(pause * self._random.uniform(0.5, 1.0)):
                    await self._nudges[name].wait()

    async def _link(self, name: str, pause: float) -> float:
        """Dial one member once and stay linked with it; gives the next pause in seconds."""
        member = self._roster.members[name]
        peer = self.dial(member.info.address)
        try:
            opened = partial(self._opened, peer)
            await self._spreading.connect(name, peer, self._roster.me, opened)
        except RpcFailed as error:
            if member.is_linked:
                log.info("link broke", member=name, error=str(error))
                pause = DIAL_MIN
            elif member.state is State.ALIVE:
                log.debug("link does not open", member=name, error=str(error))
            if error.code == "FAILED_PRECONDITION":  # it may have forgotten this life of ours
                await self._exchange_with(peer)
        finally:
            if self.peers.get(name) is peer:
                del self.peers[name]
                self._roster.unlinked(name)
            with trio.CancelScope(shield=True):
                await peer.aclose()
        return min(pause * 2, DIAL_MAX)

    def seen(self, name: str) -> None:
        """A member has just spoken to us: if we pause between two attempts to link, try now."""
        if name in self._nudges:
            self._nudges[name].set()

    def _opened(self, peer: Peer, info: MemberInfo) -> None:
        self._roster.heard(info)
        if info.name not in self._roster.members:  # at the very moment at which the link opened
            raise RpcFailed("FAILED_PRECONDITION", f"{info.name} was forgotten")
        self._roster.linked(info.name)
        self.peers[info.name] = peer
        self.seed_answered = True
        log.info("linked", member=info.name, address=info.address)
        self._nursery.start_soon(self._exchange_with, peer)
        self.on_linked(info.name)

    # ------------------------------------------------------------------ going

    def forget(self, name: str) -> Member:
        """Strike a member that will not come back from every roster; gives it as it was known.

        Raises RpcFailed for one that is alive, and for a name that nobody has.
        """
        member = self._roster.members.get(name)
        if name == self._roster.me.name or (member and member.state is State.ALIVE):
            raise RpcFailed(
                "FAILED_PRECONDITION",
                f"{name} is alive: to take it out of the cluster run `coherd leave` on its host",
            )
        if member is None:
            known = sorted(self._roster.members)
            more = ", …" if len(known) > NAMES_SHOWN_MAX else ""
            names = ", ".join(known[:NAMES_SHOWN_MAX]) + more
            raise RpcFailed(
                "NOT_FOUND", f"no agent {name[:80]!r}; known are: {names or 'no others'}"
            )
        self._roster.forget(name, member.info.epoch)
        self._exchange_with_all()
        return member

    async def leave(self) -> Told:
        """Tell the others that this agent is gone for good; then it should stop."""
        self._has_left = True
        told = await self._tell_all(leaving=True, timeout=LEAVE_TIMEOUT)
        log.info("left the cluster", told=told.told, missed=told.missed)
        self.on_left()
        return told

    async def tell_stop(self) -> None:
        """Tell the others that this agent stops and will be back, unless it has left."""
        if not self._has_left:
            await self._tell_all(leaving=False, timeout=STOP_TIMEOUT)

    async def _tell_all(self, *, leaving: bool, timeout: float) -> Told:
        me = self._roster.me
        told: list[str] = []

        async def tell(name: str, peer: Peer) -> None:
            try:
                await peer.stop(Origin(me.name, me.epoch), leaving=leaving)
                told.append(name)
            except RpcFailed as error:
                log.debug("stop not told", member=name, error=str(error))

        with trio.move_on_after(timeout):
            async with trio.open_nursery() as nursery:
                for name, peer in self.peers.items():
                    nursery.start_soon(tell, name, peer)
        return Told(sorted(told), sorted(self._roster.members.keys() - told))
