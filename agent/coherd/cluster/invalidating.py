"""One invalidation, from the application's call to the answer it waits for.

Rows leave for peers, journal, handlers and watchers in one step; the caller waits for the disk, and then
for as many others as it asked for. For others it never hangs: at the timeout it says who is missing.
Those that have not answered at half of the timeout are asked directly, and again whenever they come back.
Rows of the lane bulk wait for others before all of this (`batching`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import structlog
import trio

from coherd.cluster.batching import Batching, Share
from coherd.cluster.receipts import Receipt
from coherd.errors import NotDurable, RpcFailed
from coherd.model import Lane
from coherd.net.peer import StreamRange
from coherd.replication.coalescing import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coherd.cluster.delivery import Delivery
    from coherd.cluster.ingest import Accepted, Ingest
    from coherd.cluster.linking import Linking
    from coherd.cluster.roster import Roster
    from coherd.cluster.spreading import Spreading
    from coherd.journal import Journal
    from coherd.model import Batch, Effect, Selector

log = structlog.get_logger("coherd.invalidate")

ASK_AGAIN_AFTER = 0.2
"""Seconds until a member that did not answer is asked again."""
ASK_WAIT_MAX = 60.0
"""Seconds that a member may think about one question."""


class Wait(IntEnum):
    """For what an invalidation waits beyond the journal, the further the higher."""

    ACCEPTED = 1
    LOCAL = 2
    REGION = 3
    MEMBERS = 4


@dataclass(frozen=True, slots=True)
class Order:
    """What an application asks for; checked."""

    namespace: str
    lane: Lane
    selectors: Sequence[Selector]
    effect: Effect
    versions: Sequence[int] | None
    wait: Wait | None
    """None where it says nothing: accepted here; or where this agent does not hold the namespace, which makes
    it a mere publisher, applied by one that does."""
    members: int
    """With `Wait.MEMBERS`: how many, this one included."""
    timeout: float
    """Seconds."""
    reason: str
    issuer: str = ""
    """Who asks, by a certificate; empty where nobody is asked for one."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of rows."""

    receipt: Receipt
    is_complete: bool
    position: int
    """Just after the rows; 0 when they were not accepted by this call."""


class Invalidating:
    """Accepts invalidations and finds out who has applied them."""

    def __init__(
        self,
        ingest: Ingest,
        journal: Journal,
        spreading: Spreading,
        delivery: Delivery,
        roster: Roster,
        linking: Linking,
        batch_window: Callable[[str], float],
        nursery: trio.Nursery,
    ) -> None:
        self._ingest = ingest
        self._journal = journal
        self._spreading = spreading
        self._delivery = delivery
        self._roster = roster
        self._linking = linking
        self.batching = Batching(
            lambda namespace, rows, receipt, is_asked: self._send(
                namespace, Lane.BULK, rows, receipt, is_asked=is_asked
            ),
            self._required,
            batch_window,
            nursery,
        )
        self.outcomes: Counter[tuple[Wait, bool]] = Counter()
        """How many invalidations were answered, by what they waited for and whether that was reached."""
        self._under_way: set[Receipt] = set()
        self._changed = trio.lowlevel.ParkingLot()
        roster.on_change = self._look_again

    async def invalidate(
        self, order: Order, show: Callable[[Receipt], None] = lambda _receipt: None
    ) -> Outcome:
        """Accept rows, and answer when what was asked for is reached, or not reachable, or too late.

        `show` is called with the receipt once the rows are accepted; it grows meanwhile. Raises
        `Overloaded` or `NotDurable`.
        """
        rows = Rows(order.selectors, order.effect, order.versions, order.reason, order.issuer)
        wait, wanted = order.wait, order.members
        if wait is None:
            is_held = self._roster.me.holds(order.namespace)
            wait, wanted = (Wait.ACCEPTED, 0) if is_held else (Wait.MEMBERS, 1)
        members = wanted if wait is Wait.MEMBERS else None
        is_asked = wait >= Wait.REGION
        receipt: Receipt
        if order.lane is Lane.BULK and self.batching.has_window(order.namespace):
            self._journal.check_room()
            taken = await self.batching.send(order.namespace, rows, is_asked=is_asked)
            required = self._awaited(wait, lambda: taken.required)
            receipt = Share(taken.batches, taken.dots, required, members)
            ticket, position = taken.ticket, taken.position
        else:
            required = self._awaited(wait, lambda: self._required(order.namespace))
            receipt = Receipt((), required, members)
            accepted = self._send(order.namespace, order.lane, rows, receipt, is_asked=is_asked)
            ticket, position = accepted.ticket, accepted.arrival.last
        show(receipt)
        if wait > Wait.ACCEPTED:
            self._ask_caches(receipt)
        if not ticket:  # it was closed just now
            raise NotDurable(f"not durable, may have been applied: {self._journal.error}")
        await self._journal.committed(ticket)
        if wait > Wait.ACCEPTED:
            await self._gather(receipt, order.timeout, order.timeout / 2)
        self.outcomes[wait, receipt.is_complete] += 1
        return Outcome(receipt, receipt.is_complete, position)

    def _send(
        self, namespace: str, lane: Lane, rows: Rows, receipt: Receipt, *, is_asked: bool
    ) -> Accepted:
        """Accept rows and let them go everywhere, in one step; `receipt` gets their dots.

        With `is_asked` those that apply them say so to `receipt`.
        """
        accepted = self._ingest.accept(
            namespace,
            lane,
            rows.selectors,
            rows.effect,
            rows.versions,
            rows.reason,
            rows.issuer,
        )
        arrival = accepted.arrival
        stream = arrival.batch.stream
        receipt.dots = [StreamRange(stream, numbers) for numbers in arrival.batch.numbers]
        self._spreading.spread(
            arrival.batch, accepted.payload, arrival.accepted_at, receipt if is_asked else None
        )
        return accepted

    def again(self, batch: Batch) -> None:
        """Issue rows anew, for whoever did not take them under their numbers of before."""
        rows = Rows(batch.selectors, batch.effect, batch.versions, batch.reason, batch.issuer)
        self._send(batch.stream.namespace, batch.stream.lane, rows, Receipt((), ()), is_asked=False)

    async def receipt(self, dots: Sequence[StreamRange], timeout: float) -> Outcome:
        """Ask everybody who must have applied rows whether they have."""
        required: set[str] = set()
        for stream, _ in dots:
            required.update(self._required(stream.namespace))
        receipt = Receipt(dots, required)
        if all(self._ingest.has(stream, *numbers) for stream, numbers in dots):
            self._ask_caches(receipt)
        await self._gather(receipt, timeout, 0.0)
        return Outcome(receipt, receipt.is_complete, 0)

    def _awaited(self, wait: Wait, required: Callable[[], Sequence[str]]) -> Sequence[str]:
        """Give those that count for what is waited for; `required` gives everybody with copies."""
        if wait >= Wait.REGION:
            return required()
        return [self._roster.me.name] if wait is Wait.LOCAL else []

    def _required(self, namespace: str) -> list[str]:
        """Give everybody whose caches may hold copies, whatever their state."""
        others = [member.info.name for member in self._roster.holders(namespace)]
        return [self._roster.me.name, *others] if self._roster.me.holds(namespace) else others

    def _look_again(self) -> None:
        """Somebody was forgotten, is seen in another state or is linked again."""
        for receipt in self._under_way:
            receipt.look_again(self._roster)
        self._changed.unpark_all()

    async def _gather(self, receipt: Receipt, timeout: float, ask_after: float) -> None:
        """Wait until enough members have applied the rows, at most `timeout` seconds."""
        self._under_way.add(receipt)
        try:
            with trio.move_on_after(timeout):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._ask_missing, receipt, ask_after)
                    await receipt.wait(self._roster)
                    nursery.cancel_scope.cancel()
        finally:
            self._under_way.discard(receipt)

    async def _ask_missing(self, receipt: Receipt, after: float) -> None:
        """Ask everybody directly who is missing after `after` seconds."""
        await trio.sleep(after)
        async with trio.open_nursery() as nursery:
            for name in receipt.missing:
                if name == self._roster.me.name:
                    nursery.start_soon(self._ask_here, receipt)
                else:
                    nursery.start_soon(self._ask_one, receipt, name)

    def _ask_caches(self, receipt: Receipt) -> None:
        """Note this host once its caches have reached what has arrived by now."""
        me = self._roster.me.name
        namespaces = {stream.namespace for stream, _ in receipt.dots}
        self._delivery.ask(namespaces, lambda: receipt.add([me]))

    async def _ask_here(self, receipt: Receipt) -> None:
        for stream, (first, last) in receipt.dots:
            await self._ingest.wait_for(stream, first, last)
        self._ask_caches(receipt)

    async def _ask_one(self, receipt: Receipt, name: str) -> None:
        """Ask a member until it has applied the rows; one that is away as soon as it is back."""
        while name in receipt.missing:
            peer = self._linking.peers.get(name)
            if peer is None:
                self._linking.need(name)
                await self._changed.park()
                continue
            # Minus infinity where an answer comes together with the end of the waiting.
            left = max(0.0, trio.current_effective_deadline() - trio.current_time())
            try:
                dots = list(receipt.dots)
                if await peer.applied(self._ingest.life, dots, min(left, ASK_WAIT_MAX)):
                    receipt.add([name])
            except RpcFailed as error:
                log.debug("applied not answered", member=name, error=str(error))
                await trio.sleep(ASK_AGAIN_AFTER)
