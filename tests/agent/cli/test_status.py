"""`coherd status` against a toy agent: what it prints, and its exit codes."""

from __future__ import annotations

import json

import pytest
from toy_agent import EPOCH, ME, ToyAgent, coherd

from coherd.cli.output import count_of, duration, escaped, size
from coherd.cli.status import RESETS
from coherd.model import Cause
from coherd.v1 import admin_service_pb2 as pb
from coherd.v1 import types_pb2


def status(**more: object) -> pb.GetStatusResponse:
    found = pb.GetStatusResponse(
        me=ME,
        cluster="prod-eu",
        ready=True,
        uptime_s=7384,
        journal=pb.JournalStatus(
            durability=types_pb2.DURABILITY_OS,
            commits=1234,
            queued_bytes=12_288,
            size_bytes=3_500_000,
        ),
        members_alive=2,
        members_known=3,
        cursor=f"cache-1/{EPOCH}/55",
    )
    found.MergeFrom(pb.GetStatusResponse(**more))  # type: ignore[arg-type]
    return found


FULL = {
    "namespaces": [
        pb.NamespaceStatus(
            namespace="shop",
            accepted=12_345,
            received=7,
            repaired=5,
            gaps_open=2,
            gap_age_s=1.5,
            resets={"unclaimed": 2, "below-floor": 1},
            streams=3,
            remembered=99,
            forgotten=1200,
            floor_age_s=7384,
            last_reset=pb.LastReset(cause="below-floor", age_s=65, missing=7),
        ),
        pb.NamespaceStatus(namespace="web"),
    ],
    "handlers": [
        pb.HandlerStatus(
            label="redis://u:***@10.0.0.1:6379/0",
            namespace="shop",
            error="connection\nrefused",
            lag=3,
            applied=12,
            failures=4,
        )
    ],
    "watchers": [pb.WatcherStatus(name="web\x1b", namespaces=["shop"], acknowledges=True, lag=1)],
    "links": [
        pb.LinkStatus(name="cache-2", lanes="urgent", open=True, queued_bytes=2048, sent=3),
        pb.LinkStatus(name="cache-2", lanes="rest", dropped=9),
    ],
}


def test_a_ready_agent_is_a_few_lines_and_exit_code_0(toy: ToyAgent) -> None:
    toy.status = status()
    result = coherd("status")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "cache-1: cluster prod-eu, region eu-west, 127.0.0.1:4373, coherd 0.1.0",
        "state    ready, up 2 h 3 min",
        "members  2 of 3 alive",
        "journal  durability os, 1,234 commits, 3.3 MiB, 12 KiB queued",
        f"cursor   cache-1/{EPOCH}/55",
    ]


def test_an_agent_that_is_not_ready_says_why_and_exit_code_1(toy: ToyAgent) -> None:
    toy.status = status()
    toy.status.ready = False
    toy.status.reasons.append("no seed answers")
    toy.status.journal.error = "disk full"
    result = coherd("status")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[1:3] == ["state    not ready, up 2 h 3 min", "         no seed answers"]
    assert "         closed: disk full" in lines


def test_namespaces_caches_watchers_and_links_are_tables(toy: ToyAgent) -> None:
    toy.status = status(**FULL)
    result = coherd("status")
    assert result.stdout.split("\n\n", 1)[1].splitlines() == [
        "NAMESPACE  ACCEPTED  RECEIVED  REPAIRED  GAPS  RESETS  REMEMBERED",
        "shop         12,345         7         5     2       3          99",
        "    the oldest gap is open for 1.5 s",
        "    resets: below-floor 1, unclaimed 2",
        (
            "    reset 1 min 5 s ago: rows were missing, and whoever had them had forgotten them too "
            "recently (7 rows missing)"
        ),
        "    forgotten: 1,200 rows since the start, at least 2 h 3 min old",
        "web               0         0         0     0       0           0",
        "",
        "CACHE                          NAMESPACE  STATE  LAG  APPLIED  FAILURES  RESETS",
        "redis://u:***@10.0.0.1:6379/0  shop       down     3       12         4       0",
        "    last failure: connection\\nrefused",
        "",
        "WATCHER  NAMESPACES  ACKNOWLEDGES  LAG",
        "web\\x1b  shop        yes             1",
        "",
        "LINK TO  LANES   STATE  QUEUED  SENT  DROPPED",
        "cache-2  urgent  open    2 KiB     3        0",
        "cache-2  rest    down      0 B     0        9",
    ]
    assert max(len(line) for line in result.stdout.splitlines() if line[:1] != " ") <= 80


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause.is_reset])
def test_every_cause_of_a_reset_has_its_sentence(toy: ToyAgent, cause: Cause) -> None:
    last = pb.LastReset(cause=cause.value, age_s=3)
    toy.status = status(namespaces=[pb.NamespaceStatus(namespace="shop", last_reset=last)])
    assert f"    reset 3 s ago: {RESETS[cause]}" in coherd("status").stdout.splitlines()


def test_a_cause_that_nobody_knows_is_shown_as_it_is(toy: ToyAgent) -> None:
    last = pb.LastReset(cause="too-new\n", age_s=3)
    toy.status = status(namespaces=[pb.NamespaceStatus(namespace="shop", last_reset=last)])
    assert "    reset 3 s ago: too-new\\n" in coherd("status").stdout.splitlines()


def test_damages_and_what_is_not_made_good_are_shown(toy: ToyAgent) -> None:
    toy.status = status()
    toy.status.journal.damages.append("blocks row 7: it is not what was written")
    toy.status.journal.healing = True
    lines = coherd("status").stdout.splitlines()
    assert "         damaged: blocks row 7: it is not what was written" in lines
    assert "         healing: what may be lost is not made good yet" in lines


def test_status_as_json_has_every_field(toy: ToyAgent) -> None:
    toy.status = status(**FULL)
    result = coherd("status", "-o", "json")
    answer = json.loads(result.stdout)
    assert set(answer) == {field.name for field in pb.GetStatusResponse.DESCRIPTOR.fields}
    assert answer["me"]["state"] == "alive"
    assert answer["me"]["epoch"] == EPOCH
    assert answer["journal"]["durability"] == "os"
    assert answer["namespaces"][0]["resets"] == {"unclaimed": 2, "below-floor": 1}
    assert answer["handlers"][0]["connected"] is False
    shop, web = answer["namespaces"]
    assert (shop["floor_age_s"], shop["last_reset"]["missing"]) == (7384, 7)
    assert (web["floor_age_s"], web["last_reset"]) == (None, None)
    assert answer["watchers"][0]["namespaces"] == ["shop"]
    toy.status.ready = False
    assert coherd("status", env={"COHERD_OUTPUT": "json"}).exit_code == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.00023, "0.23 ms"),
        (0.0031, "3 ms"),
        (0.9999, "1 s"),
        (1.26, "1.3 s"),
        (59.99, "1 min"),
        (60, "1 min"),
        (3599, "59 min 59 s"),
        (7384, "2 h 3 min"),
        (86_400 * 3 + 60, "3 d"),
    ],
)
def test_durations_are_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_counts_and_escapes() -> None:
    assert [size(n) for n in (0, 1023, 1024, 1536, 5 * 2**20, 2**31)] == [
        *("0 B", "1023 B", "1 KiB", "1.5 KiB", "5 MiB", "2.0 GiB")
    ]
    assert [count_of(1, "key"), count_of(2000, "key"), count_of(2, "prefix")] == [
        *("1 key", "2,000 keys", "2 prefixes")
    ]
    assert escaped("é\u202e\t") == "é\\u202e\\t"
