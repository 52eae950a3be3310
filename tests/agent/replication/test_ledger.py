"""The ledger: what was invalidated last, and what is forgotten, in runs, when there is too much."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coherd.model import EVERY_NAMESPACE, EVERYTHING, Batch, Cause, Effect, Lane, Origin, Stream
from coherd.replication.intervals import Intervals
from coherd.replication.ledger import PREFIX_LENGTHS_MAX, RUNS, Keep, Ledger, supersedes
from coherd.replication.repair import answer
from coherd.replication.replica import Replica, resume
from coherd.replication.retention import Floor

STREAM = Stream("shop", Origin("a", 1), Lane.NORMAL)


def record(
    ledger: Ledger,
    selectors: Sequence[bytes],
    position: int,
    effect: Effect = Effect.DROP,
    versions: Sequence[int] | None = None,
    now: float = 0.0,
) -> bool:
    batch = Batch(STREAM, ((position, position + len(selectors) - 1),), selectors, effect, versions)
    return ledger.record(batch, position, now, now)


def test_a_check_looks_at_key_tags_prefixes_and_namespace() -> None:
    ledger = Ledger()
    record(ledger, [b"kuser:1", b"tusers", b"puser:", b"kother"], 10, versions=[3, 0, 0, 0])
    record(ledger, [b"kuser:2"], 14, Effect.STALE)
    assert ledger.check(b"user:1")[:2] == (12, 0)
    assert ledger.check(b"user:1").version == 3
    assert ledger.check(b"x", [b"users"]).drop == 11
    assert ledger.check(b"user:2") == (12, 14, 0)
    assert ledger.check(b"y") == (0, 0, 0)
    record(ledger, [EVERYTHING], 20)
    assert ledger.check(b"y").drop == 20
    assert len(ledger) == 6
    assert ledger.forget().last == 20
    assert ledger.check(b"y") == (0, 0, 0)
    assert len(ledger) == 0


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=60), st.binary(max_size=50))
def test_no_prefix_is_overlooked_however_many_lengths_are_in_use(
    prefixes: list[bytes], key: bytes
) -> None:
    ledger = Ledger()
    for n, prefix in enumerate(prefixes, 1):
        record(ledger, [b"p" + prefix], n)
    newest = max((n for n, p in enumerate(prefixes, 1) if key.startswith(p)), default=0)
    assert ledger.check(key).drop >= newest
    assert all(len(run.lengths) <= PREFIX_LENGTHS_MAX for run in ledger._runs)


def test_only_a_row_as_strong_and_as_new_stands_for_another() -> None:
    drop, stale = Effect.DROP, Effect.STALE
    assert supersedes((drop, 0), (stale, 0))
    assert not supersedes((stale, 0), (drop, 0))
    assert not supersedes((drop, 3), (drop, 4))


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20)), max_size=200),
    st.integers(4, 60),
    st.sampled_from([inf, 40.0]),
)
def test_what_is_above_the_floor_is_remembered_and_no_more_than_allowed(
    rows: list[tuple[int, int]], entries_max: int, age_max: float
) -> None:
    ledger = Ledger(Keep(entries_max, age_max))
    floor, now, truth = 0, 0.0, {}
    for position, (key, wait) in enumerate(rows, 1):
        now += wait
        record(ledger, [b"k%d" % key], position, now=now)
        truth[key] = position
        while ledger.is_due(now):
            floor = max(floor, ledger.forget().last)
        assert len(ledger) <= max(entries_max, RUNS)
        for each, newest in truth.items():
            found = ledger.check(b"%d" % each).drop
            assert found == newest if newest > floor else found == 0
        if age_max < inf and ledger.oldest:
            assert now - ledger.oldest.youngest < age_max


def replica(keep: Keep) -> Replica:
    made = Replica(lambda _namespace: keep)
    made.begin_life(Origin("a", 1))
    return made


def accept(made: Replica, count: int, now: float, namespace: str = "shop") -> None:
    first = made.position
    for i in range(count):
        key = [b"k%d" % (first + i)]
        made.accept(
            namespace, Lane.NORMAL, key, effect=Effect.DROP, versions=None, stamp=0, now=now
        )


def test_forgetting_raises_the_floors_to_what_it_took_and_no_further() -> None:
    made = replica(Keep(entries_max=80))
    for now in range(10):
        accept(made, 10, float(now))
    assert made.is_due
    forgotten = made.forget_due(9.0)
    assert not made.is_due
    last = forgotten[-1].position
    state = made.vector.state(STREAM)
    assert sum(each.rows for each in forgotten) == last == 20
    assert state.held.ranges() == ((21, 100),)
    assert state.have.ranges() == ((1, 100),)
    assert state.floor == made.floor("shop") == Floor(20, 1.0)
    reply = answer(state, Intervals([(1, 100)]), 9.0)
    assert reply.blank.ranges() == ((1, 20),)
    assert reply.blank_age == 8.0
    assert not reply.covers


def test_a_reader_below_what_was_forgotten_is_reset_unless_no_copy_can_live() -> None:
    made = replica(Keep(age_max=100.0))
    accept(made, 5, 0.0)
    assert made.forget_due(99.0) == []
    [forgotten] = made.forget_due(100.0)
    assert forgotten.position == 5
    assert resume(3, made.floor("shop"), horizon=101.0, now=100.0) is None
    assert resume(3, made.floor("shop"), horizon=100.0, now=100.0) == 5


def test_the_journal_s_bytes_are_kept_by_forgetting_what_is_oldest_anywhere() -> None:
    made = replica(Keep(bytes_max=32_000.0))
    for now in range(100):
        accept(made, 1, float(now), "shop")
        accept(made, 1, float(now), "users")
    made.forget_due(100.0, 32_000.0)
    total = sum(ledger.size_bytes for ledger in made.ledgers.values())
    assert 24_000 < total <= 32_000
    ages = [made.floor(name).accepted_at for name in ("shop", "users")]
    assert abs(ages[0] - ages[1]) <= 12


def test_rows_of_many_namespaces_are_forgotten_each_on_its_own() -> None:
    made = replica(Keep(entries_max=80))
    accept(made, 5, 0.0, "users")
    accept(made, 200, 1.0, "shop")
    assert {each.namespace for each in made.forget_due(1.0)} == {"shop"}
    assert made.floor("users") == Floor()
    assert made.ledger("users").check(b"0").drop == 1


def test_what_damage_took_is_forgotten_with_age_0() -> None:
    made = replica(Keep())
    accept(made, 10, 0.0)
    made.vector.state(STREAM).held.discard(4, 6)
    lost = made.lose("shop", 6, now=50.0)
    assert lost.rows == 3
    assert made.vector.state(STREAM).floor == made.floor("shop") == Floor(6, 50.0)
    reply = answer(made.vector.state(STREAM), Intervals([(1, 10)]), 60.0)
    assert reply.rows.ranges() == ((1, 3), (7, 10))
    assert (reply.blank.ranges(), reply.blank_age) == (((4, 6),), 10.0)


def test_doubt_reaches_every_reader_of_what_nothing_is_known_of() -> None:
    made = replica(Keep())
    accept(made, 10, 0.0)
    made.doubt(["shop"], now=5.0)
    assert made.floor("shop") == Floor()
    assert made.floor("never-heard-of") == made.floor(EVERY_NAMESPACE) == Floor(10, 5.0)
    assert made.is_doubted("never-heard-of", 9)
    assert not made.is_doubted("never-heard-of", 10)
    assert not made.is_doubted("shop", 0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_late_old_row_does_not_make_the_run_forget_early(order: tuple[int, int]) -> None:
    made = Replica(lambda _namespace: Keep(age_max=100.0))
    for i in order:
        batch = Batch(STREAM, ((i + 1, i + 1),), [b"k%d" % i])
        made.receive(batch, [0.0, 90.0][i], Cause.REPAIR, 95.0)
    assert made.forget_due(150.0) == []
    assert len(made.forget_due(190.0)) == 1


def test_the_last_rows_that_touch_what_is_named_are_found_by_position() -> None:
    ledger = Ledger(Keep(age_max=80.0))  # a run lasts 10 s
    record(ledger, [b"kuser:1", b"puser:", b"kother", EVERYTHING, b"tred"], 1)
    record(ledger, [b"kuser:1"], 6, Effect.STALE)
    record(ledger, [b"puser:1", b"puser:12", b"pitem:"], 7)
    assert ledger.find([b"kuser:1"]) == [7, 6, 4, 2, 1]
    assert ledger.find([b"puser:"]) == [4, 2]
    assert ledger.find([b"kuser:2", b"tred"]) == [5, 4, 2]
    assert ledger.find([EVERYTHING]) == [4]
    record(ledger, [b"kuser:1"], 10)
    assert ledger.find([b"kuser:1"]) == [10, 7, 6, 4, 2], "of one run the last"
    record(ledger, [b"kuser:1"], 11, now=20.0)
    assert ledger.find([b"kuser:1"]) == [11, 10, 7, 6, 4, 2]
    assert Ledger().find([b"kuser:1"]) == []
