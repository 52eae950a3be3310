"""What is said of this member itself: it is refuted, or this life is over.

Only a member speaks for itself (SWIM §4.2): it refutes what others say of it by raising its incarnation.
Two things can't be refuted so: that this life was struck out or overtaken by a later one, and that another
holds the name. Neither is believed of one message. While this member joins, the first who says so has a
reason; later it takes two, or, of a life that was struck out, the same one again after a while: whoever
holds a tombstone says so at every contact, and a new life costs little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coherd_membership._events import EpochNeeded, NameTaken
from coherd_membership._member import Status, order
from coherd_membership._messages import Kind

if TYPE_CHECKING:
    from coherd_membership._config import SwimConfig
    from coherd_membership._events import EventLog
    from coherd_membership._exchange import Exchanger
    from coherd_membership._health import Health
    from coherd_membership._member import News
    from coherd_membership._messages import Message
    from coherd_membership._outbox import Outbox
    from coherd_membership._roster import Roster


class Standing:
    """This member's name and life, in the words of others."""

    def __init__(
        self,
        config: SwimConfig,
        roster: Roster,
        outbox: Outbox,
        health: Health,
        exchanger: Exchanger,
        log: EventLog,
    ) -> None:
        self._config = config
        self._roster = roster
        self._outbox = outbox
        self._health = health
        self._exchanger = exchanger
        self._log = log
        self._struck_by: dict[str, float] = {}
        """Who said that this life counts no more, and when first."""
        self._taken_by: set[str] = set()
        """Who said that another holds the name."""

    def begin_life(self) -> None:
        """Forget what was said of the life before."""
        self._struck_by.clear()
        self._taken_by.clear()

    def end_life(self) -> None:
        """Ask for a new life, because this one has used up its incarnations."""
        self._log.add(EpochNeeded(self._roster.me.epoch, "no incarnation is left in this life"))

    def hear(self, news: News, teller: str, now: float) -> None:
        """Take news of this member from another."""
        me = self._roster.me
        if news.epoch < me.epoch:
            return
        if news.epoch > me.epoch or news.status is Status.LEFT:
            # nobody is outbid by a life after one that is over, wherever that was
            is_mine = news.address == me.address or news.status >= Status.DEAD
            if (is_mine or not self._exchanger.has_joined) and self._is_struck(teller, now):
                why = "this life was struck out" if is_mine else "the name has a later life"
                self._log.add(EpochNeeded(news.epoch, why))
            else:
                self._log.drop("forged_leaves" if is_mine else "names_taken", me.name, teller)
        elif order(news) > order(me):
            self._refute(news.incarnation + 1)

    def hear_namesake(self, message: Message, source: str) -> None:
        """Somebody else has this member's name: tell it, if this member had it first, or be told."""
        me, word = self._roster.me, message.sender
        had_it = self._exchanger.has_joined or (me.epoch, me.address) < (word.epoch, word.address)
        if word.address == me.address:
            return
        if message.kind == Kind.TAKEN:
            if not had_it:
                self.hear_taken(message)
        elif had_it:
            self._log.drop("names_taken", word.name, word.address)
            self._outbox.send(Kind.TAKEN, source, target=me.name, address=me.address)

    def hear_taken(self, message: Message) -> None:
        """Hear that another holds this name."""
        me = self._roster.me
        if message.target != me.name or message.address == me.address:
            return
        self._taken_by.add(message.sender.name)
        needed = min(2, self._roster.alive) if self._exchanger.has_joined else 1
        if len(self._taken_by) >= needed:
            self._log.add(NameTaken(message.address))

    def _is_struck(self, teller: str, now: float) -> bool:
        first = self._struck_by.setdefault(teller, now)
        is_repeated = now - first >= self._config.inquiry_timeout
        return not self._exchanger.has_joined or is_repeated or len(self._struck_by) > 1

    def _refute(self, incarnation: int) -> None:
        if incarnation > self._config.incarnation_ahead_max:
            self.end_life()
            return
        self._log.counts["refuted"] += 1
        self._health.add(1)
        self._roster.set_me(self._roster.me._replace(incarnation=incarnation))
        self._outbox.pass_on(self._roster.me)
