"""Repair of one simulated member: the real vector and the real decisions, on virtual time.

`Vector`, `Repair` and `answer` are those that agents run; when to send Have and Compare is written here once
more, because agents do it in tasks (`cluster.repairing`). Two things are simpler than there: a Compare shows
all streams at once instead of root, buckets and pages; and nothing is ever forgotten, so nothing is reset.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, TypeAlias

from coherd.replication.repair import Repair, answer
from coherd.replication.vector import Vector

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from coherd.model import Range, Stream
    from coherd.replication.intervals import Intervals
    from coherd.replication.repair import Answer, Ask

HAVE_INTERVAL_BUSY = 0.25
HAVE_INTERVAL_QUIET = 1.0
HAVE_MEMBERS = 2
HAVE_REPEATS = 3
FETCH_TIMEOUT = 1.0
RETRY_AFTER = 0.5
HEARD_MAX = 64
"""Members heard of lately that are asked for rows."""
Claims: TypeAlias = "tuple[tuple[Stream, Intervals], ...]"


@dataclass(frozen=True, slots=True)
class Have:
    """What changed, and the sum of everything."""

    changes: Claims
    sum: int


@dataclass(frozen=True, slots=True)
class HaveReply:
    """The sum of the other side."""

    sum: int
    is_quiet: bool
    had_changes: bool
    """Whether the Have it answers carried any."""


@dataclass(frozen=True, slots=True)
class Compare:
    """Asks for all streams."""


@dataclass(frozen=True, slots=True)
class Compared:
    """All streams."""

    streams: Claims


@dataclass(frozen=True, slots=True)
class Fetch:
    """Asks for rows."""

    ask: Ask


@dataclass(frozen=True, slots=True)
class Fetched:
    """The rows, and what is known of the others."""

    ask: Ask
    answers: Mapping[Stream, Answer]


Message: TypeAlias = Have | HaveReply | Compare | Compared | Fetch | Fetched


def size(message: Message) -> int:
    """Estimate the bytes of a message without its rows."""
    if type(message) is Have:
        return 24 + 32 * len(message.changes)
    if type(message) is Compared:
        return 16 + 32 * len(message.streams)
    if type(message) is Fetch:
        return 16 + 32 * len(message.ask.wanted)
    if type(message) is Fetched:
        return 16 + 48 * len(message.answers)
    return 24


class Mender:
    """The vector of one member, and how it is mended."""

    def __init__(self, name: str, namespace: str, holders: Sequence[str], random: Random) -> None:
        """`holders`: who tells and asks each other; who is not among them is only asked."""
        self.vector = Vector()
        self._name = name
        self._namespace = namespace
        self._holders = holders
        self._random = random
        self._repair = Repair(self.vector, random, lambda _namespace, _now: inf)
        self._repair.holds = lambda name, _namespace: name in self._heard
        self._told: dict[Stream, int] = {}
        self._heard: dict[str, None] = {}
        self._gone: set[str] = set()
        self._asked: dict[int, tuple[Ask, float]] = {}
        self._have_at = random.uniform(0.0, HAVE_INTERVAL_QUIET) if name in holders else inf
        self._plan_at = inf
        self._out: list[tuple[str, Message]] = []

    @property
    def is_quiet(self) -> bool:
        """Whether the vector does not change at the moment."""
        return not self._told

    def take(self, stream: Stream, ranges: Sequence[Range], now: float) -> tuple[Range, ...]:
        """Take rows; give those that are new."""
        new = self.vector.take_rows(stream, ranges)
        if new:
            if self.is_quiet:
                self._have_at = min(self._have_at, now + HAVE_INTERVAL_BUSY)
            self._told[stream] = 0
            self._repair.touch(stream)
            self._look(now)
        return new

    def gone(self, name: str) -> None:
        """Ask a member nothing any more."""
        self._gone.add(name)
        self._heard.pop(name, None)

    def messages(self) -> list[tuple[str, Message]]:
        """Take what is to be sent."""
        out = self._out
        self._out = []
        return out

    def next_timer(self) -> float:
        """Give when `handle_timer` wants to be called."""
        return min(self._have_at, self._plan_at)

    def handle_timer(self, now: float) -> None:
        """Tell, or ask, what is due."""
        if self._have_at <= now:
            self._tell(now)
        if self._plan_at <= now:
            self._plan(now)

    def _tell(self, now: float) -> None:
        vector = self.vector
        changes = tuple((stream, vector.state(stream).have.copy()) for stream in self._told)
        have = Have(changes, vector.sum((self._namespace,)))
        candidates = self._random.sample(self._holders, min(HAVE_MEMBERS + 1, len(self._holders)))
        others = [n for n in candidates if n != self._name and n not in self._gone]
        self._out += [(name, have) for name in others[:HAVE_MEMBERS]]
        for stream in list(self._told):
            self._told[stream] += 1
            if self._told[stream] >= HAVE_REPEATS:
                del self._told[stream]
        self._have_at = now + (HAVE_INTERVAL_BUSY if changes else HAVE_INTERVAL_QUIET)

    def _plan(self, now: float) -> None:
        for number, (ask, deadline) in list(self._asked.items()):
            if deadline <= now:
                del self._asked[number]
                self._repair.failed(ask, now, RETRY_AFTER)
        origins = {stream.origin.name: None for stream, _ in self.vector}
        reachable = [n for n in self._heard | origins if n != self._name and n not in self._gone]
        for ask in self._repair.plan(now, reachable):
            self._asked[ask.number] = ask, now + FETCH_TIMEOUT
            self._out.append((ask.member, Fetch(ask)))
        self._plan_at = self._repair.next_timer(now) or inf

    def _look(self, now: float) -> None:
        if self._repair.has_gaps and self._plan_at == inf:
            self._plan_at = now

    def receive(self, message: Message, source: str, now: float) -> None:
        """Take a message, except the rows of a Fetched: these are given to `take` before."""
        match message:
            case Have(changes, theirs):
                self._claim(source, changes, now)
                mine = self.vector.sum((self._namespace,))
                self._out.append((source, HaveReply(mine, self.is_quiet, bool(changes))))
                if not changes and self.is_quiet and theirs != mine:
                    self._out.append((source, Compare()))
            case HaveReply(theirs, is_quiet, had_changes):
                mine = self.vector.sum((self._namespace,))
                if not had_changes and is_quiet and self.is_quiet and theirs != mine:
                    self._out.append((source, Compare()))
            case Compare():
                streams = tuple((stream, state.have.copy()) for stream, state in self.vector)
                self._out.append((source, Compared(streams)))
            case Compared(streams):
                self._claim(source, streams, now)
            case Fetch(ask):
                answers = {s: answer(self.vector.get(s), n, now) for s, n in ask.wanted.items()}
                self._out.append((source, Fetched(ask, answers)))
            case Fetched(ask, answers):
                self._asked.pop(ask.number, None)
                self._repair.answered(ask, answers, now)
                self._look(now)

    def _claim(self, source: str, claims: Claims, now: float) -> None:
        self._heard.pop(source, None)
        self._heard[source] = None
        if len(self._heard) > HEARD_MAX:
            del self._heard[next(iter(self._heard))]
        self._repair.claim(source, claims)
        self._look(now)
