"""Staying linked with the other agents: each is dialled once it has spoken, and again when its link breaks.

A member that is known from hearsay alone is not dialled: it might not exist. One that is dead is dialled no
more; the machine of membership goes on asking for it, and says when it is back.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from coherd.cluster.roster import State
from coherd.errors import RpcFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from coherd.cluster.roster import Roster
    from coherd.cluster.spreading import Spreading
    from coherd.net.peer import MemberInfo, Peer

log = structlog.get_logger("coherd.links")

DIAL_MIN = 0.1
DIAL_MAX = 2.0
"""Seconds between two attempts to link with a member."""


class Linking:
    """The tasks that keep links open."""

    def __init__(
        self,
        roster: Roster,
        spreading: Spreading,
        dial: Callable[[str], Peer],
        random: Random,
        nursery: trio.Nursery,
    ) -> None:
        """`dial(address)` gives the door to the agent at an address."""
        self._roster = roster
        self._spreading = spreading
        self._dial = dial
        self._random = random
        self._nursery = nursery
        self._scopes: dict[str, trio.CancelScope] = {}
        self._nudges: dict[str, trio.Event] = {}
        self.peers: dict[str, Peer] = {}
        """The doors to the members with an open link."""
        self._by_address: dict[str, Peer] = {}
        self.on_linked: Callable[[str], None] = lambda _name: None
        self.on_changed: Callable[[str], None] = lambda _name: None
        """Called when a link has opened or broken: a hint that it is worth asking how its member is."""
        self.on_stranger: Callable[[str], None] = lambda _name: None
        """Called when a member refuses a link because it does not know this life of this agent."""

    def want(self, name: str) -> None:
        """A member has just spoken to this agent: dial it, or try again now if it is being dialled."""
        if name in self._nudges:
            self._nudges[name].set()
        elif name not in self._scopes and self._is_wanted(name):
            scope = self._scopes[name] = trio.CancelScope()
            self._nursery.start_soon(self._stay_linked, name, scope)

    def stop(self, name: str) -> None:
        """End the links to a member that is known no more; a later life of it is dialled anew."""
        if scope := self._scopes.pop(name, None):
            scope.cancel()
        self._nudges.pop(name, None)
        self.peers.pop(name, None)
        self._spreading.links.pop(name, None)

    def at(self, address: str) -> Peer | None:
        """Give the door to the agent at an address, where a link to it is open."""
        return self._by_address.get(address)

    def _is_wanted(self, name: str) -> bool:
        member = self._roster.members.get(name)
        return member is not None and member.state is not State.DEAD

    async def _stay_linked(self, name: str, scope: trio.CancelScope) -> None:
        """Dial one member until it is dead or forgotten."""
        pause = DIAL_MIN
        with scope:
            while self._is_wanted(name):
                pause = await self._link(name, pause)
                self._nudges[name] = trio.Event()
                with trio.move_on_after(pause * self._random.uniform(0.5, 1.0)):
                    await self._nudges[name].wait()
                self._nudges.pop(name, None)
        if self._scopes.get(name) is scope:
            del self._scopes[name]

    async def _link(self, name: str, pause: float) -> float:
        """Dial one member once and stay linked with it; gives the next pause in seconds."""
        member = self._roster.members[name]
        address = member.info.address
        peer = self._dial(address)
        try:
            opened = partial(self._opened, peer, name, address)
            await self._spreading.connect(name, peer, self._roster.me, opened)
        except RpcFailed as error:
            if member.is_linked:
                log.info("link broke", member=name, error=str(error))
                pause = DIAL_MIN
            elif member.state is State.ALIVE:
                log.debug("link does not open", member=name, error=str(error))
            if error.code == "FAILED_PRECONDITION":
                self.on_stranger(name)
        finally:
            if self._by_address.get(address) is peer:
                del self._by_address[address]
            if self.peers.get(name) is peer:
                del self.peers[name]
                self._roster.unlinked(name)
                self.on_changed(name)
            with trio.CancelScope(shield=True):
                await peer.aclose()
        return min(pause * 2, DIAL_MAX)

    def _opened(self, peer: Peer, name: str, address: str, _info: MemberInfo) -> None:
        if name not in self._roster.members:  # at the very moment at which the link opened
            raise RpcFailed("FAILED_PRECONDITION", f"{name} was forgotten")
        self.peers[name] = self._by_address[address] = peer
        self._roster.linked(name)
        log.info("linked", member=name, address=address)
        self.on_changed(name)
        self.on_linked(name)
