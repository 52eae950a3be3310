"""What an agent exports: that it moves when it should, stays bounded, and is explained."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from scrape import Scrape, Scraper
from simulation.hosts import NAMESPACE, Host, hosts, until, wait
from trio.testing import MockClock

from coherd.api.metrics_namespaces import NAMED_MAX, OTHER
from coherd.cluster.timing import APPLY_BOUNDS, Histogram
from coherd.handlers.memory import MemoryHandler
from coherd.journal.memory import MemoryJournal
from coherd.model import Effect, Lane
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import types_pb2 as types

KEYS = [b"secret:%d" % n for n in range(20)]
DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"


def silence(one: Host, other: Host) -> None:
    """Have every parcel to `other` get lost."""
    for link in one.agent.spreading.links[other.name]:
        link.send = lambda *_: None  # type: ignore[method-assign]


def accept(host: Host, namespace: str) -> None:
    host.agent.ingest.accept(namespace, Lane.NORMAL, [b"kkey"], Effect.DROP, None, "")


async def test_what_is_accepted_spread_and_applied_is_counted_by_its_path(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, two):
        here, there = Scraper(one.agent), Scraper(two.agent)
        await one.invalidate(KEYS, wait=cache.WAIT_REGION)
        await two.invalidate(KEYS[:5], lane=types.LANE_URGENT)
        await until(lambda: not one.agent.repair.open())
        await wait(1)
        assert here()["coherd_rows_total"] == {
            ("normal", "shop", "local"): 20,
            ("urgent", "shop", "link"): 5,
        }
        scrape = there()
        assert scrape["coherd_rows_total"] == {
            ("normal", "shop", "link"): 20,
            ("urgent", "shop", "local"): 5,
        }
        assert scrape["coherd_apply_seconds_count"] == scrape["coherd_rows_total"]
        two.agent.count_refused("Have")
        assert there()["coherd_refused_total"] == {("Have",): 1}
        assert scrape.one("coherd_handler_applied_rows_total") == 25
        assert scrape.one("coherd_handler_lag_rows") == 0
        assert here()["coherd_invalidations_total"] == {("complete", "region"): 1}
        assert scrape["coherd_link_sent_parcels_total"] == {
            ("rest", "host-1"): 0,
            ("urgent", "host-1"): 1,
        }


async def test_rows_that_were_lost_count_as_gaps_and_then_as_repaired(
    autojump_clock: MockClock,
) -> None:
    async with hosts(2) as (one, two):
        scrape = Scraper(two.agent)
        silence(one, two)
        await one.invalidate(KEYS)
        del one.agent.spreading.links[two.name][1].send  # type: ignore[attr-defined]
        await one.invalidate([b"last"])
        await until(lambda: bool(two.agent.repair.open()))
        await wait(0.1)
        assert scrape()["coherd_gaps_open"] == {("shop",): 20}
        assert scrape()["coherd_gap_age_seconds"]["shop",] > 0
        await until(lambda: not two.agent.repair.open())
        assert scrape()["coherd_gaps_open"] == {("shop",): 0}
        assert scrape()["coherd_rows_total"]["normal", "shop", "repair"] == 20
        counts = scrape()["coherd_apply_seconds_bucket"]
        slow = [n for labels, n in counts.items() if "repair" in labels and "0.05" in labels]
        assert slow == [0], "it took as long as a hole is left alone, at least"


async def test_a_reset_is_counted_by_cause_and_is_no_row(autojump_clock: MockClock) -> None:
    async with hosts(2) as (one, two):
        scrape = Scraper(two.agent)
        silence(one, two)
        await one.invalidate(KEYS)
        del one.agent.spreading.links[two.name][1].send  # type: ignore[attr-defined]
        await one.invalidate([b"last"])
        await until(lambda: bool(two.agent.repair.open()))
        one.crash()
        await until(lambda: "unclaimed" in str(scrape()["coherd_resets_total"]))
        assert scrape()["coherd_resets_total"] == {("unclaimed", "shop"): 1}
        await until(lambda: scrape().one("coherd_handler_lag_rows") == 0)
        assert scrape()["coherd_rows_total"] == {("normal", "shop", "link"): 1}
        assert scrape()["coherd_apply_seconds_count"] == {("normal", "shop", "link"): 1}


async def test_how_far_a_member_is_behind(autojump_clock: MockClock) -> None:
    async with hosts(2) as (one, two):
        scrape = Scraper(one.agent)
        await wait(2)
        assert scrape()["coherd_member_sync_age_seconds"]["host-2",] < 2
        assert scrape()["coherd_link_open"] == {("rest", "host-2"): 1, ("urgent", "host-2"): 1}
        link = one.agent.spreading.links["host-2"][1]
        link._heard = lambda _link, _reply: None
        await one.invalidate(KEYS)
        await wait(1)
        age = scrape()["coherd_link_unacknowledged_age_seconds"]
        assert age["urgent", "host-2"] == 0
        assert 0.9 < age["rest", "host-2"] < 1.2
        assert scrape()["coherd_link_queued_bytes"]["rest", "host-2"] > 0
        two.crash()
        await wait(10)
        assert scrape()["coherd_member_sync_age_seconds"]["host-2",] >= 10
        assert scrape()["coherd_members"]["dead",] == 1
        assert scrape()["coherd_link_open"] == {("rest", "host-2"): 0, ("urgent", "host-2"): 0}


async def test_a_failed_cache_and_a_failed_disk_show(autojump_clock: MockClock) -> None:
    async with hosts(1) as (one,):
        scrape = Scraper(one.agent)
        assert scrape().one("coherd_ready") == 1
        assert scrape().one("coherd_journal_closed") == 0
        one.cache.fail_next(100)
        await one.invalidate(KEYS)
        await until(lambda: not scrape().one("coherd_handler_connected"))
        found = scrape()
        assert found.one("coherd_ready") == 0
        assert found.one("coherd_handler_failures_total") > 0
        assert found.one("coherd_handler_lag_rows") == one.agent.feed.position
        assert isinstance(one.agent.journal, MemoryJournal)
        commits = found.one("coherd_journal_commits_total")
        one.agent.journal.fail_next("disk I/O error")
        accept(one, NAMESPACE)
        await until(lambda: scrape().one("coherd_journal_closed") == 1)
        assert scrape().one("coherd_journal_commits_total") >= commits > 0


async def test_while_catching_up_no_sync_age_is_told(autojump_clock: MockClock) -> None:
    async with hosts(2) as (one, two):
        assert Scraper(one.agent)().one("coherd_sync_age_seconds") >= 0
        one.crash()
        two.crash()
        await one.start()
        scrape = Scraper(one.agent)
        assert scrape()["coherd_sync_age_seconds"] == {}
        assert scrape().one("coherd_ready") == 0


async def test_one_of_three_that_is_cut_off_is_not_ready_and_one_of_two_is(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, two, three):
        two.crash()
        await wait(20)
        assert not one.agent.reasons()
        three.crash()
        await wait(2)
        assert not one.agent.reasons(), "it may be for a moment only"
        await wait(20)
        (reason,) = one.agent.reasons()
        assert reason.startswith("none of the 2 other agents known is reachable")
        await three.start()
        await until(lambda: not one.agent.reasons())
    async with hosts(2) as (one, two):
        two.crash()
        await wait(20)
        assert not one.agent.reasons(), "it is half of all"


async def test_namespaces_beyond_the_limit_are_one_and_the_named_stay_named(
    autojump_clock: MockClock,
) -> None:
    async with hosts(1) as (one,):
        scrape = Scraper(one.agent)
        for n in range(NAMED_MAX + 50):
            accept(one, f"z{n:03}")
        first = scrape()
        rows = first["coherd_rows_total"]
        assert sum(rows.values()) == NAMED_MAX + 50
        named = {labels[1] for labels in rows} - {OTHER}
        assert len(named) == NAMED_MAX - 1, "and the handler's, which has no rows"
        others = NAMED_MAX + 50 - len(named)
        assert rows["normal", OTHER, "local"] == others
        assert first["coherd_selectors_remembered"][OTHER,] == others
        assert len(first["coherd_streams"]) == NAMED_MAX + 1
        accept(one, "a")  # sorts before all of them
        accept(one, OTHER)  # a namespace may be called so
        again = scrape()["coherd_rows_total"]
        assert {labels[1] for labels in again} - {OTHER} == named
        assert again["normal", OTHER, "local"] == others + 2


async def test_handlers_of_one_cache_and_namespace_are_told_apart(
    autojump_clock: MockClock,
) -> None:
    async with hosts(1) as (one,):
        one.agent.delivery.start(MemoryHandler(NAMESPACE))
        await until(lambda: not one.agent.reasons())
        assert len(Scraper(one.agent)()["coherd_handler_connected"]) == 2


async def test_both_formats_are_well_formed_and_tell_no_key(autojump_clock: MockClock) -> None:
    async with hosts(2) as (one, two):
        scraper = Scraper(two.agent)
        await one.invalidate(KEYS, tags=[b"secret"], wait=cache.WAIT_REGION)
        scraper.lateness.note(0.003, trio.current_time())
        text = scraper().text
        assert "secret" not in text
        families = list(read_openmetrics(generate_openmetrics(scraper.read()).decode()))
        assert {each.name for each in families} == {*scraper().families}
        samples = re.findall(r"^([^#\s]+) ", text, re.MULTILINE)
        assert len(samples) == len(set(samples)), "no series twice"


def test_a_histogram_counts_up_to_each_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 2.5):
        histogram.note(seconds, 2)
    assert histogram.counts == [4, 2, 2]
    assert histogram.sum == 11.0
    histogram.add(histogram)
    assert histogram.counts == [8, 4, 4]


async def test_buckets_ascend_to_the_count(autojump_clock: MockClock) -> None:
    async with hosts(2) as (one, two):
        scraper = Scraper(two.agent)
        await one.invalidate(KEYS, wait=cache.WAIT_REGION)
        scrape = scraper()
        buckets = [
            sample.value
            for sample in scrape.families["coherd_apply_seconds"].samples
            if sample.name.endswith("_bucket")
        ]
        assert len(buckets) == len(APPLY_BOUNDS) + 1
        assert all(low <= high for low, high in pairwise(buckets))
        assert buckets[-1] == scrape.one("coherd_apply_seconds_count") == 20


# ---------------------------------------------------------------------- docs/metrics.md


def documented(text: str) -> dict[str, tuple[str, list[str]]]:
    """Give type and labels of every metric that is explained."""
    rows = [line.split("|")[1:-1] for line in text.splitlines() if re.match(r"\| `\w+` \|", line)]
    assert all(len(cells) == 5 and cells[3].strip() for cells in rows), "each has a meaning"
    return {
        name.strip(" `"): (kind.strip(), re.findall(r"`(\w+)`", labels))
        for name, kind, labels, _meaning, _remedy in rows
    }


def exported(scraper: Scraper) -> dict[str, tuple[str, list[str]]]:
    """Give type and labels of every metric that an agent exports."""
    return {
        family.name + "_total" * (family.type == "counter"): (
            family.type,
            [*getattr(family, "_labelnames", ())],
        )
        for family in scraper.read().collect()
    }


async def test_every_metric_is_explained_and_none_that_does_not_exist(
    autojump_clock: MockClock,
) -> None:
    async with hosts(1) as (one,):
        found = exported(Scraper(one.agent))
    assert len(found) > 40
    assert documented(DOCS.read_text()) == found


async def test_a_metric_that_is_missing_or_stale_in_the_docs_is_found(
    autojump_clock: MockClock,
) -> None:
    async with hosts(1) as (one,):
        found = exported(Scraper(one.agent))
    text = DOCS.read_text()
    line = next(line for line in text.splitlines() if "`coherd_gaps_open`" in line)
    assert documented(text.replace(line, "")) != found
    assert documented(text.replace("`coherd_gaps_open`", "`coherd_gaps`")) != found
    assert (
        documented(text.replace("`coherd_streams` | gauge", "`coherd_streams` | counter")) != found
    )


@pytest.mark.parametrize("name", re.findall(r"`(coherd_\w+)`", DOCS.read_text()))
def test_every_name_that_the_docs_mention_is_explained_there(name: str) -> None:
    assert name in documented(DOCS.read_text())


def test_a_scrape_reads_what_is_written() -> None:
    scrape = Scrape('# TYPE x counter\nx_total{b="2",a="1"} 3\n')
    assert scrape["x_total"] == {("1", "2"): 3}
