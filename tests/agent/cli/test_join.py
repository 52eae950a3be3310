"""`coherd join` against a toy agent: who answered, who did not, and the exit code."""

from __future__ import annotations

import json

import grpc
import pytest
from toy_agent import ToyAgent, coherd

from coherd.v1 import admin_service_pb2 as pb

ANSWERED = pb.JoinedSeed(seed="cache-2:4373", name="cache-2")
SILENT = pb.JoinedSeed(seed="10.0.0.13:4399", error="connection\nrefused")


def test_who_answered_is_told_for_each_seed(toy: ToyAgent) -> None:
    toy.joined = pb.JoinResponse(seeds=[ANSWERED, SILENT], members_known=3)
    result = coherd("join", "cache-2", "10.0.0.13:4399")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "✓ cache-2:4373    cache-2",
        "… 10.0.0.13:4399  no answer: connection\\nrefused",
        "3 agents known, this one included",
    ]
    assert toy.asked == [pb.JoinRequest(seeds=["cache-2:4373", "10.0.0.13:4399"])]


def test_where_none_answers_the_exit_code_says_so(toy: ToyAgent) -> None:
    toy.joined = pb.JoinResponse(seeds=[SILENT], members_known=1)
    result = coherd("join", "10.0.0.13:4399", "-o", "json")
    assert result.exit_code == 4
    assert json.loads(result.stdout) == {
        "seeds": [{"seed": "10.0.0.13:4399", "name": "", "error": "connection\nrefused"}],
        "members_known": 1,
    }


@pytest.mark.parametrize("seed", ["", "cache-2:0", "0.0.0.0", "unix:/x", "unix", "a b", "[::1"])
def test_what_is_no_address_asks_nobody(toy: ToyAgent, seed: str) -> None:
    result = coherd("join", "cache-2", seed)
    assert (result.exit_code, result.stdout, toy.asked) == (2, "", [])
    assert len(result.stderr.splitlines()) == 1


def test_seeds_are_due_and_not_too_many(toy: ToyAgent) -> None:
    assert coherd("join").exit_code == 2
    assert coherd("join", *(f"h{n}" for n in range(101))).exit_code == 2
    assert not toy.asked


def test_an_older_agent_does_not_know_the_call(toy: ToyAgent) -> None:
    toy.refusals = [(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")]
    result = coherd("join", "cache-2")
    assert result.exit_code == 1
    assert "does not know this call" in result.stderr
