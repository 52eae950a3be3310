"""Everybody this agent has ever met: who, where, in which state, since when.

Kept by joins and links for now; `heard`, `linked` and `unlinked` are the door through which the SWIM core
will drive it. An entry leaves only by an operator's word, because a dead host's cache may still serve
stale copies: receipts count it until then.

State is kept per name: either an entry or a *tombstone*, which says that no life up to its epoch counts
any more. The later epoch wins, and of two equal ones the tombstone; so everybody ends with the same,
in whatever order it heard the news, and a later life of a forgotten name is back by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgpack

from coherd.limits import FORGOTTEN_MAX
from coherd.model import Origin
from coherd.net.peer import MemberInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

UNREACHABLE_AFTER = 5.0
"""Seconds without an open link after which a member counts as unreachable."""
RESTART_MAX = 10.0
"""Seconds for which a member that said it restarts is expected back; then it is unreachable."""


class State(StrEnum):
    """How a member is seen from here."""

    ALIVE = "alive"
    UNREACHABLE = "unreachable"
    RESTARTING = "restarting"


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
    stopped: int = 0
    """The epoch of the life that said it stops; it does not come alive again."""


class Roster:
    """The members, by name. The agent itself is one of them."""

    def __init__(
        self,
        me: MemberInfo,
        known: Mapping[str, bytes],
        now: Callable[[], float],
        store: Callable[[str, bytes | None], bool],
    ) -> None:
        """`known` is what was stored last; `store(name, data)` keeps an entry, or with None removes it.

        It gives False when it can't now.
        """
        self.me = me
        self._now = now
        self._store_now = store
        self._unsaved: set[str] = set()
        self.members: dict[str, Member] = {}
        self._forgotten: dict[str, int] = {}
        """The tombstones: epochs by name."""
        self.on_new: Callable[[str], None] = lambda _name: None
        """Called with the name of a member that was not known before."""
        self.on_gone: Callable[[str], None] = lambda _name: None
        """Called with the name of a member that was forgotten."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when a member went, is linked again or is seen in another state."""
        self.on_forgotten: Callable[[int], None] = lambda _epoch: None
        """Called with the epoch of a tombstone that names the agent's own life, or a later one."""
        for name, data in known.items():
            if name != me.name:
                entry = decode_entry(data)
                if isinstance(entry, Origin):
                    self._forgotten[name] = entry.epoch
                else:
                    self.members[name] = Member(entry, State.UNREACHABLE, now())
        self._epochs_before = {name: member.info.epoch for name, member in self.members.items()}
        """Of the members that were stored."""

    def heard(self, info: MemberInfo) -> bool:
        """Take news of a member; False when it is old, forgotten or about this agent itself."""
        if info.name == self.me.name or self.is_forgotten(info.name, info.epoch):
            return False
        member = self.members.get(info.name)
        if member is None:
            self.members[info.name] = Member(info, State.UNREACHABLE, self._now())
            self._forgotten.pop(info.name, None)
            self._store(info.name)
            self.on_new(info.name)
            return True
        if info.epoch < member.info.epoch or info == member.info:
            return False
        member.info = info
        self._store(info.name)
        return True

    def went_on(self, name: str) -> bool:
        """Tell whether a member is in the life in which this agent's earlier life knew it.

        Of anybody, where it knew nobody.
        """
        member = self.members.get(name)
        known = self._epochs_before
        return member is not None and (not known or member.info.epoch <= known.get(name, 0))

    def may_have_gone_on(self, name: str) -> bool:
        """Tell whether `went_on` may prove true of a member: it is known, and linked or still dialled."""
        member = self.members[name]
        is_dialled = self._now() - member.since < UNREACHABLE_AFTER
        return (
            name in self._epochs_before and self.went_on(name) and (member.is_linked or is_dialled)
        )

    # ------------------------------------------------------------------ tombstones

    @property
    def forgotten(self) -> list[Origin]:
        """The tombstones."""
        return [Origin(name, epoch) for name, epoch in self._forgotten.items()]

    def is_forgotten(self, name: str, epoch: int) -> bool:
        """Tell whether this life does not count any more."""
        return epoch <= self._forgotten.get(name, 0)

    def forget(self, name: str, epoch: int) -> None:
        """Let no life of `name` up to `epoch` count any more."""
        if name == self.me.name:
            if epoch >= self.me.epoch:
                self.on_forgotten(epoch)
            return
        member = self.members.get(name)
        if self.is_forgotten(name, epoch) or (member is not None and member.info.epoch > epoch):
            return
        if member is None and len(self._forgotten) >= FORGOTTEN_MAX:
            oldest = min(self._forgotten, key=lambda name: self._forgotten[name])
            if epoch <= self._forgotten[oldest]:
                return
            del self._forgotten[oldest]
            self._store(oldest)
        self._forgotten[name] = epoch
        self.members.pop(name, None)
        self._store(name)
        if member is not None:
            self.on_gone(name)
            self.on_change()

    # ------------------------------------------------------------------ states

    def linked(self, name: str) -> None:
        """The link to a member is open."""
        member = self.members[name]
        member.is_linked = True
        if member.info.epoch > member.stopped:
            self._become(member, State.ALIVE)
        self.on_change()

    def unlinked(self, name: str) -> None:
        """The link to a member broke."""
        if member := self.members.get(name):
            member.is_linked = False
            member.lost_at = self._now()

    def stops(self, name: str, epoch: int) -> None:
        """A member said that this life of it stops, and that it will be back."""
        member = self.members.get(name)
        if member is not None and member.info.epoch <= epoch:
            member.stopped = epoch
            self._become(member, State.RESTARTING)

    def check(self) -> None:
        """Let members whose link has been broken for long become unreachable; store what was not."""
        for name in list(self._unsaved):
            self._store(name)
        now = self._now()
        for member in list(self.members.values()):
            if member.state is State.RESTARTING:
                is_away = now - member.since >= RESTART_MAX
            else:
                is_away = not member.is_linked and now - member.lost_at >= UNREACHABLE_AFTER
            if is_away:
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
        if self._store_now(name, self._encode(name)):
            self._unsaved.discard(name)

    def _encode(self, name: str) -> bytes | None:
        if member := self.members.get(name):
            return encode_entry(member.info)
        epoch = self._forgotten.get(name)
        return None if epoch is None else encode_entry(Origin(name, epoch))

    def _become(self, member: Member, state: State) -> None:
        if member.state is not state:
            member.state = state
            member.since = self._now()
            self.on_change()


def encode_entry(entry: MemberInfo | Origin) -> bytes:
    """Write what is kept of a member, or a tombstone."""
    columns: list[object] = [entry.name, entry.epoch]
    if isinstance(entry, MemberInfo):
        columns += [entry.address, entry.region, entry.namespaces]
    packed: bytes = msgpack.packb(columns)
    return packed


def decode_entry(data: bytes) -> MemberInfo | Origin:
    """Read what is kept of a member, or a tombstone."""
    name, epoch, *rest = msgpack.unpackb(data)
    if not rest:
        return Origin(name, epoch)
    address, region, namespaces = rest
    return MemberInfo(name, epoch, address, region, tuple(namespaces))
