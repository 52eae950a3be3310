"""`coherd watch` against a toy agent: its lines, and that it goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import IO

import grpc
import pytest
from toy_agent import EPOCH, ToyAgent, coherd, dots, serving

from coherd.v1 import cache_service_pb2 as pb
from coherd.v1 import types_pb2

STAMP = 1_760_000_000_123 << 16


def change(first: int, *keys: bytes, cause: str = "local", **more: object) -> pb.Change:
    count = len(keys) + bool(more)
    return pb.Change(
        namespace="shop",
        keys=keys,
        effect=types_pb2.EFFECT_DROP,
        dots=[dots(first, first + count - 1)],
        stamp=STAMP,
        cause=cause,
        **more,  # type: ignore[arg-type]
    )


RESET = pb.Change(
    namespace="shop", everything=True, effect=types_pb2.EFFECT_DROP, cause="too-far-behind"
)


def say(*responses: pb.WatchResponse) -> Iterator[pb.WatchResponse]:
    """Then stay silent for as long as a test may take."""
    yield from responses
    Event().wait(10)


def at(n: int, *changes: pb.Change) -> pb.WatchResponse:
    return pb.WatchResponse(changes=changes, cursor=f"cache-1/{EPOCH}/{n}")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_a_row_is_a_line(toy: ToyAgent) -> None:
    toy.watch = lambda _: say(
        at(0),
        at(3, change(1, b"user:42", b"a\x1b\xff"), change(3, tags=[b"red"], cause="link")),
        at(4, change(4, prefixes=[b"p"], cause="repair", reason="price change")),
        at(5, RESET),
    )
    result = coherd("watch", "shop", "--count", "5")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "2025-10-09 08:53:20.123  shop  key user:42  drop  local  cache-1",
        "2025-10-09 08:53:20.123  shop  key a\\x1b\\xff  drop  local  cache-1",
        "2025-10-09 08:53:20.123  shop  tag red  drop  link  cache-1",
        "2025-10-09 08:53:20.123  shop  prefix p  drop  repair  cache-1  price change",
        "-                        shop  everything  drop  too-far-behind  -",
    ]
    assert result.stderr == f"to go on from here: --cursor cache-1/{EPOCH}/5\n"


def test_jsonl_has_everything_without_loss(toy: ToyAgent) -> None:
    toy.watch = lambda _: say(at(2, change(1, b"user:42", b"\xff\x00")), at(3, RESET))
    result = coherd("watch", "shop", "-o", "jsonl", "--count", "3")
    one, two, three = map(json.loads, result.stdout.splitlines())
    assert one == {
        "time": "2025-10-09T08:53:20.123+00:00",
        "namespace": "shop",
        "kind": "key",
        "selector": "user:42",
        "effect": "drop",
        "cause": "local",
        "origin": "cache-1",
        "reason": None,
        "issuer": None,
        "dots": [f"shop/cache-1/{EPOCH}/normal/1-2"],
        "cursor": None,
    }
    assert (two["selector"], two["cursor"]) == ({"hex": "ff00"}, f"cache-1/{EPOCH}/2")
    assert [three[name] for name in ("time", "kind", "selector", "origin")] == [
        None,
        "everything",
        None,
        None,
    ]
    again = coherd("watch", "shop", "--count", "3", env={"COHERD_OUTPUT": "json"})
    assert again.stdout == result.stdout


def test_what_was_not_printed_is_not_behind_the_cursor(toy: ToyAgent) -> None:
    toy.watch = lambda _: say(at(2, change(1, b"a", b"b")), at(4, change(3, b"c", b"d")))
    result = coherd("watch", "shop", "--count", "3")
    assert len(result.stdout.splitlines()) == 3
    assert result.stderr == f"to go on from here: --cursor cache-1/{EPOCH}/2\n"


def test_what_to_follow_and_from_where_is_sent(toy: ToyAgent) -> None:
    toy.watch = lambda _: say(at(9, change(9, b"k")))
    coherd("watch", "shop", "web", "--cursor", "cache-1/1/1", "--count", "1")
    (opening,) = toy.asked
    assert (list(opening.namespaces), opening.cursor) == (["shop", "web"], "cache-1/1/1")
    assert not opening.acknowledges


def test_a_refusal_ends_it(toy: ToyAgent) -> None:
    toy.refusals = [(grpc.StatusCode.INVALID_ARGUMENT, "'x' is no cursor")]
    result = coherd("watch", "shop", "--cursor", "x")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "refused: 'x' is no cursor\n"
    assert coherd("watch", "Shop").exit_code == 2


def test_it_goes_on_where_it_was_when_the_agent_ends_the_watch(toy: ToyAgent) -> None:
    parts = [iter([at(0), at(1, change(1, b"a"))]), say(at(2, change(2, b"b")))]
    toy.watch = lambda _: parts.pop(0)
    result = coherd("watch", "shop", "--count", "2")
    assert result.exit_code == 0
    assert [line.split()[4] for line in result.stdout.splitlines()] == ["a", "b"]
    assert result.stderr.splitlines() == [
        f"lost the agent at {toy.address}: waiting until it is back",
        f"the agent at {toy.address} is back: going on from cache-1/{EPOCH}/1",
        f"to go on from here: --cursor cache-1/{EPOCH}/2",
    ]
    assert [opening.cursor for opening in toy.asked] == ["", f"cache-1/{EPOCH}/1"]


def line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


def test_it_outlives_a_restart_of_the_agent_and_ends_well_on_ctrl_c(tmp_path: Path) -> None:
    first, second = ToyAgent(), ToyAgent()
    second.watch = lambda _: say(at(2, change(2, b"b")))
    released = Event()

    def until_released(_: pb.WatchOpen) -> Iterator[pb.WatchResponse]:
        yield at(1, change(1, b"a"))
        released.wait(10)

    first.watch = until_released
    with serving(first, tmp_path / "s") as address:
        process = subprocess.Popen(
            [sys.executable, "-m", "coherd", "watch", "shop", "--local", address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TZ": "UTC"},
        )
        assert " key a " in line(process.stdout)
        released.set()
    with process:
        assert "lost the agent" in line(process.stderr)
        with serving(second, tmp_path / "s"):
            assert " key b " in line(process.stdout)
            assert "is back: going on from" in line(process.stderr)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
            assert line(process.stderr).startswith(f"to go on from here: --cursor cache-1/{EPOCH}/")
    assert [opening.cursor for opening in second.asked] == [f"cache-1/{EPOCH}/1"]
