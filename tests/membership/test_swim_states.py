"""State × input: whatever comes in, in whatever order, nothing raises and nothing goes back."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest
from bounds import limit, sizes
from hypothesis import given, settings
from hypothesis import strategies as st
from pair import address, datagram, news, swim

from coherd_membership import MemberChanged, News, NotPossible, Status, Swim, SwimConfig
from coherd_membership import _codec as codec
from coherd_membership._member import TRANSITIONS, order
from coherd_membership._messages import Kind, Meta
from coherd_membership._roster import Roster

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ["me", "a", "b", "c", "d"]
ADDRESSES = [*map(address, NAMES), "elsewhere:1"]
CONFIG = replace(SwimConfig(), epoch_max=5, incarnation_ahead_max=6, inquiries_max=2, members_max=8)
ROOM_FOR_TWO = replace(CONFIG, members_max=2)

ANY_NEWS = st.builds(
    News,
    name=st.sampled_from(NAMES),
    epoch=st.integers(1, 6),
    incarnation=st.integers(0, 7),
    status=st.sampled_from(Status),
    address=st.sampled_from(ADDRESSES),
    version=st.integers(0, 3),
    accusers=st.lists(st.sampled_from([*NAMES, "ghost"]), max_size=3, unique=True).map(tuple),
)
METAS = st.builds(
    Meta, st.sampled_from(NAMES), st.integers(1, 3), st.integers(0, 3), st.binary(max_size=8)
)


@st.composite
def messages(draw: Callable[..., object]) -> tuple[str, bytes, str]:
    """Any message, of any sender about anybody; a sequence of 0 stands for that of the probe under way."""
    content = b""
    kind = draw(st.sampled_from([*Kind, 200]))
    if kind == Kind.DIGEST and draw(st.booleans()):
        content = codec.section(
            codec.BUCKET_SUMS, codec.encode_buckets([draw(st.integers(0, 3))] * 64)
        )
    elif kind == Kind.ENTRIES:
        back = draw(st.booleans())
        content = codec.section(codec.MASK, codec.encode_mask(2**64 - 1, wants_back=back))
    elif kind == Kind.WANT_META:
        names = draw(st.lists(st.sampled_from(NAMES), max_size=4))
        content = codec.section(codec.NAMES, codec.encode_texts(names))
    elif kind == Kind.META:
        content = codec.section(codec.METADATA, codec.encode_meta(draw(METAS)))
    payload = datagram(
        kind,
        draw(ANY_NEWS),
        sequence=draw(st.integers(0, 3)),
        target=draw(st.sampled_from(["", *NAMES])),
        at=draw(st.sampled_from(["", *ADDRESSES])),
        told=draw(st.lists(ANY_NEWS, max_size=3)),
        content=content,
        root=draw(st.integers(0, 1)),
    )
    return "receive", payload, draw(st.sampled_from(ADDRESSES))


TIMES = st.tuples(st.sampled_from(["wait", "late"]), st.floats(0.0, 30.0))
VERBS = st.tuples(
    st.sampled_from(
        [
            "publish",
            "forget",
            "renew",
            "hurry",
            "unsent",
            "linked",
            "join",
            "seeds",
            "restart",
            "leave",
        ]
    ),
    st.sampled_from(NAMES),
)
STEPS = st.lists(st.one_of(messages(), messages(), TIMES, VERBS), max_size=40)


class Driven:
    """A core, its own time, and what must be true after every step."""

    def __init__(self, config: SwimConfig) -> None:
        self.core = swim(config=config)
        self.core.start(["seed:1"], 0.0)
        self.now = 0.0
        self.known: dict[str, Status | None] = {}

    def step(self, verb: str, *of: object) -> None:
        getattr(self, f"_{verb}")(*of)

    def _receive(self, payload: bytes, source: str) -> None:
        probe = self.core._prober._probe
        if probe is not None and payload[21:25] == bytes(4):
            payload = payload[:21] + probe.sequence.to_bytes(4, "big") + payload[25:]
        self.core.receive(payload, source, self.now)

    def _wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.core.next_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            self.core.handle_timer(self.now)
            assert (self.core.next_timer() or end + 1) > self.now, "it wants to be called for ever"
        self.now = end

    def _late(self, seconds: float) -> None:
        self.now += seconds
        self.core.handle_timer(self.now)

    def _publish(self, name: str) -> None:
        self.core.publish(name.encode())

    def _forget(self, name: str) -> None:
        try:
            self.core.forget(name, self.now)
        except NotPossible:
            member = self.core.members.get(name)
            assert member is None or member.news.status is not Status.DEAD

    def _renew(self, _name: str) -> None:
        if self.core.me.epoch < self.core.config.epoch_max:
            self.core.renew(self.core.me.epoch + 1)

    def _hurry(self, name: str) -> None:
        self.core.suspect_link(name, self.now)

    def _unsent(self, name: str) -> None:
        self.core.failed_to_send(address(name), self.now)

    def _linked(self, name: str) -> None:
        self.core.set_linked([name])

    def _join(self, name: str) -> None:
        self.core.join([address(name)], self.now)

    def _seeds(self, _name: str) -> None:
        self.core.note_late(self.now)

    def _restart(self, _name: str) -> None:
        self.core.restart()

    def _leave(self, _name: str) -> None:
        self.core.leave()

    def check_events(self) -> None:
        """Every change is one of the table, and begins where the last one ended."""
        for event in self.core.events():
            if isinstance(event, MemberChanged):
                name = event.news.name
                assert event.change is TRANSITIONS[event.before, event.news.status]
                if name in self.known and event.before is not None:
                    assert event.before is self.known[name]
                self.known[name] = event.news.status

    def check_roster(self) -> None:
        """Sums and counts are those of the members."""
        core, roster = self.core, self.core._roster
        fresh = Roster(core.me)
        for member in core.members.values():
            fresh.put(member.news, 0.0)
        assert (fresh.root, fresh.buckets) == (roster.root, roster.buckets)
        assert (fresh.alive, fresh.present) == (roster.alive, roster.present)
        assert core.me.name not in core.members
        assert set(roster.lacking) <= set(core.members)
        assert len(core.members) <= core.config.members_max
        for name, member in core.members.items():
            assert name == member.news.name
            suspected = ("suspicion", name) in core._timers
            assert suspected == (member.news.status is Status.SUSPECT) or core._has_stopped
        assert core.next_timer() is None or not core._has_stopped

    def check_sent(self) -> None:
        """Whatever goes out can be read, and speaks for this member."""
        for each in self.core.datagrams():
            message = codec.decode(each.payload)
            assert message.sender.name == "me"
            assert each.destination


@settings(max_examples=150)
@given(STEPS)
def test_nothing_raises_and_no_news_goes_back(steps: list[tuple[str, ...]]) -> None:
    driven = Driven(CONFIG)
    for step in steps:
        core = driven.core
        mine, ranks = order(core.me), {name: order(it.news) for name, it in core.members.items()}
        driven.step(*step)
        assert order(core.me) >= mine
        for name, rank in ranks.items():
            assert order(core.members[name].news) >= rank
        driven.check_events()
        driven.check_roster()
        driven.check_sent()


@settings(max_examples=80)
@given(STEPS)
def test_nothing_raises_where_members_make_room_for_others(steps: list[tuple[str, ...]]) -> None:
    driven = Driven(ROOM_FOR_TWO)
    for step in steps:
        driven.step(*step)
        driven.core.events()
        driven.check_roster()
        driven.check_sent()


def anything(random: Random, count: int) -> bytes:
    """Any message out of many names, for a long run."""

    def some() -> News:
        name = f"m{random.randrange(count)}"
        return news(
            name, random.choice(list(Status)), random.randrange(8), epoch=random.randrange(1, 6),
            version=random.randrange(3), accusers=(f"m{random.randrange(count)}",),
            address=random.choice([address(name), address(name), "elsewhere:1"]),
        )  # fmt: skip

    word = some()._replace(status=random.choice([Status.ALIVE, Status.ALIVE, Status.RESTARTING]))
    return datagram(
        random.choice(list(Kind)), word, sequence=random.randrange(2**32), at="elsewhere:1",
        target=random.choice(["me", f"m{random.randrange(count)}"]),
        told=[some() for _ in range(random.randrange(6))], root=random.randrange(2),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_a_long_flood_of_anything_fills_no_container(seed: int) -> None:
    random = Random(seed)
    core = swim(
        config=replace(CONFIG, members_max=50, inquiries_max=20, incarnation_ahead_max=2**16)
    )
    core.start(["seed:1"], 0.0)
    now = 0.0
    for step in range(4_000):
        core.receive(anything(random, 200), f"s{step}:1", now)
        if step % 20 == 0:
            now += random.random() * 2
            core.handle_timer(now)
        core.datagrams()
        core.events()
        if step % 500 == 499:
            held = sizes(core)
            assert max(held.values()) <= limit(core), held
    assert len(core.members) == 50


def test_own_word_goes_on_in_every_life() -> None:
    core: Swim = swim(meta=b"x")
    words = [core.me]
    for change in (
        lambda: core.publish(b"y"),
        lambda: core.renew(2),
        lambda: core.publish(b"z"),
        core.restart,
        lambda: core.renew(3),
        core.leave,
    ):
        change()
        words.append(core.me)
    assert [order(word) for word in words] == sorted(map(order, words))
    assert len(set(words)) == len(words)
