"""Members that leave, are forgotten or restart, and the receipts that wait for them, in virtual time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from simulation.hosts import NAMESPACE, Host, hosts, is_whole, until, wait
from trio.testing import MockClock

from coherd.cluster.invalidating import Outcome
from coherd.cluster.link import Link
from coherd.cluster.roster import State
from coherd.errors import RpcFailed
from coherd.model import Origin
from coherd.net.peer import LinkReply
from coherd.v1 import cache_service_pb2 as cache
from coherd_membership import News, Status


def knows(host: Host) -> set[str]:
    """Whom it knows beside itself."""
    return set(host.agent.roster.members)


def state(host: Host, name: str) -> State:
    return host.agent.roster.members[name].state


async def until_dead(host: Host, name: str) -> None:
    await until(lambda: state(host, name) is State.DEAD)


async def test_a_dead_host_that_is_forgotten_is_required_no_more_by_anybody(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, two, three):
        three.crash()
        outcome = await one.invalidate([b"a"], wait=cache.WAIT_REGION)
        assert outcome.receipt.missing == ["host-3"]
        await until_dead(one, "host-3")
        assert one.agent.operators.forget("host-3").info.address == three.address
        assert "host-3" not in one.agent.spreading.links
        await until(lambda: knows(two) == {"host-1"}, 5)
        for host in (one, two):
            later = await host.agent.invalidating.receipt(outcome.receipt.dots, 1)
            assert later.is_complete
            assert later.receipt.applied == {"host-1", "host-2"}
        await wait(60)
        assert knows(one) == {"host-2"}, "nobody teaches it again"


async def test_a_receipt_under_way_stops_requiring_who_is_forgotten(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, two, three):
        two.cache.fail_next(10_000)
        three.crash()
        await until_dead(one, "host-3")
        outcomes: list[Outcome] = []

        async def invalidate(**more: int) -> None:
            outcomes.append(await one.invalidate([b"a"], timeout=cache_timeout(600), **more))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: invalidate(wait=cache.WAIT_REGION))
            nursery.start_soon(lambda: invalidate(wait=cache.WAIT_MEMBERS, members=3))
            await wait(5)
            assert not outcomes
            one.agent.operators.forget("host-3")
            two.cache.fail_next(0)
        region, three_of_three = sorted(outcomes, key=lambda o: -o.is_complete)
        assert region.is_complete
        assert not three_of_three.is_complete, "three were asked for, and there are two"
        for outcome in (region, three_of_three):
            assert outcome.receipt.applied == {"host-1", "host-2"}
            assert not outcome.receipt.missing


async def test_a_host_that_was_cut_off_learns_who_was_forgotten_and_does_not_teach_it_again(
    autojump_clock: MockClock,
) -> None:
    async with hosts(4) as (one, two, three, four):
        four.crash()
        await until_dead(one, "host-4")
        for host in (one, two):
            one.network.cut(host.address, three.address)
        await until_dead(one, "host-3")
        one.agent.operators.forget("host-4")
        await wait(30)
        assert knows(three) == {"host-1", "host-2", "host-4"}
        one.network.heal()
        await until(lambda: knows(three) == {"host-1", "host-2"}, 30)
        await wait(60)
        for host in (one, two, three):
            assert knows(host) == {"host-1", "host-2", "host-3"} - {host.name}


async def test_it_outlives_a_restart_of_everybody(autojump_clock: MockClock) -> None:
    async with hosts(3) as (one, two, three):
        three.crash()
        await until_dead(one, "host-3")
        one.agent.operators.forget("host-3")
        await until(lambda: knows(two) == {"host-1"}, 5)
        await wait(1)
        for host in (one, two):
            host.crash()
        for host in (one, two):
            await host.start()
        await until(lambda: is_whole(one, 2) and is_whole(two, 2))
        assert (knows(one), knows(two)) == ({"host-2"}, {"host-1"})


async def test_a_forgotten_host_that_starts_again_is_back_by_itself(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, two, three):
        three.fill([b"a", b"kept"])
        three.crash()
        await until_dead(one, "host-3")
        one.agent.operators.forget("host-3")
        await until(lambda: knows(two) == {"host-1"}, 5)
        await one.invalidate([b"a"])
        await three.start()
        await until(lambda: all(is_whole(host, 3) for host in (one, two, three)), 30)
        assert list(three.cache.entries) == [b"kept"]
        assert (await one.invalidate([b"b"], wait=cache.WAIT_REGION)).is_complete


async def test_a_host_that_one_alone_cannot_reach_is_alive_and_cannot_be_forgotten(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, _, three):
        one.network.cut(one.address, three.address)
        await wait(120)
        assert state(one, "host-3") is State.ALIVE, "the second says so"
        with pytest.raises(RpcFailed, match=r"host-3 is alive.*coherd leave") as refused:
            one.agent.operators.forget("host-3")
        assert refused.value.code == "FAILED_PRECONDITION"
        await three.invalidate([b"a"])
        await until(lambda: NAMESPACE in one.agent.ingest.counts)
        assert one.agent.ingest.counts[NAMESPACE].repaired == 1, "the second has it"


async def test_who_is_forgotten_by_everybody_comes_back_too(autojump_clock: MockClock) -> None:
    async with hosts(3) as all_:
        one, two, three = all_
        epoch = three.agent.roster.me.epoch
        for host in (one, two):
            host.network.cut(host.address, three.address)
        await until_dead(one, "host-3")
        one.agent.operators.forget("host-3")
        await until(lambda: knows(two) == {"host-1"}, 5)
        one.network.heal()
        await until(lambda: three.agent.roster.me.epoch > epoch, 60)
        await until(lambda: all(is_whole(host, 3) for host in all_), 30)


async def test_a_link_that_opens_just_when_its_member_is_forgotten_is_refused(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, two):
        peer, info = one.agent.linking.peers[two.name], two.agent.roster.me
        one.agent.roster.take(News(two.name, info.epoch, 1, Status.LEFT, info.address))
        with pytest.raises(RpcFailed, match="host-2 was forgotten"):
            one.agent.linking._has_opened(peer, two.name, two.address)


async def test_a_name_that_nobody_has_cannot_be_forgotten(autojump_clock: MockClock) -> None:
    async with hosts(2) as (one, _):
        with pytest.raises(RpcFailed, match="no agent 'cache-9'; known are: host-2") as refused:
            one.agent.operators.forget("cache-9")
        assert refused.value.code == "NOT_FOUND"
        with pytest.raises(RpcFailed, match="host-1 is alive"):
            one.agent.operators.forget("host-1")


async def test_who_leaves_is_gone_from_every_roster_and_those_it_could_not_tell_learn_it(
    autojump_clock: MockClock,
) -> None:
    async with hosts(4) as (one, two, three, four):
        one.network.cut(three.address, four.address)
        left: list[str] = []
        four.agent.operators.on_left = lambda: left.append("now")
        epoch = four.agent.roster.me.epoch
        told = await four.agent.operators.leave()
        assert left == ["now"]
        assert told == (["host-1", "host-2"], ["host-3"])
        assert knows(one) == {"host-2", "host-3"}
        await wait(15)
        assert four.agent.roster.me.epoch == epoch, "it does not come back because it was told so"
        four.crash()
        await until(lambda: knows(three) == {"host-1", "host-2"}, 60)
        assert (await one.invalidate([b"a"], wait=cache.WAIT_REGION)).is_complete
        one.network.heal()
        await four.start()
        await until(lambda: all(is_whole(host, 4) for host in (one, two, three, four)), 60)


async def test_a_receipt_waits_for_a_host_that_restarts_and_asks_it_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, _, three):
        await three.agent.operators.tell_stop()
        assert state(one, "host-3") is State.RESTARTING
        three.crash()
        outcomes: list[Outcome] = []

        async def invalidate() -> None:
            request = one.invalidate([b"a"], wait=cache.WAIT_REGION, timeout=cache_timeout(8))
            outcomes.append(await request)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(invalidate)
            await wait(6)
            assert state(one, "host-3") is State.RESTARTING
            assert not outcomes, "it is expected back"
            await three.start()
        assert outcomes[0].is_complete
        assert state(one, "host-3") is State.ALIVE


async def test_a_host_that_does_not_come_back_is_waited_for_ten_seconds_at_most(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, _, three):
        await three.agent.operators.tell_stop()
        three.crash()
        start = trio.current_time()
        outcome = await one.invalidate([b"a"], wait=cache.WAIT_REGION, timeout=cache_timeout(600))
        assert outcome.receipt.missing == ["host-3"]
        assert 9 < trio.current_time() - start < 11


async def test_an_answer_that_was_lost_is_asked_for_at_half_of_the_timeout(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, _, _):
        for link in one.agent.spreading.links["host-2"]:
            mute(link)
        start = trio.current_time()
        outcome = await one.invalidate([b"a"], wait=cache.WAIT_REGION, timeout=cache_timeout(8))
        assert outcome.is_complete
        assert 4 <= trio.current_time() - start < 4.5


def mute(link: Link) -> None:
    """Lose what the peer says of parcels that it has applied."""
    hear = link._heard

    def without_receipts(link: Link, reply: LinkReply) -> None:
        hear(link, replace(reply, applied=()))

    link._heard = without_receipts


def cache_timeout(seconds: int) -> object:
    request = cache.InvalidateRequest()
    request.timeout.FromSeconds(seconds)
    return request.timeout


async def test_what_is_due_is_done_however_much_comes_in(autojump_clock: MockClock) -> None:
    async with hosts(2) as (one, two), trio.open_nursery() as nursery:
        membership = one.agent.membership
        assert membership.swim is not None
        swim = membership.swim

        async def flood() -> None:
            while True:
                membership.exchange(Origin("stranger", 1), "10.9.9.9:4373", [b"x"])
                await wait(0.0005)

        nursery.start_soon(flood)
        two.crash()
        await until(lambda: state(one, "host-2") is State.DEAD)
        assert swim.statistics()["malformed"] > 1_000
        nursery.cancel_scope.cancel()
