"""`coherd members --watch` against a toy agent: lines, JSON, a terminal, and an agent that restarts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from terminal import PATIENCE, Terminal
from toy_agent import ALIVE, DEAD, EPOCH, ME, ToyAgent, coherd, serving

from coherd.cli import members_watch
from coherd.v1 import admin_service_pb2 as pb
from coherd.v1 import types_pb2

SUSPECT = types_pb2.MEMBER_STATE_SUSPECT


def peer(
    state: types_pb2.MemberState.ValueType = ALIVE, epoch: int = EPOCH, *, linked: bool = True
) -> types_pb2.Member:
    return types_pb2.Member(
        name="cache-2", epoch=epoch, address="10.0.0.12:4373", state=state, linked=linked
    )


def known(*others: types_pb2.Member) -> pb.ListMembersResponse:
    return pb.ListMembersResponse(members=[ME, *others])


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What happens between the looks; after the last of them Ctrl-C."""
    todo: list[Callable[[], object]] = []

    def pause() -> None:
        if not todo:
            raise KeyboardInterrupt
        todo.pop(0)()

    monkeypatch.setattr(members_watch, "pause", pause)
    return todo


Steps = list[Callable[[], object]]


def become(toy: ToyAgent, *others: types_pb2.Member) -> Callable[[], None]:
    def step() -> None:
        toy.members = known(*others)

    return step


def refuse(toy: ToyAgent, code: grpc.StatusCode, times: int = 1) -> Callable[[], None]:
    return lambda: toy.refusals.extend([(code, "stopping")] * times)


def what(line: str) -> str:
    """Give what a line says after its time."""
    return line.split("  ", 1)[1]


def test_a_line_for_each_member_and_then_for_each_change(toy: ToyAgent, steps: Steps) -> None:
    toy.members = known(peer())
    steps += [
        become(toy, peer()),
        become(toy, peer(SUSPECT)),
        become(toy, peer(DEAD)),
        become(toy, peer(ALIVE, EPOCH + 7, linked=False)),
        become(toy, peer(ALIVE, EPOCH + 7), types_pb2.Member(name="c\x1b", state=ALIVE)),
        become(toy),
    ]
    result = coherd("members", "--watch")
    assert (result.exit_code, result.stderr) == (0, "")
    assert [what(line) for line in result.stdout.splitlines()] == [
        "cache-1  alive",
        "cache-2  alive",
        "cache-2  alive -> suspect",
        "cache-2  suspect -> dead",
        f"cache-2  new epoch {EPOCH + 7}, was {EPOCH}",
        "cache-2  dead -> alive, no link",
        "cache-2  alive, no link -> alive",
        "c\\x1b  joined, alive, no link",
        "cache-2  gone, was alive",
        "c\\x1b  gone, was alive, no link",
    ]


def test_as_json_the_list_comes_first_and_then_an_object_for_each_change(
    toy: ToyAgent, steps: Steps
) -> None:
    toy.members = known(peer())
    steps += [become(toy, peer(DEAD)), become(toy, peer(DEAD, EPOCH + 1)), become(toy)]
    result = coherd("members", "--watch", "-o", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    first, *found = map(json.loads, result.stdout.splitlines())
    assert [each["name"] for each in first["members"]] == ["cache-1", "cache-2"]
    assert first["members"][1]["state"] == "alive"
    assert [[each[key] for key in ("name", "change", "before", "after")] for each in found] == [
        ["cache-2", "state", "alive", "dead"],
        ["cache-2", "epoch", EPOCH, EPOCH + 1],
        ["cache-2", "gone", "dead", None],
    ]
    assert found[0]["member"]["state"] == "dead"
    assert found[2]["member"] is None
    assert all(each["time"].endswith("+00:00") for each in (first, *found))


def test_an_agent_that_goes_away_is_said_so_once_and_asked_again(
    toy: ToyAgent, steps: Steps
) -> None:
    toy.members = known(peer())
    steps += [
        refuse(toy, grpc.StatusCode.UNAVAILABLE, 2),
        lambda: None,
        become(toy, peer(DEAD)),
        refuse(toy, grpc.StatusCode.UNAVAILABLE),
    ]
    result = coherd("members", "--watch")
    assert result.exit_code == 0
    assert [what(line) for line in result.stdout.splitlines()] == [
        "cache-1  alive",
        "cache-2  alive",
        "cache-2  alive -> dead",
    ]
    away = f"no answer from the agent at {toy.address}: trying again"
    assert result.stderr.splitlines() == [away, f"the agent at {toy.address} is back", away]


def test_where_none_answers_at_first_or_one_refuses_it_ends(
    toy: ToyAgent, steps: Steps, tmp_path: Path
) -> None:
    nobody = coherd("members", "--watch", "--local", f"unix:{tmp_path}/none")
    assert (nobody.exit_code, nobody.stdout) == (4, "")
    steps += [refuse(toy, grpc.StatusCode.PERMISSION_DENIED)]
    toy.members = known()
    refused = coherd("members", "--watch")
    assert refused.exit_code == 5
    assert "does not allow this" in refused.stderr


def test_a_terminal_is_redrawn_and_what_changed_is_marked(tmp_path: Path) -> None:
    toy = ToyAgent()
    toy.members = known(peer())
    with serving(toy, tmp_path / "s") as address:
        terminal = Terminal("members", "--watch", "--local", address, columns=90)
        assert "NAME" in terminal.read("--wide shows them")
        toy.members = known(peer(DEAD))
        drawn = terminal.read("cache-2  alive -> dead")
        assert "* cache-2" in drawn
        assert "\x1b[" in drawn, "in place"
    terminal.read("no answer from the agent")
    with serving(toy, tmp_path / "s"):
        toy.members = known(peer(ALIVE, EPOCH + 1))
        terminal.read("cache-2  dead -> alive")
        assert terminal.end() == 0


def test_a_pipe_gets_its_lines_at_once_over_a_restart_of_the_agent(tmp_path: Path) -> None:
    toy = ToyAgent()
    toy.members = known(peer())
    with serving(toy, tmp_path / "s") as address:
        process = subprocess.Popen(
            [sys.executable, "-m", "coherd", "members", "--watch", "--local", address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        assert what(process.stdout.readline()) == "cache-1  alive\n"
        assert what(process.stdout.readline()) == "cache-2  alive\n"
    with process:
        assert process.stderr.readline().startswith("no answer from the agent at ")
        toy.members = known(peer(ALIVE, EPOCH + 1))
        with serving(toy, tmp_path / "s"):
            assert process.stderr.readline().endswith(" is back\n")
            assert what(process.stdout.readline()).startswith("cache-2  new epoch ")
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
            assert process.stderr.read() == ""
