"""An invalidation that is followed on a terminal: the bar names who is missing, and is gone at the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import click
import grpc
import pytest
from terminal import PATIENCE, Terminal
from toy_agent import ALIVE, DEAD, ToyAgent, coherd, dots, receipt, serving

from coherd.cli import following
from coherd.v1 import cache_service_pb2 as pb
from coherd.v1 import types_pb2

SUSPECT = types_pb2.MEMBER_STATE_SUSPECT


def missing(name: str, state: types_pb2.MemberState.ValueType = ALIVE, age: int = 0) -> pb.Missing:
    return pb.Missing(name=name, state=state, state_age_ms=age)


def told(*who: pb.Missing, applied: str = "", final: bool = False) -> pb.InvalidateProgressResponse:
    whole = receipt(dots(1), applied=applied, complete=not who)
    whole.missing.extend(who)
    return pb.InvalidateProgressResponse(receipt=whole, final=final)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "is_watched", lambda: True)


def kinds(toy: ToyAgent) -> list[str]:
    return [type(request).__name__.removesuffix("Request") for request in toy.asked]


def test_a_bar_names_who_is_missing_and_is_gone_at_the_end(tmp_path: Path) -> None:
    toy, go_on = ToyAgent(), threading.Event()

    def progress() -> Iterator[pb.InvalidateProgressResponse]:
        yield told(missing("web-7"), missing("web-9", DEAD, 185_000), applied="web-1")
        go_on.wait(PATIENCE)
        yield told(missing("web-9", DEAD, 190_000), applied="web-1 web-7", final=True)

    toy.progress = progress
    with serving(toy, tmp_path / "s") as address:
        arguments = ("invalidate", "shop", "k", "--wait", "region", "--local", address)
        terminal = Terminal(*arguments, columns=110)
        terminal.read("1 of 3 applied, missing: web-7 (alive), web-9 (dead 3 min 5 s)")
        go_on.set()
        last = terminal.read("1-1")
        assert "\x1b[2K" in last, "the bar is taken away"
        line = click.unstyle(last.rpartition("\r")[2] or last)
        assert "… shop k  applied by 2 of 3: web-1 web-7; missing: web-9 (dead)" in line
        assert terminal.ended() == 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["k", "--wait", "region"], ["InvalidateProgress"]),
        (["k", "--wait", "2"], ["InvalidateProgress"]),
        (["k", "--wait", "members=2"], ["InvalidateProgress"]),
        (["k", "--wait", "local"], ["Invalidate"]),
        (["k"], ["Invalidate"]),
        (["k", "--wait", "region", "-o", "json"], ["Invalidate"]),
    ],
)
def test_who_is_waited_for_is_shown_to_people_alone(
    toy: ToyAgent, watched: None, arguments: list[str], expected: list[str]
) -> None:
    toy.progress = lambda: iter([told(applied="a b", final=True)])
    result = coherd("invalidate", "shop", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert kinds(toy) == expected


def test_keys_of_a_file_keep_their_own_progress(
    toy: ToyAgent, watched: None, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("a\nb\n")
    options = ("--keys-from", tmp_path / "keys", "--wait", "region")
    assert coherd("invalidate", "shop", *options).exit_code == 0
    assert kinds(toy) == ["Invalidate"]


def test_on_a_pipe_nothing_is_followed(toy: ToyAgent) -> None:
    assert coherd("invalidate", "shop", "k", "--wait", "region").exit_code == 0
    assert kinds(toy) == ["Invalidate"]


def test_an_older_agent_is_asked_in_the_way_that_it_knows(toy: ToyAgent, watched: None) -> None:
    result = coherd("invalidate", "shop", "k", "--wait", "region")
    assert (result.exit_code, result.stderr) == (0, "")
    assert kinds(toy) == ["InvalidateProgress", "Invalidate"]
    assert toy.asked[0].invalidate == toy.asked[1]


def test_a_busy_agent_is_asked_again(
    toy: ToyAgent, watched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coherd.cli.invalidate.BUSY_PAUSE", 0.0)
    toy.progress = lambda: iter([told(applied="a", final=True)])
    toy.refusals = [(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")]
    assert coherd("invalidate", "shop", "k", "--wait", "region").exit_code == 0
    assert kinds(toy) == ["InvalidateProgress"] * 2


def test_an_agent_that_ends_without_an_answer_is_said_so(toy: ToyAgent, watched: None) -> None:
    toy.progress = lambda: iter([told(missing("b"), applied="a")])
    result = coherd("invalidate", "shop", "k", "--wait", "region")
    assert result.exit_code == 4
    assert "ended the call before its answer" in result.stderr


NAMES = [missing(f"web-{n}") for n in range(1, 6)]


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (99, "0 of 5 applied, missing: " + ", ".join(f"web-{n} (alive)" for n in range(1, 6))),
        (66, "0 of 5 applied, missing: web-1 (alive), web-2 (alive) and 3 more"),
        (50, "0 of 5 applied, missing: web-1 (alive) and 4 more"),
        (40, "0 of 5 applied, missing: 5"),
        (5, "0 of 5 applied, missing: 5"),
    ],
)
def test_as_many_names_as_fit(width: int, text: str) -> None:
    assert following.sentence(pb.Receipt(missing=NAMES), 0, width) == text


def test_states_are_told_with_their_age_and_names_are_escaped() -> None:
    found = pb.Receipt(
        applied=["a"],
        missing=[missing("b\x1b", SUSPECT, 1500), missing("c", DEAD), missing("d", ALIVE, 9000)],
    )
    assert following.sentence(found, 0, 200) == (
        "1 of 4 applied, missing: b\\x1b (suspect 1.5 s), c (dead), d (alive)"
    )
    assert following.sentence(pb.Receipt(applied=["a"]), 3, 200) == "1 of 3 applied"
