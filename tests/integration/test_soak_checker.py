"""The checker of the soak: it finds what was planted, and nothing where nothing is wrong."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from integration.polling import poll
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


ROWS = 300


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Result]:
    """Give a soak of one phase, which ends when two agents that cannot talk have accepted enough."""

    def hold(self: Faults, _least: float, _most: float) -> None:
        wanted = self._truth.accepted + ROWS
        poll(lambda: self._truth.accepted > wanted, "rows")
        self._is_over.set()

    def run(bug: str) -> Result:
        plan = Plan(
            seed=4,
            seconds=0.1,
            agents=2,
            rate=500,
            keys=2_000,
            phase=(60.0, 60.0),
            overlap=1,
            deadline=20.0,
            only=["cut"],
            bugs=("", bug),
        )
        return soak(plan, tmp_path, print)

    monkeypatch.setattr(Faults, "_hold", hold)
    return run


def test_agents_without_a_bug_pass(short: Callable[[str], Result]) -> None:
    result = short("")
    assert result.violations == []
    assert (result.heals, result.stale) == (1, 0)
    assert result.faults["cut"] == 1
    assert result.checks > 0
    assert result.rows_accepted > ROWS


@pytest.mark.parametrize("bug", ["acknowledge_without_deleting", "do_not_repair"])
def test_stale_copies_of_the_one_agent_with_a_bug_are_found(
    short: Callable[[str], Result], bug: str
) -> None:
    result = short(bug)
    assert result.stale > 0
    stale = [each for each in result.violations if "holds" in each]
    assert stale
    assert all("the Redis of cache-2 holds" in each for each in stale)


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


def test_receipts_that_count_too_early_are_found(tmp_path: Path) -> None:
    bugs = ("", "count_too_early", "acknowledge_without_deleting")
    with soaked_hosts(tmp_path, len(bugs), bugs=bugs) as hosts, probes(hosts) as findings:

        def wrong(name: str) -> list[str]:
            return [each for each in findings.wrong if f"counted {name}, whose" in each]

        poll(lambda: wrong("cache-3"), "a wrong receipt")
        assert "Redis still had" in wrong("cache-3")[0]
        with hosts[1].redis_frozen():
            poll(lambda: wrong("cache-2"), "a wrong receipt")
        assert any("Redis answered nobody" in each for each in wrong("cache-2"))
        with hosts[0].redis_frozen():
            before = findings.receipts
            poll(lambda: findings.receipts > before + 1, "receipts")
        assert not wrong("cache-1")
