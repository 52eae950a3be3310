"""Everybody this agent has ever met: who, where, in which state, since when.

Kept by joins and links for now; `heard`, `linked` and `unlinked` are the door through which the SWIM core
will drive it. An entry leaves only by an operator's word, because a dead host's cache may still serve
stale copies: receipts count it until then. State is kept per name; a later life replaces an earlier one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgpack

from coherd.net.peer import MemberInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

UNREACHABLE_AFTER = 5.0
"""Seconds without an open link after which a member counts as unreachable."""


class State(StrEnum):
    """How a member is seen from here."""

    ALIVE = "alive"
    UNREACHABLE = "unreachable"


@dataclass(slots=True)
class Member:
    """A member and how it is seen."""

    info: MemberInfo
    state: State
    since: float
    """Running time at which the state began."""
    is_linked: bool = False
    lost_at: float = 0.0
    """Running time at which the link broke."""


class Roster:
    """The members, by name. The agent itself is one of them."""

    def __init__(
        self,
        me: MemberInfo,
        known: Mapping[str, bytes],
        now: Callable[[], float],
        store: Callable[[str, bytes], bool],
    ) -> None:
        """`known` is what was stored last; `store(name, data)` keeps an entry, False when it can't now."""
        self.me = me
        self._now = now
        self._store_now = store
        self._unsaved: set[str] = set()
        self.members: dict[str, Member] = {}
        self.on_new: Callable[[str], None] = lambda _name: None
        """Called with the name of a member that was not known before."""
        for name, data in known.items():
            if name != me.name:
                self.members[name] = Member(decode_entry(data), State.UNREACHABLE, now())

    def heard(self, info: MemberInfo) -> bool:
        """Take news of a member; False when it is old or about this agent itself."""
        if info.name == self.me.name:
            return False
        member = self.members.get(info.name)
        if member is None:
            self.members[info.name] = Member(info, State.UNREACHABLE, self._now())
            self._store(info.name)
            self.on_new(info.name)
            return True
        if info.epoch < member.info.epoch or info == member.info:
            return False
        member.info = info
        self._store(info.name)
        return True

    def linked(self, name: str) -> None:
        """The link to a member is open."""
        member = self.members[name]
        member.is_linked = True
        self._become(member, State.ALIVE)

    def unlinked(self, name: str) -> None:
        """The link to a member broke."""
        member = self.members[name]
        member.is_linked = False
        member.lost_at = self._now()

    def check(self) -> None:
        """Let members whose link has been broken for long become unreachable; store what was not."""
        for name in list(self._unsaved):
            self._store(name)
        for member in self.members.values():
            if not member.is_linked and self._now() - member.lost_at >= UNREACHABLE_AFTER:
                self._become(member, State.UNREACHABLE)

    def infos(self) -> list[MemberInfo]:
        """Give what the other members say of themselves."""
        return [member.info for member in self.members.values()]

    def holders(self, namespace: str) -> Iterable[Member]:
        """Give the other members that hold a namespace, whatever their state."""
        return (m for m in self.members.values() if m.info.holds(namespace))

    def reachable(self) -> list[str]:
        """Give the names of the members with an open link."""
        return [name for name, member in self.members.items() if member.is_linked]

    def _store(self, name: str) -> None:
        self._unsaved.add(name)
        if self._store_now(name, encode_entry(self.members[name].info)):
            self._unsaved.discard(name)

    def _become(self, member: Member, state: State) -> None:
        if member.state is not state:
            member.state = state
            member.since = self._now()


def encode_entry(info: MemberInfo) -> bytes:
    """Write what is kept of a member."""
    packed: bytes = msgpack.packb(
        [info.name, info.epoch, info.address, info.region, info.namespaces]
    )
    return packed


def decode_entry(data: bytes) -> MemberInfo:
    """Read what is kept of a member."""
    name, epoch, address, region, namespaces = msgpack.unpackb(data)
    return MemberInfo(name, epoch, address, region, tuple(namespaces))
