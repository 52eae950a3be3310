"""What a liar says about membership: dropped and counted, the view stays, nobody is dialled for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any, NamedTuple

import pytest
import structlog
from doors import Doors, doors, exchange, told, word
from others import Others
from structlog.testing import capture_logs

from coherd.limits import DATAGRAMS_MAX, MEMBERS_MAX
from coherd.net.peer import MemberInfo
from coherd_membership import News, Status
from coherd_membership import _codec as codec
from coherd_membership._messages import Kind, Meta

ME, B, C, LIAR = (f"10.0.0.{n}:4373" for n in (1, 2, 3, 66))
HIGHEST = 2**32 - 1
YEAR_2200 = 7_258_118_400_000
SAYS = MemberInfo("liar", 1, LIAR, "test")
"""Who asks for the Exchange in which the lies come."""
ELSEWHERE = "10.0.0.77:4373"
NOWHERE = [
    "0.0.0.0:4373", "[::]:4373", "127.0.0.1:4373", "localhost:4373", "[::ffff:127.0.0.1]:4373",
    "10.0.0.9:0", "10.0.0.9:65536", "10.0.0.9", "224.0.0.1:4373", "[ff02::1]:4373",
    "169.254.1.1:4373", "[fe80::1%eth0]:4373", "unix:/tmp/socket", "http://10.0.0.9:1", "a b:1", "\x1b[31m:1",
]  # fmt: skip


class Scene(NamedTuple):
    """An agent that is reached at no loopback address, and two honest members beside a liar."""

    doors: Doors
    others: Others

    @property
    def me(self) -> News:
        swim = self.doors.agent.membership.swim
        assert swim is not None
        return swim.me

    def view(self) -> dict[str, Any]:
        """How everybody but the liar is seen, the agent itself included."""
        swim, roster = self.doors.agent.membership.swim, self.doors.agent.roster
        assert swim is not None
        assert swim.members.keys() == roster.members.keys()
        seen = {n: (m.news, roster.members[n].state) for n, m in swim.members.items()}
        seen.pop("liar", None)
        return {**seen, "me": swim.me._replace(incarnation=0), "life": self.doors.agent.ingest.life}

    def count(self, reason: str) -> int:
        return self.doors.agent.membership.dropped[reason]

    async def say(self, *datagrams: bytes, sender: MemberInfo = SAYS) -> Any:
        return await self.doors.ask("Exchange", exchange(sender, *datagrams))


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """Afterwards the agent works as before, has logged no traceback and has dialled only who is there."""
    others = Others(b=B, c=C, liar=LIAR)
    with capture_logs() as lines:
        async with doors(ME, others) as agent:
            found = Scene(agent, others)
            agent.agent.membership.join([B, C, LIAR])
            await agent.eventually(lambda: agent.agent.roster.members.keys() == {"b", "c", "liar"})
            before = found.view()
            yield found
            assert (await agent.invalidate(keys=[b"a"])).cursor
            assert found.view() == before
    assert set(others.dialled) <= {B, C, LIAR, ELSEWHERE}
    assert not [line for line in lines if "exc_info" in line or line["log_level"] == "critical"]


Lie = Callable[[Scene], bytes]


def about(name: str, **fields: Any) -> Lie:
    """The liar tells of another."""

    def lie(at: Scene) -> bytes:
        news = at.me if name == "a" else word(SAYS, name=name, address=ELSEWHERE)
        if name in {"b", "c"}:
            news = at.others.news(name)
        if fields.pop("later", False):
            fields["epoch"] = news.epoch + 1
        return told(at.others.news("liar"), news._replace(**fields))

    return lie


def with_metadata(version: int, data: bytes) -> Lie:
    """The liar publishes something."""

    def lie(at: Scene) -> bytes:
        me = at.others.news("liar")._replace(incarnation=5, version=version)
        meta = codec.section(codec.METADATA, codec.encode_meta(Meta("liar", 1, version, data)))
        return told(me, kind=Kind.META) + meta

    return lie


def spoken(protocol: int) -> Lie:
    """Another version of the protocol."""
    return lambda at: codec.MAGIC + bytes([protocol, protocol]) + told(at.others.news("liar"))[4:]


def plain(make: Callable[[News], bytes]) -> Lie:
    return lambda at: make(at.others.news("liar"))


def claiming(kind: int) -> Lie:
    """News that claim more than there is, in a full exchange."""
    return plain(lambda me: told(me, kind=Kind.ENTRIES) + bytes([kind]) + b"\xff\xff" + bytes(40))


SIGNED = {"status": Status.SUSPECT, "incarnation": 2, "accusers": ("liar",)}
LIES: dict[str, tuple[str, Lie]] = {
    "the highest incarnation of me": ("poison", about("a", incarnation=HIGHEST)),
    "the highest incarnation of me, suspect": (
        "poison",
        about("a", incarnation=HIGHEST, status=Status.SUSPECT),
    ),
    "the highest incarnation of another": ("poison", about("b", incarnation=HIGHEST)),
    "the highest incarnation of another, dead": (
        "poison",
        about("b", incarnation=HIGHEST, status=Status.DEAD, accusers=("b", "c")),
    ),
    "year 2200 of me": ("poison", about("a", epoch=YEAR_2200)),
    "year 2200 of another": ("poison", about("b", epoch=YEAR_2200)),
    "year 2200 of a stranger": ("poison", about("x", epoch=YEAR_2200)),
    "a leave of another": ("forged_leaves", about("b", status=Status.LEFT)),
    "a leave of me": ("forged_leaves", about("a", status=Status.LEFT)),
    "my name elsewhere": ("names_taken", about("a", address=ELSEWHERE, later=True)),
    "itself suspect": (
        "poison",
        lambda at: told(w := at.others.news("liar"), w._replace(**SIGNED)),
    ),
    "itself dead": (
        "poison",
        plain(lambda me: told(me, me._replace(status=Status.DEAD, accusers=("b", "c")))),
    ),
    "dead by its own word": ("poison", plain(lambda me: told(me._replace(status=Status.DEAD)))),
    "suspect by its own word": (
        "poison",
        plain(lambda me: told(me._replace(status=Status.SUSPECT))),
    ),
    "my address": ("own_address", about("x", address=ME)),
    "my address of another": ("own_address", about("b", address=ME, later=True)),
    "its own at mine": ("own_address", plain(lambda me: told(me._replace(address=ME, epoch=2)))),
    "a long name": ("nowhere", about("x" * 129)),
    "a name with a newline": ("nowhere", about("x\n")),
    "a long host name": ("nowhere", about("x", address="h" * 250 + ":4373")),
    "metadata over the limit": ("metadata", with_metadata(5, bytes(4_097))),
    "metadata that is no protobuf": ("unreadable", with_metadata(6, b"\xff" * 9)),
    "metadata of an illegal region": ("unreadable", with_metadata(7, b"\x22\x01 ")),
    "a roster of 2^31 members": ("malformed", claiming(codec.NEWS)),
    "255 accusers": (
        "malformed",
        plain(
            lambda me: (
                told(me, kind=Kind.ENTRIES)
                + codec.section(codec.NEWS, b"\0\xff" + codec.encode_news(me)[2:])
            )
        ),
    ),
    "an answer to nothing": ("unexpected", plain(lambda me: told(me, kind=Kind.ACK))),
    "a refusal of nothing": ("unexpected", plain(lambda me: told(me, kind=Kind.NACK))),
    "a wrong target of nothing": ("unexpected", plain(lambda me: told(me, kind=Kind.WRONG_TARGET))),
    "another cluster": ("foreign", plain(lambda me: told(me, cluster="other"))),
    "protocol 0": ("incompatible", spoken(0)),
    "protocol 255": ("incompatible", spoken(255)),
    "in the name of another": ("misnamed", lambda at: told(at.others.news("b"))),
    "in the name of a stranger": (
        "misnamed",
        lambda at: told(word(name="x", address=ELSEWHERE)),
    ),
    "nothing": ("malformed", lambda at: b""),
    **{f"at {each}": ("nowhere", about("x", address=each)) for each in NOWHERE},
}


@pytest.mark.bad_input(35, 36, 37, 38, 39, 40, 41, 42, 44, 45)
async def test_what_a_liar_says_is_counted_and_changes_nothing() -> None:
    async with scene() as at:
        view = at.view()
        for what, (reason, lie) in LIES.items():
            before = at.count(reason)
            await at.say(lie(at))
            await at.doors.eventually(lambda r=reason, n=before: at.count(r) > n)
            assert at.view() == view, what


@pytest.mark.bad_input(38, 39)
async def test_who_is_nowhere_is_refused() -> None:
    async with scene() as at:
        at.others.dialled.clear()
        for address in (*NOWHERE, ME, "", "h" * 300 + ":1", "h" * 300):
            sender = replace(SAYS, address=address)
            request = exchange(sender, told(at.others.news("liar")))
            said = await at.doors.refused("Exchange", request)
            assert "no other agent can be there" in said
        assert set(at.others.dialled) <= {B, C, LIAR}


@pytest.mark.bad_input(43)
async def test_an_old_frame_that_comes_again_changes_nothing() -> None:
    async with scene() as at:
        b = at.others.news("b")
        sender = MemberInfo("b", 1, B, "test")
        for kind in Kind:
            for old in (b, b._replace(epoch=0), b._replace(incarnation=0)):
                await at.say(told(old, kind=kind), sender=sender)


@pytest.mark.bad_input(44)
async def test_an_exchange_of_another_cluster_is_refused() -> None:
    async with scene() as at:
        request = exchange(SAYS, told(at.others.news("liar")), cluster="other")
        said = await at.doors.refused("Exchange", request, "FAILED_PRECONDITION", counted=False)
        assert "not 'other'" in said


@pytest.mark.bad_input(46)
async def test_a_second_agent_of_my_name_is_told_who_has_it() -> None:
    async with scene() as at:
        twin = word(name="a", epoch=at.me.epoch + 1, address=ELSEWHERE)
        sender = MemberInfo("a", twin.epoch, ELSEWHERE, "test")
        reply = await at.say(told(twin, kind=Kind.DIGEST), sender=sender)
        (answer,) = map(codec.decode, reply.datagrams)
        assert (answer.kind, answer.target, answer.address) == (Kind.TAKEN, "a", ME)
        assert at.count("names_taken") == 1


@pytest.mark.bad_input(46)
async def test_a_second_agent_of_another_ones_name_does_not_move_it() -> None:
    async with scene() as at:
        twin = at.others.news("b")._replace(address=ELSEWHERE, epoch=2)
        await at.say(told(twin), sender=MemberInfo("b", 2, ELSEWHERE, "test"))
        await at.doors.eventually(lambda: at.count("names_taken") == 1)


@pytest.mark.bad_input(41)
async def test_too_many_datagrams_in_one_exchange_are_refused() -> None:
    async with scene() as at:
        datagrams = [told(at.others.news("liar"))] * (DATAGRAMS_MAX + 1)
        await at.doors.refused("Exchange", exchange(SAYS, *datagrams))


@pytest.mark.bad_input(21, 23)
async def test_truncated_and_random_bytes_about_membership() -> None:
    async with scene() as at:
        random = Random(5)
        whole = told(at.others.news("liar"), at.others.news("b"), kind=Kind.ENTRIES)
        await at.say(*(whole[:end] for end in range(len(whole))))
        await at.say(*(random.randbytes(random.randrange(2_000)) for _ in range(300)))
        assert at.count("malformed") > 300


def made_up(count: int, start: int = 0) -> list[News]:
    return [
        word(
            name=f"ghost-{n}",
            epoch=1,
            address=f"10.{1 + n // 2**16}.{n // 256 % 256}.{n % 256}:4373",
        )
        for n in range(start, start + count)
    ]


@pytest.mark.bad_input(41)
async def test_a_hundred_thousand_invented_members_are_bounded_and_evict_nobody() -> None:
    others = Others(b=B, c=C, liar=LIAR)
    async with doors(ME, others) as found:
        agent = found.agent
        agent.membership.join([B, C, LIAR])
        await found.eventually(lambda: agent.roster.members.keys() == {"b", "c", "liar"})
        for start in range(0, 100_000, 20_000):
            datagrams = [
                told(others.news("liar"), *made_up(1_000, first))
                for first in range(start, start + 20_000, 1_000)
            ]
            await found.ask("Exchange", exchange(SAYS, *datagrams), timeout=60.0)
        swim, roster = agent.membership.swim, agent.roster
        assert swim is not None
        assert agent.membership.dropped["members"] >= 90_000
        assert len(swim.members) == MEMBERS_MAX == len(roster.members)
        assert len(agent.linking._scopes) <= 3
        newcomer = MemberInfo("newcomer", 1, "10.0.0.4:4373", "test")
        await found.ask("Exchange", exchange(newcomer, told(word(newcomer))))
        assert {"b", "c", "liar", "newcomer"} <= roster.members.keys()
        assert roster.members.keys() == swim.members.keys()
        assert len(roster.members) == MEMBERS_MAX
        await found.eventually(lambda: not roster._unsaved)
        assert len(agent.journal._state.members) <= MEMBERS_MAX  # type: ignore[attr-defined]
        assert len(agent.exchanging.offsets) <= 4


async def test_who_had_to_make_room_at_once_is_no_surprise() -> None:
    """A name that comes and has to go again within one Exchange."""
    others = Others(b=B, liar=LIAR)
    async with doors(ME, others) as found:
        membership = found.agent.membership
        swim = membership.swim
        assert swim is not None
        now = found.agent.clock.now()
        liar = others.news("liar")
        for start in range(0, MEMBERS_MAX, 1_000):
            swim.receive(told(liar, *made_up(1_000, start)), LIAR, now)
        swim.receive(told(others.news("b")), B, now)  # takes the place of one of them
        membership.pump(swim)
        assert found.agent.roster.members.keys() == swim.members.keys()
        assert (await found.invalidate(keys=[b"a"])).cursor


async def test_few_questions_do_not_bring_more_answers_than_memory_holds() -> None:
    others = Others(liar=LIAR)
    async with doors(ME, others) as found:
        liar = others.news("liar")
        for start in range(0, 10_000, 5_000):
            lies = [told(liar, *made_up(1_000, n)) for n in range(start, start + 5_000, 1_000)]
            await found.ask("Exchange", exchange(SAYS, *lies), timeout=60.0)
        digest = told(liar, kind=Kind.DIGEST) + codec.section(
            codec.BUCKET_SUMS, codec.encode_buckets(range(64))
        )
        crowded = found.agent.membership.dropped["crowded"]
        reply = await found.ask("Exchange", exchange(SAYS, *[digest] * 500), timeout=60.0)
        assert reply.ByteSize() < 4 * 1024 * 1024
        assert found.agent.membership.dropped["crowded"] >= crowded + 400


async def test_what_is_not_believed_is_logged_the_1st_2nd_4th_time() -> None:
    async with scene() as at:
        logger = structlog.get_logger("coherd.membership")
        assert logger is not None
        with capture_logs() as lines:
            lie = about("x", address="0.0.0.0:1")(at)
            await at.say(*[lie] * 64)
        times = [line["times"] for line in lines if line.get("reason") == "nowhere"]
        assert times == [1, 2, 4, 8, 16, 32, 64]


async def test_a_name_alone_in_an_exchange_makes_nobody_dial_its_bearer() -> None:
    others = Others(liar=LIAR)
    async with doors(ME, others) as found:
        agent = found.agent
        ghost = word(name="ghost", epoch=1, address=ELSEWHERE)
        await found.ask("Exchange", exchange(SAYS, told(others.news("liar"), ghost)))
        assert "ghost" in agent.roster.members
        await found.ask("Exchange", exchange(MemberInfo("ghost", 1, ELSEWHERE, "test")))
        assert "ghost" not in agent.linking._scopes
        await found.eventually(lambda: "liar" in agent.linking._scopes)
