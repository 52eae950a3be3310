"""What members say to each other while they spread payloads, and what a member notices meanwhile.

A link is one direction between two members for one class of lanes, urgent or the rest; it is reliable and
keeps the order. Parcels go along it, replies come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from coherd.replication.ring import CIRCLE, RINGS, hash64

if TYPE_CHECKING:
    from collections.abc import Collection

    from coherd.model import Lane


LinkKey: TypeAlias = tuple[str, bool]
"""The member at the other end of a link, and whether it is the one of urgent payloads."""


class Payload(NamedTuple):
    """Rows that travel together; encoded once, and never looked into on the way."""

    id: int
    """Names it on all its ways; what is in it never changes."""
    namespace: str
    lane: Lane
    size_bytes: int
    wants_receipt: bool = False
    """Whether its origin waits to hear who has applied it."""
    data: bytes = b""
    accepted_at: float = 0.0
    """Running time of this host, in seconds, at which its youngest row was accepted at its origin."""


class Arc(NamedTuple):
    """Members that somebody is asked to reach: after itself and before a hash, on one ring."""

    ring: int
    end: int

    @classmethod
    def nobody(cls, ring: int, name: str) -> Arc:
        """Give the arc with which a member is asked to reach nobody beside itself: it ends where it begins.

        It still says on which ring's tree it is to tell that it has applied the payload.
        """
        return cls(ring, hash64(ring, name))


def widest(name: str, arcs: tuple[Arc, ...]) -> tuple[Arc, ...]:
    """Give of arcs that one member is handed the widest of each ring: it includes the others."""
    if len(arcs) <= RINGS:
        return arcs
    best: dict[int, Arc] = {}
    for arc in arcs:
        begin, held = hash64(arc.ring, name), best.get(arc.ring)
        if held is None or (arc.end - begin) % CIRCLE > (held.end - begin) % CIRCLE:
            best[arc.ring] = arc
    return tuple(best.values())


class Parcel(NamedTuple):
    """A payload and the arcs that go with it: one, or one of each ring."""

    payload: Payload
    arcs: tuple[Arc, ...]


class Parcels(NamedTuple):
    """What goes along a link in one message."""

    urgent: bool
    """Which of the two links."""
    last: int
    """The number of the last parcel: they are numbered without gaps since the link was opened."""
    parcels: tuple[Parcel, ...]


class Applied(NamedTuple):
    """Members of one ring's tree that have applied a payload: all that are known of so far."""

    payload: int
    ring: int
    names: Collection[str]


class Reply(NamedTuple):
    """What comes back on a link."""

    urgent: bool
    acknowledged: int
    """All parcels up to this number were taken: forwarded, and queued."""
    applied: tuple[Applied, ...] = ()


Message: TypeAlias = Parcels | Reply


class Outgoing(NamedTuple):
    """A message and who is to get it."""

    target: str
    message: Message


# ---------------------------------------------------------------------- what happened


class Arrived(NamedTuple):
    """A payload came that is not remembered. Whether its rows are new the vector knows."""

    payload: Payload
    source: str


@dataclass(frozen=True, slots=True)
class ReceiptGrew:
    """Further members have applied a payload that began here."""

    payload: int
    names: Collection[str]
    """All that have so far, this member included if it has."""


@dataclass(frozen=True, slots=True)
class LinkSilent:
    """A member does not acknowledge in time: a hint for a further probe, never a verdict."""

    name: str
    urgent: bool


Event: TypeAlias = Arrived | ReceiptGrew | LinkSilent
