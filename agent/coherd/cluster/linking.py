"""Staying linked with the other agents, and saying who can be handed rows.

Up to `DIRECT_MAX` members everybody is linked with everybody; in larger regions each with its fingers on the
rings, and with others for a while when there is something for them. A member is dialled once it has spoken,
and again when its link breaks: one that is known from hearsay alone might not exist. One that is dead is
dialled no more; the machine of membership goes on asking for it, and says when it is back.

In the view of spreading stands who has spoken, is not dead, and was not dialled in vain since.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from coherd.cluster.roster import State
from coherd.errors import RpcFailed
from coherd.replication.ring import DIRECT_MAX

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from coherd.clock import Clock
    from coherd.cluster.roster import Roster
    from coherd.cluster.spreading import Spreading
    from coherd.net.peer import Dial, Peer

log = structlog.get_logger("coherd.links")

DIAL_MIN = 0.1
DIAL_MAX = 2.0
"""Seconds between two attempts to link with a member."""
KEPT_FOR = 60.0
"""Seconds for which a link to a member that is no finger is kept after it was needed last."""
TEND_INTERVAL = 5.0
"""Seconds between two looks at which links are needed no more."""
RENEW_INTERVAL = 0.2
"""Seconds between two links that are opened anew."""
REACH_TIMEOUT = 2.0
"""Seconds for which a link that is needed now may take to open."""


class Linking:
    """The tasks that keep links open."""

    def __init__(
        self,
        roster: Roster,
        spreading: Spreading,
        dial: Dial,
        clock: Clock,
        random: Random,
        nursery: trio.Nursery,
    ) -> None:
        """`dial(address, name)` gives the door to an agent at its address."""
        self._roster = roster
        self._spreading = spreading
        self._dial = dial
        self._clock = clock
        self._random = random
        self._nursery = nursery
        self._spoken: set[str] = set()
        """Members that have spoken to this agent."""
        self._failing: set[str] = set()
        """Members whose links broke or did not open, until one opens."""
        self._neighbours: set[str] = set()
        """To whom links are kept open."""
        self._needed_at: dict[str, float] = {}
        """When there was last something for a member."""
        self._scopes: dict[str, trio.CancelScope] = {}
        self._nudges: dict[str, trio.Event] = {}
        self._opened = trio.lowlevel.ParkingLot()
        self.peers: dict[str, Peer] = {}
        """The doors to the members with an open link."""
        self._by_address: dict[str, Peer] = {}
        self.on_linked: Callable[[str], None] = lambda _name: None
        self.on_changed: Callable[[str], None] = lambda _name: None
        """Called when a link has opened or broken: a hint that it is worth asking how its member is."""
        self.on_stranger: Callable[[str], None] = lambda _name: None
        """Called when a member refuses a link because it does not know this life of this agent."""
        roster.on_member = self._look
        spreading.on_needed = self.need

    def start(self) -> None:
        """Start to look after the links."""
        self._nursery.start_soon(self._tend)

    @property
    def reachable(self) -> list[str]:
        """The members that can be reached, as far as is known; those without a link when it is needed."""
        me = self._roster.me.name
        return [name for name in self._spreading.view.members if name != me]

    def want(self, name: str) -> None:
        """A member has just spoken to this agent: dial it, or try again now if it is being dialled."""
        if name not in self._spoken:
            self._spoken.add(name)
            self._look(name)
        if name in self._nudges:
            self._nudges[name].set()
        elif name in self._failing or name in self._neighbours:
            self._dial_soon(name)

    def need(self, name: str) -> None:
        """There is something for a member: see to it that there is a link."""
        self._needed_at[name] = self._clock.now()
        self._dial_soon(name)

    async def reach(self, name: str) -> Peer | None:
        """Give the door to a member, after waiting for its link to open for a moment."""
        self.need(name)
        with trio.move_on_after(REACH_TIMEOUT):
            while name in self._scopes and name not in self.peers:
                await self._opened.park()
        return self.peers.get(name)

    def stop(self, name: str) -> None:
        """End the links to a member that is known no more; a later life of it is dialled anew."""
        self._spoken.discard(name)
        self._failing.discard(name)
        self._needed_at.pop(name, None)
        self.peers.pop(name, None)
        self._look(name)
        if scope := self._scopes.pop(name, None):
            scope.cancel()
        self._nudges.pop(name, None)
        self._spreading.closed(name)
        self._spreading.forget(name)

    async def renew(self) -> None:
        """Open all links anew, one after the other, each with the certificate that is current then."""
        for name, peer in list(self.peers.items()):
            if self.peers.get(name) is peer and (scope := self._scopes.get(name)):
                scope.cancel()
                await trio.sleep(RENEW_INTERVAL)

    def at(self, address: str) -> Peer | None:
        """Give the door to the agent at an address, where a link to it is open."""
        return self._by_address.get(address)

    # ------------------------------------------------------------------ who is there

    def _look(self, name: str) -> None:
        """Put a member into the view, or leave it out, as it is now."""
        view, member = self._spreading.view, self._roster.members.get(name)
        before = view.members.get(name)
        if member is not None and (name in self.peers or self._is_hopeful(name, member.state)):
            if before != member.info.namespaces:
                view.add(name, member.info.namespaces)
        elif before is not None:
            view.remove(name)
        if view.members.get(name) != before:
            self._choose()

    def _is_hopeful(self, name: str, state: State) -> bool:
        return name in self._spoken and name not in self._failing and state is not State.DEAD

    def _choose(self) -> None:
        """Choose to whom links are kept open; the others' are closed when nobody needs them."""
        if len(self._spreading.view) > DIRECT_MAX:
            self._neighbours = set(self._spreading.neighbours())
        else:
            self._neighbours = set(self.reachable)
        for name, member in self._roster.members.items():
            member.is_wanted = name in self._neighbours or name in self._failing
        for name in sorted(self._neighbours - self._scopes.keys()):
            self._dial_soon(name)

    async def _tend(self) -> None:
        while True:
            await trio.sleep(TEND_INTERVAL)
            needed_since = self._clock.now() - KEPT_FOR
            for name in [n for n, at in self._needed_at.items() if at < needed_since]:
                del self._needed_at[name]
            kept = self._neighbours | self._failing | self._needed_at.keys()
            for name in self._scopes.keys() - kept:
                self._scopes[name].cancel()

    # ------------------------------------------------------------------ dialling

    def _is_wanted(self, name: str) -> bool:
        member = self._roster.members.get(name)
        return name in self._spoken and member is not None and member.state is not State.DEAD

    def _dial_soon(self, name: str) -> None:
        if name not in self._scopes and self._is_wanted(name):
            scope = self._scopes[name] = trio.CancelScope()
            self._nursery.start_soon(self._stay_linked, name, scope)

    async def _stay_linked(self, name: str, scope: trio.CancelScope) -> None:
        """Dial one member until it is dead or forgotten, or nobody needs the link."""
        pause = DIAL_MIN
        with scope:
            while self._is_wanted(name):
                pause = await self._link(name, pause)
                nudge = self._nudges[name] = trio.Event()
                try:
                    with trio.move_on_after(pause * self._random.uniform(0.5, 1.0)):
                        await nudge.wait()
                finally:
                    self._nudges.pop(name, None)
        if self._scopes.get(name) is scope:
            del self._scopes[name]
            self._opened.unpark_all()
            if name in self._needed_at or name in self._neighbours:  # since it was given up
                self._dial_soon(name)

    async def _link(self, name: str, pause: float) -> float:
        """Dial one member once and stay linked with it; gives the next pause in seconds."""
        member = self._roster.members[name]
        address = member.info.address
        peer = self._dial(address, name)
        try:
            opened = partial(self._has_opened, peer, name, address)
            await self._spreading.connect(name, peer, self._roster.me, opened)
        except RpcFailed as error:
            self._failing.add(name)
            if member.is_linked:
                log.info("link broke", member=name, error=str(error))
                pause = DIAL_MIN
            elif member.state is State.ALIVE:
                log.debug("link does not open", member=name, error=str(error))
            if error.code == "FAILED_PRECONDITION":
                self.on_stranger(name)
        finally:
            self._has_closed(peer, name, address)
            with trio.CancelScope(shield=True):
                await peer.aclose()
        return min(pause * 2, DIAL_MAX)

    def _has_opened(self, peer: Peer, name: str, address: str) -> None:
        if name not in self._roster.members:  # at the very moment at which the link opened
            raise RpcFailed("FAILED_PRECONDITION", f"{name} was forgotten")
        self.peers[name] = self._by_address[address] = peer
        self._failing.discard(name)
        self._roster.linked(name)
        log.info("linked", member=name, address=address)
        self._opened.unpark_all()
        self.on_changed(name)
        self.on_linked(name)

    def _has_closed(self, peer: Peer, name: str, address: str) -> None:
        if self._by_address.get(address) is peer:
            del self._by_address[address]
        was_open = self.peers.get(name) is peer
        if was_open:
            del self.peers[name]
            self._roster.unlinked(name)
        if name not in self.peers:  # a later life of it may be linked already
            self._look(name)
            self._spreading.closed(name)
        if was_open:
            self.on_changed(name)
