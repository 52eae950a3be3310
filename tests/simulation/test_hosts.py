"""Whole agents in virtual time: spreading, receipts, repair, restarts, partitions, resets."""

from __future__ import annotations

import msgpack
import pytest
import trio
from simulation.hosts import NAMESPACE, Host, hosts, is_whole, until, wait
from trio.testing import MockClock

from coherd.cluster.roster import State
from coherd.cluster.spreading import payload_id
from coherd.errors import NotDurable
from coherd.limits import EPOCH_MAX
from coherd.model import Batch, Lane, Origin, Stream
from coherd.net.peer import LinkReply, Parcel
from coherd.replication.parcels import Applied, Arc
from coherd.v1 import cache_service_pb2 as cache
from coherd.wire import encode_batch

KEYS = [b"user:%d" % n for n in range(20)]


def is_repaired(host: Host) -> bool:
    return not host.cache.entries and not host.agent.repair.open()


async def test_a_receipt_names_everybody_once_all_have_applied(autojump_clock: MockClock) -> None:
    async with hosts(3) as (one, two, three):
        for host in (one, two, three):
            host.fill(KEYS)
        outcome = await one.invalidate(KEYS, wait=cache.WAIT_REGION)
        assert outcome.is_complete
        assert outcome.receipt.applied == {"host-1", "host-2", "host-3"}
        assert not any(host.cache.entries for host in (one, two, three))


async def test_a_host_whose_cache_fails_is_missing_and_asked_again_until_it_has_applied(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, two, three):
        three.fill(KEYS)
        three.cache.fail_next(3)
        outcome = await one.invalidate(KEYS, wait=cache.WAIT_REGION)
        assert outcome.is_complete
        assert three.agent.delivery.handlers[0].failures >= 3
        assert not three.cache.entries
        assert not two.cache.entries


async def test_members_stop_counting_as_alive_and_receipts_stop_waiting_for_them(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, _, three):
        three.crash()
        outcome = await one.invalidate(KEYS, wait=cache.WAIT_REGION)
        assert not outcome.is_complete
        assert outcome.receipt.missing == ["host-3"]
        await until(lambda: one.agent.roster.members["host-3"].state is State.DEAD)
        start = trio.current_time()
        outcome = await one.invalidate(KEYS, wait=cache.WAIT_REGION)
        assert outcome.receipt.missing == ["host-3"]
        assert trio.current_time() - start < 0.1, "only down members are missing: no use in waiting"


async def test_a_restarted_host_fetches_what_it_missed_and_nothing_is_flushed(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, two, three):
        three.fill([*KEYS, b"kept"])
        three.crash()
        outcome = await one.invalidate(KEYS)
        two.crash()
        await two.start()
        await three.start()
        await until(lambda: is_whole(three, 3))
        assert list(three.cache.entries) == [b"kept"]
        counts = three.agent.ingest.counts[NAMESPACE]
        assert counts.repaired == len(KEYS)
        assert not counts.resets
        receipt = await one.agent.invalidating.receipt(outcome.receipt.dots, 5.0)
        assert receipt.is_complete


async def test_both_sides_of_a_partition_go_on_and_become_equal_after_the_heal(
    autojump_clock: MockClock,
) -> None:
    async with hosts(4) as all_:
        one, two, three, four = all_
        for left in (one, two):
            for right in (three, four):
                one.network.cut(left.address, right.address)
        await until(lambda: len(one.agent.linking.peers) == 1)
        for host in all_:
            host.fill(KEYS)
        await one.invalidate(KEYS[:10])
        await three.invalidate(KEYS[10:])
        await wait(1200)
        assert set(two.cache.entries) == set(KEYS[10:])
        assert set(four.cache.entries) == set(KEYS[:10])
        one.network.heal()
        await until(lambda: all(is_repaired(host) for host in all_), 60)
        await until(lambda: all(is_whole(host, 4) for host in all_), 60)
        assert not any(host.agent.ingest.counts[NAMESPACE].resets for host in all_)
        sums = {host.agent.replica.vector.sum([NAMESPACE]) for host in all_}
        assert len(sums) == 1


async def test_a_row_that_was_lost_on_the_way_is_found_and_fetched(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, two):
        two.fill(KEYS)
        link = one.agent.spreading.links["host-2"][1]
        link.send = lambda *_: None  # type: ignore[method-assign]
        await one.invalidate(KEYS)
        await until(lambda: is_repaired(two), 5)
        assert two.agent.ingest.counts[NAMESPACE].repaired == len(KEYS)


async def test_a_row_that_only_a_dead_host_had_ends_in_one_reset(autojump_clock: MockClock) -> None:
    async with hosts(3) as (one, two, three):
        for host in (one, two):
            host.fill([b"other"])
        for link in (
            *three.agent.spreading.links["host-1"],
            *three.agent.spreading.links["host-2"],
        ):
            link.send = lambda *_: None  # type: ignore[method-assign]
        await three.invalidate([b"lost"])
        for name in ("host-1", "host-2"):
            for link in three.agent.spreading.links[name]:
                del link.send  # type: ignore[attr-defined]
        await three.invalidate([b"seen"])
        await until(lambda: bool(one.agent.repair.open()))
        three.disk.commits.clear()
        three.crash()
        await wait(20)
        assert one.cache.entries, "somebody may still bring it"
        await until(lambda: not one.cache.entries and not two.cache.entries, 30)
        for host in (one, two):
            assert host.agent.ingest.counts[NAMESPACE].resets.total() == 1
            assert not host.agent.repair.open()


async def test_a_host_restored_with_an_older_cache_is_replayed_from_the_cursor_it_holds(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, two):
        two.fill(KEYS)
        await until(lambda: two.cache.cursor is not None)
        older = two.cache.snapshot()
        await one.invalidate(KEYS, wait=cache.WAIT_REGION)
        assert not two.cache.entries
        two.cache.restore(older)
        assert len(two.cache.entries) == len(KEYS)
        await until(lambda: not two.cache.entries, 10)
        assert two.agent.delivery.handlers[0].resets == 0


async def test_a_failed_disk_refuses_writes_while_rows_of_peers_are_still_applied(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, two):
        two.agent.journal.fail_next("disk I/O error")  # type: ignore[attr-defined]
        with pytest.raises(NotDurable):
            await two.invalidate([b"first"])
        with pytest.raises(NotDurable):
            await two.invalidate([b"second"])
        two.fill(KEYS)
        await one.invalidate(KEYS, wait=cache.WAIT_REGION)
        assert not two.cache.entries
        assert "journal is closed" in two.agent.reasons()[0]


async def test_a_journal_that_closes_just_when_rows_are_accepted(
    autojump_clock: MockClock,
) -> None:
    async with hosts(1) as (one,):
        check_room = one.journal.check_room

        def close_after() -> None:
            check_room()
            one.journal._error = "disk I/O error"  # as the writer's thread does at any time

        one.journal.check_room = close_after  # type: ignore[method-assign]
        with pytest.raises(NotDurable, match="may have been applied: disk I/O error"):
            await one.invalidate([b"x"])


async def test_a_whole_cluster_that_restarts_becomes_ready_by_itself(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as all_:
        for host in all_:
            host.crash()
        for host in all_:
            await host.start()
        await until(lambda: all(is_whole(host, 3) for host in all_), 60)


async def test_an_agent_whose_seeds_do_not_answer_says_so_and_joins_when_they_do(
    autojump_clock: MockClock,
) -> None:
    async with hosts(1) as (one,):
        late = Host(one.network, one.time, "host-9", 9, ["10.0.0.8:4373"])
        await late.start()
        await wait(30)
        assert any("no seed answers" in reason for reason in late.agent.reasons())
        seed = Host(one.network, one.time, "host-8", 8, ["10.0.0.1:4373"])
        await seed.start()
        await until(lambda: is_whole(late, 3), 60)
        await until(lambda: is_whole(one, 3), 60)


async def test_a_hole_that_only_a_later_row_shows_is_given_up_in_time(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, two):
        two.fill([b"lost", b"other"])
        for link in one.agent.spreading.links["host-2"]:
            link.send = lambda *_: None  # type: ignore[method-assign]
        await one.invalidate([b"lost"])
        for link in one.agent.spreading.links["host-2"]:
            del link.send  # type: ignore[attr-defined]
        await one.invalidate([b"seen"])
        await wait(0.01)
        one.crash()
        assert two.agent.repair.open() == 1
        await until(lambda: not two.cache.entries, 60)
        assert two.agent.ingest.counts[NAMESPACE].resets.total() == 1


async def test_a_payload_that_cannot_be_read_harms_nobody_and_is_not_called_applied(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, two):
        two.fill([b"good"])
        await one.invalidate([b"before"], wait=cache.WAIT_REGION)
        batch = Batch(Stream(NAMESPACE, Origin("host-7", 5), Lane.NORMAL), ((1, 1),), [b"kgood"])
        good = encode_batch(batch)
        bad = msgpack.packb([1, NAMESPACE, "host-7", 5, 2, [], 0, [2, 0], [b"kbad"], None, ""])
        replies: list[LinkReply] = []
        two.agent.endpoint.listen("host-7", urgent=False, say=replies.append)
        nobody = (Arc.nobody(0, "host-2"),)
        payloads = enumerate((good, bad, b""), 1)
        parcels = [Parcel(number, data, 0.0, True, nobody) for number, data in payloads]
        two.agent.endpoint.take("host-7", parcels, urgent=False)
        await until(lambda: not two.cache.entries, 5)
        await until(lambda: any(reply.applied for reply in replies), 5)
        told = [each for reply in replies for each in reply.applied]
        assert told == [Applied(payload_id(good), 0, ("host-2",))]
        assert two.agent.ingest.malformed == 2
        assert (await one.invalidate([b"after"], wait=cache.WAIT_REGION)).is_complete


async def test_an_epoch_that_cannot_be_outbid_does_not_end_the_agent(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, _):
        epoch = one.agent.roster.me.epoch
        one.agent.membership.on_epoch(EPOCH_MAX)
        assert one.agent.roster.me.epoch == epoch
        one.agent.membership.on_epoch(epoch + 5)
        assert one.agent.roster.me.epoch > epoch + 5
        assert (await one.invalidate([b"x"], wait=cache.WAIT_REGION)).is_complete
