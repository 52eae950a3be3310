"""What operators ask of membership: further seeds, a member to forget, this agent to leave or to restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import structlog
import trio

from coherd.cluster.exchanging import EXCHANGE_TIMEOUT_MIN
from coherd.cluster.roster import State
from coherd.errors import RpcFailed
from coherd_membership import NotPossible, Swim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coherd.clock import Clock
    from coherd.cluster.exchanging import Exchanging
    from coherd.cluster.linking import Linking
    from coherd.cluster.membership import Membership
    from coherd.cluster.roster import Member, Roster
    from coherd.model import Origin

log = structlog.get_logger("coherd.membership")

STOP_TIMEOUT = 0.5
LEAVE_TIMEOUT = 2.0
"""Seconds for telling the others that this agent stops, and that it leaves."""
NAMES_SHOWN_MAX = 20


class Told(NamedTuple):
    """Who heard something, and who could not be told; sorted names."""

    told: list[str]
    missed: list[str]


class Operators:
    """The verbs."""

    def __init__(
        self,
        roster: Roster,
        linking: Linking,
        exchanging: Exchanging,
        membership: Membership,
        clock: Clock,
    ) -> None:
        self._roster = roster
        self._linking = linking
        self._exchanging = exchanging
        self._membership = membership
        self._clock = clock
        self._left: Told | None = None
        self.on_left: Callable[[], None] = lambda: None
        """Called once the others were told that this agent is gone for good."""

    async def identify(self, address: str) -> Origin:
        """Find out which agent answers at an address. Raises RpcFailed."""
        return (await self._exchanging.ask(address, (), EXCHANGE_TIMEOUT_MIN)).responder

    async def join(self, seeds: Sequence[str]) -> list[str | RpcFailed]:
        """Ask further seeds, now and from now on; gives who answered at each, or why nobody did."""
        found: dict[str, str | RpcFailed] = {}

        async def ask(seed: str) -> None:
            try:
                found[seed] = (await self.identify(seed)).name
            except RpcFailed as error:
                found[seed] = error

        async with trio.open_nursery() as nursery:
            for seed in dict.fromkeys(seeds):
                nursery.start_soon(ask, seed)
        self._membership.join(seeds)
        return [found[seed] for seed in seeds]

    def forget(self, name: str) -> Member:
        """Strike a member that will not come back from every roster; gives it as it was known.

        Raises RpcFailed for one that is not dead, and for a name that nobody has.
        """
        member, swim = self._roster.members.get(name), self._membership.swim
        if name == self._roster.me.name or (member and member.state is State.ALIVE):
            raise RpcFailed(
                "FAILED_PRECONDITION",
                f"{name} is alive: to take it out of the cluster run `coherd leave` on its host",
            )
        if member is None or swim is None:
            known = sorted(self._roster.members)
            more = ", …" if len(known) > NAMES_SHOWN_MAX else ""
            names = ", ".join(known[:NAMES_SHOWN_MAX]) + more
            raise RpcFailed(
                "NOT_FOUND", f"no agent {name[:80]!r}; known are: {names or 'no others'}"
            )
        try:
            swim.forget(name, self._clock.now())
        except NotPossible:
            raise RpcFailed(
                "FAILED_PRECONDITION",
                f"{name} is {member.state.value}: try again when it is dead, in less than a minute",
            ) from None
        self._membership.contact(self._linking.peers)
        return member

    async def leave(self) -> Told:
        """Tell the others that this agent is gone for good; then it should stop."""
        if self._left is None:
            self._left = await self._say(Swim.leave, LEAVE_TIMEOUT)
            log.info("left the cluster", told=self._left.told, missed=self._left.missed)
        self.on_left()
        return self._left

    async def tell_stop(self) -> None:
        """Tell the others that this agent stops and will be back, unless it has left."""
        await self._say(Swim.restart, STOP_TIMEOUT)

    async def _say(self, goodbye: Callable[[Swim], None], timeout: float) -> Told:
        """Say something to everybody who is there, all at once."""
        swim = self._membership.swim
        told: list[str] = []
        if swim is not None:
            self._membership.pump(swim)
            goodbye(swim)
            names = {member.info.address: name for name, member in self._roster.members.items()}

            async def tell(address: str, payload: bytes) -> None:
                try:
                    await self._exchanging.ask(address, [payload], timeout)
                    told.append(names[address])
                except RpcFailed as error:
                    log.debug("goodbye not told", address=address, error=str(error))

            with trio.move_on_after(timeout):
                async with trio.open_nursery() as nursery:
                    for destination, payload in swim.datagrams():
                        if destination in names:
                            nursery.start_soon(tell, destination, payload)
        return Told(sorted(told), sorted(self._roster.members.keys() - told))
