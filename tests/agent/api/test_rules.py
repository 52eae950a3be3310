"""Every RPC has a rule, and a rule finds in a request what it is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gated import B, Servicer, door, refusal, speaking
from google.protobuf.descriptor import ServiceDescriptor

from coherd.api.auditing import Records
from coherd.api.authorization import RULES, LocalGate
from coherd.api.health_service import DESCRIPTOR as HEALTH
from coherd.api.services import ADMIN, CACHE, PEER
from coherd.errors import RpcFailed
from coherd.net.bridge import methods
from coherd.v1 import admin_service_pb2 as admin
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import peer_service_pb2 as pb
from coherd.v1.types_pb2 import Dots, Member, Origin

DESCRIPTORS: tuple[ServiceDescriptor, ...] = (PEER, CACHE, ADMIN, HEALTH)
ALL = [method for descriptor in DESCRIPTORS for method in methods(descriptor).values()]


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.path)
def test_every_rpc_has_a_rule(method: Any) -> None:
    assert method.path in RULES


def test_no_rule_is_about_an_rpc_that_does_not_exist() -> None:
    assert {*RULES} == {method.path for method in ALL}


@pytest.mark.parametrize("gate", ["asking", "open"])
async def test_an_rpc_without_a_rule_is_refused_at_every_door(
    tmp_path: Path, gate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(RULES, "/coherd.v1.PeerService/Exchange")
    async with door(tmp_path) as opened:
        if gate == "asking":
            text = await refusal(opened, opened.authority.issue(B), "Exchange", speaking("b"))
        else:
            records = Records(opened.protection, lambda: 7)
            server = await opened.bridge.serve(
                [(PEER, Servicer())],
                ["127.0.0.1:0"],
                gate=LocalGate(None, records),
            )
            channel = opened.bridge.channel(f"127.0.0.1:{server.ports[0]}")
            with pytest.raises(RpcFailed) as caught:
                await channel.unary(methods(PEER)["Exchange"], speaking("b"), timeout=10)
            text = str(caught.value)
        assert "no rule says who may call /coherd.v1.PeerService/Exchange" in text


NAMESPACES: dict[str, Any] = {
    "Invalidate": cache.InvalidateRequest(namespace="n"),
    "InvalidateProgress": cache.InvalidateProgressRequest(
        invalidate=cache.InvalidateRequest(namespace="n")
    ),
    "GetReceipt": cache.GetReceiptRequest(dots=[Dots(namespace="n")]),
    "Watch": cache.WatchRequest(open=cache.WatchOpen(namespaces=["n"])),
    "TraceKey": admin.TraceKeyRequest(namespace="n"),
}


@pytest.mark.parametrize("method", [m for m in ALL if "Peer" not in m.path], ids=lambda m: m.path)
def test_a_rule_finds_the_namespaces_of_a_request(method: Any) -> None:
    request = NAMESPACES.get(method.name)
    rule = RULES[method.path]
    if request is None or method.path.startswith("/grpc"):
        assert set(rule.namespaces(method.request_class())) == {"*"}
    else:
        assert set(rule.namespaces(request)) == {"n"}


SPEAKING: dict[str, Any] = {
    "Link": pb.LinkRequest(open=pb.LinkOpen(me=Member(name="n"))),
} | {
    name: methods(PEER)[name].request_class(sender=Origin(name="n"))
    for name in ("Exchange", "Have", "Compare", "Fetch", "Applied", "Trace")
}


@pytest.mark.parametrize("name", methods(PEER))
def test_a_rule_finds_in_whose_name_an_agent_speaks(name: str) -> None:
    speaker = RULES[f"/{PEER.full_name}/{name}"].speaker
    assert speaker is not None
    assert speaker(SPEAKING[name]) == "n"
