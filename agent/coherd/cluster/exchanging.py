"""Carrying the datagrams of membership: over an open link where there is one, else over a connection of
their own, together with a look at the other's clock.

A datagram that is not delivered is lost, as on any network: the machine that sends it knows what to do.

Nobody is told or believed anything before it was dialled by name, which TLS compares with its certificate.
Where it is not known who is at an address, or somebody else is there by now, that is asked first.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import structlog
import trio

from coherd.cluster.roster import State
from coherd.config.address import dialled
from coherd.errors import RpcFailed
from coherd.limits import EPOCH_MAX, MEMBERS_MAX
from coherd.net.peer import Misnamed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from coherd.clock import Clock
    from coherd.cluster.linking import Linking
    from coherd.cluster.roster import Roster
    from coherd.config import Address
    from coherd.model import Origin
    from coherd.net.obstacles import Obstacle
    from coherd.net.peer import Dial, ExchangeReply, Peer
    from coherd_membership import Datagram

log = structlog.get_logger("coherd.membership")

EXCHANGES_MAX = 256
"""Exchanges under way at once; the datagrams of further ones are dropped and counted."""
EXCHANGE_TIMEOUT_MIN = 2.0
"""Seconds that an answer is waited for at least: of a join, or of a probe of a loaded host."""
OFFSET_AFTER = 60.0
"""Seconds after which a look at a clock gives way to a later, less exact one: clocks drift."""
WALL_US_MAX = EPOCH_MAX * 1000
"""No clock is believed to be beyond."""
REFUSALS_MAX = 100
"""Addresses of which it is remembered why they refuse this agent."""
EXPLAIN_AFTER = 30.0
"""Seconds between two attempts to find out why nobody can be spoken with at an address."""
REFUSALS = frozenset(
    {"FAILED_PRECONDITION", "PERMISSION_DENIED", "UNAUTHENTICATED", "INVALID_ARGUMENT"}
)
"""Codes of those that were reached, and want nothing of this agent."""


class ClockOffset(NamedTuple):
    """How far another agent's wall clock is ahead of this one's, in microseconds: an interval.

    Its answer was written between the sending of the question and the arrival of the answer.
    """

    least: int
    most: int
    at: float
    """Running time at which it was found out."""


class Exchanging:
    """Exchanges with other agents, by address."""

    def __init__(
        self,
        roster: Roster,
        linking: Linking,
        dial: Dial,
        clock: Clock,
        nursery: trio.Nursery,
    ) -> None:
        """`dial(address, name)` gives the door to an agent at its address."""
        self._roster = roster
        self._linking = linking
        self._dial = dial
        self._clock = clock
        self._nursery = nursery
        self._under_way = 0
        self._refusals: dict[str, str] = {}
        self._explained: dict[str, float] = {}
        """By address when it was last found out why nobody can be spoken with there."""
        self._names: dict[str, str | None] = {}
        """By address who answered there, or said so; None where that is to be found out anew."""
        self.why_refused: Callable[[Address, str | None], Awaitable[Obstacle | None]] | None = None
        """Finds out why a connection that can be made is of no use; None without TLS."""
        self.own_addresses: set[str] = set()
        """Addresses at which this agent itself answers."""
        self.offsets: dict[str, ClockOffset] = {}
        """By member."""
        self.dropped = 0
        """Datagrams that were not sent because too many were under way."""
        self.on_answer: Callable[[str, ExchangeReply], None] = lambda _address, _reply: None
        """Called with the address and what was answered."""
        self.on_failure: Callable[[str], None] = lambda _address: None
        """Called with an address where nobody can be reached."""

    def send(self, datagrams: Iterable[Datagram], timeout: float) -> None:
        """Send datagrams, those to one address together; answers are waited for `timeout` seconds."""
        by_address: defaultdict[str, list[bytes]] = defaultdict(list)
        for destination, payload in datagrams:
            by_address[destination].append(payload)
        for address, payloads in by_address.items():
            if self._under_way >= EXCHANGES_MAX:
                self.dropped += len(payloads)
            else:
                self._under_way += 1
                self._nursery.start_soon(self._send, address, payloads, timeout)

    async def _send(self, address: str, payloads: Sequence[bytes], timeout: float) -> None:
        try:
            reply = await self.ask(address, payloads, timeout)
        except RpcFailed as error:
            if error.code in REFUSALS:
                self._note_refusal(address, error.details)
            else:
                log.debug("not delivered", address=address, error=str(error))
            if error.code != "DEADLINE_EXCEEDED":
                self.on_failure(address)
            if error.code == "UNAVAILABLE":
                await self._explain(address)
        else:
            self.on_answer(address, reply)
        finally:
            self._under_way -= 1

    async def ask(self, address: str, payloads: Sequence[bytes], timeout: float) -> ExchangeReply:
        """Exchange datagrams with the agent at an address, whoever it is. Raises RpcFailed."""
        until = self._clock.now() + timeout
        if linked := self._linking.at(address):
            return await self._exchange(linked, address, payloads, until)
        if name := self._name_at(address):
            try:
                return await self._ask(address, name, payloads, until)
            except RpcFailed as error:
                if error.code != "UNAVAILABLE" and not isinstance(error, Misnamed):
                    raise
                self._keep_name(address, None)  # another agent may be there by now
        name = await self._who_is_at(address, until)
        self._keep_name(address, name)
        return await self._ask(address, name, payloads, until)

    def _name_at(self, address: str) -> str | None:
        """Give the name of the agent that is believed to be at an address."""
        if address in self._names:
            return self._names[address]
        there = (m for m in self._roster.members.values() if m.info.address == address)
        likely = max(there, key=lambda m: (m.state is not State.DEAD, m.info.epoch), default=None)
        return likely.info.name if likely else None

    def _keep_name(self, address: str, name: str | None) -> None:
        if len(self._names) >= MEMBERS_MAX and address not in self._names:
            self._names.clear()
        self._names[address] = name

    async def _who_is_at(self, address: str, until: float) -> str:
        """Ask who is at an address: what is said has yet to be proven."""
        async with self._dialling(address, None) as peer:
            reply = await peer.exchange(self._roster.me, (), self._left(until))
        return reply.responder.name

    async def _ask(
        self, address: str, name: str, payloads: Sequence[bytes], until: float
    ) -> ExchangeReply:
        async with self._dialling(address, name) as peer:
            reply = await self._exchange(peer, address, payloads, until)
        self._keep_name(address, name)
        return reply

    @asynccontextmanager
    async def _dialling(self, address: str, name: str | None) -> AsyncIterator[Peer]:
        peer = self._dial(address, name)
        try:
            yield peer
        finally:
            with trio.CancelScope(shield=True):
                await peer.aclose()

    async def _exchange(
        self, peer: Peer, address: str, payloads: Sequence[bytes], until: float
    ) -> ExchangeReply:
        """Exchange datagrams with somebody who was dialled by name."""
        me, sent = self._roster.me, self._clock.wall_us()
        reply = await peer.exchange(me, payloads, self._left(until))
        if reply.responder == (me.name, me.epoch):
            self.own_addresses.add(address)
        else:
            self._note_clock(reply.responder, reply.wall_us, sent)
        return reply

    def _left(self, until: float) -> float:
        return max(0.0, until - self._clock.now())

    def _note_clock(self, responder: Origin, theirs: int, sent: int) -> None:
        """Look at the clock of a member; keep the most exact of the looks that are not old."""
        now, received = self._clock.now(), self._clock.wall_us()
        members = self._roster.members
        if responder.name not in members or not 0 < theirs <= WALL_US_MAX or received < sent:
            return  # it does not tell, or our own clock was set back meanwhile
        found = ClockOffset(theirs - received, theirs - sent, now)
        known = self.offsets.get(responder.name)
        if (
            known is None
            or now - known.at > OFFSET_AFTER
            or found.most - found.least <= known.most - known.least
        ):
            self.offsets[responder.name] = found
        if len(self.offsets) > len(members):  # some have left
            self.offsets = {n: offset for n, offset in self.offsets.items() if n in members}

    async def _explain(self, address: str) -> None:
        """Say why nobody can be spoken with at an address, unless it is that nobody is there."""
        now, explained = self._clock.now(), self._explained
        if self.why_refused is None or now - explained.get(address, -inf) < EXPLAIN_AFTER:
            return
        if len(explained) >= REFUSALS_MAX:
            explained.clear()
        explained[address] = now
        if obstacle := await self.why_refused(dialled(address), self._names.get(address)):
            self._note_refusal(address, f"{obstacle.text}: {obstacle.remedy}")

    def _note_refusal(self, address: str, reason: str) -> None:
        """Say once why somebody refuses this agent."""
        if self._refusals.get(address) != reason and len(self._refusals) < REFUSALS_MAX:
            self._refusals[address] = reason
            log.error("refused", address=address, error=reason)
