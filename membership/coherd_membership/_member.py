"""What is said of a member, and which of two news wins: the one order, and the one table.

A *name* belongs to one member at a time. Each start of it is a *life*, numbered by its *epoch*. Within
a life only the member itself raises its *incarnation*, to refute what others say of it. News of a name
is totally ordered:

    a later epoch  >  left (final for its life)  >  a higher incarnation  >  the graver status

so a member that takes the larger of what it has and what it hears ends with the same as everybody else,
in whatever order the news came and however often. News that is equal but for its accusers is joined: the
first few of all accusers by name. This is a join of a semilattice, hence commutative, associative and
idempotent (SWIM §4.2 orders alive and suspect this way; epochs and leaving are ours).

TRANSITIONS says what it means for an observer when news with one status takes the place of another.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import NamedTuple

ACCUSERS_MAX = 3
"""Accusers kept of one accusation: the first and two that confirm it."""


class Status(IntEnum):
    """How a member is, in order of gravity."""

    ALIVE = 0
    RESTARTING = 1
    """It said that it stops and will be back."""
    SUSPECT = 2
    DEAD = 3
    LEFT = 4
    """Gone for good, by its own word or an operator's: no life up to this epoch counts."""


class News(NamedTuple):
    """One statement about one life of a member."""

    name: str
    epoch: int
    incarnation: int
    """From 1; with 0 somebody is remembered who was not heard of since."""
    status: Status
    address: str
    version: int = 0
    """The incarnation in which the member last changed what it publishes."""
    accusers: tuple[str, ...] = ()
    """Who found it silent, sorted; of suspects and the dead."""


@lru_cache(maxsize=16_384)
def order(news: News) -> tuple[int, bool, int, int, str, int]:
    """Give the place of news in the total order of all news of its name.

    Address and version follow from the life and its incarnation; they stand here so that even of two
    impossible claims every member prefers the same one.
    """
    status = news.status
    return (
        news.epoch,
        status is Status.LEFT,
        news.incarnation,
        int(status),
        news.address,
        news.version,
    )


def merge(one: News, other: News) -> News:
    """Give what is true when both were said: the later news, or one accusation with the accusers of both."""
    first, second = order(one), order(other)
    if first == second:
        accusers = tuple(sorted({*one.accusers, *other.accusers})[:ACCUSERS_MAX])
        return one._replace(accusers=accusers)
    return one if first > second else other


class Change(StrEnum):
    """What became of a member in the eyes of an observer."""

    JOINED = "joined"
    """It was not known before."""
    UPDATED = "updated"
    """Still as it was, in a later incarnation or life."""
    RESTARTING = "restarting"
    SUSPECTED = "suspected"
    REFUTED = "refuted"
    """It was suspected and is alive."""
    DIED = "died"
    RETURNED = "returned"
    """It was down, or restarting, and is alive."""
    LEFT = "left"


_A, _R, _S, _D, _L = Status
TRANSITIONS: dict[tuple[Status | None, Status], Change] = {
    # unknown: whatever is heard first; who was always down, or has left, has not joined
    (None, _A): Change.JOINED,   (None, _R): Change.JOINED,
    (None, _S): Change.JOINED,   (None, _D): Change.DIED,     (None, _L): Change.LEFT,
    (_A, _A): Change.UPDATED,    (_A, _R): Change.RESTARTING, (_A, _S): Change.SUSPECTED,
    (_A, _D): Change.DIED,       (_A, _L): Change.LEFT,
    (_R, _A): Change.RETURNED,   (_R, _R): Change.UPDATED,    (_R, _S): Change.SUSPECTED,
    (_R, _D): Change.DIED,       (_R, _L): Change.LEFT,
    (_S, _A): Change.REFUTED,    (_S, _R): Change.RESTARTING, (_S, _S): Change.UPDATED,
    (_S, _D): Change.DIED,       (_S, _L): Change.LEFT,
    # the dead stay down until they say themselves that they live
    (_D, _A): Change.RETURNED,   (_D, _R): Change.RESTARTING, (_D, _S): Change.SUSPECTED,
    (_D, _D): Change.UPDATED,    (_D, _L): Change.LEFT,
    # only a later life comes after a leave
    (_L, _A): Change.JOINED,     (_L, _R): Change.JOINED,     (_L, _S): Change.JOINED,
    (_L, _D): Change.DIED,       (_L, _L): Change.UPDATED,
}  # fmt: skip
