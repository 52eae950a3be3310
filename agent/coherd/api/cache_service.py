"""What applications ask: proto/coherd/v1/cache_service.proto."""

from __future__ import annotations

from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING

import trio

from coherd.api.checks import (
    check_namespace,
    client_of,
    issuer_of,
    selectors_of,
    timeout_of,
    versions_of,
)
from coherd.api.receipts import encode_change, encode_outcome
from coherd.cluster.delivery import UNKNOWN, Follower
from coherd.cluster.feed import Reader, reader_reset
from coherd.cluster.invalidating import Order, Outcome, Wait
from coherd.errors import InvalidRequest, NotDurable, RpcFailed, one_failure
from coherd.limits import NAME_MAX, REASON_MAX, WATCH_NAMESPACES_MAX
from coherd.model import Effect, Lane, Position
from coherd.net.peer_codec import decode_dots
from coherd.v1 import cache_service_pb2 as pb

if TYPE_CHECKING:
    from coherd.cluster.agent import Agent
    from coherd.cluster.receipts import Receipt
    from coherd.net.bridge import Call, StreamCall

INVALIDATE_TIMEOUT = 5.0
RECEIPT_TIMEOUT = 1.0
"""Seconds, where the caller says nothing."""
PROGRESS_INTERVAL = 0.05
"""Seconds at least between two messages about one invalidation."""
BOOKMARK_AFTER = 5.0
"""Seconds of silence after which a watcher is sent a bookmark."""


class CacheService:
    """Between protobuf and the agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def Invalidate(  # noqa: N802
        self, request: pb.InvalidateRequest, call: Call
    ) -> pb.InvalidateResponse:
        """Invalidate on every host that holds copies."""
        agent, order = self._agent, order_of(request, issuer_of(call))
        with agent.budgeting.spending(client_of(call), order):
            outcome = await agent.invalidating.invalidate(order)
        return pb.InvalidateResponse(receipt=self._final(outcome))

    async def InvalidateProgress(  # noqa: N802
        self, request: pb.InvalidateProgressRequest, call: StreamCall
    ) -> None:
        """Invalidate, and tell as it goes who has applied the rows."""
        agent, order = self._agent, order_of(request.invalidate, issuer_of(call))
        with agent.budgeting.spending(client_of(call), order), one_failure():
            async with trio.open_nursery() as nursery:

                def show(receipt: Receipt) -> None:
                    nursery.start_soon(self._tell, receipt, call)

                outcome = await agent.invalidating.invalidate(order, show)
                nursery.cancel_scope.cancel()
        await call.send(pb.InvalidateProgressResponse(receipt=self._final(outcome), final=True))

    async def _tell(self, receipt: Receipt, call: StreamCall) -> None:
        """Send a receipt, and again when it has changed."""
        while True:
            seen = receipt.changes
            now = Outcome(receipt, receipt.is_complete, 0)
            message = encode_outcome(now, self._agent.roster, None, "")
            await call.send(pb.InvalidateProgressResponse(receipt=message))
            await trio.sleep(PROGRESS_INTERVAL)
            await receipt.wait_changed(seen)

    def _final(self, outcome: Outcome) -> pb.Receipt:
        agent = self._agent
        cursor = str(agent.ingest.write_out(outcome.position))
        return encode_outcome(outcome, agent.roster, agent.journal.durability, cursor)

    async def GetReceipt(  # noqa: N802
        self, request: pb.GetReceiptRequest, _call: Call
    ) -> pb.GetReceiptResponse:
        """Ask who has applied rows that were accepted earlier."""
        agent = self._agent
        timeout = timeout_of(
            request.timeout if request.HasField("timeout") else None, RECEIPT_TIMEOUT
        )
        outcome = await agent.invalidating.receipt(decode_dots(request.dots), timeout)
        return pb.GetReceiptResponse(receipt=encode_outcome(outcome, agent.roster, None, ""))

    async def Watch(self, call: StreamCall) -> None:  # noqa: N802
        """Follow the invalidations of some namespaces."""
        messages: list[pb.WatchRequest] = await call.receive()
        if not messages:
            return
        opening = messages[0].open
        if not 1 <= len(opening.namespaces) <= WATCH_NAMESPACES_MAX:
            raise InvalidRequest(f"1 to {WATCH_NAMESPACES_MAX} namespaces are due")
        for name in opening.namespaces:
            check_namespace(name)
            if not self._agent.config.holds(name):
                raise RpcFailed(
                    "FAILED_PRECONDITION",
                    f"namespace {name!r} is not held by this agent: add it to the setting `interest` "
                    "of this host, or watch at an agent that holds it",
                )
        if len(opening.name) > NAME_MAX:
            raise InvalidRequest(f"a watcher's name has at most {NAME_MAX} characters")
        watching = _Watching(self._agent, call, opening)
        with self._agent.delivery.watching(watching.follower) as ticket, one_failure():
            if ticket:  # before it fills its cache: the next life must know that it may hold copies
                with suppress(NotDurable):
                    await self._agent.journal.committed(ticket)
            await watching.run(messages[1:])


class _Watching:
    """One watcher: what it is sent, and how far it says it is."""

    def __init__(self, agent: Agent, call: StreamCall, opening: pb.WatchOpen) -> None:
        self._agent = agent
        self._call = call
        self._namespaces = sorted(set(opening.namespaces))
        start = parse_cursor(agent, opening.cursor) if opening.cursor else agent.feed.position
        # A cursor of another agent says nothing here: everything the watcher has is doubtful.
        self._is_unknown = start is None
        position = agent.feed.position if start is None else start
        self._reader = Reader(agent.feed, self._namespaces, position)
        # A watcher that has yet to apply its reset has applied nothing.
        reached = UNKNOWN if start is None else position
        self.follower = Follower(
            opening.name or f"watcher-{token_hex(4)}",
            self._namespaces,
            reached,
            acknowledges=opening.acknowledges,
        )
        self._changes_upto = position
        """The position after the last message that had changes."""

    async def run(self, messages: list[pb.WatchRequest]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            while messages or (messages := await self._call.receive()):
                for message in messages:
                    self._acknowledged(message.acknowledged)
                messages = []
            nursery.cancel_scope.cancel()

    async def _send(self) -> None:
        position = self._reader.position
        changes: list[pb.Change] = []
        if self._is_unknown:
            changes = [encode_change(reader_reset(name, position)) for name in self._namespaces]
        while True:
            await self._call.send(pb.WatchResponse(changes=changes, cursor=self._cursor()))
            if not self.follower.acknowledges:
                self.follower.reached(self._reader.position)
            changes = await self._next()

    async def _next(self) -> list[pb.Change]:
        """Wait for changes; none when a bookmark is due, also while other namespaces are busy."""
        due = trio.current_time() + BOOKMARK_AFTER
        while True:
            portion = None
            with trio.move_on_at(due):
                portion = await self._reader.next()
            if portion is None:
                return []
            if portion.arrivals:
                self._changes_upto = portion.upto
                return [encode_change(arrival) for arrival in portion.arrivals]
            self._skip(portion.upto)
            if trio.current_time() >= due:
                return []

    def _cursor(self) -> str:
        return str(self._agent.ingest.write_out(self._reader.position))

    def _acknowledged(self, cursor: str) -> None:
        position = parse_cursor(self._agent, cursor)
        if position is None or position > self._reader.position:
            raise InvalidRequest(f"{cursor[:80]!r} is no cursor of this watch")
        self.follower.reached(position)
        self._skip(self._reader.position)

    def _skip(self, position: int) -> None:
        """What it has applied includes what does not concern it."""
        if self.follower.position >= self._changes_upto:
            self.follower.reached(position)


LANES, EFFECTS, WAITS = (frozenset({0, *kind}) for kind in (Lane, Effect, Wait))
"""What a request may say; 0 says nothing."""


def order_of(request: pb.InvalidateRequest, issuer: str = "") -> Order:
    """Check a request of `issuer`. Raises InvalidRequest."""
    check_namespace(request.namespace)
    selectors = selectors_of(request)
    if request.lane not in LANES or request.effect not in EFFECTS:
        raise InvalidRequest("an unknown lane or effect")
    if request.wait not in WAITS:
        raise InvalidRequest("an unknown wait")
    wait = Wait(request.wait) if request.wait else None
    if (wait is Wait.MEMBERS) != (request.members > 0):
        raise InvalidRequest("`members` goes with WAIT_MEMBERS and is at least 1")
    if len(request.reason) > REASON_MAX:
        raise InvalidRequest(f"a reason has at most {REASON_MAX} characters")
    return Order(
        request.namespace,
        Lane(request.lane or Lane.NORMAL),
        selectors,
        Effect(request.effect or Effect.DROP),
        versions_of(request, len(selectors)),
        wait,
        request.members,
        timeout_of(request.timeout if request.HasField("timeout") else None, INVALIDATE_TIMEOUT),
        request.reason,
        issuer,
    )


def parse_cursor(agent: Agent, cursor: str) -> int | None:
    """Give the position of a cursor, None for one of an unknown agent. Raises InvalidRequest."""
    try:
        return agent.ingest.locate(Position.parse(cursor))
    except ValueError:
        raise InvalidRequest(f"{cursor[:80]!r} is no cursor") from None
