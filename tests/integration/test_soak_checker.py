"""The checker of the soak: it finds what was planted, and nothing where nothing is wrong."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from integration.polling import poll
from soak import faults
from soak.faults import Faults
from soak.filling import key, prefix, selectors, tag
from soak.hosts import Host, Mark, soaked_hosts
from soak.probing import Findings, Planted, Prober, look
from soak.run import Plan, Result, soak
from soak.truth import Row, Selector, Stale, Truth

KEY = Selector("key", key(7))


def stale(truth: Truth, filled_at: int) -> list[Stale]:
    """Ask about one copy."""
    return truth.stale("h", {key(7): filled_at}, {key(7): selectors(7)})


@pytest.mark.parametrize("selector", [KEY, Selector("prefix", prefix(7)), Selector("tag", tag(7))])
def test_a_copy_that_was_filled_before_the_call_is_stale(selector: Selector) -> None:
    truth = Truth()
    truth.accept("a", 100, [selector], epoch=1, lane=2, last=3)
    assert stale(truth, 99) == [Stale("h", key(7), 99, Row(100, "a", "a/1/2/3"))]
    assert not stale(truth, 100)
    assert not truth.stale("h", {key(8): 99}, {key(8): (Selector("key", key(8)),)})


def test_the_latest_call_counts_whoever_accepted_it_and_whenever_it_is_noted() -> None:
    truth = Truth()
    for agent, called_at in (("a", 300), ("b", 200), ("a", 100)):
        truth.accept(agent, called_at, [KEY], epoch=1, lane=2, last=called_at)
        assert stale(truth, 299)[0].row.called_at == 300
    assert not stale(truth, 300)
    assert truth.streams("a") == {(1, 2): 300}


def test_calls_that_failed_forbid_nothing() -> None:
    truth = Truth()
    truth.fail(1)
    assert not stale(truth, 0)


def test_what_may_have_gone_with_a_disk_forbids_nothing_and_the_rest_does() -> None:
    truth = Truth()
    truth.accept("a", 100, [KEY], epoch=1, lane=2, last=1)
    truth.settle("a")
    truth.accept("a", 200, [KEY], epoch=1, lane=2, last=2)
    truth.accept("b", 150, [KEY], epoch=1, lane=2, last=1)
    truth.doubt("a")
    assert stale(truth, 149)
    assert not stale(truth, 150)
    truth.accept("a", 300, [KEY], epoch=2, lane=2, last=1)
    truth.settle_all()
    truth.doubt("a")
    assert stale(truth, 299), "what everybody has is not lost with a disk"


class Shown(Host):
    """A host of which a test says how its Redis is."""

    def __init__(self, *marks: Mark) -> None:
        self.name = "h"
        self._marks = iter(marks)

    def mark(self) -> Mark:
        return next(self._marks)


def test_a_redis_that_answered_nobody_all_the_time_was_counted_wrongly() -> None:
    away, back, again = Mark(1, 5), Mark(1, None), Mark(1, 6)
    assert look(Planted(Shown(), False, away), [], away) is False
    for before, after in ((away, back), (away, again), (back, away)):
        assert look(Planted(Shown(), False, before), [], after) is None


# ---------------------------------------------------------------- whole agents, with and without a bug


def short(folder: Path, *only: str, bug: str = "") -> Result:
    """One phase over two agents; the second may have a bug."""
    plan = Plan(
        seed=4,
        seconds=0.1,
        agents=2,
        rate=500,
        keys=2_000,
        phase=(2.0, 2.0),
        overlap=1,
        deadline=20.0,
        only=only,
        bugs=("", bug),
    )
    return soak(plan, folder, print)


def test_agents_without_a_bug_pass(tmp_path: Path) -> None:
    result = short(tmp_path, "cut", "restore-redis", "kill")
    assert result.violations == []
    assert result.heals == 1
    assert result.stale == 0
    assert min(result.rows_accepted, result.checks, result.hosts_looked_at) > 0


def test_a_handler_that_acknowledges_without_deleting_is_found(tmp_path: Path) -> None:
    result = short(tmp_path, "reset-links", bug="acknowledge_without_deleting")
    assert result.stale > 0
    assert any("the Redis of cache-2 holds" in each for each in result.violations)
    assert any("cache-2, whose Redis still had" in each for each in result.violations)
    assert not any("cache-1 holds" in each for each in result.violations)


def test_repair_that_is_switched_off_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "BETWEEN_MAX", 0.1)
    monkeypatch.setattr(Faults, "_hold", lambda self, _least, _most: self._is_over.wait(60))
    result = short(tmp_path, "cut", bug="do_not_repair")
    assert result.faults["cut"]
    assert result.stale > 0
    assert any("the Redis of cache-2 holds" in each for each in result.violations)


@contextmanager
def probes(hosts: list[Host]) -> Iterator[Findings]:
    """Let receipts be probed."""
    runs, is_over, findings = threading.Event(), threading.Event(), Findings()
    runs.set()
    prober = Prober(0, hosts, findings, random.Random(1), runs, is_over)
    prober.start()
    try:
        yield findings
    finally:
        is_over.set()
        prober.join(30)


def test_an_agent_that_counts_itself_too_early_is_found(tmp_path: Path) -> None:
    with soaked_hosts(tmp_path, 2, bugs=("", "count_too_early")) as hosts:
        one, two = hosts
        with one.redis_frozen(), probes(hosts) as findings:
            poll(lambda: findings.receipts > 1, "receipts")
        assert not findings.wrong
        with two.redis_frozen(), probes(hosts) as findings:
            poll(lambda: findings.wrong, "a wrong receipt")
        assert "counted cache-2, whose Redis answered nobody" in findings.wrong[0]
