"""`coherd members` against a toy agent: its table, narrow terminals, JSON."""

from __future__ import annotations

import json

import pytest
from toy_agent import ALIVE, DEAD, EPOCH, ME, ToyAgent, coherd

from coherd.cli.members import HEADS, LEAVE_OUT, clock_of, fitted, row
from coherd.v1 import admin_service_pb2 as pb
from coherd.v1 import types_pb2

PEER = types_pb2.Member(
    name="cache-2",
    epoch=EPOCH + 1,
    address="10.0.0.12:4373",
    region="eu-west",
    namespaces=["shop", "web"],
    version="0.2.0",
    protocol_min=1,
    protocol_max=2,
    state=DEAD,
    state_age_ms=65_000,
    round_trip_us=230,
    clock_offset_min_us=200,
    clock_offset_max_us=900,
    handlers=[
        types_pb2.MemberHandler(kind="redis", namespace="shop", tags=True),
        types_pb2.MemberHandler(kind="memory", namespace="cart"),
    ],
    ready=False,
)


def test_members_are_a_table(toy: ToyAgent) -> None:
    toy.members = pb.ListMembersResponse(members=[ME, PEER])
    result = coherd("members")
    assert (result.exit_code, result.stderr) == (0, "")
    heads, first, second = result.stdout.splitlines()
    assert [head for head in HEADS if head not in heads] == []
    assert first.split() == [
        *("cache-1", "alive", "-", "eu-west", "127.0.0.1:4373", "-", "-", "*", "-", "-"),
        *("0.1.0", "1", str(EPOCH)),
    ]
    for head, text in (
        ("STATE", "dead"),
        ("SINCE", "1 min 5 s"),
        ("ROUND TRIP", "0.23 ms"),
        ("CLOCK", "+0.2..+0.9 ms"),
        ("NAMESPACES", "shop,web"),
        ("HANDLERS", "redis:shop, memory:cart"),
        ("READY", "no"),
        ("VERSION", "0.2.0"),
        ("PROTOCOL", "1-2"),
        ("EPOCH", str(EPOCH + 1)),
    ):
        assert second[heads.index(head) :].startswith(text), head


@pytest.mark.parametrize(
    ("state", "linked", "is_me", "text"),
    [
        (ALIVE, True, False, "alive"),
        (ALIVE, False, False, "alive, no link"),
        (ALIVE, False, True, "alive"),
        (types_pb2.MEMBER_STATE_SUSPECT, False, False, "suspect"),
        (types_pb2.MEMBER_STATE_SUSPECT, True, False, "suspect"),
        (types_pb2.MEMBER_STATE_RESTARTING, False, False, "restarting"),
        (DEAD, False, False, "dead"),
        (99, False, False, "unknown"),
    ],
)
def test_who_lives_and_cannot_be_linked_with_is_said(
    state: types_pb2.MemberState.ValueType, linked: bool, is_me: bool, text: str
) -> None:
    member = types_pb2.Member(name="b", state=state, linked=linked)
    assert row(member, is_me=is_me)["STATE"] == text


def test_of_one_that_was_not_heard_yet_little_is_known() -> None:
    cells = row(types_pb2.Member(name="b", state=DEAD), is_me=False)
    assert [cells[head] for head in ("REGION", "VERSION", "HANDLERS", "READY", "CLOCK")] == [
        *("-", "-", "-", "-", "-")
    ]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (200, 900, "+0.2..+0.9 ms"),
        (-149, 151, "-0.2..+0.2 ms"),
        (20, 30, "+0.0..+0.1 ms"),
        (-30, -20, "-0.1..+0.0 ms"),
        (0, 0, "+0.0..+0.0 ms"),
        (-999_999, 5, "-1000.0..+0.1 ms"),
        (999_000, 1_000_000, "+0.9..+1.0 s"),
        (-62_010_000, -61_990_000, "-62.1..-61.9 s"),
        (86_400_000_000, 86_400_000_001, "+86400.0..+86400.1 s"),
    ],
)
def test_the_interval_of_a_clock_never_gets_narrower_than_it_is(
    low: int, high: int, text: str
) -> None:
    member = types_pb2.Member(clock_offset_min_us=low, clock_offset_max_us=high)
    assert clock_of(member) == text


def test_a_narrow_terminal_has_fewer_columns() -> None:
    cells = [dict.fromkeys(HEADS, "x" * 10)]
    assert fitted(cells, 1000)[1] == 0
    lines, without = fitted(cells, 80)
    assert without == len(LEAVE_OUT)
    assert max(map(len, lines)) <= 80
    assert "EPOCH" not in lines[0]
    for head in ("NAME", "STATE", "SINCE", "ADDRESS", "ROUND TRIP", "NAMESPACES"):
        assert head in lines[0]
    assert fitted(cells, 10)[1] == len(LEAVE_OUT)


def test_the_least_useful_columns_go_first() -> None:
    cells = [dict.fromkeys(HEADS, "x" * 10)]
    shown = [fitted(cells, width)[1] for width in range(70, 170)]
    assert shown == sorted(shown, reverse=True)
    assert set(shown) == set(range(len(LEAVE_OUT) + 1))


def test_members_as_json_are_objects(toy: ToyAgent) -> None:
    toy.members = pb.ListMembersResponse(members=[ME, PEER])
    me, peer = json.loads(coherd("members", "-o", "json").stdout)
    assert me["state"] == "alive"
    assert {name: peer[name] for name in ("name", "state", "address", "region", "epoch")} == {
        "name": "cache-2",
        "state": "dead",
        "address": "10.0.0.12:4373",
        "region": "eu-west",
        "epoch": EPOCH + 1,
    }
    assert (peer["namespaces"], peer["round_trip_us"]) == (["shop", "web"], 230)
    assert (peer["clock_offset_min_us"], peer["clock_offset_max_us"]) == (200, 900)
    assert (peer["ready"], peer["linked"]) == (False, False)
    assert peer["handlers"][0] == {"kind": "redis", "namespace": "shop", "tags": True}
    assert (me["ready"], me["clock_offset_min_us"], me["handlers"]) == (None, None, [])
