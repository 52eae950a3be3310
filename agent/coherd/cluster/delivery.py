"""Bringing rows to the caches of this host, and knowing how far each of them is.

Every handler reads the feed in a task of its own, every watcher in its call. *Applied here* has one
meaning everywhere: the row is in the vector, and each of them has reached the position that was the
newest when the question was asked.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from contextlib import contextmanager
from math import nan
from random import Random
from typing import TYPE_CHECKING

import structlog
import trio

from coherd.cluster.feed import Feed, Portion, Reader
from coherd.cluster.moments import STEPS_MAX, WATCHER_STEPS_MAX, Moments
from coherd.errors import HandlerFailed
from coherd.model import Cause, Position

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from coherd.handlers import Handler, Resumption
    from coherd.replication.replica import Arrival

log = structlog.get_logger("coherd.delivery")

RETRY_MIN = 0.1
RETRY_MAX = 5.0
"""Seconds between two attempts to reach a cache."""
QUESTIONS_MAX = 10_000
"""Questions that wait for one cache."""
GONE_MAX = 1_000
"""Acknowledging watchers that went away and count as missing: ever new names could make it any number."""
UNKNOWN = -1
"""Position of a cache of which nothing is known: every question waits for it."""
PROBE_AFTER = 1.0
"""Seconds of quiet after which a cache is asked whether it still holds its cursor."""


class Follower:
    """A cache that is being kept coherent: who it is and how far it is."""

    def __init__(
        self, name: str, namespaces: Collection[str], position: int, *, acknowledges: bool = True
    ) -> None:
        self.name = name
        self.namespaces = frozenset(namespaces)
        self.acknowledges = acknowledges
        """Whether questions wait for it."""
        self.position = position
        """Everything up to here is applied."""
        self.now: Callable[[], float] = lambda: nan
        """Tells the running time in seconds."""
        self.moments = Moments(position, WATCHER_STEPS_MAX)
        """When it was; of one that does not acknowledge it is not remembered."""
        self._questions: deque[tuple[int, Question]] = deque()

    @property
    def key(self) -> str:
        """Its name and namespaces, as they are stored."""
        return f"{self.name} {','.join(sorted(self.namespaces))}"

    def ask(self, position: int, question: Question) -> None:
        """Have `question` wait for `position`. Positions are asked in ascending order.

        While a cache is down for long, the oldest questions are given up: whoever still wants to know
        asks again.
        """
        self._questions.append((position, question))
        if len(self._questions) > QUESTIONS_MAX:
            self._questions.popleft()

    def reached(self, position: int) -> None:
        """Note that everything up to `position` is applied."""
        if position > self.position:
            if self.position == UNKNOWN:
                self.moments.begin(position)
            elif self.acknowledges:
                self.moments.note(position, self.now())
            self.position = position
        questions = self._questions
        while questions and questions[0][0] <= position:
            questions.popleft()[1].answered()

    def abandon(self) -> None:
        """Answer what waits: the cache is gone for so long that it does not count any more."""
        while self._questions:
            self._questions.popleft()[1].answered()

    def take_over(self, gone: Follower) -> None:
        """Be the one that came back: what waited for it waits for this one."""
        self._questions += gone._questions
        gone._questions.clear()
        self.moments = gone.moments
        self.moments.begin(self.position)
        self.reached(self.position)


class Question:
    """Calls back once every follower that was asked has reached the position asked about."""

    __slots__ = ("_callback", "_left")

    def __init__(self, left: int, callback: Callable[[], None]) -> None:
        self._left = left
        self._callback = callback
        if not left:
            callback()

    def answered(self) -> None:
        """One follower has reached it."""
        self._left -= 1
        if not self._left:
            self._callback()


class HandlerState:
    """How a handler is doing."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.follower = Follower(handler.label, [handler.namespace], UNKNOWN)
        self.follower.moments = Moments(UNKNOWN, STEPS_MAX)
        self.connected = False
        self.error = ""
        self.applied = 0
        self.failures = 0
        self.resets = 0


class Delivery:
    """The followers of this host and the tasks of its handlers."""

    def __init__(
        self,
        feed: Feed,
        locate: Callable[[Position], int | None],
        write_out: Callable[[int], Position],
        random: Random,
        nursery: trio.Nursery,
        bound: Callable[[str], float],
        remember: Callable[[str, int | None], int],
    ) -> None:
        """`locate` and `write_out` turn a position as written outside into a number and back.

        `bound(namespace)`: for how many seconds an acknowledging watcher that went away counts as missing.
        `remember(watcher, position)` stores that there is one, or with None that it no longer counts, and
        gives the journal's ticket, 0 where it was refused.
        """
        self._feed = feed
        self._locate = locate
        self._write_out = write_out
        self._random = random
        self._nursery = nursery
        self._bound = bound
        self._remember = remember
        self.handlers: list[HandlerState] = []
        self.watchers: set[Follower] = set()
        self._gone: dict[Follower, trio.CancelScope] = {}
        """Acknowledging watchers that went away, the first one first, each with what ends its waiting."""
        self.crowded_out = 0
        """How many of them were waited for no more because there were too many."""
        self.now: Callable[[], float] = lambda: nan
        """Tells the running time in seconds, for what is remembered of the followers."""
        self.on_applied: Callable[[Sequence[Arrival]], None] = lambda _arrivals: None
        """Called with what a handler has just applied."""

    def ask(self, namespaces: Collection[str], callback: Callable[[], None]) -> None:
        """Call back once everything that has arrived by now in these namespaces is applied here."""
        position = self._feed.position
        followers = [
            follower
            for follower in self._acknowledging()
            if follower.position < position and not follower.namespaces.isdisjoint(namespaces)
        ]
        question = Question(len(followers), callback)
        for follower in followers:
            follower.ask(position, question)

    async def applied(self, namespaces: Collection[str]) -> None:
        """Wait until everything that has arrived by now in these namespaces is applied here."""
        done = trio.Event()
        self.ask(namespaces, done.set)
        await done.wait()

    @contextmanager
    def watching(self, watcher: Follower) -> Iterator[int]:
        """Count `watcher` while it is connected; who comes back under its name takes its place.

        Gives the ticket under which the journal remembers it, 0 where it does not.
        """
        watcher.now = self.now
        for gone in [g for g in self._gone if g.name == watcher.name]:
            if gone.namespaces <= watcher.namespaces:
                self._gone.pop(gone).cancel()
                watcher.take_over(gone)
        self.watchers.add(watcher)
        ticket = self._remember(watcher.key, watcher.position) if watcher.acknowledges else 0
        try:
            yield ticket
        finally:
            self.watchers.discard(watcher)
            if watcher.acknowledges:
                self.went_away(watcher)

    def went_away(self, watcher: Follower) -> None:
        """Let an acknowledging watcher count as missing for a while, then no more."""
        scope = self._gone[watcher] = trio.CancelScope()
        self._nursery.start_soon(self._forget_gone, watcher, scope)
        if len(self._gone) > GONE_MAX:
            self._crowd_out()

    async def _forget_gone(self, watcher: Follower, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(max(self._bound(name) for name in watcher.namespaces))
            if watcher in self._gone:  # it may have come back at this very moment
                self._let_go(watcher)

    def _crowd_out(self) -> None:
        """Let go of the first one where most have gone, lest those of one namespace displace all others."""
        most = Counter(gone.namespaces for gone in self._gone).most_common(1)[0][0]
        watcher = next(gone for gone in self._gone if gone.namespaces == most)
        self._let_go(watcher)
        self.crowded_out += 1
        if self.crowded_out.bit_count() == 1:  # the 1st, 2nd, 4th, 8th …
            log.warning(
                "too many watchers went away: the first is not waited for",
                watcher=watcher.name,
                times=self.crowded_out,
            )

    def _let_go(self, watcher: Follower) -> None:
        """Do not count one that went away any more."""
        self._gone.pop(watcher).cancel()
        if not any(watcher.key == other.key for other in (*self.watchers, *self._gone)):
            self._remember(watcher.key, None)
        watcher.abandon()

    def start(self, handler: Handler) -> None:
        """Keep one cache coherent for ever, in a task of its own."""
        state = HandlerState(handler)
        state.follower.now = self.now
        self.handlers.append(state)
        self._nursery.start_soon(self._run_handler, state)

    async def _run_handler(self, state: HandlerState) -> None:
        retry = RETRY_MIN
        while True:
            try:
                await self._follow(state)
            except HandlerFailed as error:
                if not state.error:
                    log.warning("handler failed", handler=state.handler.label, error=str(error))
                retry = RETRY_MIN if state.connected else min(retry * 2, RETRY_MAX)
                state.connected = False
                state.follower.position = UNKNOWN  # it may come back as an older copy of itself
                state.error = str(error)
                state.failures += 1
                await trio.sleep(retry * self._random.uniform(0.5, 1.0))

    async def _follow(self, state: HandlerState) -> None:
        handler, follower = state.handler, state.follower
        # Before looking: what an application stores after the look may be forbidden by a row that came
        # since.
        head = self._feed.position
        start = self._start_of(await handler.connect(), head)
        reader = Reader(self._feed, [handler.namespace], start)
        if state.error:
            log.info("handler is back", handler=handler.label)
        state.connected, state.error = True, ""
        # Also without rows the cursor is stored at once, lest a cache that fills now look warm and
        # without a cursor at the next start; and then now and then, which shows whether the cache
        # still is what it was and keeps the cursor of a quiet namespace above the floor.
        await handler.apply([], self._write_out(reader.position))
        follower.reached(reader.position)  # a last answer may have been lost, or the cache be empty
        probe_at = trio.current_time() + PROBE_AFTER
        while True:
            portion = None
            with trio.move_on_at(probe_at):
                portion = await reader.next()
            if portion is not None and portion.arrivals:
                await self._bring(state, portion)
            elif portion is not None and trio.current_time() < probe_at:
                follower.reached(portion.upto)
                continue
            else:  # also while other namespaces are busy
                await handler.apply([], self._write_out(reader.position))
                follower.reached(reader.position)
            probe_at = trio.current_time() + PROBE_AFTER

    async def _bring(self, state: HandlerState, portion: Portion) -> None:
        """Apply a portion, and let those know who wait for it."""
        batches = [arrival.batch for arrival in portion.arrivals]
        await state.handler.apply(batches, self._write_out(portion.upto))
        state.applied += sum(map(len, batches))
        state.resets += sum(a.cause is Cause.CURSOR for a in portion.arrivals)
        state.follower.reached(portion.upto)
        self.on_applied(portion.arrivals)

    def _start_of(self, resumption: Resumption, head: int) -> int:
        """A cache goes on from its cursor; without one it is at 0, or if empty at the head."""
        if resumption.cursor is not None:
            position = self._locate(resumption.cursor)
            if position is not None:
                return position
        return 0 if resumption.warm else head

    def followers(self, namespace: str) -> Iterator[tuple[str, Follower]]:
        """Give whom questions about a namespace wait for, each with what it is: handler or watcher."""
        handlers = {state.follower for state in self.handlers}
        for follower in self._acknowledging():
            if namespace in follower.namespaces:
                yield "handler" if follower in handlers else "watcher", follower

    def _acknowledging(self) -> Iterator[Follower]:
        for state in self.handlers:
            yield state.follower
        yield from self._gone
        yield from (watcher for watcher in self.watchers if watcher.acknowledges)
