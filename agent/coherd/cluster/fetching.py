"""Fetching what is missing, and resetting a namespace where nobody brings it: drives `replication.repair`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from coherd.errors import MalformedMessage, RpcFailed
from coherd.model import Cause
from coherd.replication.ahead import check_ahead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable

    from coherd.clock import Clock
    from coherd.cluster.ingest import Ingest
    from coherd.model import Stream
    from coherd.net.peer import FetchPart, Peer
    from coherd.replication.answers import Answer
    from coherd.replication.intervals import Intervals
    from coherd.replication.repair import Ask, Repair

log = structlog.get_logger("coherd.repair")

LOOK_MAX = 0.02
REST = 10
REST_MAX = 5.0
"""A look at the open holes that takes longer than LOOK_MAX seconds, because a peer claims very many ranges,
is followed by REST times as long without one: it must not starve everything else."""
RETRY_AFTER = 0.5
"""Seconds for which a member that failed to answer a fetch is left alone."""
PATIENCE_MIN = 0.5
PATIENCE_MAX = 30.0
"""Seconds within which the next part of an answer is to come. A link may be dead without anybody noticing,
and others may have the same rows: so at first little, and for each time in vain twice as much."""
PATIENCE_LASTS = 10.0
"""Seconds after which a member that was slow is asked with little patience again."""
PAGES_MAX = 1_000
"""Messages of answers to one fetch."""


class Fetching:
    """The task that looks at the open holes, and the fetches under way."""

    def __init__(
        self,
        ingest: Ingest,
        repair: Repair,
        clock: Clock,
        nursery: trio.Nursery,
        peer: Callable[[str], Awaitable[Peer | None]],
        reachable: Callable[[], Collection[str]],
        unreached: Callable[[str], None],
    ) -> None:
        """`peer(name)` gives the door to a member; `unreached(name)` notes that there is none."""
        self._ingest = ingest
        self._repair = repair
        self._clock = clock
        self._nursery = nursery
        self._peer = peer
        self._reachable = reachable
        self._unreached = unreached
        self._look = trio.Event()
        self._patience: dict[str, tuple[float, float]] = {}
        """Of members that last let this agent wait in vain: how long they may take, and until when."""

    def look(self) -> None:
        """Have the open holes looked at now."""
        self._look.set()

    def linked(self, name: str) -> None:
        """A new link to a member is open: what the last one did says nothing of it."""
        self._patience.pop(name, None)

    async def run(self) -> None:
        """Fetch and reset, for ever."""
        while True:
            now = self._clock.now()
            reachable = self._reachable()
            for ask in self._repair.plan(now, reachable):
                self._nursery.start_soon(self._fetch, ask)
            for namespace, cause in self._repair.resets(now, reachable):
                self._ingest.reset([namespace], cause)
            spent = self._clock.now() - now
            if spent > LOOK_MAX:
                await trio.sleep(min(REST * spent, REST_MAX))
            due = self._repair.next_timer(now)
            if due is None:
                await self._look.wait()
            else:
                with trio.move_on_after(max(0.0, due - self._clock.now())):
                    await self._look.wait()
            self._look = trio.Event()

    async def _fetch(self, ask: Ask) -> None:
        retry_after = RETRY_AFTER
        try:
            peer = await self._peer(ask.member)
            if peer is None:
                self._unreached(ask.member)
            else:
                patience = self._patience_with(ask.member)
                with trio.fail_after(patience) as waiting:
                    async with peer.fetch(self._ingest.life, ask.wanted) as parts:

                        def came() -> None:
                            waiting.deadline = trio.current_time() + patience

                        retry_after = await self._take(ask, parts, came)
                self._patience.pop(ask.member, None)
        except RpcFailed as error:
            log.debug("fetch failed", member=ask.member, error=str(error))
            retry_after = RETRY_AFTER
        except trio.TooSlowError:
            longer = min(2 * self._patience_with(ask.member), PATIENCE_MAX)
            self._patience[ask.member] = longer, self._clock.now() + PATIENCE_LASTS
            log.debug("fetch takes too long", member=ask.member, patience=longer)
            retry_after = RETRY_AFTER
        if retry_after:
            self._repair.failed(ask, self._clock.now(), retry_after)

    def _patience_with(self, name: str) -> float:
        patience, until = self._patience.get(name, (PATIENCE_MIN, 0.0))
        return patience if self._clock.now() < until else PATIENCE_MIN

    async def _take(
        self, ask: Ask, parts: AsyncIterator[FetchPart], came: Callable[[], None]
    ) -> float:
        """Take what is answered. Gives 0, or after how many seconds the member may be asked again.

        `came` is called with each part.
        """
        answers: dict[Stream, Answer] = {}
        pages = 0
        async for part in parts:
            came()
            if part.retry_after:
                return part.retry_after
            self._ingest.receive(part.blocks, Cause.REPAIR)
            if part.answers:
                check_shown(self._ingest, ((s, a.retained) for s, a in part.answers.items()))
                for stream, each in part.answers.items():
                    before = answers.get(stream)
                    answers[stream] = before.joined(each) if before is not None else each
                pages += 1
                if not part.more:
                    adoptions = self._repair.answered(ask, answers, self._clock.now())
                    self._ingest.adopt(adoptions)
                    self.look()
                    return 0.0
                if pages > PAGES_MAX:
                    break
        return RETRY_AFTER


def check_shown(ingest: Ingest, shown: Iterable[tuple[Stream, Intervals]]) -> None:
    """Check the numbers that a member shows. Raises RpcFailed for some that nobody can have."""
    try:
        for stream, numbers in shown:
            check_ahead(ingest.replica.vector, stream, numbers.last)
    except MalformedMessage as error:
        ingest.malformed += 1
        raise RpcFailed("INTERNAL", f"the peer's answer is malformed: {error}") from None
