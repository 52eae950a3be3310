"""Two rings of members, and to whom a broadcast is handed: delegation over full membership.

Every agent knows all members of its region, so no overlay has to be learned: on each ring members are
ordered by a hash of their names. An agent's *fingers* are the successors of ``me + j·2^64/8^l`` (j = 1..7;
l = 1, 2, …): few, dense nearby, and enough to get anywhere in an eighth of what is left with each hop.

An *arc* begins after the member that is given it and ends before a hash. It is cut at the fingers in it; of
each piece the first member that holds the namespace is the *delegate*: it gets the payload and the rest of
the piece as its own arc. So every holder is reached exactly once where all see the same members, and an arc
only ever shrinks, so that it ends even where they do not. After El-Ansary, Alima, Brand and Haridi,
"Efficient Broadcast in Structured P2P Networks" (2003), with base 8 and hashes for ends.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from coherd.model import EVERY_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

CIRCLE = 2**64
"""As far as one can go: once around. Distances are clockwise and in hashes."""
RINGS = 2
BASE = 8
DIRECT_MAX = 17
"""Members of a region, oneself included, up to which everybody is everybody's finger: one hop."""
ORDERS_MAX = 1_000
"""Namespaces whose holders are kept in order; beyond that all orders are made anew when needed."""
_MASK = CIRCLE - 1


def hash64(ring: int, name: str) -> int:
    """Give the place of a member on a ring."""
    return int.from_bytes(blake2b(f"{ring}\0{name}".encode(), digest_size=8).digest(), "big")


class Delegate(NamedTuple):
    """Who is handed a piece of an arc."""

    name: str
    end: int
    """The hash before which the arc that it is given ends."""
    holders: int
    """How many it is to reach, itself included."""


class _Order:
    """Some members in the order of their hashes.

    Of two with the same hash, which nobody will ever see, only the first is found; repair serves the other.
    """

    __slots__ = ("hashes", "names")

    def __init__(self, places: Collection[tuple[int, str]] = ()) -> None:
        ordered = sorted(places)
        self.hashes = array("Q", [place for place, _ in ordered])
        self.names = [name for _, name in ordered]

    def __len__(self) -> int:
        return len(self.names)

    def _find(self, place: int, name: str) -> int:
        at = bisect_left(self.hashes, place)
        while at < len(self.names) and self.hashes[at] == place and self.names[at] < name:
            at += 1
        return at

    def add(self, place: int, name: str) -> None:
        at = self._find(place, name)
        self.hashes.insert(at, place)
        self.names.insert(at, name)

    def remove(self, place: int, name: str) -> None:
        at = self._find(place, name)
        del self.hashes[at], self.names[at]

    def index(self, point: int) -> int:
        """Give where the first at or after a point of the circle stands; there must be one."""
        at = bisect_left(self.hashes, point)
        return at if at < len(self.names) else 0

    def count(self, begin: int, end: int) -> int:
        """Count those from one point to before another, clockwise; from a point to itself there are none."""
        first, last = bisect_left(self.hashes, begin), bisect_left(self.hashes, end)
        return last - first if begin <= end else len(self.names) - first + last


class Ring:
    """The members of a region in the order of one hash."""

    def __init__(self, number: int, members: Mapping[str, Collection[str]]) -> None:
        """`members`: whom one knows, with the namespaces that each holds. The caller may change it, and then
        calls `added` or `removed`.
        """
        self.number = number
        self._members = members
        self._places = {name: hash64(number, name) for name in members}
        self._all = _Order([(place, name) for name, place in self._places.items()])
        self._orders: dict[str, _Order] = {}
        self._choosy = sum(EVERY_NAMESPACE not in held for held in members.values())
        """How many do not hold everything: while there are none, one order does for all namespaces."""
        self._fingers: dict[int, Sequence[int]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def added(self, name: str, namespaces: Collection[str]) -> None:
        """Put a member in."""
        place = self._places[name] = hash64(self.number, name)
        self._all.add(place, name)
        self._choosy += EVERY_NAMESPACE not in namespaces
        for namespace, order in self._orders.items():
            if _holds(namespaces, namespace):
                order.add(place, name)
        self._fingers.clear()

    def removed(self, name: str, namespaces: Collection[str]) -> None:
        """Take out a member, which held `namespaces`."""
        place = self._places.pop(name)
        self._all.remove(place, name)
        self._choosy -= EVERY_NAMESPACE not in namespaces
        for namespace, order in self._orders.items():
            if _holds(namespaces, namespace):
                order.remove(place, name)
        self._fingers.clear()

    def fingers(self, me: int) -> Sequence[int]:
        """Give how far the fingers of the member at `me` are from it, the nearest first."""
        fingers = self._fingers.get(me)
        if fingers is None:
            fingers = self._fingers[me] = self._find_fingers(me)
        return fingers

    def _find_fingers(self, me: int) -> Sequence[int]:
        hashes = self._all.hashes
        if len(hashes) <= DIRECT_MAX:
            return sorted({(place - me) & _MASK for place in hashes} - {0})
        found = set()
        step, nearest = CIRCLE, CIRCLE
        while 7 * step > nearest or step == CIRCLE:  # from there on all are the next member
            step //= BASE
            for j in range(1, BASE):
                found.add((hashes[self._all.index((me + j * step) & _MASK)] - me) & _MASK)
            nearest = min(found - {0}, default=CIRCLE)
            if step < BASE:
                break
        return sorted(found - {0})

    def fingers_of(self, name: str) -> list[str]:
        """Name the fingers of a member, the nearest first."""
        me = hash64(self.number, name)
        order = self._all
        return [order.names[order.index((me + far) & _MASK)] for far in self.fingers(me)]

    def delegates(self, me: int, begin: int, end: int, namespace: str) -> list[Delegate]:
        """Cut an arc at the fingers of the member at `me`: those that have most to reach first.

        `begin`, `end`: the arc in distances from `me`, the end exclusive; 1 is right after it, CIRCLE all
        around. Who does not hold the namespace is passed over, and with it nobody behind it.
        """
        order = self._holders(namespace)
        if begin >= end or not len(order):
            return []
        fingers = self.fingers(me)
        cuts = fingers[bisect_right(fingers, begin) : bisect_left(fingers, end)]
        found = []
        for low, high in zip((begin, *cuts), (*cuts, end), strict=True):
            at = order.index((me + low) & _MASK)
            place = order.hashes[at]
            if low <= (place - me) & _MASK < high:
                until = (me + high) & _MASK
                found.append(Delegate(order.names[at], until, order.count(place, until)))
        found.sort(key=lambda delegate: -delegate.holders)
        return found

    def successors(self, name: str, end: int, namespace: str) -> Iterator[str]:
        """Give the holders after a member and before a hash, in their order; none before its own."""
        place = hash64(self.number, name)
        if end == place:
            return
        order = self._holders(namespace)
        for step in range(order.count((place + 1) & _MASK, end)):
            at = order.index((place + 1) & _MASK)
            yield order.names[(at + step) % len(order)]

    def _holders(self, namespace: str) -> _Order:
        if not self._choosy:
            return self._all
        order = self._orders.get(namespace)
        if order is None:
            if len(self._orders) >= ORDERS_MAX:
                self._orders.clear()
            places = self._places
            order = self._orders[namespace] = _Order(
                [(places[n], n) for n, held in self._members.items() if _holds(held, namespace)]
            )
        return order


class View:
    """The members of a region as one agent knows them, oneself included, on both rings."""

    def __init__(self, members: Mapping[str, Collection[str]] | None = None) -> None:
        """`members`: names and the namespaces that each holds."""
        self.members: dict[str, Collection[str]] = dict(members or {})
        self.rings = tuple(Ring(number, self.members) for number in range(RINGS))

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def add(self, name: str, namespaces: Collection[str] = (EVERY_NAMESPACE,)) -> None:
        """Take in a member, or what it holds from now on."""
        if name in self.members:
            self.remove(name)
        self.members[name] = namespaces
        for ring in self.rings:
            ring.added(name, namespaces)

    def remove(self, name: str) -> None:
        """Leave out a member that is not to be handed anything any more."""
        namespaces = self.members.pop(name, None)
        if namespaces is not None:
            for ring in self.rings:
                ring.removed(name, namespaces)

    def holds(self, name: str, namespace: str) -> bool:
        """Tell whether a member holds a namespace."""
        return _holds(self.members.get(name, ()), namespace)


def _holds(held: Collection[str], namespace: str) -> bool:
    return namespace in held or EVERY_NAMESPACE in held
