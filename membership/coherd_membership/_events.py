"""What happened, for the shell to act on and to log: plain values, complete when built."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from coherd_membership._member import Change, News, Status


class MemberChanged(NamedTuple):
    """A member is seen in another way than before."""

    change: Change
    before: Status | None
    """None for a name that was not known."""
    news: News


class MetaChanged(NamedTuple):
    """What a member publishes of itself has arrived."""

    name: str
    meta: bytes


class Evicted(NamedTuple):
    """Nothing is known of a name any more, because a member that spoke up needed the room."""

    name: str


class NameTaken(NamedTuple):
    """Another live member has this name and had it first: this one has to stop."""

    address: str
    """Of the holder."""


class EpochNeeded(NamedTuple):
    """This life counts no more, or cannot refute any further: call `Swim.renew` with a later epoch."""

    epoch: int
    """The latest that is known of this name; the new one has to be above it."""
    reason: str


class Dropped(NamedTuple):
    """News was not believed; told so that an operator hears of it."""

    reason: str
    """As `Swim.statistics` names it."""
    name: str
    """The member that the news was about."""
    source: str
    """The member that brought it."""


EVENTS_MAX = 100_000
"""Events that wait for the shell; further ones of dropped news are only counted."""


class EventLog:
    """What has happened and was not fetched yet, and how often what was dropped."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._events: list[Event] = []

    def add(self, event: Event) -> None:
        """Note an event."""
        self._events.append(event)

    def drop(self, reason: str, name: str, source: str) -> None:
        """Note that news was not believed."""
        self.counts[reason] += 1
        if len(self._events) < EVENTS_MAX:
            self._events.append(Dropped(reason, name, source))

    def take(self) -> list[Event]:
        """Give what has happened since the last time."""
        events, self._events = self._events, []
        return events


Event: TypeAlias = MemberChanged | MetaChanged | Evicted | NameTaken | EpochNeeded | Dropped
