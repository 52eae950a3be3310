"""`coherd forget` and `coherd leave` against a toy agent: what they print, and their exit codes."""

from __future__ import annotations

import json

import grpc
from toy_agent import DEAD, ToyAgent, coherd

from coherd.v1 import admin_service_pb2 as pb
from coherd.v1 import types_pb2

GONE = types_pb2.Member(name="cache-2", address="10.0.0.12:4373", state=DEAD, state_age_ms=65_000)


def test_who_is_forgotten_is_named(toy: ToyAgent) -> None:
    toy.forgotten = pb.ForgetResponse(member=GONE)
    result = coherd("forget", "cache-2")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "forgotten: cache-2 at 10.0.0.12:4373, dead for 1 min 5 s\n"
    assert toy.asked == [pb.ForgetRequest(name="cache-2")]
    answer = json.loads(coherd("forget", "cache-2", "-o", "json").stdout)
    assert (answer["name"], answer["state"]) == ("cache-2", "dead")


def test_a_refusal_is_one_line(toy: ToyAgent) -> None:
    toy.refusals = [
        (grpc.StatusCode.FAILED_PRECONDITION, "cache-2 is alive"),
        (grpc.StatusCode.NOT_FOUND, "no agent 'cache-9'; known are: cache-2"),
    ]
    alive = coherd("forget", "cache-2")
    assert (alive.exit_code, alive.stderr) == (1, "refused: cache-2 is alive\n")
    unknown = coherd("forget", "cache-9")
    assert (unknown.exit_code, unknown.stdout) == (6, "")
    assert unknown.stderr == "not found: no agent 'cache-9'; known are: cache-2\n"


def test_who_was_told_of_the_leaving_is_named(toy: ToyAgent) -> None:
    toy.left = pb.LeaveResponse(told=["cache-2", "cache-3"])
    result = coherd("leave")
    assert (result.exit_code, result.stdout, result.stderr) == (
        *(0, "left; told: cache-2 cache-3\n", ""),
    )
    toy.left = pb.LeaveResponse()
    assert coherd("leave").stdout == "left; there are no others to be told\n"


def test_who_could_not_be_told_makes_it_partial(toy: ToyAgent) -> None:
    toy.left = pb.LeaveResponse(told=["cache-2"], missed=["cache-3"])
    some = coherd("leave")
    assert (some.exit_code, some.stdout) == (3, "left; told: cache-2\n")
    assert some.stderr == "not told: cache-3; they learn it from the others\n"
    toy.left = pb.LeaveResponse(missed=["cache-2", "cache-3"])
    none = coherd("leave")
    assert (none.exit_code, none.stdout) == (3, "left; nobody could be told\n")
    assert "not told: cache-2 cache-3; run `coherd forget`" in none.stderr
    answer = json.loads(coherd("leave", "-o", "json").stdout)
    assert answer == {"told": [], "missed": ["cache-2", "cache-3"]}
