"""When a simulated publisher offers rows of what it does not hold: the rules of `cluster.offering`."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from coherd.replication.intervals import Intervals
from coherd.sim.faults.messages import Offer

if TYPE_CHECKING:
    from random import Random

    from coherd.model import Stream
    from coherd.sim.faults.member import Member
    from coherd.sim.faults.messages import Claims

OFFER_INTERVAL = 10.0
SEEK_INTERVAL = 1.0
"""Seconds between two offers of what no holder is known to have, and where no holder can be reached."""


class Offering:
    """What was offered in one life of one member."""

    def __init__(self, member: Member, random: Random) -> None:
        self._member = member
        self._random = random
        self._had: dict[Stream, Intervals] = {}
        """What some holder said that it has of own streams."""
        self.due = member.now

    def pending(self) -> dict[str, Claims]:
        """Give the own streams that no holder is known to have whole, by namespace."""
        member, result = self._member, {}
        vector, none = member.replica.vector, Intervals()
        for namespace in vector.namespaces():
            if namespace not in member.holds:
                found = tuple(
                    (stream, state.have.copy())
                    for stream, state in vector.streams(namespace).items()
                    if stream.origin.name == member.name
                    and state.have - self._had.get(stream, none)
                )
                if found:
                    result[namespace] = found
        return result

    def offer(self, now: float) -> None:
        """Offer what is pending, each namespace to one holder."""
        member, pause = self._member, OFFER_INTERVAL
        for namespace, claims in self.pending().items():
            if holders := [n for n in member.peers if member.holds_too(n, namespace)]:
                member.say(self._random.choice(holders), Offer(claims))
            else:
                pause = SEEK_INTERVAL
        publishes_only = len(member.holds) < len(member.world.namespaces)
        self.due = now + pause if publishes_only else inf

    def answer(self, offered: Claims) -> Claims:
        """Give what is here of offered streams."""
        get = self._member.replica.vector.get
        return tuple((s, n & state.have) for s, n in offered if (state := get(s)) is not None)

    def answered(self, here: Claims) -> None:
        """Note what a holder has."""
        for stream, numbers in here:
            self._had[stream] = self._had.get(stream, Intervals()) | numbers
