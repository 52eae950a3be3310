"""Letting go of streams of lives that are over, where there are very many: drives `replication.eras`.

An era is taken over when a sync completes. Who finds that others are two ahead issues again, as its own, the
rows of streams that they do not know, and then resets and drops these streams: in this order, lest a crash in
between lose them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from coherd.errors import JournalDamaged, NotDurable, Overloaded
from coherd.limits import BATCH_ROWS_MAX
from coherd.model import EVERYTHING, Cause, Effect, Lane
from coherd.replication.eras import Eras
from coherd.wire import decode_batch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from coherd.clock import Clock
    from coherd.cluster.feed import Feed
    from coherd.cluster.ingest import Ingest
    from coherd.cluster.roster import Roster
    from coherd.journal import Journal
    from coherd.model import Batch, Origin, Stream
    from coherd.replication.eras import Turn
    from coherd.replication.intervals import Intervals
    from coherd.replication.repair import Repair

log = structlog.get_logger("coherd.repair")

READ_BYTES = 256 * 1024
"""Payload bytes that are read at once."""
RETRY_AFTER = 0.1
"""Seconds until the journal is tried again that was full."""


class Retiring:
    """The eras of this agent, and those that the others said they are in."""

    def __init__(
        self,
        ingest: Ingest,
        repair: Repair,
        roster: Roster,
        feed: Feed,
        journal: Journal,
        clock: Clock,
    ) -> None:
        self._ingest = ingest
        self._repair = repair
        self._roster = roster
        self._feed = feed
        self._journal = journal
        self._clock = clock
        self.eras = Eras(
            ingest.replica.vector, repair.is_open, self._is_dead, journal.contents.eras
        )
        self._theirs: dict[str, Mapping[str, int]] = {}
        self._unstored: list[Turn] = []
        self._catching_up = trio.Lock()

    def theirs(self, name: str) -> Mapping[str, int]:
        """Give the eras that a member said it is in."""
        return self._theirs.get(name, {})

    def heard(self, name: str, eras: Mapping[str, int]) -> None:
        """Note the eras that a member is in."""
        self._theirs[name] = eras
        self.eras.hear(eras)

    def begin_due(self) -> None:
        """Begin eras where there are too many streams."""
        for namespace in self.eras.begin_due(self._clock.now()):
            log.info("an era begins", namespace=namespace)

    def synced(self) -> None:
        """A sync has completed: take over the eras that were begun."""
        turns = self.eras.take_over(self._ingest.is_held, self._clock.now())
        for turn in turns:
            log.info(
                "era", namespace=turn.namespace, era=turn.era.number, dropped=len(turn.dropped)
            )
            for stream in turn.dropped:
                self._repair.drop(stream)
        self._unstored += turns
        while self._unstored and self._ingest.turned(self._unstored[0]):
            del self._unstored[0]
        if self._journal.error:
            self._unstored.clear()

    def _is_dead(self, origin: Origin) -> bool:
        """Tell whether a life is over: a later one of its name is known, or the name is not."""
        life = self._ingest.replica.life
        if life is not None and origin.name == life.name:
            return origin.epoch != life.epoch
        member = self._roster.members.get(origin.name)
        return member is None or origin.epoch < member.info.epoch

    # ------------------------------------------------------------------ left behind

    async def catch_up(self, namespace: str, number: int, known: Collection[Stream]) -> None:
        """Go to an era two or more ahead, where `known` is all that is known of the namespace."""
        async with self._catching_up:
            if number < self.eras.number(namespace) + 2:
                return  # another member was asked meanwhile
            streams = self._ingest.replica.vector.streams(namespace)
            unknown = [s for s in streams if s not in known and self._is_dead(s.origin)]
            if not await self._issue_again(namespace, unknown):
                return
            now = self._clock.now()

            def turn() -> Turn:
                return self.eras.catch_up(namespace, number, unknown, now)

            for stream in unknown:
                self._repair.drop(stream)
            while True:
                if self._ingest.reset([namespace], Cause.LEFT_BEHIND, turn=turn):
                    return
                await trio.sleep(RETRY_AFTER)

    async def _issue_again(self, namespace: str, streams: Sequence[Stream]) -> bool:
        """Issue the rows of streams as own ones; False where they cannot be stored."""
        vector = self._ingest.replica.vector
        ticket = 0
        try:
            for stream in streams:
                state = vector.state(stream)
                whole = self._repair.is_open(stream) or bool(state.have.holes())
                try:
                    async for batch in self._stored(stream, state.held.copy()):
                        ticket = await self._issue(namespace, batch)
                except JournalDamaged as error:
                    self._ingest.damaged(error)
                    whole = True
                if whole:
                    everything = [EVERYTHING]
                    ticket = await self._accept(
                        namespace, stream.lane, everything, Effect.DROP, None, ""
                    )
            if ticket:
                await self._journal.committed(ticket)
        except NotDurable as error:
            log.error("rows cannot be issued again", namespace=namespace, error=str(error))
            return False
        return True

    async def _issue(self, namespace: str, batch: Batch) -> int:
        ticket = 0
        for at in range(0, len(batch), BATCH_ROWS_MAX):
            part = slice(at, at + BATCH_ROWS_MAX)
            versions = None if batch.versions is None else batch.versions[part]
            ticket = await self._accept(
                namespace,
                batch.stream.lane,
                batch.selectors[part],
                batch.effect,
                versions,
                batch.reason,
                batch.issuer,
            )
        return ticket

    async def _accept(
        self,
        namespace: str,
        lane: Lane,
        selectors: Sequence[bytes],
        effect: Effect,
        versions: Sequence[int] | None,
        reason: str,
        issuer: str = "",
    ) -> int:
        while True:
            try:
                accepted = self._ingest.accept(
                    namespace, lane, selectors, effect, versions, reason, issuer
                )
            except Overloaded:
                await trio.sleep(RETRY_AFTER)
            else:
                return accepted.ticket

    async def _stored(self, stream: Stream, numbers: Intervals) -> AsyncIterator[Batch]:
        """Give the rows that are held, from memory and from the journal."""
        for entry in self._feed.rows(stream, numbers):
            batch = entry.arrival.batch
            for low, high in batch.numbers:
                numbers.discard(low, high)
            yield batch
        while numbers:
            blocks = await self._journal.fetch(stream, numbers.ranges(), READ_BYTES)
            if not blocks:
                raise JournalDamaged(f"rows of {stream} are missing", stream.namespace, (0, 0))
            for block in blocks:
                for low, high in block.numbers:
                    numbers.discard(low, high)
                yield decode_batch(block.payload)
