"""Budgets: what is let through in any time, what a refusal says, and that names cost no memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coherd.replication.budget import SWEEP_INTERVAL, Bucket, Buckets, burst_of

RATES = st.floats(1.0, 1e6)
ASKED = st.lists(st.tuples(st.floats(0.0, 5.0), st.integers(1, 1000)), max_size=60)
"""(seconds since the one before, rows)"""


@given(RATES, ASKED)
def test_no_span_of_time_lets_more_through_than_its_rate_and_one_burst(
    rate: float, asked: list[tuple[float, int]]
) -> None:
    bucket = Bucket(rate, burst_of(rate), 0.0)
    now = 0.0
    taken: list[tuple[float, int]] = []
    for pause, rows in asked:
        now += pause
        if not bucket.take(rows, now):
            taken.append((now, rows))
    for start in range(len(taken)):
        through = 0
        for at, rows in taken[start:]:
            through += rows
            span = at - taken[start][0]
            assert through <= rate * span + burst_of(rate) + 0.001


@given(RATES, ASKED)
def test_who_comes_back_when_told_to_is_let_through(
    rate: float, asked: list[tuple[float, int]]
) -> None:
    bucket = Bucket(rate, burst_of(rate), 0.0)
    now = 0.0
    for pause, rows in asked:
        now += pause
        if wait := bucket.take(rows, now):
            assert 0 < wait <= rows / rate + 1e-6
            if wait * rate > 0.001:
                assert bucket.take(rows, now + wait / 2) > 0, "not before that"
            now += wait
            assert bucket.take(rows, now) == 0


@given(RATES, ASKED)
def test_what_is_given_back_was_never_taken(rate: float, asked: list[tuple[float, int]]) -> None:
    one, other = (Bucket(rate, burst_of(rate), 0.0) for _ in range(2))
    now = 0.0
    for pause, rows in asked:
        now += pause
        if not one.take(500, now):
            one.give_back(500)
        assert one.take(rows, now) == pytest.approx(other.take(rows, now), rel=1e-3, abs=1e-3)


def test_a_refusal_takes_nothing_and_a_whole_batch_fits_into_any_burst() -> None:
    bucket = Bucket(10, burst_of(10), 0.0)
    assert bucket.take(1000, 0.0) == 0
    assert bucket.take(1000, 50.0) == pytest.approx(50)
    assert bucket.take(500, 50.0) == 0
    assert bucket.take(1, 50.0) == pytest.approx(0.1)
    assert burst_of(25_000) == 25_000


def test_clients_have_buckets_of_their_own() -> None:
    buckets = Buckets()
    assert buckets.find("a", 10, 0.0).take(1000, 0.0) == 0
    assert buckets.find("a", 10, 0.0).take(1, 0.0) > 0
    assert buckets.find("b", 10, 0.0).take(1000, 0.0) == 0


def test_buckets_that_are_full_again_make_room() -> None:
    buckets = Buckets(count_max=3)
    for name in "abc":
        buckets.find(name, 100, 0.0).take(1 if name == "c" else 1000, 0.0)
    assert buckets.find("d", 100, 5.0).take(1000, 5.0) == 0, "c was as new"
    assert len(buckets) == 3
    assert buckets.find("a", 100, 5.0).take(501, 5.0) > 0, "a is still known"


def test_while_all_are_in_use_newcomers_share_one_bucket_a_rate() -> None:
    buckets = Buckets(count_max=2)
    for name in "ab":
        buckets.find(name, 100, 0.0).take(1000, 0.0)
    assert buckets.find("c", 100, 0.0).take(1000, 0.0) == 0
    assert buckets.find("d", 100, 0.0).take(1, 0.0) > 0
    assert buckets.find("e", 2000, 0.0).take(1000, 0.0) == 0
    assert buckets.find("f", 2000, 0.0) is buckets.find("e", 2000, 0.0)
    assert buckets.find("f", 2000, 0.0) is not buckets.find("a", 100, 0.0)
    later = 20.0 + SWEEP_INTERVAL
    assert buckets.find("d", 100, later) is not buckets.find("c", 100, later)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(0.0, 0.3)), max_size=300))
def test_invented_names_cost_no_memory(asked: list[tuple[int, float]]) -> None:
    buckets = Buckets(count_max=5)
    now = 0.0
    for name, pause in asked:
        now += pause
        buckets.find(name, 100.0 * (1 + name % 2), now).take(1000, now)
        assert len(buckets) <= 5 + 2
