"""`coherd invalidate` and `coherd receipt` against a toy agent: what is sent, what is printed, exit codes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import grpc
import pytest
from toy_agent import EPOCH, ToyAgent, coherd, dots, receipt

from coherd.v1 import cache_service_pb2 as pb
from coherd.v1 import types_pb2

TOKEN = f"shop/cache-1/{EPOCH}/normal"
NO_TIME = re.compile(r"  in [0-9.]+ (ms|s)")


def untimed(text: str) -> str:
    assert NO_TIME.search(text)
    return NO_TIME.sub("", text)


def test_a_key_that_everybody_applied_is_a_line(toy: ToyAgent) -> None:
    toy.receipt = lambda first, last: receipt(dots(first, last), applied="cache-1 cache-2 cache-3")
    result = coherd("invalidate", "shop", "user:42", "--wait", "region")
    assert (result.exit_code, result.stderr) == (0, "")
    assert untimed(result.stdout) == (
        f"✓ shop user:42  applied by 3 of 3: cache-1 cache-2 cache-3  receipt {TOKEN}/1-1\n"
    )


def test_who_is_missing_is_named_and_the_exit_code_is_3(toy: ToyAgent) -> None:
    toy.receipt = lambda first, last: receipt(
        dots(first, last), applied="cache-1 cache-2", missing="cache-3"
    )
    result = coherd("invalidate", "shop", "a", "b", "--wait", "region")
    assert (result.exit_code, result.stderr) == (3, "")
    assert untimed(result.stdout) == (
        "… shop 2 keys  applied by 2 of 3: cache-1 cache-2; missing: cache-3 (dead)"
        f"  receipt {TOKEN}/1-2\n"
    )


def test_json_has_the_whole_receipt(toy: ToyAgent) -> None:
    toy.receipt = lambda first, last: receipt(
        dots(first, last), applied="a", missing="b", durability=types_pb2.DURABILITY_DISK
    )
    expected = {
        "accepted": 1,
        "dots": [f"{TOKEN}/1-1"],
        "durable": "disk",
        "applied": ["a"],
        "missing": [{"name": "b", "state": "dead"}],
        "complete": False,
    }
    result = coherd("invalidate", "shop", "k", "-o", "json")
    assert (result.exit_code, result.stderr, json.loads(result.stdout)) == (3, "", expected)
    result = coherd("invalidate", "shop", "k", env={"COHERD_OUTPUT": "json"})
    assert json.loads(result.stdout) == expected | {"dots": [f"{TOKEN}/2-2"]}


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (["a", "b"], {"keys": [b"a", b"b"]}),
        (["--", "-a"], {"keys": [b"-a"]}),
        (["--tag", "t", "--tag", "u"], {"tags": [b"t", b"u"]}),
        (["--prefix", "p"], {"prefixes": [b"p"]}),
        (["--everything", "--yes"], {"everything": True}),
        (["--all"], {"everything": True}),
        (["--all", "--reason", "deploy 7"], {"everything": True, "reason": "deploy 7"}),
        (["--hex", "ff00", "--tag", "41"], {"keys": [b"\xff\x00"], "tags": [b"A"]}),
        (["k", "--lane", "bulk"], {"lane": types_pb2.LANE_BULK}),
        (["k"], {"lane": 0, "effect": 0, "wait": pb.WAIT_ACCEPTED, "versions": []}),
        (["k", "--effect", "stale"], {"effect": types_pb2.EFFECT_STALE}),
        (["k", "--version", "7"], {"versions": [7]}),
        (["k", "--wait", "local"], {"wait": pb.WAIT_LOCAL}),
        (["k", "--wait", "2"], {"wait": pb.WAIT_MEMBERS, "members": 2}),
    ],
)
def test_what_is_asked_is_sent(
    toy: ToyAgent, arguments: list[str], fields: dict[str, object]
) -> None:
    assert coherd("invalidate", "shop", *arguments).exit_code == 0
    (request,) = toy.asked
    assert request.namespace == "shop"
    assert {name: getattr(request, name) for name in fields} == fields


def test_the_timeout_is_that_of_the_wait(toy: ToyAgent) -> None:
    coherd("invalidate", "shop", "k")
    coherd("invalidate", "shop", "k", "--timeout", "250ms")
    assert [request.timeout.ToMilliseconds() for request in toy.asked] == [5000, 250]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Nothing to invalidate: name keys, --tag"),
        ([""], "an empty text: a key, tag or prefix is not empty"),
        (["k" * 1025], "1,025 bytes: at most 1,024 are allowed"),
        (["--hex", "xy"], "xy: pairs of hexadecimal digits are due"),
        (["a", "b", "--version", "1"], "--version goes with exactly one key"),
        (["--tag", "a", "--version", "1"], "--version goes with exactly one key"),
        (
            ["k", "--wait", "quorum"],
            "'quorum': accepted, local, region or a number of agents is due",
        ),
        (["k", "--wait", "0"], "0 agents: 1 to 1,000,000 can be waited for"),
        (["k", "--timeout", "2h"], "expected 0s to 1h, got '2h'"),
        (["--keys-from", "no-such-file"], "no-such-file: No such file or directory: name a file"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_sent(
    toy: ToyAgent, arguments: list[str], text: str
) -> None:
    result = coherd("invalidate", "shop", *arguments)
    assert (result.exit_code, result.stdout, toy.asked) == (2, "", [])
    assert text in result.stderr


def test_a_namespace_that_cannot_be_one_is_refused() -> None:
    result = coherd("invalidate", "Shop", "k")
    assert result.exit_code == 2
    assert "illegal namespace 'Shop'" in result.stderr


def test_what_a_terminal_must_not_see_is_escaped(toy: ToyAgent) -> None:
    result = coherd("invalidate", "shop", "--hex", b"a\x1b[31m\xff\n".hex())
    assert untimed(result.stdout) == f"✓ shop a\\x1b[31m\\xff\\n  accepted  receipt {TOKEN}/1-1\n"


@pytest.mark.parametrize(("answer", "code"), [("shop\n", 0), ("shep\n", 1), ("\n", 1)])
def test_on_a_terminal_a_namespace_must_be_typed(
    toy: ToyAgent, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setattr("coherd.cli.invalidate.is_terminal", lambda: True)
    result = coherd("invalidate", "shop", "--everything", input=answer)
    assert (result.exit_code, len(toy.asked)) == (code, 1 - code)
    assert "Every copy of shop on every host?" in result.stderr
    assert ("nothing was done" in result.stderr) == bool(code)


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 1)])
def test_on_a_terminal_a_prefix_is_confirmed(
    toy: ToyAgent, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setattr("coherd.cli.invalidate.is_terminal", lambda: True)
    result = coherd("invalidate", "shop", "--prefix", "user:", input=answer)
    assert (result.exit_code, len(toy.asked)) == (code, 1 - code)
    assert coherd("invalidate", "shop", "--prefix", "user:", "--yes").exit_code == 0


def test_keys_of_a_file_are_sent_in_batches_and_told_together(
    toy: ToyAgent, tmp_path: Path
) -> None:
    keys = [b"key:%d" % n for n in range(2500)]
    (tmp_path / "keys").write_bytes(b"\r\n\n".join(keys))
    result = coherd("invalidate", "shop", "--keys-from", tmp_path / "keys")
    assert result.exit_code == 0
    assert untimed(result.stdout) == f"✓ shop 2,500 keys  accepted  receipt {TOKEN}/1-2500\n"
    assert [len(request.keys) for request in toy.asked] == [1000, 1000, 500]
    assert [key for request in toy.asked for key in request.keys] == keys


def test_keys_come_from_standard_input_too(toy: ToyAgent) -> None:
    result = coherd(
        "invalidate", "shop", "first", "--tag", "t", "--keys-from", "-", input=b"a\nb\xff\n"
    )
    assert result.exit_code == 0
    assert untimed(result.stdout).startswith("✓ shop 3 keys, 1 tag  accepted")
    assert toy.asked[0].keys == [b"first", b"a", b"b\xff"]


def test_a_request_has_at_most_a_mebibyte(toy: ToyAgent) -> None:
    """1,000 rows reach the limit of rows first, unless they are long."""
    keys = b"\n".join(b"%04d" % n + b"x" * 1020 for n in range(1100))
    assert (
        coherd("invalidate", "shop", "--all", "--yes", "--keys-from", "-", input=keys).exit_code
        == 0
    )
    assert [len(request.keys) for request in toy.asked] == [1000, 100]
    assert [request.everything for request in toy.asked] == [False, True]


def test_a_wrong_line_of_a_file_is_named_before_anything_is_sent(
    toy: ToyAgent, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"k\n" * 1500 + b"x" * 1025)
    result = coherd("invalidate", "shop", "--keys-from", file)
    assert (result.exit_code, result.stdout, toy.asked) == (2, "", [])
    assert result.stderr == f"{file}:1501: 1,025 bytes: at most 1,024 are allowed\n"
    file.write_bytes(b"x" * 1_000_000)
    assert coherd("invalidate", "shop", "--keys-from", file).stderr == (
        f"{file}:1: longer than any key may be\n"
    )


def test_a_wrong_line_of_a_stream_says_what_was_done_before(toy: ToyAgent) -> None:
    result = coherd(
        "invalidate", "shop", "--keys-from", "-", "-o", "json", input=b"k\n" * 1500 + b"x" * 1025
    )
    assert result.exit_code == 1  # 2 would say that nothing was done
    answer = json.loads(result.stdout)
    assert (answer["accepted"], answer["complete"]) == (1000, False)
    lines = result.stderr.splitlines()
    assert lines[0].startswith("stopped early: 1,000 rows accepted")
    assert lines[1] == "standard input:1501: 1,025 bytes: at most 1,024 are allowed"


def test_an_agent_that_goes_away_midway_leaves_what_was_done(toy: ToyAgent) -> None:
    toy.refusals = [(grpc.StatusCode.OK, ""), (grpc.StatusCode.UNAVAILABLE, "stopping")]
    result = coherd("invalidate", "shop", "--keys-from", "-", input=b"k\n" * 1500)
    assert result.exit_code == 4
    assert untimed(result.stdout) == f"… shop 1,000 keys  accepted  receipt {TOKEN}/1-1000\n"
    assert "stopped early: 1,000 rows accepted" in result.stderr


def test_a_busy_agent_is_asked_again(toy: ToyAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coherd.cli.invalidate.BUSY_PAUSE", 0.001)
    toy.refusals = [(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")] * 2
    assert coherd("invalidate", "shop", "k").exit_code == 0
    assert len(toy.asked) == 3
    toy.refusals = [(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")] * 8
    result = coherd("invalidate", "shop", "k")
    assert result.exit_code == 1
    assert (
        "takes no more for now (full); nothing was changed: try again in a moment" in result.stderr
    )


def test_an_agent_that_says_when_is_asked_again_then(
    toy: ToyAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, perf_counter=time.perf_counter)
    monkeypatch.setattr("coherd.cli.invalidate.time", clock)
    full = (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    toy.refusals, toy.pushback = [full] * 3, "1250"
    assert coherd("invalidate", "shop", "k").exit_code == 0
    assert slept == [1.25] * 3
    slept.clear()
    toy.refusals, toy.pushback = [full] * 2, "soon"
    assert coherd("invalidate", "shop", "k").exit_code == 0
    assert slept == [0.1, 0.2], "a hint that is none is not followed"
    slept.clear()
    toy.refusals, toy.pushback = [full], "60001"
    assert coherd("invalidate", "shop", "k").exit_code == 1
    assert slept == [], "that is longer than anybody waits"


def test_an_empty_file_is_nothing_to_do(toy: ToyAgent) -> None:
    result = coherd("invalidate", "shop", "--keys-from", "-", "-o", "json", input=b"\n\n")
    assert (result.exit_code, toy.asked) == (0, [])
    assert json.loads(result.stdout)["accepted"] == 0
    assert result.stderr == "the file has no keys: nothing was to do\n"


def test_a_dry_run_sends_nothing(toy: ToyAgent) -> None:
    result = coherd("invalidate", "shop", "a", "--prefix", "p", "--all", "--dry-run")
    assert (result.exit_code, toy.asked) == (0, [])
    assert result.stdout == (
        "would invalidate shop 1 key, 1 prefix, everything; nothing was sent\n"
    )
    result = coherd("invalidate", "shop", "a", "--dry-run", "-o", "json")
    assert json.loads(result.stdout) == {"dry_run": True, "namespace": "shop", "rows": 1}


def test_only_who_applied_every_batch_has_applied_the_file(toy: ToyAgent) -> None:
    answers: list[dict[str, Any]] = [
        {"applied": "a b", "missing": "c"},
        {"applied": "a c", "missing": "b"},
    ]
    toy.receipt = lambda first, last: receipt(dots(first, last), **answers.pop(0))
    result = coherd("invalidate", "shop", "--keys-from", "-", "-o", "json", input=b"k\n" * 1500)
    answer = json.loads(result.stdout)
    assert (answer["applied"], [gone["name"] for gone in answer["missing"]]) == (["a"], ["b", "c"])


def test_many_texts_of_a_receipt_are_counted_for_people(toy: ToyAgent) -> None:
    toy.receipt = lambda first, last: receipt(*(dots(2 * n) for n in range(1, 6)))
    result = coherd("invalidate", "shop", "k")
    assert result.stdout.endswith(
        f"{TOKEN}/2-2 {TOKEN}/4-4 {TOKEN}/6-6 and 2 more (-o json has them all)\n"
    )


def test_asking_for_more_agents_than_there_are_is_explained(toy: ToyAgent) -> None:
    toy.receipt = lambda first, last: receipt(dots(first, last), applied="a", complete=False)
    result = coherd("invalidate", "shop", "k", "--wait", "5")
    assert result.exit_code == 3
    assert "applied by 1 of 1: a; more agents were waited for than hold copies" in result.stdout


def test_a_receipt_is_asked_for_by_its_texts(toy: ToyAgent) -> None:
    toy.receipt = lambda *_: receipt(dots(1), applied="a b")
    result = coherd("receipt", f"{TOKEN}/7-9", f"{TOKEN}/10", "--timeout", "2s")
    assert (result.exit_code, result.stderr) == (0, "")
    assert untimed(result.stdout) == f"✓ {TOKEN}/7-10  applied by 2 of 2: a b\n"
    (request,) = toy.asked
    assert list(request.dots) == [dots(7, 10)]
    assert request.timeout.seconds == 2


def test_a_receipt_that_is_not_complete_has_exit_code_4(toy: ToyAgent) -> None:
    toy.receipt = lambda *_: receipt(dots(1), applied="a", missing="b")
    result = coherd("receipt", f"{TOKEN}/1-1", "-o", "json")
    assert result.exit_code == 3
    assert json.loads(result.stdout) == {
        "dots": [f"{TOKEN}/1-1"],
        "durable": None,
        "applied": ["a"],
        "missing": [{"name": "b", "state": "dead"}],
        "complete": False,
    }


@pytest.mark.parametrize(
    "text",
    ["x", "shop/a/1/fast/1-2", f"{TOKEN}/0-1", f"{TOKEN}/2-1", "S/a/1/bulk/1", f"{TOKEN}/1-"],
)
def test_a_text_that_names_no_rows_is_refused(toy: ToyAgent, text: str) -> None:
    result = coherd("receipt", text)
    assert (result.exit_code, toy.asked) == (2, [])
    assert "names no rows" in result.stderr


def test_a_stop_by_hand_says_what_was_done(toy: ToyAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    from coherd.cli import invalidate

    original: Callable[..., Any] = invalidate.call

    def interrupted(*arguments: Any) -> Any:
        if toy.asked:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(invalidate, "call", interrupted)
    result = coherd("invalidate", "shop", "--keys-from", "-", input=b"k\n" * 1500)
    assert result.exit_code == 1
    assert result.stdout.startswith("… shop 1,000 keys  accepted")
    assert "Aborted" in result.stderr


def test_the_commands_say_what_they_take() -> None:
    for verb in ("invalidate", "receipt"):
        text = click.unstyle(coherd(verb, "--help").stdout)
        assert "--timeout" in text
        assert "COHERD_ADDRESS" in text
