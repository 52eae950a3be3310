"""Exchanges go over an open link or a connection of their own, and look at the other's clock on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from coherd.clock import ManualClock
from coherd.cluster import exchanging
from coherd.cluster.exchanging import EXCHANGES_MAX, OFFSET_AFTER, WALL_US_MAX, Exchanging
from coherd.cluster.roster import Roster
from coherd.errors import RpcFailed
from coherd.model import Origin
from coherd.net.peer import ExchangeReply, MemberInfo, Misnamed
from coherd_membership import Datagram, News, Status

ME = MemberInfo("me", 5, "me:1", "r")
SECOND = 1_000_000


class TwoClocks(ManualClock):
    """Running time and wall clock, each moved by itself."""

    wall = 1_790_000_000 * SECOND

    def wall_us(self) -> int:
        return self.wall


class Door:
    """A peer whose answers are the test's."""

    def __init__(self, answer: Callable[[], ExchangeReply], name: str | None = None) -> None:
        self.answer = answer
        self.name = name
        self.asked: list[Sequence[bytes]] = []
        self.is_closed = False

    async def exchange(
        self, _me: MemberInfo, datagrams: Sequence[bytes], _timeout: float
    ) -> ExchangeReply:
        await trio.lowlevel.checkpoint()
        self.asked.append(datagrams)
        reply = self.answer()
        if self.name not in {None, reply.responder.name}:
            raise Misnamed("INTERNAL", f"it is not {self.name}")
        return reply

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.is_closed = True


class World:
    """An Exchanging, what it dials and where it is linked."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.clock = TwoClocks()
        self.roster = Roster(ME, {}, self.clock.now, lambda _name, _data: True)
        self.roster.take(News("b", 7, 1, Status.ALIVE, "b:1"))
        self.linked: dict[str, Door] = {}
        self.dialled: list[Door] = []
        self.answer: Callable[[], ExchangeReply] = lambda: self.reply(0)
        self.exchanging = Exchanging(self.roster, self, self.dial, self.clock, nursery)  # type: ignore[arg-type]

    def at(self, address: str) -> Door | None:
        return self.linked.get(address)

    def dial(self, _address: str, name: str | None) -> Door:
        self.dialled.append(Door(self.answer, name))
        return self.dialled[-1]  # type: ignore[return-value]

    def reply(self, wall_us: int, name: str = "b", epoch: int = 7) -> ExchangeReply:
        return ExchangeReply(Origin(name, epoch), [], wall_us)

    async def look(
        self, *, ahead: int, there: int = 0, back: int = 0, name: str = "b", at: str = "b:1"
    ) -> None:
        """Ask an agent whose clock is `ahead`, over a network that takes so long; all microseconds."""

        def answer() -> ExchangeReply:
            self.clock.wall += there
            reply = self.reply(self.clock.wall + ahead, name)
            self.clock.wall += back
            self.clock.time += (there + back) / SECOND
            return reply

        self.answer = answer
        await self.exchanging.ask(at, [], 1.0)

    @property
    def names(self) -> list[str | None]:
        """By which names was dialled since this was last looked at."""
        names = [door.name for door in self.dialled]
        self.dialled.clear()
        return names

    def offset(self, name: str = "b") -> tuple[int, int]:
        found = self.exchanging.offsets[name]
        return found.least, found.most


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    return World(nursery)


@pytest.mark.parametrize("ahead", [0, 250, -3 * SECOND, 90 * SECOND])
@pytest.mark.parametrize(("there", "back"), [(100, 300), (0, 400), (400, 0), (0, 0)])
async def test_the_interval_holds_the_offset_and_is_as_wide_as_the_round_trip(
    world: World, ahead: int, there: int, back: int
) -> None:
    await world.look(ahead=ahead, there=there, back=back)
    least, most = world.offset()
    assert (least, most) == (ahead - back, ahead + there)


async def test_the_most_exact_look_stays_until_it_is_old(world: World) -> None:
    await world.look(ahead=50, there=100, back=100)
    await world.look(ahead=60, there=500, back=500)
    assert world.offset() == (-50, 150)
    await world.look(ahead=60, there=50, back=50)
    assert world.offset() == (10, 110)
    await world.look(ahead=70, there=50, back=50)
    assert world.offset() == (20, 120), "of two as exact the later"
    world.clock.time += OFFSET_AFTER
    await world.look(ahead=80, there=500, back=500)
    assert world.offset() == (-420, 580), "clocks drift"


async def test_a_look_during_which_the_own_clock_is_set_back_tells_nothing(world: World) -> None:
    await world.look(ahead=0, there=100, back=-3 * SECOND)
    assert not world.exchanging.offsets
    await world.look(ahead=0, there=100, back=100)
    await world.look(ahead=0, there=-3 * SECOND, back=100)
    assert world.offset() == (-100, 100)


@pytest.mark.parametrize("wall_us", [0, WALL_US_MAX + 1, 2**64 - 1])
async def test_a_clock_that_is_none_is_not_believed(world: World, wall_us: int) -> None:
    world.answer = lambda: world.reply(wall_us)
    await world.exchanging.ask("b:1", [], 1.0)
    assert not world.exchanging.offsets
    world.answer = lambda: world.reply(WALL_US_MAX)
    await world.exchanging.ask("b:1", [], 1.0)
    assert -(2**63) < world.offset()[0] <= world.offset()[1] < 2**63, "what the wire can say"


async def test_only_clocks_of_members_are_remembered(world: World) -> None:
    await world.look(ahead=0, name="stranger", at="x:1")
    assert not world.exchanging.offsets
    await world.look(ahead=0)
    world.roster.take(News("b", 7, 1, Status.LEFT, "b:1"))
    world.roster.take(News("c", 1, 1, Status.ALIVE, "c:1"))
    await world.look(ahead=0, name="c", at="c:1")
    assert set(world.exchanging.offsets) == {"c"}


async def test_where_the_agent_itself_answers_is_known_and_is_no_clock(world: World) -> None:
    world.answer = lambda: world.reply(world.clock.wall, "me", 5)
    await world.exchanging.ask("seed:1", [], 1.0)
    world.answer = lambda: world.reply(world.clock.wall, "me", 6)
    await world.exchanging.ask("other:1", [], 1.0)
    assert world.exchanging.own_addresses == {"seed:1"}, "another life of the name is another agent"
    assert not world.exchanging.offsets


async def test_an_open_link_is_used_and_stays_open_while_a_dialled_door_is_closed(
    world: World,
) -> None:
    link = world.linked["b:1"] = Door(lambda: world.reply(0))
    await world.exchanging.ask("b:1", [b"x"], 1.0)
    assert (link.asked, link.is_closed, world.dialled) == ([[b"x"]], False, [])
    await world.exchanging.ask("c:1", [b"y"], 1.0)
    assert [(door.name, door.asked) for door in world.dialled] == [(None, [()]), ("b", [[b"y"]])]
    assert all(door.is_closed for door in world.dialled)


async def test_a_member_that_is_known_is_dialled_by_its_name(world: World) -> None:
    await world.exchanging.ask("b:1", [b"x"], 1.0)
    assert [(door.name, door.asked) for door in world.dialled] == [("b", [[b"x"]])]


async def test_of_several_that_were_at_an_address_the_one_that_lives_is_dialled(
    world: World,
) -> None:
    world.roster.take(News("older", 6, 1, Status.ALIVE, "b:1"))
    world.roster.take(News("gone", 9, 1, Status.DEAD, "b:1"))
    await world.exchanging.ask("b:1", [b"x"], 1.0)
    assert world.names == ["b"]


async def test_who_is_at_a_seed_is_asked_once_and_told_nothing_before_that(world: World) -> None:
    for names in ([None, "s"], ["s"]):
        world.answer = lambda: world.reply(0, "s")
        reply = await world.exchanging.ask("seed:1", [b"x"], 1.0)
        assert reply.responder.name == "s"
        assert [(d.name, d.asked) for d in world.dialled] == [
            (name, [[b"x"] if name else ()]) for name in names
        ]
        world.dialled.clear()


@pytest.mark.parametrize("shows", ["another name", "another certificate"])
async def test_who_took_over_the_address_of_another_is_found(world: World, shows: str) -> None:
    """With TLS a connection to another than was dialled fails, without the answer tells."""

    def answer() -> ExchangeReply:
        if shows == "another certificate" and world.dialled[-1].name == "b":
            raise RpcFailed("UNAVAILABLE", "Socket closed")
        return world.reply(0, "new")

    world.answer = answer
    assert (await world.exchanging.ask("b:1", [b"x"], 1.0)).responder.name == "new"
    assert world.names == ["b", None, "new"]
    await world.exchanging.ask("b:1", [b"x"], 1.0)
    assert world.names == ["new"], "it is remembered"


async def test_who_is_dialled_by_its_name_speaks_for_nobody_else(world: World) -> None:
    """It says so also when it is asked who it is: TLS finds that its certificate is another."""

    def answer() -> ExchangeReply:
        if world.dialled[-1].name == "c":
            raise RpcFailed("UNAVAILABLE", "Socket closed")
        return world.reply(SECOND, "c")

    world.answer = answer
    world.roster.take(News("c", 7, 1, Status.ALIVE, "c:1"))
    for _ in range(3):
        with pytest.raises(RpcFailed):
            await world.exchanging.ask("b:1", [b"x"], 1.0)
        assert world.names[-2:] == [None, "c"]
    assert not world.exchanging.offsets


async def test_at_an_address_where_nobody_is_one_question_is_enough(world: World) -> None:
    def answer() -> ExchangeReply:
        raise RpcFailed("UNAVAILABLE", "nobody is there")

    world.answer = answer
    for names in (["b", None], [None], [None]):
        with pytest.raises(RpcFailed):
            await world.exchanging.ask("b:1", [b"x"], 1.0)
        assert world.names == names


async def test_what_is_remembered_of_addresses_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanging, "MEMBERS_MAX", 3)
    for n in range(10):
        await world.exchanging.ask(f"seed:{n}", [], 1.0)
        assert len(world.exchanging._names) <= 3


async def test_datagrams_to_one_address_go_together_and_too_many_are_dropped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanging, "EXCHANGES_MAX", 2)
    assert EXCHANGES_MAX > 2
    sent = [Datagram(to, payload) for to, payload in (("b:1", b"1"), ("c:1", b"2"), ("b:1", b"3"))]
    world.exchanging.send([*sent, Datagram("d:1", b"4"), Datagram("d:1", b"5")], 1.0)
    await wait_all_tasks_blocked()
    told = [door.asked for door in world.dialled if door.name]
    assert sorted(told) == [[[b"1", b"3"]], [[b"2"]]]
    assert world.exchanging.dropped == 2
    world.exchanging.send([Datagram("d:1", b"6")], 1.0)
    await wait_all_tasks_blocked()
    assert world.dialled[-1].asked == [[b"6"]], "there is room again"


@pytest.mark.parametrize(
    ("code", "failed"),
    [("UNAVAILABLE", ["b:1"]), ("FAILED_PRECONDITION", ["b:1"]), ("DEADLINE_EXCEEDED", [])],
)
async def test_where_nobody_can_be_reached_is_told_and_silence_is_not(
    world: World, code: str, failed: list[str]
) -> None:
    told: list[str] = []
    world.exchanging.on_failure = told.append

    def answer() -> ExchangeReply:
        raise RpcFailed(code, "why")

    world.answer = answer
    world.exchanging.send([Datagram("b:1", b"x")], 1.0)
    await wait_all_tasks_blocked()
    assert told == failed
    assert world.dialled[0].is_closed
