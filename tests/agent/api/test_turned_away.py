"""Who is turned away is so at once, before its request is read, and at no cost to others."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
from bad_inputs.http2 import Http2, http2
from certificates import Files, identity
from gated import GRANTS, ME, B, door, refusal, speaking
from h2.events import ResponseReceived, StreamEnded, StreamReset, TrailersReceived

from coherd.api import authorization
from coherd.api.auditing import Records
from coherd.api.authorization import Certified, LocalGate
from coherd.api.services import CACHE, PEER
from coherd.api.token import Token
from coherd.cluster.protection import Protection
from coherd.grants import Decision, Grant, Verb
from coherd.limits import IDENTITY_CALLS_MAX
from coherd.net import bridge_server
from coherd.v1 import cache_service_pb2 as cache

EXCHANGE = f"/{PEER.full_name}/Exchange"
INVALIDATE = f"/{CACHE.full_name}/Invalidate"
CALLS = 20


def tls_of(files: Files) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files.ca))
    context.check_hostname = False
    context.load_cert_chain(files.cert, files.key)
    context.set_alpn_protocols(["h2"])
    return context


def opened_in_vain(client: Http2, path: str, calls: int) -> list[bytes]:
    """Open calls, send none of their requests, and wait for their ends; give the statuses."""
    client.await_settings()
    for _ in range(calls):
        client.open(path)
    client.send()
    statuses: list[bytes] = []
    for event in client.events():
        if isinstance(event, ResponseReceived | TrailersReceived):
            statuses += [value for name, value in event.headers or () if name == b"grpc-status"]
        if isinstance(event, StreamEnded | StreamReset) and len(statuses) == calls:
            break
    return statuses


async def ask_in_vain(port: int, tls: ssl.SSLContext | None, path: str, calls: int) -> set[bytes]:
    def ask() -> set[bytes]:
        with http2(f"127.0.0.1:{port}", tls) as client:
            return set(opened_in_vain(client, path, calls))

    return await trio.to_thread.run_sync(ask)


@pytest.mark.parametrize("path", [EXCHANGE, INVALIDATE])
async def test_a_stranger_is_refused_without_its_request_being_waited_for(
    tmp_path: Path, path: str
) -> None:
    async with door(tmp_path) as opened:
        stranger = opened.authority.issue(identity("client/nobody", cluster="elsewhere"))
        assert await ask_in_vain(opened.port, tls_of(stranger), path, CALLS) == {b"16"}
        assert len(opened.events) == CALLS


async def test_calls_without_a_request_count_as_those_of_their_caller_and_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_server, "REQUEST_TIMEOUT", 1.0)
    async with door(tmp_path) as opened:
        shop = opened.authority.issue(identity("client/shop-1"))
        asked = await ask_in_vain(opened.port, tls_of(shop), INVALIDATE, IDENTITY_CALLS_MAX + 1)
        assert asked == {b"4", b"8"}, "they are too late; and one was too many"
        files = opened.authority.issue(B)
        assert (await opened.call(files, "Exchange", speaking("b"))).wall_us == 1


async def test_who_has_not_the_secret_is_refused_without_its_request_being_waited_for(
    tmp_path: Path,
) -> None:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text("0123456789abcdef")
    async with door(tmp_path / "pki") as opened:
        server = await opened.bridge.serve(
            [(CACHE, object())],
            ["127.0.0.1:0"],
            gate=LocalGate(Token(path), Records(Protection(), lambda: 7)),
        )
        assert await ask_in_vain(server.ports[0], None, INVALIDATE, CALLS) == {b"12"}
        await server.stop(0)
        server = await opened.bridge.serve(
            [(CACHE, _Cache())],
            ["127.0.0.1:0"],
            gate=LocalGate(Token(path), Records(Protection(), lambda: 7)),
        )
        assert await ask_in_vain(server.ports[0], None, INVALIDATE, CALLS) == {b"16"}


class _Cache:
    async def Invalidate(self, _request: Any, _call: Any) -> cache.InvalidateResponse:
        return cache.InvalidateResponse()


def watch(*namespaces: str) -> cache.WatchRequest:
    return cache.WatchRequest(open=cache.WatchOpen(namespaces=namespaces))


def test_a_namespace_is_looked_up_once_however_often_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def decide(_grants: Any, _who: Any, _verb: Verb, namespace: str) -> Decision:
        asked.append(namespace)
        return Decision(True, "")

    monkeypatch.setattr(authorization, "decide", decide)
    certified = Certified(lambda: ME, lambda: GRANTS, lambda: 0.0)
    rule = authorization.RULES[f"/{CACHE.full_name}/Watch"]
    who = identity("client/shop-1")
    assert not certified.why_not(who, rule, watch(*["shop"] * 100_000, "shop.b"))
    assert asked == ["shop", "shop.b"]
    names = [f"shop.{n}" for n in range(authorization.NAMESPACES_MAX + 1)]
    assert certified.why_not(who, rule, watch(*names)) == "more than 1000 namespaces in one request"
    assert not certified.why_not(who, rule, watch(*names[:-1]))


def test_grants_of_others_are_left_out_before_namespaces_are_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(
        authorization, "decide", lambda grants, *_: kept.extend(grants) or Decision(True, "")
    )
    others = [Grant([f"client/other-{n}"], [Verb.WATCH], ["*"]) for n in range(100)]
    verbs = [Grant(["client/shop-1"], [Verb.READ], ["*"])]
    own = Grant(["client/shop-*"], [Verb.WATCH], ["shop"])
    certified = Certified(lambda: ME, lambda: [*others, *verbs, own], lambda: 0.0)
    rule = authorization.RULES[f"/{CACHE.full_name}/Watch"]
    certified.why_not(identity("client/shop-1"), rule, watch("shop"))
    assert kept == [own]


async def test_what_is_said_of_a_refusal_is_short_whatever_was_asked(tmp_path: Path) -> None:
    async with door(tmp_path) as opened:
        files = opened.authority.issue(identity("client/shop-1"))
        request = cache.InvalidateRequest(namespace="\x01" * 1_000_000, keys=[b"k"])
        said = await refusal(opened, files, "Invalidate", request, CACHE)
        assert "no grant lets client/shop-1 invalidate namespace '\\x01" in said
        assert len(said) < 600
        assert all(len(event.why) < 600 for event in opened.events)
