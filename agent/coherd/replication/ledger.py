"""What was invalidated last, per selector: answers "is this copy still good?", and knows what to forget.

Only positions are kept, one int a selector in the common case: the last drop's and, where there is one,
the last stale row's and the highest version, in maps of their own. Tag, prefix and namespace rows are
entries like keys: a check looks at the key, each of its tags, one prefix a length in use and the whole
namespace, and never scans.

A namespace's arrivals are divided into *runs*, by position. A run holds what is forgotten together: its
entries, and which numbers of which streams came in it. So forgetting takes the oldest run away whole and
never looks for entries.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from coherd.model import EVERYTHING, Batch, Effect, Kind, Selector, Stream
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PREFIX_LENGTHS_MAX = 16
"""Different prefix lengths that a run looks up; one more is widened to the next shorter."""
RUNS = 8
"""Into about so many runs what may be remembered is divided: forgetting takes one of them."""
BLOCK_BYTES = 200
"""About what a batch takes in the journal besides its selectors."""
ROW_BYTES = 4
"""About what a row takes there besides its selector."""


class Standing(NamedTuple):
    """The newest rows that touch a copy, as positions; 0 where there is none."""

    drop: int
    stale: int
    version: int
    """Highest source version invalidated for the key itself; 0 when none was named."""


class Keep(NamedTuple):
    """How much of a namespace is remembered."""

    entries_max: float = inf
    age_max: float = inf
    """Seconds since the acceptance."""
    bytes_max: float = inf
    """Of the journal, all namespaces together, about."""


class Run:
    """The arrivals of one namespace between two positions."""

    __slots__ = ("drops", "last", "lengths", "numbers", "rows", "since", "size_bytes", "stales",
                 "versions", "youngest")  # fmt: skip

    def __init__(self, since: float) -> None:
        self.since = since
        """Running time at which its first arrival came, as far as that is known."""
        self.youngest = -inf
        """Running time at which the youngest of its rows was accepted at its origin."""
        self.last = 0
        """Its last position."""
        self.rows = 0
        self.size_bytes = 0
        """What it takes in the journal, about."""
        self.numbers: dict[Stream, Intervals] = {}
        self.drops: dict[Selector, int] = {}
        self.stales: dict[Selector, int] = {}
        self.versions: dict[Selector, int] = {}
        self.lengths: list[int] = []
        """Of the prefixes."""

    def __len__(self) -> int:
        return len(self.drops) + len(self.stales)

    def record(self, batch: Batch, position: int, accepted_at: float, batches: int = 1) -> None:
        """Enter a batch, or a reset, that arrived at `position` and after, in so many batches in truth."""
        selectors = batch.selectors
        rows = len(selectors)
        self.last = position + rows - 1
        self.youngest = max(self.youngest, accepted_at)
        self.rows += rows
        self.size_bytes += sum(map(len, selectors)) + rows * ROW_BYTES + batches * BLOCK_BYTES
        if batch.numbers:
            numbers = self.numbers.get(batch.stream)
            if numbers is None:
                numbers = self.numbers[batch.stream] = Intervals()
            for low, high in batch.numbers:
                numbers.add(low, high)
        entries = self._entries(batch.effect)
        entries.update(zip(selectors, range(position, position + rows), strict=True))
        for offset, selector in enumerate(selectors):
            if selector[0] == Kind.PREFIX:
                self._widen(selector, batch.effect, position + offset)
        if batch.versions is not None:
            known = self.versions
            for selector, version in zip(selectors, batch.versions, strict=True):
                if version > known.get(selector, 0):
                    known[selector] = version

    def check(self, key: bytes, tags: Sequence[bytes]) -> Standing:
        """Give the newest rows of the run that touch a copy of `key` that carries `tags`."""
        own = b"k" + key
        selectors = [own, *(b"t" + tag for tag in tags), EVERYTHING]
        selectors += [b"p" + key[:length] for length in self.lengths if length <= len(key)]
        return Standing(
            max(self.drops.get(selector, 0) for selector in selectors),
            max(self.stales.get(selector, 0) for selector in selectors),
            self.versions.get(own, 0),
        )

    def find(self, selectors: Iterable[Selector]) -> set[int]:
        """Give the positions of the last rows that touch what `selectors` name, or may touch it."""
        names = {EVERYTHING}
        for selector in selectors:
            names.add(selector)
            if selector[0] in {Kind.KEY, Kind.PREFIX}:
                name = selector[1:]
                names.update(b"p" + name[:length] for length in self.lengths if length <= len(name))
        entries = (self.drops, self.stales)
        return {known[name] for known in entries for name in names if name in known}

    def _entries(self, effect: Effect) -> dict[Selector, int]:
        return self.drops if effect is Effect.DROP else self.stales

    def _widen(self, selector: Selector, effect: Effect, position: int) -> None:
        """Make sure that checks look at this prefix, or at one that contains it."""
        length = len(selector) - 1
        lengths = self.lengths
        if length in lengths:
            return
        if len(lengths) < PREFIX_LENGTHS_MAX:
            lengths.append(length)
            return
        shorter = max((known for known in lengths if known < length), default=None)
        wide = EVERYTHING if shorter is None else selector[: shorter + 1]
        self._entries(effect)[wide] = position


class Ledger:
    """The runs of one namespace, oldest first."""

    def __init__(self, keep: Keep = Keep()) -> None:  # noqa: B008  # immutable
        self.keep = keep
        self._runs: deque[Run] = deque()
        self._entries = 0
        """Of all runs but the newest."""

    def __len__(self) -> int:
        """Count the entries; a selector counts once in each run that it is in."""
        return self._entries + len(self._runs[-1]) if self._runs else 0

    @property
    def size_bytes(self) -> int:
        """What the rows take in the journal, about."""
        return sum(run.size_bytes for run in self._runs)

    @property
    def oldest(self) -> Run | None:
        """What is forgotten next."""
        return self._runs[0] if self._runs else None

    def record(
        self, batch: Batch, position: int, accepted_at: float, now: float, batches: int = 1
    ) -> bool:
        """Enter an arrival; True when a new run began with it, so that something may be due.

        `batches`: how many were joined to this one.

        A later arrival always counts as newer. `now` may be the past when a journal is read.
        """
        begins = not self._runs or self._is_full(self._runs[-1], now)
        if begins:
            self._entries = len(self)
            self._runs.append(Run(now))
        self._runs[-1].record(batch, position, accepted_at, batches)
        return begins

    def check(self, key: bytes, tags: Iterable[bytes] = ()) -> Standing:
        """Give the newest rows that touch a copy of `key` that carries `tags`."""
        drop = stale = version = 0
        tags = tuple(tags)
        for run in self._runs:
            found = run.check(key, tags)
            drop, stale = found.drop or drop, found.stale or stale
            version = max(version, found.version)
        return Standing(drop, stale, version)

    def find(self, selectors: Sequence[Selector]) -> list[int]:
        """Give positions of rows that touch what one of `selectors` names, or may touch it, newest first.

        Of each run those of the last drop and the last stale row of each selector that covers it. For
        people: no verdict comes from it.
        """
        found = {position for run in self._runs for position in run.find(selectors)}
        return sorted(found, reverse=True)

    def is_due(self, now: float) -> bool:
        """Tell whether the oldest run must be forgotten: there are too many entries, or it is too old."""
        if not self._runs:
            return False
        room = self.keep.entries_max * (RUNS - 1) / RUNS  # beside the newest, which may fill up
        too_many = len(self._runs) > 1 and self._entries > room
        return too_many or now - self._runs[0].youngest >= self.keep.age_max

    def forget(self) -> Run:
        """Take the oldest run away and give it.

        A check for a token at or below its last position must answer unknown from then on.
        """
        run = self._runs.popleft()
        if self._runs:
            self._entries -= len(run)
        else:
            self._entries = 0
        return run

    def _is_full(self, run: Run, now: float) -> bool:
        keep = self.keep
        return (
            len(run) * RUNS >= keep.entries_max
            or (now - run.since) * RUNS >= keep.age_max
            or run.size_bytes * 2 * RUNS >= keep.bytes_max
        )


def supersedes(newer: tuple[Effect, int], older: tuple[Effect, int]) -> bool:
    """Tell whether a later row (effect, version) of a stream and selector makes an earlier one needless.

    Only a row that is at least as strong and not older may stand for another: otherwise a member that
    is repaired would see "may be served" where "must not" was said.
    """
    return newer[0] >= older[0] and newer[1] >= older[1]
