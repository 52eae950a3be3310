"""The windows of the lane bulk: rows that wait for others of their namespace, to be numbered with them.

The first row opens a window. It ends when its time is over, when there is a whole batch, or when the agent
stops; then what the others do not stand for is accepted, in one step. Every caller is told the numbers that
stand for its rows, and goes on to wait as it asked. One that went away meanwhile is not missed: its rows go.
"""

from __future__ import annotations

from collections import Counter
from copy import copy
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakSet

import trio

from coherd.cluster.receipts import Receipt
from coherd.errors import Overloaded
from coherd.net.peer import StreamRange
from coherd.replication.coalescing import Window
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from coherd.cluster.ingest import Accepted
    from coherd.replication.coalescing import Place, Rows

WAITING_BYTES_MAX = 32 * 1024 * 1024
"""What may wait in all windows together: nearly 100,000 rows with short selectors."""


class BatchReceipt(Receipt):
    """Who has applied one batch: several callers may wait for it."""

    def __init__(self, required: Iterable[str]) -> None:
        super().__init__((), required)
        self.shares: WeakSet[Share] = WeakSet()

    def add(self, names: Iterable[str]) -> None:
        """Note members that have applied the batch."""
        super().add(names)
        for share in list(self.shares):
            share.look()


class Share(Receipt):
    """Who has applied the rows of one caller: whoever has applied each batch that holds one of them."""

    def __init__(
        self,
        batches: Sequence[BatchReceipt],
        dots: Sequence[StreamRange],
        required: Iterable[str],
        members: int | None,
    ) -> None:
        super().__init__(dots, required, members)
        self._batches = batches
        for batch in batches:
            batch.shares.add(self)
        self.look()

    def look(self) -> None:
        """Take over from the batches."""
        self.add(set.intersection(*(batch.applied for batch in self._batches)))


class Taken(NamedTuple):
    """What became of the rows of one caller."""

    batches: Sequence[BatchReceipt]
    dots: Sequence[StreamRange]
    required: Sequence[str]
    """Everybody whose caches may hold copies, when the rows were accepted."""
    ticket: int
    """Of the last batch; 0 when the journal took one of them no more."""
    position: int
    """The last of these rows."""


class _Caller:
    """Somebody who waits for the end of a window."""

    __slots__ = ("done", "places", "result")

    def __init__(self, places: range) -> None:
        self.places = places
        self.done = trio.Event()
        self.result: Taken | Exception | None = None


class _Open:
    """A window with those who wait for it."""

    __slots__ = ("callers", "ends_at", "is_asked", "scope", "size_bytes", "window")

    def __init__(self, ends_at: float) -> None:
        self.window = Window()
        self.ends_at = ends_at
        self.scope = trio.CancelScope(deadline=ends_at)
        self.callers: list[_Caller] = []
        self.size_bytes = 0
        self.is_asked = False
        """Whether somebody wants to know which other members have applied the rows."""


class Batching:
    """All open windows, one a namespace."""

    def __init__(
        self,
        send: Callable[[str, Rows, BatchReceipt, bool], Accepted],
        required: Callable[[str], Sequence[str]],
        window: Callable[[str], float],
        nursery: trio.Nursery,
    ) -> None:
        """Take what drives it.

        `send(namespace, rows, receipt, is_asked)` accepts rows, or raises `Overloaded` or `NotDurable`;
        `window(namespace)` is the setting `batch_window`.
        """
        self.coalesced: Counter[str] = Counter()
        """Rows that others stood for, by namespace."""
        self._send = send
        self._required = required
        self._window = window
        self._nursery = nursery
        self._open: dict[str, _Open] = {}
        self._waiting_bytes = 0
        self._is_closed = False

    def has_window(self, namespace: str) -> bool:
        """Tell whether rows of a namespace wait for others."""
        return not self._is_closed and self._window(namespace) > 0.0

    async def send(self, namespace: str, rows: Rows, *, is_asked: bool) -> Taken:
        """Let rows wait, and give what became of them once they were accepted.

        Raises `Overloaded` when too much waits, and what `Ingest.accept` raises.
        """
        size = rows.size_bytes
        if self._open and self._waiting_bytes + size > WAITING_BYTES_MAX:
            oldest = next(iter(self._open.values()))
            raise Overloaded(
                "too many rows of the lane bulk wait for others: try again, or shorten batch_window",
                max(0.001, oldest.ends_at - trio.current_time()),
            )
        opened = self._open.get(namespace)
        if opened is not None and not opened.window.has_room(rows):
            self._close(namespace)
            opened = None
        if opened is None:
            opened = self._open[namespace] = _Open(trio.current_time() + self._window(namespace))
        caller = _Caller(opened.window.add(rows))
        opened.callers.append(caller)
        opened.is_asked = opened.is_asked or is_asked
        opened.size_bytes += size
        self._waiting_bytes += size
        if opened.window.is_full:
            self._close(namespace)
        elif len(opened.callers) == 1:
            self._nursery.start_soon(self._wait, namespace, opened)
        await caller.done.wait()
        if not isinstance(caller.result, Taken):
            assert caller.result is not None
            raise copy(caller.result)  # others raise it, too
        return caller.result

    def close(self) -> None:
        """End every window now, and open no more: the agent stops."""
        self._is_closed = True
        for namespace in list(self._open):
            self._close(namespace)

    async def _wait(self, namespace: str, opened: _Open) -> None:
        with opened.scope:
            await trio.sleep_forever()
        if self._open.get(namespace) is opened:
            self._close(namespace)

    def _close(self, namespace: str) -> None:
        """Accept what waits, and answer everybody."""
        opened = self._open.pop(namespace)
        opened.scope.cancel()
        self._waiting_bytes -= opened.size_bytes
        batches, places = opened.window.coalesce()
        self.coalesced[namespace] += len(opened.window) - opened.window.standing
        required = self._required(namespace)
        sent: list[tuple[BatchReceipt, Accepted] | Exception] = []
        for rows in batches:
            receipt = BatchReceipt(required)
            try:
                sent.append((receipt, self._send(namespace, rows, receipt, opened.is_asked)))
            except Exception as error:  # whatever it is: whoever waits must hear of it
                sent.append(error)
        for caller in opened.callers:
            own = places[caller.places.start : caller.places.stop]
            caller.result = _taken(own, sent, required)
            caller.done.set()


def _taken(
    places: Sequence[Place],
    sent: Sequence[tuple[BatchReceipt, Accepted] | Exception],
    required: Sequence[str],
) -> Taken | Exception:
    """Give one caller's part of what was sent, or why a part of it was not."""
    numbers = Intervals()
    stream = None
    receipts: dict[BatchReceipt, int] = {}
    position = 0
    for batch, offset in places:
        what = sent[batch]
        if isinstance(what, Exception):
            return what
        receipt, (arrival, _, ticket) = what
        ((first, _),) = arrival.batch.numbers  # just numbered, in one go
        stream = arrival.batch.stream
        numbers.add(first + offset, first + offset)
        receipts[receipt] = ticket
        position = max(position, arrival.position + offset)
    assert stream is not None, "a caller has rows"
    dots = [StreamRange(stream, each) for each in numbers.ranges()]
    tickets = receipts.values()
    return Taken([*receipts], dots, required, max(tickets) if all(tickets) else 0, position)
