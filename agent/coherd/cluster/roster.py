"""Everybody this agent has ever met, as it is seen from here: a view of what `coherd_membership` finds out.

The machine says who is there, in which life and how; links say who can be reached; both are journaled, so
that an agent knows whom to expect when it starts. An entry leaves only by the word of its agent or of an
operator, because a dead host's cache may still serve stale copies: receipts count it until then. What is
left is a *tombstone*: no life of that name up to its epoch counts any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import msgpack

from coherd.net.peer import MemberInfo
from coherd_membership import News, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

AWAY_AFTER = 5.0
"""Seconds without an open link after which a member counts as out of reach of this agent."""
NOWHERE = "-"
"""Address in the tombstones of earlier releases, which kept none."""


class State(StrEnum):
    """How a member is seen from here."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    RESTARTING = "restarting"
    DEAD = "dead"


STATES = {
    Status.ALIVE: State.ALIVE,
    Status.SUSPECT: State.SUSPECT,
    Status.RESTARTING: State.RESTARTING,
    Status.DEAD: State.DEAD,
}


@dataclass(slots=True)
class Member:
    """A member and how it is seen."""

    info: MemberInfo
    state: State
    since: float
    """Running time at which the state began."""
    lost_at: float
    """Running time at which the link broke, or from which on one is expected."""
    is_linked: bool = False
    is_wanted: bool = True
    """Whether a link is to be open: in large regions most members are not linked with each other."""

    def is_away(self, now: float) -> bool:
        """Tell whether this agent has been unable to reach it for a while."""
        is_missed = self.is_wanted or self.state is State.DEAD
        return is_missed and not self.is_linked and now - self.lost_at >= AWAY_AFTER


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
        self._tombstones: dict[str, News] = {}
        self.on_change: Callable[[], None] = lambda: None
        """Called when a member went, is linked again or is seen in another state."""
        self.on_member: Callable[[str], None] = lambda _name: None
        """Called with the member that went, or changed."""
        for name, data in known.items():
            if name != me.name:
                entry = decode_entry(data)
                if isinstance(entry, News):
                    self._tombstones[name] = entry
                else:
                    self.members[name] = Member(entry, State.DEAD, now(), now())
        self._epochs_before = {name: member.info.epoch for name, member in self.members.items()}
        """Of the members that were stored."""

    @property
    def recalled(self) -> list[News]:
        """What was stored, as the machine takes it: members, whom nobody has heard of yet, and tombstones."""
        members = (
            News(name, member.info.epoch, 0, Status.DEAD, member.info.address)
            for name, member in self.members.items()
        )
        return [*members, *self._tombstones.values()]

    # ------------------------------------------------------------------ what the machine finds out

    def take(self, news: News) -> None:
        """Take what is believed of a member from now on."""
        if news.status is Status.LEFT:
            self._bury(news)
            return
        self._tombstones.pop(news.name, None)
        state, now = STATES[news.status], self._now()
        member = self.members.get(news.name)
        if member is None:
            info = MemberInfo(news.name, news.epoch, news.address, "")
            self.members[news.name] = Member(info, state, now, now)
            self._store(news.name)
        else:
            if (member.info.epoch, member.info.address) != (news.epoch, news.address):
                member.info = replace(
                    member.info, epoch=news.epoch, address=news.address, ready=None
                )
                self._store(news.name)
            if member.state is state:
                return
            if member.state is State.DEAD:
                member.lost_at = now
            member.state, member.since = state, now
        self._changed(news.name)

    def learn(self, info: MemberInfo) -> None:
        """Take what a member publishes of itself."""
        member = self.members.get(info.name)
        if member is not None and member.info != info:
            is_stored = encode_entry(member.info) == encode_entry(info)
            member.info = info
            if not is_stored:
                self._store(info.name)
            self._changed(info.name)  # it may hold other namespaces

    def evict(self, name: str) -> None:
        """Know nothing of a name any more: room was needed."""
        self._tombstones.pop(name, None)
        if self.members.pop(name, None) is not None:
            self._changed(name)
        self._store(name)

    def _changed(self, name: str) -> None:
        self.on_member(name)
        self.on_change()

    def _bury(self, news: News) -> None:
        self._tombstones[news.name] = news
        member = self.members.pop(news.name, None)
        self._store(news.name)
        if member is not None:
            self._changed(news.name)

    # ------------------------------------------------------------------ links

    def linked(self, name: str) -> None:
        """The link to a member is open."""
        self.members[name].is_linked = True
        self._changed(name)

    def unlinked(self, name: str) -> None:
        """The link to a member broke."""
        if member := self.members.get(name):
            member.is_linked = False
            member.lost_at = self._now()

    def reachable(self) -> list[str]:
        """Give the names of the members with an open link."""
        return [name for name, member in self.members.items() if member.is_linked]

    # ------------------------------------------------------------------ looking

    def is_forgotten(self, name: str, epoch: int) -> bool:
        """Tell whether this life does not count any more."""
        tombstone = self._tombstones.get(name)
        return tombstone is not None and epoch <= tombstone.epoch

    def went_on(self, name: str) -> bool:
        """Tell whether a member is in the life in which this agent's earlier life knew it.

        Of anybody, where it knew nobody.
        """
        member = self.members.get(name)
        known = self._epochs_before
        return member is not None and (not known or member.info.epoch <= known.get(name, 0))

    def may_have_gone_on(self, name: str) -> bool:
        """Tell whether `went_on` may prove true of a member: it is known, and linked or still dialled."""
        is_away = self.members[name].is_away(self._now())
        return name in self._epochs_before and self.went_on(name) and not is_away

    def state_age(self, name: str) -> float:
        """Give for how many seconds a member has been in its state; 0 for one that is not known."""
        member = self.members.get(name)
        return self._now() - member.since if member else 0.0

    def holders(self, namespace: str) -> Iterable[Member]:
        """Give the other members that hold a namespace, whatever their state."""
        return (m for m in self.members.values() if m.info.holds(namespace))

    def holds(self, name: str, namespace: str) -> bool:
        """Tell whether a member is known that holds a namespace."""
        member = self.members.get(name)
        return member is not None and member.info.holds(namespace)

    # ------------------------------------------------------------------ storing

    def save(self) -> None:
        """Store what could not be stored before."""
        for name in list(self._unsaved):
            self._store(name)

    def _store(self, name: str) -> None:
        self._unsaved.add(name)
        if self._store_now(name, self._encode(name)):
            self._unsaved.discard(name)

    def _encode(self, name: str) -> bytes | None:
        if member := self.members.get(name):
            return encode_entry(member.info)
        tombstone = self._tombstones.get(name)
        return None if tombstone is None else encode_entry(tombstone)


def encode_entry(entry: MemberInfo | News) -> bytes:
    """Write what is kept of a member, or a tombstone."""
    columns: list[object] = [entry.name, entry.epoch, entry.address]
    if isinstance(entry, MemberInfo):
        columns += [entry.region, entry.namespaces]
    packed: bytes = msgpack.packb(columns)
    return packed


def decode_entry(data: bytes) -> MemberInfo | News:
    """Read what is kept of a member, or a tombstone."""
    name, epoch, *rest = msgpack.unpackb(data)
    if len(rest) < len(("address", "region", "namespaces")):
        return News(name, epoch, 0, Status.LEFT, rest[0] if rest else NOWHERE)
    address, region, namespaces = rest
    return MemberInfo(name, epoch, address, region, tuple(namespaces))
