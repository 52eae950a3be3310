"""Who is let in at a door that asks for certificates, what others are told, and what each may do."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import grpc
import pytest
import trio
from bad_inputs.http2 import http2
from certificates import HOUR, Authority, Files, identity
from gated import GRANTS, ME, B, Door, Servicer, door, refusal, speaking

from coherd.api.authorization import CertificateGate
from coherd.api.doors import TLS_OPTIONS
from coherd.api.services import ADMIN, CACHE, PEER
from coherd.audit import DENIED, OK, Event, Kind
from coherd.config import Address
from coherd.errors import RpcFailed
from coherd.net.bridge import open_bridge
from coherd.net.obstacles import why_refused
from coherd.v1 import admin_service_pb2 as admin
from coherd.v1 import cache_service_pb2 as cache


async def test_an_agent_of_the_cluster_is_let_in(tmp_path: Path) -> None:
    async with door(tmp_path) as opened:
        files = opened.authority.issue(identity("agent/b"))
        assert (await opened.call(files, "Exchange", speaking("b"))).wall_us == 1


Issue = Callable[[Authority], Files]
READ: dict[str, tuple[Issue, str]] = {
    "without a URI": (lambda ca: ca.issue(B, uris=[]), "no URI among its alternative names"),
    "a common name alone": (
        lambda ca: ca.issue(B, uris=[], common_name=str(B)),
        "its common name counts for nothing",
    ),
    "two URIs": (
        lambda ca: ca.issue(B, uris=[str(B), str(identity("agent/c"))]),
        "2 URIs among its alternative names",
    ),
    "another form": (lambda ca: ca.issue(B, uris=["spiffe://example.org/b"]), "is not of the form"),
    "another cluster": (
        lambda ca: ca.issue(identity("agent/b", cluster="other")),
        "is of another cluster",
    ),
    "another trust domain": (
        lambda ca: ca.issue(identity("agent/b", trust="example.com")),
        "is of another cluster",
    ),
    "an authority's": (lambda ca: ca.issue(B, is_authority=True), "that of an authority"),
}
"""Certificates that TLS has nothing against, and what is said of them."""


@pytest.mark.bad_input(66)
@pytest.mark.parametrize("case", READ)
async def test_a_certificate_that_names_its_holder_wrongly_is_refused_in_words(
    tmp_path: Path, case: str
) -> None:
    issue, said = READ[case]
    async with door(tmp_path) as opened:
        text = await refusal(opened, issue(opened.authority), "Exchange", speaking("b"))
        assert text.startswith("UNAUTHENTICATED")
        assert said in text
        assert "\n" not in text


UNREAD: dict[str, tuple[Issue, str]] = {
    "expired": (lambda ca: ca.issue(B, ends=-timedelta(minutes=1)), "expired at"),
    "not yet valid": (lambda ca: ca.issue(B, starts=HOUR, ends=2 * HOUR), "is not valid before"),
    "another authority": (
        lambda ca: Authority(ca.folder, "foreign").issue(B, ca=ca.path),
        "not believed there",
    ),
}
"""Certificates that TLS refuses, and what is found out about that by trying once more."""


@pytest.mark.bad_input(66)
@pytest.mark.parametrize("case", UNREAD)
async def test_a_certificate_that_tls_refuses_is_explained_by_trying_once_more(
    tmp_path: Path, case: str
) -> None:
    issue, said = UNREAD[case]
    async with door(tmp_path) as opened:
        files = issue(opened.authority)
        assert (await refusal(opened, files, "Exchange", speaking("b"))).startswith("UNAVAILABLE")
        obstacle = await why_refused(Address("127.0.0.1", opened.port), files.tls, B, "a")
        assert obstacle is not None
        assert said in obstacle.text
        assert obstacle.remedy


SERVERS: dict[str, tuple[Issue, str]] = {
    "expired": (lambda ca: ca.issue(ME, ends=-timedelta(minutes=1)), "has expired"),
    "not yet valid": (lambda ca: ca.issue(ME, starts=HOUR, ends=2 * HOUR), "not valid yet"),
    "another authority": (
        lambda ca: Authority(ca.folder, "foreign").issue(ME),
        "not from an authority",
    ),
    "a client's": (
        lambda ca: ca.issue(identity("client/a"), for_servers=False),
        "that of a client",
    ),
    "another role": (lambda ca: ca.issue(identity("operator/a")), "which is no agent"),
    "another agent's": (lambda ca: ca.issue(identity("agent/c")), "c answers there, not a"),
    "another cluster's": (
        lambda ca: ca.issue(identity("agent/a", cluster="other")),
        "of another cluster",
    ),
    "without a URI": (lambda ca: ca.issue(ME, uris=[]), "no URI"),
}
"""What a server may show, and what is said of it."""


@pytest.mark.bad_input(66)
@pytest.mark.parametrize("case", SERVERS)
async def test_a_server_with_a_wrong_certificate_is_not_spoken_with_and_it_is_said_why(
    tmp_path: Path, case: str
) -> None:
    issue, said = SERVERS[case]
    authority = Authority(tmp_path)
    mine, theirs = authority.issue(B), issue(authority)
    configuration = grpc.ssl_server_certificate_configuration(
        [(theirs.key.read_bytes(), theirs.cert.read_bytes())], authority.path.read_bytes()
    )
    credentials = grpc.dynamic_ssl_server_credentials(
        configuration, lambda: configuration, require_client_authentication=True
    )
    async with open_bridge() as bridge:
        server = await bridge.serve([(PEER, Servicer())], ["127.0.0.1:0"], credentials=credentials)
        asking = Door(bridge, authority, server.ports[0])
        if case != "without a URI":  # who is there TLS tells by a name that goes with the URI
            assert (await refusal(asking, mine, "Exchange", speaking("b"))).startswith(
                "UNAVAILABLE"
            )
        obstacle = await why_refused(Address("127.0.0.1", asking.port), mine.tls, B, "a")
        assert obstacle is not None
        assert said in obstacle.text


@pytest.mark.bad_input(66)
async def test_an_older_tls_is_refused(tmp_path: Path) -> None:
    async with door(tmp_path) as opened:
        files = opened.authority.issue(B)
        answers = {}
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.load_verify_locations(cafile=files.ca)
            context.load_cert_chain(files.cert, files.key)
            context.set_alpn_protocols(["h2"])
            context.maximum_version = version
            call = partial(call_by_hand, opened.port, context)
            answers[version] = await trio.to_thread.run_sync(call)
        assert answers[ssl.TLSVersion.TLSv1_3][b"grpc-status"] == b"0"
        assert answers[ssl.TLSVersion.TLSv1_2][b"grpc-status"] == b"16"
        assert b"TLSv1.3 is due" in answers[ssl.TLSVersion.TLSv1_2][b"grpc-message"]


def call_by_hand(port: int, tls: ssl.SSLContext) -> dict[bytes, bytes]:
    """Make one call; give the headers of the answer."""
    with http2(f"127.0.0.1:{port}", tls) as client:
        client.await_settings()
        return client.call(f"/{PEER.full_name}/Exchange", speaking("b").SerializeToString())


@pytest.mark.bad_input(65)
@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01"])
async def test_who_never_finishes_a_handshake_is_cut_off(tmp_path: Path, begun: bytes) -> None:
    async with door(tmp_path, options=[("grpc.server_handshake_timeout_ms", 300)]) as opened:
        slow = await trio.open_tcp_stream("127.0.0.1", opened.port)
        async with slow:
            if begun:
                await slow.send_all(begun)
            files = opened.authority.issue(B)
            assert (await opened.call(files, "Exchange", speaking("b"))).wall_us == 1
            with trio.fail_after(20), suppress(trio.BrokenResourceError):
                assert await slow.receive_some() == b""
    assert dict(TLS_OPTIONS)["grpc.server_handshake_timeout_ms"] == 10_000


async def test_nothing_is_said_where_nothing_is_wrong(tmp_path: Path) -> None:
    async with door(tmp_path) as opened:
        files = opened.authority.issue(B)
        assert await why_refused(Address("127.0.0.1", opened.port), files.tls, B, "a") is None
        assert await why_refused(Address("127.0.0.1", opened.port), files.tls, B) is None


async def test_a_server_that_speaks_no_tls_is_found_out(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue(B)
    async with open_bridge() as bridge:
        server = await bridge.serve([(PEER, Servicer())], ["127.0.0.1:0"])
        obstacle = await why_refused(Address("127.0.0.1", server.ports[0]), files.tls, B)
        assert obstacle is not None
        assert "[tls]" in obstacle.remedy


async def test_a_call_ends_when_the_certificate_of_the_caller_expires(tmp_path: Path) -> None:
    async with door(tmp_path) as opened:
        files = opened.authority.issue(identity("client/shop-1"))
        (server,) = opened.bridge._servers
        async with opened.watch(files, "shop") as stream:
            assert (await stream.receive())[0].cursor == "seen"
            server.end_expired(time.time())
            stream.send_nowait(cache.WatchRequest(acknowledged="x"))
            assert (await stream.receive())[0].cursor == "seen"
            server.end_expired(time.time() + 2 * HOUR.total_seconds())
            with pytest.raises(RpcFailed, match="expired"):
                await stream.receive()


async def test_a_watch_ends_when_the_grant_of_the_caller_is_gone(tmp_path: Path) -> None:
    grants = list(GRANTS)
    async with door(tmp_path, grants) as opened:
        files = opened.authority.issue(identity("client/shop-1"))
        (server,) = opened.bridge._servers
        assert isinstance(server.gate, CertificateGate)
        async with opened.watch(files, "shop") as ended, opened.watch(files, "shop.eu") as kept:
            assert (await ended.receive())[0].cursor == (await kept.receive())[0].cursor == "seen"
            grants[0] = grants[0]._replace(namespaces=["shop.*"])
            opened.events.clear()
            server.end_denied(server.gate.why_not)
            why = "no grant lets client/shop-1 watch namespace 'shop'"
            with pytest.raises(RpcFailed, match=f"PERMISSION_DENIED: {why}"):
                await ended.receive()
            assert [(e.rpc, e.outcome, e.why.split(":")[0]) for e in opened.events] == [
                ("Watch", DENIED, why)
            ]
            kept.send_nowait(cache.WatchRequest(acknowledged="x"))
            assert (await kept.receive())[0].cursor == "seen"


# ------------------------------------------------------------------ what they may do


async def test_a_member_cannot_speak_in_the_name_of_another(tmp_path: Path) -> None:
    async with door(tmp_path) as opened:
        files = opened.authority.issue(B)
        text = await refusal(opened, files, "Exchange", speaking("c"))
        assert text == f"PERMISSION_DENIED: {B} speaks in the name of 'c'"
        assert opened.protection.denied == {"Exchange": 1}
        why = f"{B} speaks in the name of 'c'"
        assert opened.events == [Event(7, Kind.DENIED, str(B), "Exchange", outcome=DENIED, why=why)]


async def test_a_client_is_no_agent_and_an_agent_is_no_client(tmp_path: Path) -> None:
    async with door(tmp_path) as opened:
        client = opened.authority.issue(identity("client/b"))
        agent = opened.authority.issue(B)
        assert "for agent alone" in await refusal(opened, client, "Exchange", speaking("b"))
        request = cache.InvalidateRequest(namespace="shop", keys=[b"k"])
        assert "for client or operator" in await refusal(
            opened, agent, "Invalidate", request, CACHE
        )


async def test_a_client_may_invalidate_what_a_grant_names_and_nothing_else(tmp_path: Path) -> None:
    async with door(tmp_path) as opened:
        files = opened.authority.issue(identity("client/shop-1"))
        for allowed in ("shop", "shop.eu"):
            request = cache.InvalidateRequest(namespace=allowed, keys=[b"k"])
            await opened.call(files, "Invalidate", request, CACHE)
        for namespace in ("billing", "shopping", "*"):
            request = cache.InvalidateRequest(namespace=namespace, keys=[b"k"])
            text = await refusal(opened, files, "Invalidate", request, CACHE)
            assert text.startswith("PERMISSION_DENIED: no grant lets client/shop-1 invalidate")


async def test_a_watcher_needs_a_grant_for_every_namespace_that_it_names(tmp_path: Path) -> None:
    async with door(tmp_path) as opened:
        files = opened.authority.issue(identity("client/shop-1"))
        async with opened.watch(files, "shop", "shop.eu") as stream:
            assert len(await stream.receive()) == 1
        async with opened.watch(files, "shop", "billing") as stream:
            with pytest.raises(RpcFailed, match="watch namespace 'billing'"):
                await stream.receive()


async def test_only_an_operator_may_do_what_operators_do(tmp_path: Path) -> None:
    async with door(tmp_path) as opened:
        for label in ("agent/b", "client/shop-1", "client/monitor"):
            files = opened.authority.issue(identity(label))
            text = await refusal(opened, files, "Leave", admin.LeaveRequest(), ADMIN)
            assert text.startswith("PERMISSION_DENIED")
        opened.events.clear()
        operator = opened.authority.issue(identity("operator/ann"))
        await opened.call(operator, "Leave", admin.LeaveRequest(), ADMIN)
        ann = str(identity("operator/ann"))
        assert opened.events == [Event(7, Kind.ADMIN, ann, "Leave", outcome=OK)]


async def test_who_invalidates_more_than_keys_is_written_down(tmp_path: Path) -> None:
    async with door(tmp_path) as opened:
        files = opened.authority.issue(identity("client/shop-1"))
        for request, what in (
            (cache.InvalidateRequest(keys=[b"k"]), ""),
            (cache.InvalidateRequest(everything=True, reason="new prices"), "everything"),
            (
                cache.InvalidateRequest(keys=[b"k"], prefixes=[b"a", b"b"], tags=[b"t"]),
                "2 prefixes, 1 tags",
            ),
        ):
            opened.events.clear()
            request.namespace = "shop"
            await opened.call(files, "Invalidate", request, CACHE)
            assert [(e.kind, e.namespace, e.what, e.why) for e in opened.events] == (
                [(Kind.WIDE, "shop", what, request.reason)] if what else []
            )
