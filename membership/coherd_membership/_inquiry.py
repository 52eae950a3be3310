"""Before a name moves or leaves on somebody's word, its holder is asked.

Two pieces of news would take a member away that may be alive and well: that its name now is at another
address, and, from anybody but itself, that it has left. Either may be a mistake or a forgery. So the
address that is known is asked under that name. An answer refutes the news; silence for `inquiry_timeout`
lets it count. That is how a host that moved is followed, and a second host with a taken name refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from coherd_membership._member import Status
from coherd_membership._messages import Kind

if TYPE_CHECKING:
    from coherd_membership._config import SwimConfig
    from coherd_membership._exchange import Sequencer
    from coherd_membership._member import News
    from coherd_membership._outbox import Outbox
    from coherd_membership._timers import Timers


def takes_away(known: News, news: News) -> bool:
    """Tell whether news would move a member, or let one leave that is there."""
    if known.status is Status.LEFT:
        return False
    if news.status is Status.LEFT:
        return known.status is not Status.DEAD
    return news.address != known.address


class Inquiry(NamedTuple):
    """News that waits for an answer, or for silence."""

    news: News
    asked: str
    """The address at which the holder is asked."""
    claimant: str
    """Where whoever claims the name itself can be told; empty when somebody else brought the news."""
    teller: str


class Inquiries:
    """The questions under way, by name."""

    def __init__(
        self, config: SwimConfig, outbox: Outbox, timers: Timers, sequencer: Sequencer
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._timers = timers
        self._sequencer = sequencer
        self._open: dict[str, Inquiry] = {}

    def ask(self, known: News, news: News, claimant: str, teller: str, now: float) -> bool:
        """Ask the holder of a name about news; False when too many are asked already."""
        if known.name in self._open:
            return True
        if len(self._open) >= self._config.inquiries_max:
            return False
        self._open[known.name] = Inquiry(news, known.address, claimant, teller)
        self._timers.set(("inquiry", known.name), now + self._config.inquiry_timeout)
        self._outbox.send(
            Kind.PING, known.address, sequence=self._sequencer.next_sequence(), target=known.name
        )
        return True

    def heard(self, word: News) -> Inquiry | None:
        """Hear a member itself; gives the inquiry that is refuted by it."""
        inquiry = self._open.get(word.name)
        if inquiry is None or word.address != inquiry.asked:
            return None
        del self._open[word.name]
        self._timers.clear(("inquiry", word.name))
        return inquiry

    def due(self, name: str) -> Inquiry:
        """Give the inquiry that nobody has answered."""
        return self._open.pop(name)
