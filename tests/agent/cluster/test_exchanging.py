"""Datagrams travel over an open link where there is one, and each answer shows the other's clock."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from coherd.clock import ManualClock
from coherd.cluster.exchanging import EXCHANGES_MAX, OFFSET_AFTER, Exchanging
from coherd.cluster.roster import Roster
from coherd.errors import RpcFailed
from coherd.model import Origin
from coherd.net.peer import ExchangeReply, MemberInfo
from coherd_membership import Datagram

ME = MemberInfo("me", 5, "me:1", "r")


class ToyPeer:
    """Somebody at an address, whose clock is ahead, and who takes a while."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.responder = Origin("b", 1)
        self.ahead = self.there = self.back = 0.0
        self.failure: RpcFailed | None = None
        self.got: list[Sequence[bytes]] = []
        self.closed = 0

    async def exchange(
        self, _me: MemberInfo, datagrams: Sequence[bytes], _timeout: float
    ) -> ExchangeReply:
        await trio.lowlevel.checkpoint()
        self.got.append(datagrams)
        if self.failure:
            raise self.failure
        self.clock.time += self.there
        theirs = self.clock.wall_us() + int(self.ahead * 1e6)
        self.clock.time += self.back
        return ExchangeReply(self.responder, [b"answer"], theirs)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed += 1


class ToyLinking:
    def __init__(self) -> None:
        self.peers: dict[str, ToyPeer] = {}

    def at(self, address: str) -> ToyPeer | None:
        return self.peers.get(address)


class Parts:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.clock = ManualClock(100.0)
        self.linking = ToyLinking()
        self.peer = ToyPeer(self.clock)
        self.dialled: list[str] = []
        roster = Roster(ME, {}, self.clock.now, lambda *_: True)
        self.exchanging = Exchanging(roster, self.linking, self.dial, self.clock, nursery)  # type: ignore[arg-type]

    def dial(self, address: str) -> ToyPeer:
        self.dialled.append(address)
        return self.peer


async def test_the_offset_of_a_clock_is_an_interval_that_holds_it(nursery: trio.Nursery) -> None:
    parts = Parts(nursery)
    peer, exchanging = parts.peer, parts.exchanging
    for ahead, there, back in ((0.5, 0.01, 0.03), (-2.0, 0.2, 0.0), (0.0, 0.0, 0.1)):
        exchanging.offsets.clear()
        peer.ahead, peer.there, peer.back = ahead, there, back
        await exchanging.ask("b:1", [], 1.0)
        found = exchanging.offsets["b"]
        assert found.least <= ahead * 1e6 + 1
        assert found.most >= ahead * 1e6 - 1
        assert abs(found.most - found.least - (there + back) * 1e6) <= 2


async def test_the_more_exact_look_stands_until_it_is_old(nursery: trio.Nursery) -> None:
    parts = Parts(nursery)
    peer, exchanging, clock = parts.peer, parts.exchanging, parts.clock
    widths = []
    for trip, later in ((0.02, 0.0), (0.5, 1.0), (0.01, 1.0), (0.3, OFFSET_AFTER + 1)):
        clock.time += later
        peer.back = trip
        await exchanging.ask("b:1", [], 1.0)
        found = exchanging.offsets["b"]
        widths.append(round((found.most - found.least) / 1e6, 2))
    assert widths == [0.02, 0.02, 0.01, 0.3]


async def test_an_open_link_is_used_and_else_a_connection_that_is_closed(
    nursery: trio.Nursery,
) -> None:
    parts = Parts(nursery)
    await parts.exchanging.ask("b:1", [b"one"], 1.0)
    assert (parts.dialled, parts.peer.closed) == (["b:1"], 1)
    parts.linking.peers["b:1"] = linked = ToyPeer(parts.clock)
    await parts.exchanging.ask("b:1", [b"two"], 1.0)
    assert (parts.dialled, linked.got, linked.closed) == (["b:1"], [[b"two"]], 0)


async def test_this_agent_at_one_of_its_seeds_is_known_to_be_itself(nursery: trio.Nursery) -> None:
    parts = Parts(nursery)
    parts.peer.responder = Origin("me", 5)
    await parts.exchanging.ask("alias:1", [], 1.0)
    assert parts.exchanging.own_addresses == {"alias:1"}
    assert not parts.exchanging.offsets


async def test_only_who_cannot_be_reached_is_a_failure(nursery: trio.Nursery) -> None:
    parts = Parts(nursery)
    failed: list[str] = []
    answered: list[tuple[str, Sequence[bytes]]] = []
    parts.exchanging.on_failure = failed.append
    parts.exchanging.on_answer = lambda address, reply: answered.append((address, reply.datagrams))
    codes = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "FAILED_PRECONDITION")
    for failure in (*(RpcFailed(code, "why") for code in codes), None):
        parts.peer.failure = failure
        parts.exchanging.send([Datagram("b:1", b"x"), Datagram("b:1", b"y")], 1.0)
        await trio.testing.wait_all_tasks_blocked()
    assert failed == ["b:1", "b:1"], "a late answer may still be one"
    assert parts.peer.got == [[b"x", b"y"]] * 4, "what goes to one address goes together"
    assert answered == [("b:1", [b"answer"])]


async def test_more_than_can_be_under_way_is_dropped_and_counted(nursery: trio.Nursery) -> None:
    parts = Parts(nursery)
    datagrams = [Datagram(f"host-{n}:1", b"x") for n in range(EXCHANGES_MAX + 7)]
    parts.exchanging.send(datagrams, 1.0)
    assert parts.exchanging.dropped == 7
    await trio.testing.wait_all_tasks_blocked()
    parts.exchanging.send(datagrams[:5], 1.0)
    assert parts.exchanging.dropped == 7
