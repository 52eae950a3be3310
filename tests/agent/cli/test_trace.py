"""`coherd trace` against a toy agent: what is sent, what is printed, exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from toy_agent import ALIVE, DEAD, EPOCH, ToyAgent, coherd, dots

from coherd.v1 import admin_service_pb2 as pb
from coherd.v1 import types_pb2

DOT = f"shop/cache-1/{EPOCH}/normal"
AT = 1_790_000_000_000_000
"""2026-09-21 14:13:20 UTC, in microseconds."""
STARTED = AT - 60_000_000


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def reader(applied: int | None = None, **more: Any) -> types_pb2.TracedReader:
    fields = {"label": "redis shop", "kind": "handler", "applied": applied is not None, **more}
    return types_pb2.TracedReader(**fields, applied_us=applied or None)


def row(number: int = 12, *readers: types_pb2.TracedReader, **more: Any) -> types_pb2.TracedRow:
    fields = {
        "dots": dots(number),
        "selector": b"kuser:42",
        "effect": types_pb2.EFFECT_DROP,
        "stamp": AT // 1000 << 16,
        "cause": "link",
        "age_ms": 185_000,
        "late_ms": 2,
        "received_us": AT + 2_000,
        **more,
    }
    return types_pb2.TracedRow(readers=readers, **fields)


def host(name: str, *rows: types_pb2.TracedRow, **more: Any) -> pb.HostTrace:
    fields = {"state": ALIVE, "started_us": STARTED, "since_us": STARTED, "holds": True, **more}
    return pb.HostTrace(name=name, rows=rows, **fields)


GONE = host("cache-3", state=DEAD, state_age_ms=185_000, error="not asked")


def answer(toy: ToyAgent, *hosts: pb.HostTrace) -> None:
    toy.trace = pb.TraceKeyResponse(hosts=hosts)


def test_a_block_for_each_row_and_a_line_for_each_host(toy: ToyAgent) -> None:
    local = row(12, reader(AT + 1_000), cause="local", late_ms=0, received_us=AT, reason="price")
    answer(
        toy,
        host("cache-1", local),
        host("cache-2", row(12, reader(AT + 3_000), reader(label="app", kind="watcher"))),
        host("cache-3", row(12, cause="repair", late_ms=1_100, received_us=AT + 1_100_000)),
        host("cache-4"),
        host("cache-5", state=DEAD, state_age_ms=185_000, error="not asked"),
    )
    result = coherd("trace", "shop", "user:42")
    assert (result.exit_code, result.stderr) == (3, "")
    assert result.stdout == (
        f"key user:42  drop  {DOT}/12-12\n"
        "issued by cache-1 at 2026-09-21 14:13:20.000, 3 min 5 s ago: price\n"
        "   HOST     RECEIVED      PATH    LATE   APPLIED\n"
        "✓  cache-1  14:13:20.000  local   -      redis shop 14:13:20.001\n"
        "✗  cache-2  14:13:20.002  link    2 ms   redis shop 14:13:20.003, watcher app not yet\n"
        "✓  cache-3  14:13:21.100  repair  1.1 s  no cache here\n"
        "✗  cache-4  -             -       -      not received\n"
        "✗  cache-5  -             -       -      dead for 3 min 5 s: not asked\n"
        "\n"
        "✗ 2 of 5 hosts have applied it; not received by cache-4 (alive); received and not applied by"
        " cache-2 (alive); no answer from cache-5 (dead for 3 min 5 s)\n"
    )


def test_an_agent_that_does_not_hold_the_namespace_need_not_have_its_rows(toy: ToyAgent) -> None:
    answer(toy, host("cache-1", holds=False), host("cache-2", row()))
    result = coherd("trace", "shop", "user:42")
    assert result.exit_code == 0
    assert "cache-1  " not in result.stdout.partition("APPLIED")[2]
    assert result.stdout.endswith("\n✓ the only host has applied it\n")
    mine = row(cause="local")
    answer(toy, host("cache-1", mine, holds=False), host("cache-2"))
    result = coherd("trace", "shop", "user:42")
    assert result.exit_code == 3
    assert "✓  cache-1" in result.stdout
    assert result.stdout.endswith(
        "\n✗ 0 of 1 hosts have applied it; not received by cache-2 (alive)\n"
    )


def test_when_everybody_has_it_the_exit_code_is_0(toy: ToyAgent) -> None:
    answer(
        toy, host("cache-1", row(12), row(11, age_ms=999_000)), host("cache-2", row(11), row(12))
    )
    result = coherd("trace", "shop", "user:42")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "✓ 2 of 2 hosts have applied all 2 rows"
    answer(toy, host("cache-1", row(12)))
    assert coherd("trace", "shop", "user:42").stdout.endswith("\n✓ the only host has applied it\n")


def test_what_came_before_the_start_and_what_is_kept_no_more(toy: ToyAgent) -> None:
    before = row(12, reader(0), late_ms=None, received_us=None)
    trimmed = host("cache-2", before, since_us=AT + 5_000_000)
    had = types_pb2.TracedRow(dots=dots(12), effect=types_pb2.EFFECT_DROP, readers=[reader(0)])
    answer(toy, host("cache-3", had), host("cache-1", before), trimmed)
    result = coherd("trace", "shop", "user:42")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[3:6] == [
        "✓  cache-3  yes, kept no more               -     -     redis shop yes",
        "✓  cache-1  before 14:12:20 (started then)  link  -     redis shop yes",
        "✓  cache-2  before 14:13:25                 link  -     redis shop yes",
    ]


def test_rows_that_cover_a_key_and_resets_are_marked(toy: ToyAgent) -> None:
    prefix = row(13, selector=b"puser:", age_ms=9_000, version=7)
    reset = row(1, selector=b"n", cause="unclaimed", dots=None, stamp=0, age_ms=5_000)
    answer(toy, host("cache-1", prefix), host("cache-2", reset, prefix))
    result = coherd("trace", "shop", "user:42")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "reset: everything, by one host alone (unclaimed), 5 s ago"
    assert lines[2].startswith("✓  cache-2  ")
    assert lines[4] == f"prefix user:  drop  version 7  {DOT}/13-13  (covers shop user:42)"


def test_clocks_are_told_where_they_mislead(toy: ToyAgent) -> None:
    ahead = {"clock_offset_min_us": 90_000, "clock_offset_max_us": 95_000}
    right = {"clock_offset_min_us": -900, "clock_offset_max_us": 9_500}
    answer(toy, host("cache-1", row()), host("cache-2", row(), **ahead))
    lines = coherd("trace", "shop", "user:42").stdout.splitlines()
    assert lines[2].endswith("  CLOCK")
    assert lines[4].endswith("  +90.0..+95.0 ms")
    answer(toy, host("cache-1", row()), host("cache-2", row(), **right))
    assert "CLOCK" not in coherd("trace", "shop", "user:42").stdout


def test_where_nothing_is_remembered(toy: ToyAgent) -> None:
    answer(toy, host("cache-1"), host("cache-2"))
    result = coherd("trace", "shop", "user:42", "--tag", "red")
    assert result.exit_code == 6
    nothing = (
        "✗ no row that touches shop user:42 tag red is remembered: none came, or it was forgotten"
    )
    assert result.stdout == nothing + "\n"
    answer(toy, host("cache-1"), GONE)
    result = coherd("trace", "shop", "user:42", "--tag", "red")
    assert result.exit_code == 3
    assert result.stdout == nothing + "; no answer from cache-3 (dead for 3 min 5 s)\n"


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (["k"], {"keys": [b"k"], "rows": 5}),
        (["k", "--rows", "7"], {"keys": [b"k"], "rows": 7}),
        (["--tag", "a", "--tag", "b", "--prefix", "p"], {"tags": [b"a", b"b"], "prefixes": [b"p"]}),
        (["--hex", "ff00"], {"keys": [b"\xff\x00"]}),
        ([], {"keys": [], "tags": [], "prefixes": []}),
    ],
)
def test_what_is_asked_of_the_agent(
    toy: ToyAgent, arguments: list[str], fields: dict[str, object]
) -> None:
    coherd("trace", "shop", *arguments, "--timeout", "500ms")
    (request,) = toy.asked
    assert request.timeout.ToMilliseconds() == 500
    assert {name: getattr(request, name) for name in fields} == fields


@pytest.mark.parametrize(
    "arguments", [["SHOP", "k"], ["shop", ""], ["shop", "k", "--rows", "101"], ["shop", "a", "b"]]
)
def test_what_no_agent_would_take_is_refused(toy: ToyAgent, arguments: list[str]) -> None:
    assert coherd("trace", *arguments).exit_code == 2
    assert not toy.asked


def test_json_has_all_of_it(toy: ToyAgent) -> None:
    odd = row(
        12, reader(AT + 3_000), selector=b"k\xff", version=7, reason="price", issuer="client/shop-1"
    )
    answer(toy, host("cache-1", odd, clock_offset_min_us=-5, clock_offset_max_us=7), GONE)
    result = coherd("trace", "shop", "--hex", "ff", "-o", "json")
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    assert found["complete"] is False
    assert found["rows"] == [
        {
            "dot": f"{DOT}/12-12",
            "kind": "key",
            "selector": {"hex": "ff"},
            "covers": False,
            "effect": "drop",
            "version": 7,
            "time": "2026-09-21T14:13:20.000+00:00",
            "age_s": 185.0,
            "origin": "cache-1",
            "reason": "price",
            "issuer": "client/shop-1",
            "hosts": [
                {
                    "name": "cache-1",
                    "standing": "applied",
                    "received": "2026-09-21T14:13:20.002+00:00",
                    "path": "link",
                    "late_s": 0.002,
                    "caches": [
                        {
                            "label": "redis shop",
                            "kind": "handler",
                            "applied": True,
                            "time": "2026-09-21T14:13:20.003+00:00",
                        }
                    ],
                },
                {
                    "name": "cache-3",
                    "standing": "unknown",
                    "received": None,
                    "path": None,
                    "late_s": None,
                    "caches": [],
                },
            ],
        }
    ]
    assert found["hosts"][0] == {
        "name": "cache-1",
        "state": "alive",
        "state_age_s": 0.0,
        "holds": True,
        "error": None,
        "started": "2026-09-21T14:12:20.000+00:00",
        "remembers_since": "2026-09-21T14:12:20.000+00:00",
        "clock_offset_us": [-5, 7],
    }
    assert found["hosts"][1]["error"] == "not asked"
    assert found["hosts"][1]["clock_offset_us"] is None


def test_what_hosts_say_is_escaped(toy: ToyAgent) -> None:
    odd = row(12, reader(0, label="a\x1b"), selector=b"k\x1b", reason="\x1b", cause="\x1b")
    answer(toy, host("c\x1b", odd), host("d", error="\x1b"))
    result = coherd("trace", "shop", "\x1b")
    assert "\x1b" not in result.stdout
