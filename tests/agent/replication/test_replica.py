"""Vectors, ledgers, ages, clocks: merging is commutative, associative and idempotent."""

from __future__ import annotations

from math import inf
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from coherd.model import Batch, Cause, Effect, Lane, Origin, Stream
from coherd.replication.aging import Aging
from coherd.replication.clock import HybridClock, wall_ms
from coherd.replication.intervals import Intervals
from coherd.replication.repair import Answer, Repair, answer
from coherd.replication.replica import Replica, resume
from coherd.replication.retention import EffectiveTtl, Floor, horizon
from coherd.replication.vector import Vector

STREAMS = [Stream("shop", Origin(name, 7), lane) for name in ("a", "b") for lane in Lane]


def batch(stream: Stream, first: int, count: int) -> Batch:
    keys = [b"k%d" % n for n in range(first, first + count)]
    return Batch(stream, ((first, first + count - 1),), keys)


BATCHES = st.lists(
    st.builds(batch, st.sampled_from(STREAMS), st.integers(1, 20), st.integers(1, 5)), max_size=12
)


def replica_of(batches: list[Batch]) -> Replica:
    replica = Replica()
    for each in batches:
        replica.receive(each, 0.0, Cause.LINK, 0.0)
    return replica


def look_on(repair: Repair, first: int, end: int, reachable: list[str]) -> list[tuple[str, Cause]]:
    """Look at the holes every half second; give what has to be reset at the first time there is any."""
    for n in range(2 * first, 2 * end):
        if found := repair.resets(n / 2, reachable):
            return found
    return []


def haves(vector: Vector) -> dict[Stream, tuple[tuple[int, int], ...]]:
    return {stream: state.have.ranges() for stream, state in vector}


@given(BATCHES, st.randoms(use_true_random=False), st.data())
def test_order_grouping_and_repetition_of_batches_do_not_matter(
    batches: list[Batch], random: Random, data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(batches), max_size=4)) if batches else []
    other = batches + again
    random.shuffle(other)
    one, two = replica_of(batches), replica_of(other)
    assert haves(one.vector) == haves(two.vector)
    assert one.vector.sum(["shop"]) == two.vector.sum(["shop"])
    assert one.vector.bucket_sums(["shop"]) == two.vector.bucket_sums(["shop"])
    assert one.position == two.position == sum(len(state.have) for _, state in one.vector)
    assert len(one.ledger("shop")) == len(two.ledger("shop"))


SMALL = st.lists(
    st.builds(
        lambda first, count, versions, prefix: Batch(
            STREAMS[0],
            ((first, first + count - 1),),
            [(b"p%d" if prefix else b"k%d") % (n % 7) for n in range(count)],
            versions=[first + n for n in range(count)] if versions else None,
            stamp=first,
        ),
        st.integers(1, 40),
        st.integers(1, 3),
        st.booleans(),
        st.booleans(),
    ),
    max_size=10,
)


@given(SMALL, SMALL, st.booleans())
def test_batches_taken_together_are_taken_as_each_alone(
    before: list[Batch], batches: list[Batch], in_order: bool
) -> None:
    if in_order:
        batches.sort(key=lambda each: each.numbers)
    one, two = replica_of(before), replica_of(before)
    timed = [(each, float(n % 3)) for n, each in enumerate(batches)]
    alone = [one.receive(each, at, Cause.REPAIR, 9.0) for each, at in timed]
    assert two.receive_all(timed, Cause.REPAIR, 9.0) == alone
    assert haves(one.vector) == haves(two.vector)
    assert [s.held for _, s in one.vector] == [s.held for _, s in two.vector]
    assert one.vector.sum(["shop"]) == two.vector.sum(["shop"])
    assert one.position == two.position
    first, second = one.ledger("shop"), two.ledger("shop")
    assert [first.check(b"%d" % n) for n in range(7)] == [second.check(b"%d" % n) for n in range(7)]
    assert (len(first), first.size_bytes) == (len(second), second.size_bytes)
    if first.oldest is not None and second.oldest is not None:
        assert first.oldest.youngest == second.oldest.youngest
        assert first.oldest.numbers == second.oldest.numbers


@given(BATCHES, BATCHES)
def test_sums_differ_where_vectors_differ(left: list[Batch], right: list[Batch]) -> None:
    one, two = replica_of(left).vector, replica_of(right).vector
    assert (one.sum(["shop"]) == two.sum(["shop"])) == (haves(one) == haves(two))
    assert one.sum([]) == 0


def test_own_rows_are_numbered_from_one_in_every_life() -> None:
    replica = Replica()
    for epoch in (1, 2):
        replica.begin_life(Origin("a", epoch))
        for first in (1, 3):
            arrival = replica.accept(
                "shop",
                Lane.NORMAL,
                [b"kx", b"ky"],
                effect=Effect.DROP,
                versions=None,
                stamp=0,
                now=0.0,
            )
            assert arrival.batch.numbers == ((first, first + 1),)
            assert arrival.batch.stream.origin.epoch == epoch
    assert replica.position == 8


def test_a_batch_gives_the_rows_of_a_part_of_its_numbers() -> None:
    whole = Batch(
        STREAMS[0], ((1, 3), (7, 9)), [b"1", b"2", b"3", b"7", b"8", b"9"], versions=range(6)
    )
    part = whole.select([(2, 3), (8, 8)])
    assert list(part.selectors) == [b"2", b"3", b"8"]
    assert list(part.versions or ()) == [1, 2, 4]
    assert part.numbers == ((2, 3), (8, 8))


def test_an_effective_ttl_is_the_largest_of_the_last_such_span() -> None:
    effective = EffectiveTtl()
    assert effective.at(0.0) == inf
    effective.set(3600.0, 0.0)
    effective.set(60.0, 100.0)
    assert effective.at(100.0 + horizon(3600.0)) == 3600.0
    assert effective.at(101.0 + horizon(3600.0)) == 60.0


def test_a_reader_goes_on_above_the_floor_or_when_nothing_alive_was_forgotten() -> None:
    floor = Floor(100, accepted_at=50.0)
    assert resume(100, floor, 10.0, now=51.0) == 100
    assert resume(99, floor, 10.0, now=51.0) is None
    assert resume(99, floor, 10.0, now=60.0) == 100


def test_a_clock_follows_others_but_not_into_the_far_future() -> None:
    clock = HybridClock()
    first = clock.tick(1000)
    assert clock.tick(1000) == first + 1
    assert clock.observe(3000 << 16, 1000)
    assert wall_ms(clock.tick(1001)) == 3000
    assert not clock.observe(90_000 << 16, 1002)
    assert clock.skewed == 1
    assert wall_ms(clock.tick(1003)) == 3000


@given(st.lists(st.tuples(st.sets(st.integers(1, 12)), st.integers(0, 3)), max_size=80))
def test_aging_tells_since_when_a_number_is_in_the_set(steps: list[tuple[set[int], int]]) -> None:
    aging, since, now = Aging(), {}, 0.0
    for current, wait in steps:
        now += wait
        since = {n: since.get(n, now) for n in current}
        aging.update(Intervals((n, n) for n in sorted(current)), now)
        assert set(aging.older_than(2.0, now)) <= {n for n, at in since.items() if now - at >= 2.0}
        if len(steps) < 60:
            assert set(aging.older_than(2.0, now)) == {
                n for n, at in since.items() if now - at >= 2.0
            }


class TestRepair:
    stream = STREAMS[1]

    def repair(self, have: list[tuple[int, int]]) -> Repair:
        vector = Vector()
        vector.take_rows(self.stream, have)
        repair = Repair(vector, Random(1), lambda _namespace, _now: 100.0)
        repair.touch(self.stream)
        return repair

    def test_a_young_hole_waits_and_an_old_one_is_asked_of_the_origin(self) -> None:
        repair = self.repair([(1, 3), (5, 5)])
        assert repair.plan(0.0, ["a", "b"]) == []
        assert repair.plan(0.1, ["a", "b"]) == []
        (ask,) = repair.plan(0.2, ["a", "b"])
        assert (ask.member, set(ask.wanted[self.stream])) == ("a", {4})
        assert repair.plan(0.3, ["a", "b"]) == [], "what is in flight is not asked again"
        assert repair.open() == 1

    def test_a_big_gap_is_shared_out_among_those_who_claim_it(self) -> None:
        repair = self.repair([])
        for member in ("b", "c"):
            repair.claim(member, [(self.stream, Intervals([(1, 50_000)]))])
        repair.plan(0.0, ["b", "c"])
        asks = repair.plan(0.2, ["b", "c"])
        assert sorted(ask.member for ask in asks) == ["b", "c"]
        first, second = (ask.wanted[self.stream] for ask in asks)
        assert not first & second

    def test_a_busy_member_is_left_alone_for_as_long_as_it_said(self) -> None:
        repair = self.repair([(1, 3), (5, 5)])
        repair.plan(0.0, ["a"])
        (ask,) = repair.plan(0.2, ["a"])
        repair.failed(ask, 0.2, retry_after=1.0)
        assert repair.plan(1.1, ["a"]) == []
        assert len(repair.plan(1.3, ["a"])) == 1

    def test_a_hole_nobody_claims_ends_in_one_jittered_reset_after_half_a_minute(self) -> None:
        repair = self.repair([(1, 3), (5, 5)])
        assert look_on(repair, 0, 30, ["b"]) == []
        assert look_on(repair, 30, 36, ["b"]) == [("shop", Cause.UNCLAIMED)]
        assert repair.open() == 1, "the hole stays open until the reset is journaled"
        assert repair.reset("shop") == {self.stream: Intervals([(4, 4)])}

    def test_time_in_which_an_agent_stood_still_does_not_count(self) -> None:
        repair = self.repair([(1, 3), (5, 5)])
        assert look_on(repair, 0, 20, ["b"]) == []
        assert look_on(repair, 100, 108, ["b"]) == [], "nobody could tell it anything meanwhile"
        assert look_on(repair, 108, 116, ["b"]) == [("shop", Cause.UNCLAIMED)]

    def test_a_hole_is_below_the_floor_once_everyone_asked_has_refused(self) -> None:
        repair = self.repair([(1, 3), (5, 5)])
        members = ["a", "b"]
        repair.claim("b", [(self.stream, Intervals([(1, 5)]))])
        repair.plan(0.0, members)
        blank = Answer(
            Intervals(), Intervals(), Intervals([(4, 4)]), 99.0, Intervals(), Intervals()
        )
        (ask,) = repair.plan(0.2, members)
        repair.answered(ask, {self.stream: blank}, 0.2)
        assert repair.resets(9.0, members) == [], "one more can still be asked"
        (ask,) = repair.plan(9.0, members)
        repair.answered(ask, {self.stream: blank}, 9.0)
        repair.resets(9.1, members)
        assert repair.resets(15.0, members) == [("shop", Cause.BELOW_FLOOR)]

    def test_a_holder_that_never_brings_what_it_claims_is_not_asked_for_ever(self) -> None:
        repair = self.repair([(1, 3), (5, 5)])
        repair.claim("a", [(self.stream, Intervals([(1, 5)]))])
        repair.plan(0.0, ["a"])
        (ask,) = repair.plan(0.2, ["a"])
        repair.answered(ask, {}, 0.2)
        repair.claim("a", [(self.stream, Intervals([(1, 5)]))])
        assert repair.plan(0.4, ["a"]) == []
        repair.resets(1.0, ["a"])
        assert repair.resets(6.0, ["a"]) == [("shop", Cause.BELOW_FLOOR)]

    def test_what_its_origin_has_forgotten_waits_a_moment_for_others_to_tell_of_it(self) -> None:
        repair = self.repair([(1, 3), (5, 5)])
        members = ["a", "b"]
        repair.claim("a", [(self.stream, Intervals([(1, 5)]))])
        repair.plan(0.0, members)
        (ask,) = repair.plan(0.2, members)
        blank = Answer(
            Intervals(), Intervals(), Intervals([(4, 4)]), 99.0, Intervals(), Intervals()
        )
        repair.answered(ask, {self.stream: blank}, 0.2)
        for now in (0.2, 0.5, 0.9):
            assert repair.resets(now, members) == []
            assert not repair._resets_due, "no reset is even prepared"
        repair.claim("b", [(self.stream, Intervals([(1, 5)]))])
        assert repair.resets(9.0, members) == [], "b has it"
        (ask,) = repair.plan(9.0, members)
        assert ask.member == "b"

    def test_too_many_missing_rows_are_not_replayed(self) -> None:
        repair = self.repair([])
        repair.claim("b", [(self.stream, Intervals([(1, 1_000_001)]))])
        repair.resets(0.0, ["b"])
        assert repair.resets(5.0, ["b"]) == [("shop", Cause.TOO_FAR_BEHIND)]


def test_an_answer_divides_what_is_asked_and_leaves_nothing_out() -> None:
    vector = Vector()
    state = vector.state(STREAMS[0])
    vector.take_rows(STREAMS[0], [(1, 20)])
    vector.forget(STREAMS[0], [(1, 5)], accepted_at=10.0)
    vector.compact(STREAMS[0], [(8, 8)])
    reply = answer(state, Intervals([(4, 9), (20, 22)]), now=40.0)
    assert set(reply.blank) == {4, 5}
    assert reply.blank_age == 30.0
    assert set(reply.rows) == {6, 7, 9, 20}
    assert set(reply.covers) == {8}
    assert set(reply.unknown) == {21, 22}
    assert set(reply.retained) == set(range(6, 21)) - {8}
