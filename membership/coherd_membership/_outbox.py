"""What goes out: every message carries the sender's own word, the sum of its roster and some news."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from coherd_membership._codec import ADDRESS, NEWS, encode_news, head, section
from coherd_membership._messages import Datagram
from coherd_membership._rumors import Rumors

if TYPE_CHECKING:
    from coherd_membership._config import SwimConfig
    from coherd_membership._member import News
    from coherd_membership._messages import Kind
    from coherd_membership._roster import Roster


class Outbox:
    """Datagrams that wait to be fetched."""

    def __init__(self, config: SwimConfig, roster: Roster, label: int) -> None:
        self._config = config
        self._roster = roster
        self._label = label
        self._me: News | None = None
        self._word = b""
        self.rumors = Rumors(config)
        self.queue: list[Datagram] = []
        self.sent = 0
        self.sent_bytes = 0

    def pass_on(self, news: News) -> None:
        """Let news go along with the next messages."""
        self.rumors.add(news.name, news_section(news))

    def send(
        self,
        kind: Kind,
        destination: str,
        *,
        sequence: int = 0,
        target: str = "",
        address: str = "",
        content: bytes = b"",
        first: News | None = None,
    ) -> None:
        """Send a message; `first` is news that goes along whatever else does."""
        me = self._roster.me
        if me is not self._me:
            self._me, self._word = me, encode_news(me)
        payload = head(kind, self._label, self._roster.root, sequence, self._word, target)
        if address:
            payload += section(ADDRESS, address.encode())
        payload += content
        room = self._config.datagram_bytes_max - len(payload)
        if first is not None:
            told = self.rumors.take(room, self._roster.present, first.name, news_section(first))
            payload += b"".join(told)
        elif self.rumors:
            payload += b"".join(self.rumors.take(room, self._roster.present))
        self.sent += 1
        self.sent_bytes += len(payload)
        self.queue.append(Datagram(destination, payload))


@lru_cache(maxsize=16_384)
def news_section(news: News) -> bytes:
    """Give news as a part of a message."""
    return section(NEWS, encode_news(news))
