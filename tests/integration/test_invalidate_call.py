"""Invalidate: its limits, lanes and effects; what is refused changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from integration.agents import AgentProcess, lone
from integration.polling import poll
from integration.watching import Watcher, dots_of

from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import types_pb2 as types

KEYS_1000 = [b"%d" % n for n in range(1000)]
VERSION_MAX = 2**63 - 1


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with lone(tmp_path_factory.mktemp("invalidate")) as agent:
        agent.start()
        poll(lambda: agent.status().ready, "the agent to be ready")
        yield agent
        assert agent.stop() == 0
        assert "exception" not in agent.log


TOO_MUCH: dict[str, dict[str, Any]] = {
    "no namespace": {"namespace": "", "keys": [b"a"]},
    "a long namespace": {"namespace": "a" * 65, "keys": [b"a"]},
    "upper case": {"namespace": "Shop", "keys": [b"a"]},
    "a namespace with a slash": {"namespace": "a/b", "keys": [b"a"]},
    "a namespace with an end of line": {"namespace": "shop\n", "keys": [b"a"]},
    "no rows": {},
    "1001 keys": {"keys": [*KEYS_1000, b"one more"]},
    "1000 keys and everything": {"keys": KEYS_1000, "everything": True},
    "1001 rows": {"keys": KEYS_1000[:500], "tags": KEYS_1000[:250], "prefixes": KEYS_1000[:251]},
    "an empty key": {"keys": [b"a", b""]},
    "an empty tag": {"tags": [b""]},
    "an empty prefix": {"prefixes": [b""]},
    "a long key": {"keys": [b"a" * 1025]},
    "a long tag": {"tags": [b"a" * 1025]},
    "a long prefix": {"prefixes": [b"a" * 1025]},
    "too few versions": {"keys": [b"a", b"b"], "versions": [1]},
    "too many versions": {"keys": [b"a"], "versions": [1, 2]},
    "a version beyond the highest": {"keys": [b"a"], "versions": [VERSION_MAX + 1]},
    "an unknown lane": {"keys": [b"a"], "lane": 4},
    "a negative lane": {"keys": [b"a"], "lane": -1},
    "an unknown effect": {"keys": [b"a"], "effect": 3},
    "an unknown wait": {"keys": [b"a"], "wait": 5},
    "members without waiting for them": {"keys": [b"a"], "members": 1},
    "members with another wait": {"keys": [b"a"], "members": 1, "wait": cache.WAIT_REGION},
    "waiting for no members": {"keys": [b"a"], "wait": cache.WAIT_MEMBERS},
    "a long wait": {"keys": [b"a"], "timeout": Duration(seconds=3600, nanos=1_000_000)},
    "a negative wait": {"keys": [b"a"], "timeout": Duration(nanos=-1)},
    "an endless wait": {"keys": [b"a"], "timeout": Duration(seconds=2**62)},
    "a long reason": {"keys": [b"a"], "reason": "é" * 257},
}


@pytest.mark.parametrize("fields", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_what_breaks_a_limit_changes_nothing(agent: AgentProcess, fields: dict[str, Any]) -> None:
    before = agent.status()
    with pytest.raises(grpc.RpcError) as caught:
        agent.invalidate(**{"namespace": "shop", **fields})
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert (caught.value.details() or "").isprintable()
    after = agent.status()
    assert after.cursor == before.cursor
    assert list(after.namespaces) == list(before.namespaces)


JUST_ENOUGH: dict[str, tuple[dict[str, Any], int]] = {
    "the longest namespace": ({"namespace": "a-z0.9_" + "x" * 57, "keys": [b"a"]}, 1),
    "the shortest namespace": ({"namespace": "-", "keys": [b"\x00"]}, 1),
    "1000 keys": ({"keys": KEYS_1000}, 1000),
    "1000 rows": (
        {"keys": KEYS_1000[:500], "tags": KEYS_1000[:250], "prefixes": KEYS_1000[:249],
         "everything": True, "versions": range(1000)},
        1000,
    ),
    "the largest request": ({"keys": [b"%03d" % n + b"\xff" * 1021 for n in range(1000)]}, 1000),
    "the highest version": ({"tags": [b"a"], "versions": [VERSION_MAX]}, 1),
    "the longest wait": ({"keys": [b"a"], "timeout": 3600}, 1),
    "no wait": ({"keys": [b"a"], "timeout": 0}, 1),
    "the longest reason": ({"keys": [b"a"], "reason": "\x1b\n" * 128}, 1),
    "the same key many times": ({"keys": [b"a"] * 1000}, 1000),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "rows"), JUST_ENOUGH.values(), ids=JUST_ENOUGH.keys())
def test_what_keeps_the_limits_is_accepted(
    agent: AgentProcess, fields: dict[str, Any], rows: int
) -> None:
    fields = {"namespace": "shop", **fields}
    with Watcher(agent, fields["namespace"]) as watcher:
        receipt = agent.invalidate(**fields)
        assert receipt.complete
        assert not receipt.missing
        assert receipt.durability == types.DURABILITY_OS
        assert len(dots_of(receipt.dots)) == rows
        poll(lambda: watcher.cursor == receipt.cursor, "the rows to be told")
    told = watcher.changes
    for kind in ("keys", "tags", "prefixes"):
        wanted = list(fields.get(kind, []))
        assert [text for change in told for text in getattr(change, kind)] == wanted
    assert any(change.everything for change in told) == fields.get("everything", False)
    assert {change.reason for change in told} == {fields.get("reason", "")}
    assert agent.receipt(receipt.dots).complete


def test_bytes_that_are_no_request_are_refused(agent: AgentProcess) -> None:
    for method in ("Invalidate", "GetReceipt"):
        call = agent.channel.unary_unary(f"/coherd.v1.CacheService/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff\xff\xff", timeout=5)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert agent.status().ready


def test_a_request_that_is_far_too_large_is_refused(agent: AgentProcess) -> None:
    before = agent.status().cursor
    with pytest.raises(grpc.RpcError) as caught:
        agent.invalidate(keys=[b"a" * 1024] * 5_000)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert agent.status().cursor == before


def test_each_lane_of_each_namespace_has_numbers_of_its_own(agent: AgentProcess) -> None:
    lanes = (types.LANE_URGENT, types.LANE_NORMAL, types.LANE_BULK)
    for first in (1, 3):
        for namespace in ("lanes", "lanes.too"):
            for lane in lanes:
                (dots,) = agent.invalidate(namespace, keys=[b"a", b"b"], lane=lane).dots
                assert (dots.namespace, dots.lane) == (namespace, lane)
                assert (dots.first, dots.last) == (first, first + 1)
                assert dots.origin == types.Origin(name="a", epoch=agent.status().me.epoch)
    assert agent.invalidate("lanes", keys=[b"a"]).dots[0].lane == types.LANE_NORMAL


def test_effects_are_told_as_they_were_asked_for(agent: AgentProcess) -> None:
    with Watcher(agent, "effects") as watcher:
        for effect in (types.EFFECT_UNSPECIFIED, types.EFFECT_STALE, types.EFFECT_DROP):
            agent.invalidate("effects", keys=[b"a"], effect=effect)
        poll(lambda: len(watcher.changes) == 3, "the rows to be told")
    effects = [change.effect for change in watcher.changes]
    assert effects == [types.EFFECT_DROP, types.EFFECT_STALE, types.EFFECT_DROP]


def test_receipts_of_rows_that_nobody_accepted_are_not_complete(agent: AgentProcess) -> None:
    before = agent.status()
    me = types.Origin(name="a", epoch=before.me.epoch)
    for dots in (
        types.Dots(namespace="never", origin=me, lane=types.LANE_NORMAL, first=1, last=1),
        types.Dots(
            namespace="shop",
            origin=types.Origin(name="stranger", epoch=7),
            lane=types.LANE_BULK,
            first=1,
            last=2**63 - 1,
        ),
    ):
        receipt = agent.receipt([dots], timeout=0.2)
        assert not receipt.complete
        assert [missing.name for missing in receipt.missing] == ["a"]
    namespaces = [(each.namespace, each.streams) for each in before.namespaces]
    after = agent.status()
    assert [(each.namespace, each.streams) for each in after.namespaces] == namespaces


A1 = types.Origin(name="a", epoch=1)
NO_ROWS = {
    "none": [],
    "empty": [types.Dots()],
    "no origin": [types.Dots(namespace="shop", lane=types.LANE_BULK, first=1, last=1)],
    "no lane": [types.Dots(namespace="shop", origin=A1, first=1, last=1)],
    "from 0": [types.Dots(namespace="shop", origin=A1, lane=types.LANE_BULK, last=1)],
    "backwards": [types.Dots(namespace="shop", origin=A1, lane=types.LANE_BULK, first=2, last=1)],
    "high": [types.Dots(namespace="shop", origin=A1, lane=types.LANE_BULK, first=1, last=2**63)],
    "namespace": [types.Dots(namespace="A", origin=A1, lane=types.LANE_BULK, first=1, last=1)],
    "many": [types.Dots(namespace="shop", origin=A1, lane=types.LANE_BULK, first=1, last=1)]
    * 10_001,
}


@pytest.mark.parametrize("dots", NO_ROWS.values(), ids=NO_ROWS.keys())
def test_what_names_no_rows_is_refused(agent: AgentProcess, dots: list[types.Dots]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        agent.receipt(dots)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_health_knows_the_services_by_name(agent: AgentProcess) -> None:
    for service in ("", "coherd.v1.CacheService", "coherd.v1.AdminService"):
        assert agent.health(service) == "SERVING"
    with pytest.raises(grpc.RpcError) as caught:
        agent.health("coherd.v1.PeerService")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_what_is_for_peers_is_not_served_to_applications(agent: AgentProcess) -> None:
    for method in ("Join", "Have", "Compare", "Applied"):
        with pytest.raises(grpc.RpcError) as caught:
            agent.channel.unary_unary(f"/coherd.v1.PeerService/{method}")(b"", timeout=5)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
