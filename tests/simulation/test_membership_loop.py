"""The loop that drives the machine of membership in whole agents, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
from simulation.hosts import NAMESPACE, Host, hosts, is_whole, until, wait
from trio.testing import MockClock

from coherd.cluster import membership
from coherd.cluster.membership import PUBLISH_INTERVAL
from coherd.cluster.roster import State
from coherd.errors import StartRefused
from coherd.model import HandlerInfo, Origin
from coherd.v1 import cache_service_pb2 as cache
from coherd_membership import Evicted, News, Status, Swim
from coherd_membership import _codec as codec
from coherd_membership._messages import Kind


def swim_of(host: Host) -> Swim:
    swim = host.agent.membership.swim
    assert swim is not None
    return swim


def another(like: Host, name: str, number: int) -> Host:
    """One more host on the same network."""
    return Host(like.network, like.time, name, number, like.seeds)


def tell(host: Host, teller: Host, news: News) -> None:
    """Let a host hear news from another one."""
    me = swim_of(teller).me
    head = codec.head(Kind.TELL, codec.cluster_label("test"), 0, 0, codec.encode_news(me))
    payload = head + codec.section(codec.NEWS, codec.encode_news(news))
    sender = Origin(me.name, me.epoch)
    host.agent.endpoint.exchange("test", sender, teller.address, [payload])


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


async def test_a_loop_that_is_late_doubts_itself(autojump_clock: MockClock) -> None:
    async with hosts(3) as all_:
        await wait(30)
        one = all_[0]
        assert swim_of(one).health == 0
        late = swim_of(one).statistics().get("late", 0)
        one.time.skipped += 0.05
        await wait(0.6)
        assert swim_of(one).statistics().get("late", 0) == late, "a little is nothing"
        for _ in range(3):
            one.time.skipped += 0.3
            await wait(0.26)
        assert swim_of(one).statistics()["late"] >= late + 3
        assert swim_of(one).health >= 1
        await wait(60)
        assert swim_of(one).health == 0
        assert all(is_whole(host, 3) for host in all_)


async def test_a_loop_that_stood_still_blames_nobody(autojump_clock: MockClock) -> None:
    async with hosts(3) as all_:
        all_[0].time.skipped += 20.0
        await wait(1)
        for host in all_:
            states = {member.state for member in host.agent.roster.members.values()}
            assert State.DEAD not in states
        await until(lambda: all(is_whole(host, 3) for host in all_), 60)


@pytest.mark.bad_input(46)
async def test_a_newcomer_with_a_name_that_is_taken_ends_and_says_who_has_it(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, two):
        twin = another(one, "host-1", 9)
        epoch = one.agent.roster.me.epoch
        with trio.fail_after(30), pytest.raises(BaseExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                await nursery.start(twin._run)
        (error,) = leaves(caught.value)
        assert isinstance(error, StartRefused)
        assert str(error).startswith(f"the name 'host-1' is taken by the agent at {one.address}")
        one.network.crash(twin.address)
        await wait(30)
        assert is_whole(one, 2)
        assert is_whole(two, 2)
        assert one.agent.roster.me.epoch == epoch
        assert two.agent.roster.members["host-1"].info.address == one.address


async def test_a_life_that_was_struck_out_is_followed_by_a_later_one(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as all_:
        one, two, three = all_
        before = await one.invalidate([b"a"])
        epoch = one.agent.roster.me.epoch
        struck = swim_of(one).me._replace(status=Status.LEFT)
        tell(one, two, struck)
        assert one.agent.roster.me.epoch == epoch, "one says so"
        tell(one, three, struck)
        later = one.agent.roster.me.epoch
        assert later > epoch
        assert swim_of(one).me.epoch == one.agent.ingest.life.epoch == later
        two.fill([b"b"])
        after = await one.invalidate([b"b"], wait=cache.WAIT_REGION)
        assert {dot.stream.origin.epoch for dot in before.receipt.dots} == {epoch}
        assert {dot.stream.origin.epoch for dot in after.receipt.dots} == {later}
        assert after.is_complete
        assert not two.cache.entries
        await until(lambda: two.agent.roster.members["host-1"].info.epoch == later, 30)
        await until(lambda: all(is_whole(host, 3) for host in all_), 30)


async def test_who_had_to_make_room_is_known_nowhere_any_more(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "MEMBERS_MAX", 1)
    async with hosts(2) as (one, two):
        two.crash()
        await until(lambda: one.agent.roster.members["host-2"].state is State.DEAD)
        three = another(one, "host-3", 3)
        await three.start()
        await until(lambda: one.agent.roster.members.keys() == {"host-3"}, 60)
        await until(lambda: "host-3" in one.agent.linking.peers, 60)
        assert swim_of(one).members.keys() == {"host-3"}
        assert "host-2" not in one.agent.spreading.links
        await wait(5)
        assert one.journal._state.members.keys() == {"host-3"}


async def test_who_is_evicted_is_linked_with_no_more(autojump_clock: MockClock) -> None:
    async with hosts(2) as (one, two):
        swim = swim_of(one)
        two.crash()
        swim._log.add(Evicted("host-2"))
        one.agent.membership.pump(swim)
        assert not one.agent.roster.members
        assert not one.agent.linking.peers
        assert "host-2" not in one.agent.spreading.links
        await wait(10)
        assert not one.agent.linking.peers


async def test_what_a_member_publishes_reaches_the_others(autojump_clock: MockClock) -> None:
    async with hosts(3) as all_:

        def is_told() -> bool:
            return all(
                member.info.handlers == (HandlerInfo("memory", NAMESPACE, True),)
                and member.info.ready
                and member.info.region == "test"
                for host in all_
                for member in host.agent.roster.members.values()
            )

        await until(is_told, PUBLISH_INTERVAL / 2)
        all_[0].agent.membership.is_ready = lambda: False
        await until(
            lambda: all(h.agent.roster.members["host-1"].info.ready is False for h in all_[1:]),
            2 * PUBLISH_INTERVAL,
        )


async def test_what_changes_all_the_time_is_published_now_and_then(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, two):
        await wait(2 * PUBLISH_INTERVAL)
        moods = [True]

        def is_ready() -> bool:
            moods.append(not moods[-1])
            return moods[-1]

        one.agent.membership.is_ready = is_ready
        seen: set[int] = set()
        start = trio.current_time()
        while trio.current_time() - start < 10 * PUBLISH_INTERVAL:
            seen.add(swim_of(one).me.version)
            await wait(0.1)
        assert len(moods) > 30
        assert 2 <= len(seen) <= 12
        one.agent.membership.is_ready = lambda: True
        await until(lambda: two.agent.roster.members["host-1"].info.ready is True, 20)
