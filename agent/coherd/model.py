"""The nouns of coherd (floor 0): streams, dots, batches of rows, positions.

An *invalidation* (a *row*) is a selector and an effect; it never carries a value. The rows of one
(namespace, origin, lane) form a *stream*, numbered 1, 2, 3 …; (stream, number) is a row's *dot* and
names it for ever. Rows travel, are stored and are applied in *batches*: columns, not objects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple

from coherd.limits import EPOCH_MAX, NAME_MAX, NAMESPACE_MAX, NUMBER_MAX

NAMESPACE_PATTERN = re.compile(rf"[a-z0-9._-]{{1,{NAMESPACE_MAX}}}")
"""What a namespace may be called; matched whole."""

EVERY_NAMESPACE = "*"
"""Stands for all namespaces where one is named; no namespace can be called so."""

NAME_PATTERN = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_MAX - 1}}}")
"""What an agent, a cluster or a region may be called; matched whole."""


ISSUER_PATTERN = re.compile(rf"[a-z]{{1,15}}/{NAME_PATTERN.pattern}")
"""What whoever asked for rows may be called: a role and a name; matched whole."""


class Lane(IntEnum):
    """How soon a row leaves: each lane is a stream of its own, so none waits for another."""

    URGENT = 1
    NORMAL = 2
    BULK = 3

    __hash__ = int.__hash__  # that of Enum is slow, and is part of every stream's


class Effect(IntEnum):
    """What a row asks of a cache, the stronger the higher."""

    STALE = 1
    """The copy may be served while it is being refreshed."""
    DROP = 2
    """The copy must not be served again."""


class Kind(IntEnum):
    """What a selector selects; the value is the selector's first byte."""

    KEY = ord("k")
    TAG = ord("t")
    PREFIX = ord("p")
    NAMESPACE = ord("n")


Selector = bytes
"""A kind byte and the key, tag or prefix: hashable, canonical, one object a ledger entry."""

EVERYTHING: Selector = bytes([Kind.NAMESPACE])
"""The selector of the whole namespace."""


class Origin(NamedTuple):
    """One life of one agent."""

    name: str
    epoch: int


class Stream(NamedTuple):
    """Whose numbered rows: one namespace, one origin, one lane."""

    namespace: str
    origin: Origin
    lane: Lane


class Position(NamedTuple):
    """The n-th arrival at an agent, as it is written outside: ordered by (epoch, n)."""

    name: str
    epoch: int
    n: int

    def __str__(self) -> str:
        return f"{self.name}/{self.epoch}/{self.n}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what `str` wrote. Raises ValueError for anything else."""
        name, epoch, n = text.split("/")
        if (
            not NAME_PATTERN.fullmatch(name)
            or not (epoch + n).isascii()
            or not (epoch + n).isdigit()
        ):
            raise ValueError(f"not a position: {text!r}")
        position = cls(name, int(epoch), int(n))
        if position.epoch > EPOCH_MAX or position.n > NUMBER_MAX:
            raise ValueError(f"not a position: {text!r}")
        return position


class HandlerInfo(NamedTuple):
    """A cache on an agent's host, and what can be done with it."""

    kind: str
    """What it is: redis, memory …"""
    namespace: str
    """Whose rows it applies."""
    tags: bool
    """Whether it finds copies by tag; else a tag drops the whole namespace."""


Range = tuple[int, int]
"""First and last number, both included."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one stream in columns: ascending numbers, one effect, one stamp."""

    stream: Stream
    numbers: tuple[Range, ...]
    selectors: Sequence[Selector]
    effect: Effect = Effect.DROP
    versions: Sequence[int] | None = None
    """Source versions, one a row, 0 for a row without; None when no row has one."""
    stamp: int = 0
    """Hybrid logical clock of the acceptance: for people and traces, never for correctness."""
    reason: str = ""
    """Why the rows were issued, in the issuer's words; at most REASON_MAX characters."""
    issuer: str = ""
    """Who asked for them, as the accepting agent knows it by a certificate: a role and a name; empty where it
    asked for none."""

    def __len__(self) -> int:
        return len(self.selectors)

    def select(self, ranges: Sequence[Range]) -> Batch:
        """Give the rows whose numbers lie in `ranges` (ascending, a subset of the batch's own)."""
        if tuple(ranges) == self.numbers:
            return self
        selectors: list[Selector] = []
        versions: list[int] = []
        for low, high in ranges:
            offset = 0
            for first, last in self.numbers:
                if first <= low and high <= last:
                    start = offset + low - first
                    stop = start + high - low + 1
                    selectors.extend(self.selectors[start:stop])
                    if self.versions is not None:
                        versions.extend(self.versions[start:stop])
                    break
                offset += last - first + 1
            else:
                raise ValueError(f"numbers {low}..{high} are not all of this batch")
        return Batch(
            self.stream,
            tuple(ranges),
            selectors,
            self.effect,
            None if self.versions is None else versions,
            self.stamp,
            self.reason,
            self.issuer,
        )


def join(batches: Sequence[Batch]) -> Batch | None:
    """Give one batch with the rows of several of one stream and effect.

    Stamps, reasons and issuers are left out. None where their numbers do not ascend from each to the next.
    """
    numbers: list[Range] = []
    selectors: list[Selector] = []
    versions: list[int] | None = None
    end = 0
    for batch in batches:
        first = batch.numbers[0][0]
        if first <= end:
            return None
        if first == end + 1 and numbers:
            numbers[-1] = (numbers[-1][0], batch.numbers[0][1])
            numbers += batch.numbers[1:]
        else:
            numbers += batch.numbers
        end = batch.numbers[-1][1]
        if batch.versions is not None:
            versions = [0] * len(selectors) if versions is None else versions
            versions += batch.versions
        selectors += batch.selectors
        if versions is not None and batch.versions is None:
            versions += [0] * len(batch.selectors)
    return Batch(batches[0].stream, tuple(numbers), selectors, batches[0].effect, versions)


class Cause(StrEnum):
    """By which way a batch reached this agent, or why a namespace was reset."""

    LOCAL = "local"
    """Accepted from an application on this host."""
    LINK = "link"
    """Spread by a peer."""
    REPAIR = "repair"
    """Fetched because it was missing."""
    BELOW_FLOOR = "below-floor"
    """Reset: whoever had the missing rows has forgotten them too recently."""
    UNCLAIMED = "unclaimed"
    """Reset: nobody reachable has the missing rows."""
    TOO_FAR_BEHIND = "too-far-behind"
    """Reset: more rows are missing than a replay is worth."""
    LEFT_BEHIND = "left-behind"
    """Reset: it was away for so long that nobody may know any more what it missed."""
    POWER_LOSS = "power-loss"
    """Reset: a loss of power or damage may have taken rows, and nobody was there who has them."""
    CURSOR = "cursor"
    """Reset of one reader: its cursor lies below what is still known."""

    @property
    def is_reset(self) -> bool:
        """True for the causes of a reset."""
        return self not in {Cause.LOCAL, Cause.LINK, Cause.REPAIR}
