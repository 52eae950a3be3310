"""A publisher that holds nothing of a namespace offers the rows that it accepted until a holder has them.

After a restart they are no change, and in nobody's sum: without this they would be lost for the others if the
agent died just after accepting them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from coherd.errors import RpcFailed
from coherd.net.peer import Have
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from random import Random

    from coherd.cluster.ingest import Ingest
    from coherd.cluster.repairing import Repairing
    from coherd.cluster.roster import Roster
    from coherd.model import Stream

log = structlog.get_logger("coherd.repair")

OFFER_INTERVAL = 10.0
"""Seconds between two offers of what no holder is known to have."""
SEEK_INTERVAL = 1.0
"""The same while no holder can be reached."""
STREAMS_MAX = 1_000
"""Streams of one offer."""


class Offering:
    """What was offered, and the task that does."""

    def __init__(
        self, ingest: Ingest, repairing: Repairing, roster: Roster, random: Random
    ) -> None:
        self._ingest = ingest
        self._repairing = repairing
        self._roster = roster
        self._random = random
        self._had: dict[tuple[str, int], dict[Stream, Intervals]] = {}
        """What holders said that they have, by name and epoch: the next life may have lost it again."""

    def pending(self) -> dict[str, list[tuple[Stream, Intervals]]]:
        """Give the own streams that no holder is known to have whole, by namespace."""
        vector, me = self._ingest.replica.vector, self._roster.me
        had = self._still_had()
        result: dict[str, list[tuple[Stream, Intervals]]] = {}
        for namespace in vector.namespaces():
            if me.holds(namespace):
                continue
            found = [
                (stream, state.have)
                for stream, state in vector.streams(namespace).items()
                if stream.origin.name == me.name and state.have - had.get(stream, Intervals())
            ]
            if found:
                result[namespace] = found[:STREAMS_MAX]
        return result

    async def run(self) -> None:
        """Offer at start, and now and then, for ever."""
        while True:
            pause = OFFER_INTERVAL
            for namespace, streams in self.pending().items():
                holders = {member.info.name for member in self._roster.holders(namespace)}
                there = sorted(holders.intersection(self._repairing.reachable()))
                if there:
                    await self._offer(self._random.choice(there), streams)
                else:
                    pause = SEEK_INTERVAL
            await trio.sleep(pause)

    async def _offer(self, name: str, streams: list[tuple[Stream, Intervals]]) -> None:
        peer = await self._repairing.peer(name)
        if peer is None:
            return
        shown = [(stream, numbers.copy()) for stream, numbers in streams]
        try:
            reply = await peer.have(
                Have(self._ingest.life, shown, 0, catching_up=False, offer=True)
            )
        except RpcFailed as error:
            log.debug("offer failed", member=name, error=str(error))
            return
        offered, member = dict(shown), self._roster.members.get(name)
        if member is None:
            return
        had = self._had.setdefault((name, member.info.epoch), {})
        for stream, numbers in reply.streams:
            if stream in offered:
                had[stream] = had.get(stream, Intervals()) | (numbers & offered[stream])

    def _still_had(self) -> dict[Stream, Intervals]:
        """Give what holders have that are still in the life in which they said so."""
        members = self._roster.members
        for name, epoch in list(self._had):
            if name not in members or members[name].info.epoch != epoch:
                del self._had[name, epoch]
        result: dict[Stream, Intervals] = {}
        for streams in self._had.values():
            for stream, numbers in streams.items():
                result[stream] = result.get(stream, Intervals()) | numbers
        return result
