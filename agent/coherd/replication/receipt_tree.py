"""Who has applied a payload, on its way up the trees along which the payload came down.

Each member tells whoever handed it a payload which members have applied it: itself, and those that its own
delegates tell of. These are *sets of names*, cumulative: whoever is asked twice or answers twice counts
once, and one slow leaf withholds nobody else. Each ring has a tree of its own, so that a name goes up along
it and no further. Nobody counts that has not said "applied": to have handed on, or to have, is not to apply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from coherd.replication.parcels import LinkKey

NAMES_MAX = 10_000
"""Names remembered of one payload: more members no region has."""


class _Branch:
    """One payload on one ring."""

    __slots__ = ("askers", "names")

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        """In the order in which they were heard of: sets of strings have another in each process."""
        self.askers: dict[LinkKey, int] = {}
        """Who handed it to this member, with how many of the names it was told."""


class ReceiptTree:
    """The receipts that pass through one member."""

    def __init__(self, me: str, payloads_max: int) -> None:
        """`payloads_max`: of so many payloads receipts are passed on; of older ones origins ask directly."""
        self._me = me
        self._payloads_max = payloads_max
        self._branches: dict[int, tuple[_Branch, _Branch]] = {}
        self._roots: set[int] = set()
        """Payloads that began here."""
        self.given_up = 0

    def __len__(self) -> int:
        return len(self._branches)

    def ask(self, payload: int, ring: int, asker: LinkKey | None) -> None:
        """Note who is to be told; None when the payload began here."""
        if payload not in self._branches:
            while len(self._branches) >= self._payloads_max:
                oldest = next(iter(self._branches))
                del self._branches[oldest]
                self._roots.discard(oldest)
                self.given_up += 1
            self._branches[payload] = (_Branch(), _Branch())
        if asker is None:
            self._roots.add(payload)
        else:
            self._branches[payload][ring].askers.setdefault(asker, 0)

    def is_root(self, payload: int) -> bool:
        """Tell whether a payload began here, and what is known of it is to be kept here."""
        return payload in self._roots

    def apply(self, payload: int) -> None:
        """Note that this member has applied a payload; of no consequence where nobody asked."""
        for branch in self._branches.get(payload, ()):
            branch.names.setdefault(self._me)

    def hear(self, payload: int, ring: int, names: Iterable[str]) -> bool:
        """Note what a delegate tells; False when nothing was asked about that payload."""
        branches = self._branches.get(payload)
        if branches is None:
            return False
        known = branches[ring].names
        for name in names:
            if len(known) < NAMES_MAX:
                known.setdefault(name)
        return True

    def askers(self, payload: int, ring: int) -> list[LinkKey]:
        """Give those that were told fewer names than are known."""
        branches = self._branches.get(payload)
        if branches is None:
            return []
        branch = branches[ring]
        return [asker for asker, told in branch.askers.items() if told < len(branch.names)]

    def tell(self, payload: int, ring: int, asker: LinkKey) -> Collection[str]:
        """Give all that is known, to be told now; nothing when there is nothing new for that member."""
        branches = self._branches.get(payload)
        if branches is None:
            return ()
        branch = branches[ring]
        if branch.askers.get(asker, 0) >= len(branch.names):
            return ()
        branch.askers[asker] = len(branch.names)
        return tuple(branch.names)

    def names(self, payload: int) -> list[str]:
        """Give everybody that is known to have applied a payload, of whatever ring."""
        first, second = self._branches.get(payload, (_Branch(), _Branch()))
        return list(first.names | second.names)
