"""Everybody this member knows of, itself included, with sums by which two rosters are compared.

A sum covers what is true for good: who is there in which life, who is down, who has left, and which
version of its metadata. Suspicions come and go faster than rosters are compared, so a suspect counts as
alive in it.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from coherd_membership._codec import BUCKETS
from coherd_membership._member import Status, order

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from coherd_membership._member import News

SUM_MODULUS = 2**64


class Member:
    """What is known of one member."""

    __slots__ = ("heard", "meta", "meta_of", "news", "rank", "round_trip", "since", "suspected_at")

    def __init__(self, news: News, now: float) -> None:
        self.news = news
        self.rank = order(news)
        """The place of `news` in the order of all news of this name."""
        self.since = now
        """When its status began, as seen from here."""
        self.suspected_at = now
        self.heard = False
        """Whether it has ever spoken to this member itself."""
        self.round_trip: float | None = None
        """Seconds from a probe to its answer, the last time."""
        self.meta: bytes | None = None
        self.meta_of: tuple[int, int] | None = None
        """The life and the version that `meta` belongs to."""

    @property
    def lacks_meta(self) -> bool:
        """Whether what it publishes now has not arrived yet; version 0 publishes nothing."""
        news = self.news
        return news.version > 0 and self.meta_of != (news.epoch, news.version)


class Roster:
    """Members by name, and their sums."""

    def __init__(self, me: News) -> None:
        self.me = me
        self.members: dict[str, Member] = {}
        """Everybody but this member; also who is down, and who has left."""
        self.lacking: dict[str, None] = {}
        """Whose metadata has not arrived yet."""
        self.buckets = [0] * BUCKETS
        self.root = 0
        """The sum over all buckets."""
        self.alive = 0
        """Others with status ALIVE."""
        self.present = 1
        """Members that are neither down nor gone, this one included: the n of all formulas."""
        self._add_sum(me.name, _sum(me))

    def set_me(self, news: News) -> None:
        """Take this member's own new word."""
        self._add_sum(news.name, _sum(news) - _sum(self.me))
        self.me = news

    def put(self, news: News, now: float) -> Member:
        """Let news take the place of what was known of its name."""
        member = self.members.get(news.name)
        if member is None:
            member = self.members[news.name] = Member(news, now)
            self._add_sum(news.name, _sum(news))
            self._count(news.status, 1)
        else:
            old = member.news
            if (change := _sum(news) - _sum(old)) != 0:
                self._add_sum(news.name, change)
            if old.status is not news.status:
                self._count(old.status, -1)
                self._count(news.status, 1)
                member.since = now
            if old.epoch != news.epoch:
                member.heard = False
            member.news, member.rank = news, order(news)
        self._note_lack(member)
        return member

    def fill(self, everybody: Iterable[News], now: float) -> None:
        """Take in many members that were not known, as they are."""
        for news in everybody:
            if news.name not in self.members and news.name != self.me.name:
                self.put(news, now)

    def set_meta(self, member: Member, meta: bytes) -> None:
        """Take what a member publishes in its present version."""
        member.meta, member.meta_of = meta, (member.news.epoch, member.news.version)
        self._note_lack(member)

    def remove(self, name: str) -> None:
        """Know nothing of a name any more."""
        news = self.members.pop(name).news
        self.lacking.pop(name, None)
        self._add_sum(name, -_sum(news))
        self._count(news.status, -1)

    @property
    def is_complete(self) -> bool:
        """Whether nobody is down or gone."""
        return self.present > len(self.members)

    def names_alive(self) -> list[str]:
        """Give the names of all others with status ALIVE."""
        return [n for n, member in self.members.items() if member.news.status is Status.ALIVE]

    def least_needed(self) -> str | None:
        """Give whom to forget first: a name that was only ever told, else who has been gone the longest."""
        able = [
            (member.heard, member.news.status < Status.DEAD, member.since, name)
            for name, member in self.members.items()
            if not member.heard or member.news.status >= Status.DEAD
        ]
        return min(able)[-1] if able else None

    def in_buckets(self, mask: int) -> Iterator[News]:
        """Give what is known of everybody in the buckets of a mask, this member included."""
        if not mask:  # two rosters that agree, as most do
            return
        if mask >> bucket_of(self.me.name) & 1:
            yield self.me
        for name, member in self.members.items():
            if mask >> bucket_of(name) & 1:
                yield member.news

    def _note_lack(self, member: Member) -> None:
        if member.lacks_meta and member.news.status is not Status.LEFT:
            self.lacking[member.news.name] = None
        else:
            self.lacking.pop(member.news.name, None)

    def _count(self, status: Status, by: int) -> None:
        if status is Status.ALIVE:
            self.alive += by
        if status < Status.DEAD:
            self.present += by

    def _add_sum(self, name: str, by: int) -> None:
        bucket = bucket_of(name)
        self.buckets[bucket] = (self.buckets[bucket] + by) % SUM_MODULUS
        self.root = (self.root + by) % SUM_MODULUS


@lru_cache(maxsize=16_384)
def bucket_of(name: str) -> int:
    """Give the bucket of a name."""
    return blake2b(name.encode(), digest_size=1).digest()[0] % BUCKETS


@lru_cache(maxsize=16_384)
def _sum(news: News) -> int:
    """Give the part of one member in the sums; the same in every process."""
    lasting = max(news.status, Status.SUSPECT)  # alive, restarting and suspect are one
    text = f"{news.epoch} {lasting:d} {news.version} {news.name}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
