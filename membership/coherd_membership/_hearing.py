"""What this member believes: each piece of news is weighed here, and nowhere else.

News counts if it is later in the one order (`_member`), and if believing it can't be made a weapon:

* poison: an incarnation or an epoch that nobody can have honestly is dropped;
* a verdict needs accusers: a death told by too few is a suspicion (ours; Lifeguard's confirmations only
  shorten the wait), and a death learned from a full exchange is one too, so that partitions merge alive;
* who moves or leaves by the word of others is asked first (`_inquiry`);
* what is said of this member itself goes to `_standing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coherd_membership import _suspicion
from coherd_membership._events import Evicted, MemberChanged
from coherd_membership._inquiry import takes_away
from coherd_membership._member import TRANSITIONS, Change, Status, merge, order
from coherd_membership._messages import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from coherd_membership._config import SwimConfig
    from coherd_membership._events import EventLog
    from coherd_membership._exchange import Exchanger
    from coherd_membership._inquiry import Inquiries, Inquiry
    from coherd_membership._member import News
    from coherd_membership._messages import Message
    from coherd_membership._outbox import Outbox
    from coherd_membership._probe import Prober
    from coherd_membership._roster import Member, Roster
    from coherd_membership._standing import Standing
    from coherd_membership._timers import Timers

OWN_WORDS = frozenset({Status.ALIVE, Status.RESTARTING, Status.LEFT})
"""What a member may say of itself."""


class Hearing:
    """The beliefs of one member."""

    def __init__(
        self,
        config: SwimConfig,
        roster: Roster,
        outbox: Outbox,
        timers: Timers,
        prober: Prober,
        exchanger: Exchanger,
        inquiries: Inquiries,
        standing: Standing,
        log: EventLog,
        admits: Callable[[str, str], bool],
    ) -> None:
        self._config = config
        self._roster = roster
        self._outbox = outbox
        self._timers = timers
        self._prober = prober
        self._exchanger = exchanger
        self._inquiries = inquiries
        self._standing = standing
        self._log = log
        self._admits = admits

    # ------------------------------------------------------------------ at the beginning

    def recall(self, news: News) -> None:
        """Take what an earlier life knew: whoever was there is down until anybody has heard of it.

        No life is ever in incarnation 0: so whatever is heard of it now is later, and need not be refuted.
        """
        if news.name != self._roster.me.name:
            if news.status is not Status.LEFT:
                news = news._replace(status=Status.DEAD, incarnation=0, version=0, accusers=())
            self._roster.put(news, float("-inf"))

    def watch(self, name: str, now: float) -> None:
        """Let a recalled member be asked for as long as one that went down now."""
        self._roster.members[name].since = now

    # ------------------------------------------------------------------ from the member itself

    def hear_sender(self, message: Message, source: str, now: float) -> bool:
        """Take a member's own word; False when nothing else of its message counts."""
        word = message.sender
        if word.name == self._roster.me.name:
            self._standing.hear_namesake(message, source)
            return False
        if word.status not in OWN_WORDS:
            self._log.drop("poison", word.name, word.name)
            return False
        inquiry = self._inquiries.heard(word)
        if inquiry is not None:
            self._refuted(inquiry, word)
        member = self._roster.members.get(word.name)
        if member is None:
            return self._meet(word, now)
        if member.news is not word:
            if member.news != word:
                return self._hear_word(member.news, word, source, now)
            member.news = word  # the same object again and again: comparing it is quick
        member.heard = True
        return True

    def _meet(self, word: News, now: float) -> bool:
        """Take in a member that was not known."""
        if word.status is Status.LEFT or self._is_poison(word, word.name):
            return False
        if not self._has_room(firsthand=True):
            self._log.drop("members", word.name, word.name)
            return False
        self.apply(word, now)
        self._roster.members[word.name].heard = True
        return True

    def _hear_word(self, known: News, word: News, source: str, now: float) -> bool:
        """Take what a member says of itself that is not what was known."""
        if self._is_poison(word, word.name):
            return False
        is_later = order(word) > order(known)
        if known.address != word.address and known.status is not Status.LEFT:
            if is_later and not self._inquiries.ask(known, word, source, word.name, now):
                self._log.drop("inquiries", word.name, word.name)
            return not is_later
        if is_later:
            self.apply(word, now)
        self._roster.members[word.name].heard = True
        return True

    def notice_for(self, word: News) -> News | None:
        """Give what the sender of a message should know: what is said of it, and is graver than its word."""
        member = self._roster.members.get(word.name)
        if member is None or member.news is word or member.rank <= order(word):
            return None
        if member.news.status is Status.SUSPECT and not self._config.tells_suspects:
            return None
        return member.news

    # ------------------------------------------------------------------ from others

    def hear_all(self, message: Message, now: float) -> None:
        """Weigh the news that a message brought; most of it is what is known, as the very same object."""
        members, teller = self._roster.members, message.sender.name
        is_exchange = message.kind == Kind.ENTRIES
        for news in message.news:
            member = members.get(news.name)
            if member is None or member.news is not news:
                self.hear(news, teller, now, is_exchange=is_exchange)

    def hear(self, news: News, teller: str, now: float, *, is_exchange: bool) -> None:
        """Weigh news that somebody told."""
        if news.name == self._roster.me.name:
            if not self._is_poison(news, teller):
                self._standing.hear(news, teller, now)
            return
        if news.name == teller and news.status not in OWN_WORDS:
            self._log.drop("poison", news.name, teller)  # who speaks is neither silent nor dead
            return
        member = self._roster.members.get(news.name)
        if member is None:
            self._hear_of_stranger(news, teller, now, is_rumor=not is_exchange)
        elif member.news == news:
            member.news = news  # one object for all: told again, it needs no second look
        else:
            rank = order(news)
            if rank == member.rank:
                self._confirm(member, news, now)
            elif rank > member.rank and not self._is_poison(news, teller):
                self._weigh(member, news, teller, now, is_exchange=is_exchange)

    def _weigh(
        self, member: Member, news: News, teller: str, now: float, *, is_exchange: bool
    ) -> None:
        """Weigh news of a member that is later than what is known."""
        known = member.news
        weighed = self._soften(news, known, teller, is_exchange=is_exchange)
        rank = order(weighed)
        if rank == member.rank:
            self._confirm(member, weighed, now)
        elif rank > member.rank:
            if not takes_away(known, weighed):
                is_rumor = not is_exchange or weighed.status is Status.SUSPECT
                self.apply(weighed, now, is_rumor=is_rumor)
            elif not self._inquiries.ask(known, weighed, "", teller, now):
                self._log.drop("inquiries", news.name, teller)

    def _hear_of_stranger(self, news: News, teller: str, now: float, *, is_rumor: bool) -> None:
        """Weigh news of a member that was not known."""
        if not self._has_room(firsthand=False):  # looked at first: a flood must not cost much
            self._log.drop("members", news.name, teller)
        elif not self._is_poison(news, teller):
            accusers = self._accusers(news)
            known = news if accusers == news.accusers else news._replace(accusers=accusers)
            self.apply(known, now, is_rumor=is_rumor)

    def _soften(self, news: News, known: News, teller: str, *, is_exchange: bool) -> News:
        """Give news with those accusers that are known; a death that too few vouch for is a suspicion."""
        if news.status is Status.SUSPECT:
            accusers = self._accusers(news) or (teller,)
            return news if accusers == news.accusers else news._replace(accusers=accusers)
        if news.status is not Status.DEAD or known.status >= Status.DEAD:
            return news
        if known.status is Status.RESTARTING and known.epoch == news.epoch:
            return known  # its own word stands until its time is over
        accusers = self._accusers(news)
        if not is_exchange and len(accusers) >= self._needed(news.name):
            return news
        return news._replace(status=Status.SUSPECT, accusers=accusers or (teller,))

    # ------------------------------------------------------------------ believing

    def apply(self, news: News, now: float, *, is_rumor: bool = True) -> None:
        """Believe news that is later than what was known."""
        member = self._roster.members.get(news.name)
        before = member.news.status if member is not None else None
        change = TRANSITIONS[before, news.status]
        member = self._roster.put(news, now)
        self._clear_deadlines(news.name)
        if change in {Change.JOINED, Change.RETURNED} or before is None:
            self._prober.add(news.name)
        if news.status is Status.SUSPECT:
            member.suspected_at = now
            self._set_suspicion(member, now)
        elif news.status is Status.RESTARTING:
            self._timers.set(("restart", news.name), now + self._config.restart_timeout)
        if is_rumor:
            self._outbox.pass_on(news)
        else:
            self._outbox.rumors.discard(news.name)
        if member.heard and news.name in self._roster.lacking and news.status is Status.ALIVE:
            # of a stranger it is asked when it is probed: nobody is sent where a forger points
            self._exchanger.want_meta(news.address, (news.name,))
        self._log.add(MemberChanged(change, before, news))

    def accuse(self, name: str, now: float) -> None:
        """Say that a member does not answer."""
        member = self._roster.members.get(name)
        if member is None:
            return
        accusation = member.news._replace(status=Status.SUSPECT, accusers=(self._roster.me.name,))
        if member.news.status is Status.ALIVE:
            self.apply(accusation, now)
        elif member.news.status is Status.SUSPECT:
            self._confirm(member, accusation, now)

    def _confirm(self, member: Member, news: News, now: float) -> None:
        """Join the accusers of one accusation; each new one shortens the wait, and is passed on."""
        known = member.news
        before = len(known.accusers)
        if before > self._config.confirmations or known.status is not Status.SUSPECT:
            return
        joined = merge(known, news._replace(accusers=self._accusers(news)))
        if len(joined.accusers) > before:
            self._roster.put(joined, now)
            self._set_suspicion(member, now)
            self._outbox.pass_on(joined)

    def _set_suspicion(self, member: Member, now: float) -> None:
        confirmations = max(0, len(member.news.accusers) - 1)
        patience = _suspicion.timeout(self._config, self._roster.present, confirmations)
        self._timers.set(("suspicion", member.news.name), max(now, member.suspected_at + patience))

    def _accusers(self, news: News) -> tuple[str, ...]:
        """Give the accusers of news that are known here."""
        members, me = self._roster.members, self._roster.me.name
        return tuple(name for name in news.accusers if name in members or name == me)

    def _needed(self, name: str) -> int:
        """Give how many accusers a verdict on a member needs: two, where two are there to look."""
        member = self._roster.members.get(name)
        others = self._roster.alive - (member is not None and member.news.status is Status.ALIVE)
        return min(self._config.accusers, 1 + others)

    def _clear_deadlines(self, name: str) -> None:
        """Let nothing happen to a member by itself any more."""
        self._timers.clear(("suspicion", name))
        self._timers.clear(("restart", name))

    def _has_room(self, *, firsthand: bool) -> bool:
        """Tell whether one more member can be remembered; who comes itself takes the place of a name that
        was only ever told, or else of one that is gone.
        """
        if len(self._roster.members) < self._config.members_max:
            return True
        name = self._roster.least_needed() if firsthand else None
        if name is None:
            return False
        self._clear_deadlines(name)
        self._outbox.rumors.discard(name)
        self._prober.forget(name)
        self._roster.remove(name)
        self._log.add(Evicted(name))
        return True

    # ------------------------------------------------------------------ doubting

    def _is_poison(self, news: News, teller: str) -> bool:
        """Tell whether nobody can have said this honestly, or meant a member by it, and count it.

        The limit of incarnations is the same for everybody: were it relative to what is known, a liar could
        go beyond it in steps, and whoever comes anew would not believe those who went with it.
        """
        config = self._config
        if news.incarnation > config.incarnation_ahead_max or news.epoch > config.epoch_max:
            self._log.drop("poison", news.name, teller)
        elif news.status is not Status.LEFT and not self._admits(news.name, news.address):
            self._log.drop("nowhere", news.name, teller)
        elif self._is_here(news):
            self._log.drop("own_address", news.name, teller)
        else:
            return False
        return True

    def _is_here(self, news: News) -> bool:
        """Tell whether another member is said to be where this one is."""
        me = self._roster.me
        return news.status < Status.DEAD and news.address == me.address and news.name != me.name

    def _refuted(self, inquiry: Inquiry, word: News) -> None:
        """The holder of a name has answered at its old address: the news was not true."""
        if inquiry.news.status is Status.LEFT:
            self._log.drop("forged_leaves", word.name, inquiry.teller)
            return
        if order(inquiry.news) <= order(word) and inquiry.news.epoch == word.epoch:
            return
        self._log.drop("names_taken", word.name, inquiry.teller)
        if inquiry.claimant:
            self._outbox.send(Kind.TAKEN, inquiry.claimant, target=word.name, address=word.address)

    # ------------------------------------------------------------------ deadlines

    def suspicion_due(self, name: str, now: float) -> None:
        """Declare a suspect dead that has not spoken up, if enough have found it silent."""
        member = self._roster.members[name]
        if len(self._accusers(member.news)) < self._needed(name):
            self._timers.set(("suspicion", name), now + self._config.probe_interval)
            return
        self.apply(member.news._replace(status=Status.DEAD), now)

    def restart_due(self, name: str, now: float) -> None:
        """A member that said it would be back is not: it is down, by its own word."""
        member = self._roster.members[name]
        self.apply(member.news._replace(status=Status.DEAD), now, is_rumor=False)

    def inquiry_due(self, name: str, now: float) -> None:
        """Nobody has answered at the old address: the news counts."""
        inquiry = self._inquiries.due(name)
        member = self._roster.members.get(name)
        if member is not None and order(inquiry.news) > member.rank:
            self.apply(inquiry.news, now)
