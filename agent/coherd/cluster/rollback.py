"""An agent that was rolled back while it ran: its machine was restored from a snapshot, memory and all.

It goes on numbering where the snapshot was made, and peers drop what it then accepts as rows that they have
(protocol §8). That shows when somebody has numbers of the current life above the own ones, or when the wall
clock jumps against the running time. Then a new life begins, and what may have gone out under numbers that
were used before is issued again in it: the own rows since the last sync with whoever showed it, or of the
last seconds before the jump, and what others have under the same numbers.

Not noticed is who has accepted as many rows as were lost before anybody was met, on a machine whose clock
nobody has set meanwhile.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeAlias

import structlog
import trio

from coherd.errors import NotDurable, Overloaded, RpcFailed
from coherd.model import EVERYTHING, Batch, Lane, Stream
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from random import Random

    from coherd.clock import Clock
    from coherd.cluster.feed import Feed
    from coherd.cluster.ingest import Ingest
    from coherd.cluster.repairing import Repairing
    from coherd.cluster.roster import Roster
    from coherd.model import Effect, Origin, Selector

_Issued: TypeAlias = "dict[Stream, dict[int, tuple[Selector, Effect]]]"
"""What the rows of some numbers say."""

log = structlog.get_logger("coherd.rollback")

JUMP_MIN = 5.0
"""Seconds by which the wall clock jumps: smaller steps are those of clocks that are kept right."""
CLOCK_LAG = 30.0
"""Seconds within which the clock of a machine that was restored is set: numbers may have been used twice from
so long before the jump."""
INTERVAL_MIN = 60.0
"""Seconds between two new lives for this reason: a member that says untrue things must not cause more."""
ASKED_MAX = 3
"""Holders that are asked, beside whoever showed it, what they have under the same numbers."""
ASK_TIMEOUT = 30.0
ASK_AGAIN_AFTER = 5.0
"""Seconds until a member that did not answer is asked again, as long as it is a member."""


class Rollback:
    """Notices a rollback, and makes good what it would take."""

    def __init__(
        self,
        ingest: Ingest,
        feed: Feed,
        repairing: Repairing,
        roster: Roster,
        clock: Clock,
        random: Random,
        nursery: trio.Nursery,
        renew: Callable[[str], bool],
        again: Callable[[Batch], None],
    ) -> None:
        """`renew(reason)` begins a new life, False where it can't; `again(batch)` issues rows in it."""
        self._ingest = ingest
        self._feed = feed
        self._repairing = repairing
        self._roster = roster
        self._clock = clock
        self._random = random
        self._nursery = nursery
        self._renew = renew
        self._again = again
        self._started_at = feed.position
        self._ahead = self._wall_ahead()
        self._positions = deque([(clock.now(), feed.position)])
        """Those of the last seconds, with their times."""
        self._not_before = 0.0
        self.count = 0
        """How often it was noticed."""

    # ------------------------------------------------------------------ noticing

    def shown(self, member: str, claims: Iterable[tuple[Stream, Intervals]]) -> None:
        """Look at what a member says it has, before it is believed."""
        life, vector = self._ingest.life, self._ingest.replica.vector
        for stream, numbers in claims:
            if stream.origin == life:
                state = vector.get(stream)
                if numbers.last > (state.have.last if state is not None else 0):
                    self._notice(f"{member} has rows of this life that it never issued", member)
                    return

    def look_at_clock(self) -> None:
        """See whether the wall clock has jumped; to be called every second or so."""
        now = self._clock.now()
        self._positions.append((now, self._feed.position))
        while self._positions[1][0] < now - CLOCK_LAG:
            self._positions.popleft()
        before, self._ahead = self._ahead, self._wall_ahead()
        if abs(self._ahead - before) > JUMP_MIN:
            self._notice(f"the wall clock jumped by {self._ahead - before:.0f} s", None)

    def _wall_ahead(self) -> float:
        return self._clock.wall_ms() / 1000 - self._clock.now()

    def _notice(self, reason: str, member: str | None) -> None:
        now = self._clock.now()
        if now < self._not_before:
            return
        since = self._since(member)
        old, upto = self._ingest.life, self._feed.position
        if self._renew(f"rolled back: {reason}"):
            self._not_before = now + INTERVAL_MIN
            self.count += 1
            self._nursery.start_soon(self._mend, old, since, upto, member)

    def _since(self, member: str | None) -> int:
        """Give the position up to which numbers are surely those that others know."""
        if member is None:
            return self._positions[0][1]
        return self._repairing.synced_upto.get(member, self._started_at)

    # ------------------------------------------------------------------ making good

    async def _mend(self, old: Origin, since: int, upto: int, member: str | None) -> None:
        own: _Issued = {}
        rows = 0
        async for batch in self._issued(old, since, upto):
            await self._issue(batch)
            own.setdefault(batch.stream, {}).update(_said(batch))
            rows += len(batch)
        log.warning("rows issued again", rows=rows)
        for name in self._asked(own, member):
            self._nursery.start_soon(self._ask, name, own)

    async def _issued(self, old: Origin, since: int, upto: int) -> AsyncIterator[Batch]:
        """Give what was issued in a life between two positions; everything where it is not kept any more."""
        vector = self._ingest.replica.vector
        for namespace in list(vector.namespaces()):
            is_own = any(stream.origin == old for stream in vector.streams(namespace))
            if is_own and self._feed.resume(namespace, since) is None:
                stream = Stream(namespace, old, Lane.NORMAL)
                yield Batch(stream, (), [EVERYTHING], reason="rolled back")
        position = since
        while position < upto:
            portion = await self._feed.read(position)
            for arrival in portion.arrivals:
                batch = arrival.batch
                if batch.numbers and batch.stream.origin == old and arrival.position <= upto:
                    yield batch
            position = portion.upto

    async def _issue(self, batch: Batch) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            try:
                self._again(batch)
            except Overloaded as error:
                await trio.sleep(error.retry_after)
            except NotDurable as error:
                log.error("rows are not issued again", rows=len(batch), error=str(error))
                return
            else:
                return

    def _asked(self, own: _Issued, member: str | None) -> Sequence[str]:
        """Choose whom to ask what they have under the numbers that were issued twice."""
        namespaces = {stream.namespace for stream in own}
        names = {name for name in self._repairing.reachable() if name != member}
        holders = sorted(
            n for n in names if any(self._roster.holds(n, each) for each in namespaces)
        )
        chosen = self._random.sample(holders, min(ASKED_MAX, len(holders)))
        return [member, *chosen] if member is not None and namespaces else chosen

    async def _ask(self, name: str, own: _Issued) -> None:
        """Issue, too, what a member has under these numbers that is something else."""
        while name in self._roster.members:
            try:
                with trio.fail_after(ASK_TIMEOUT):
                    if await self._ask_once(name, own):
                        return
            except (RpcFailed, trio.TooSlowError) as error:
                log.debug("what it has was not told", member=name, error=str(error))
            await trio.sleep(ASK_AGAIN_AFTER)

    async def _ask_once(self, name: str, own: _Issued) -> bool:
        peer = await self._repairing.peer(name)
        if peer is None:
            return False
        wanted = {stream: _numbers(rows) for stream, rows in own.items()}
        async with peer.fetch(self._ingest.life, wanted) as parts:
            async for part in parts:
                if part.retry_after:
                    return False
                for payload, _ in part.blocks:
                    batch = self._ingest.read(payload)
                    if batch is not None and (other := _others(batch, own)):
                        await self._issue(other)
        return True


def _said(batch: Batch) -> Iterable[tuple[int, tuple[Selector, Effect]]]:
    """Give each row's number with what it says."""
    numbers = (n for low, high in batch.numbers for n in range(low, high + 1))
    return (
        (n, (selector, batch.effect)) for n, selector in zip(numbers, batch.selectors, strict=True)
    )


def _numbers(numbers: Iterable[int]) -> Intervals:
    return Intervals((n, n) for n in numbers)


def _others(batch: Batch, own: _Issued) -> Batch | None:
    """Give the rows of a batch that say something else than the own ones of the same numbers."""
    mine = own.get(batch.stream, {})
    numbers = _numbers(n for n, said in _said(batch) if mine.get(n, said) != said)
    return batch.select(numbers.ranges()) if numbers else None
