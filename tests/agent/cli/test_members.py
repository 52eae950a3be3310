"""`coherd members` in full, `--watch`, and `coherd join`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

import grpc
import pytest
from toy_agent import ALIVE, DEAD, ToyAgent, coherd

from coherd.cli import members_watch
from coherd.cli.members import clock_of, row
from coherd.cli.members_watch import changes
from coherd.v1 import admin_service_pb2 as pb
from coherd.v1 import types_pb2 as types


def member(name: str = "b", **fields: object) -> types.Member:
    given = {"epoch": 7, "address": f"{name}:1", "state": ALIVE, "linked": True, **fields}
    return types.Member(name=name, state_age_ms=5000, **given)  # type: ignore[arg-type]


def test_caches_readiness_and_the_interval_of_the_clock_are_shown() -> None:
    handlers = [
        types.MemberHandler(kind="redis", namespace="shop", tags=True),
        types.MemberHandler(kind="memory", namespace="cart"),
    ]
    cells = row(
        member(
            handlers=handlers, ready=True, clock_offset_min_us=-250, clock_offset_max_us=1_250_900
        )
    )
    assert cells["HANDLERS"] == "redis:shop,memory:cart"
    assert (cells["READY"], cells["CLOCK"]) == ("yes", "-0.2..+1,250.9 ms")
    unknown = row(member())
    assert (unknown["READY"], unknown["CLOCK"], unknown["HANDLERS"]) == ("-", "-", "-")
    assert clock_of(member(clock_offset_min_us=0, clock_offset_max_us=0)) == "+0.0..+0.0 ms"


def test_one_that_is_alive_and_not_linked_is_told_apart() -> None:
    assert row(member(linked=False))["STATE"] == "alive, no link"
    assert row(member(linked=True))["STATE"] == "alive"
    assert row(member(linked=False, state=DEAD))["STATE"] == "dead"
    assert row(types.Member(name="me", state=ALIVE))["STATE"] == "alive", "this agent itself"


def test_every_change_of_a_member_is_found() -> None:
    before = [member("a"), member("b"), member("c")]
    after = [
        member("a", state=DEAD),
        member("b", epoch=8, address="b:2", ready=True),
        member("d"),
    ]
    assert sorted(map(str, changes(before, after))) == [
        "a  alive -> dead",
        "b  address b:1 -> b:2",
        "b  life 7 -> 8",
        "b  ready - -> yes",
        "c  gone",
        "d  joined",
    ]
    assert changes(after, after) == []


@pytest.fixture
def looks(toy: ToyAgent, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say what the agent answers at each look; then the user presses Ctrl-C."""

    def say(*answers: Sequence[types.Member]) -> None:
        left: Iterator[Sequence[types.Member]] = iter(answers)

        def sleep(_seconds: float) -> None:
            found = next(left, None)
            if found is None:
                raise KeyboardInterrupt
            if not found:
                toy.refusals.append((grpc.StatusCode.UNAVAILABLE, "stopping"))
            else:
                toy.members = pb.ListMembersResponse(members=found)

        monkeypatch.setattr(members_watch.time, "sleep", sleep)

    return say


def test_a_watch_prints_the_list_and_then_a_line_for_each_change(
    toy: ToyAgent, looks: Callable[..., None]
) -> None:
    toy.members = pb.ListMembersResponse(members=[member()])
    looks([member()], [member(state=DEAD)], [], [], [member(), member("c")])
    result = coherd("members", "--watch")
    assert result.exit_code == 0
    heads, first, *lines = result.stdout.splitlines()
    assert heads.startswith("NAME")
    assert first.startswith("b ")
    assert [line[10:] for line in lines] == ["b  alive -> dead", "b  dead -> alive", "c  joined"]
    away, back = result.stderr.splitlines()
    assert away.startswith("no answer: ")
    assert back.endswith("is back")


def test_a_watch_as_json_is_the_list_and_then_an_object_for_each_change(
    toy: ToyAgent, looks: Callable[..., None]
) -> None:
    toy.members = pb.ListMembersResponse(members=[member()])
    looks([member(state=DEAD)])
    first, second = map(json.loads, coherd("members", "--watch", "-o", "json").stdout.splitlines())
    assert [each["name"] for each in first] == ["b"]
    assert second.pop("time") > 0
    assert second == {"name": "b", "what": "state", "before": "alive", "after": "dead"}


def test_join_says_who_answered_and_why_others_did_not(toy: ToyAgent) -> None:
    toy.joined = pb.JoinResponse(
        seeds=[
            pb.JoinedSeed(seed="b:4373", name="cache-2"),
            pb.JoinedSeed(seed="c:1", error="connection refused"),
        ],
        members_known=3,
    )
    result = coherd("join", "b", "c:1")
    assert (result.exit_code, result.stdout) == (
        0,
        "b:4373  answered: cache-2\nc:1  no answer: connection refused\n3 agents known\n",
    )
    assert list(toy.asked[0].seeds) == ["b:4373", "c:1"]
    answer = json.loads(coherd("join", "b", "-o", "json").stdout)
    assert answer["seeds"][0] == {"seed": "b:4373", "name": "cache-2", "error": ""}


def test_join_where_nobody_answers_is_exit_code_3_and_a_bad_address_2(toy: ToyAgent) -> None:
    toy.joined = pb.JoinResponse(seeds=[pb.JoinedSeed(seed="c:1", error="x")], members_known=1)
    assert coherd("join", "c:1").exit_code == 3
    wrong = coherd("join", "c:0")
    assert (wrong.exit_code, wrong.stderr[:5]) == (2, "SEED:")
