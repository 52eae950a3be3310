"""The HTTP server on real sockets: what it answers, what it refuses, and what harms nobody."""

from __future__ import annotations

import json
import socket
import struct
from unittest.mock import AsyncMock

import pytest
import trio
from http_site import LONG, Site, all_closed, begin_long_answer, read_all
from hypercorn.protocol.h11 import H11Protocol

from coherd.api import http_server
from coherd.api.http_server import listen
from coherd.config import Address
from coherd.errors import StartRefused


@pytest.fixture
async def site(nursery: trio.Nursery) -> Site:
    site = Site(nursery)
    await site.open()
    return site


async def test_the_three_paths_and_their_list(site: Site) -> None:
    assert await site.ask("GET /livez") == (200, "ok\n")
    assert await site.ask("GET /readyz") == (200, "ready\n")
    status, text = await site.ask("GET /metrics")
    assert status == 200
    assert "\ntoy 1.0\n" in text
    status, text = await site.ask("GET /")
    assert [line.split()[0] for line in text.splitlines()] == ["/metrics", "/livez", "/readyz"]


async def test_readiness_is_red_with_reasons_in_both_forms(site: Site) -> None:
    site.agent.why = ["the disk failed", "nobody answers"]
    assert await site.ask("GET /readyz") == (503, "the disk failed\nnobody answers\n")
    asks = [("GET /readyz?format=json",), ("GET /readyz", "accept: application/json")]
    for ask in asks:
        status, text = await site.ask(*ask)
        assert status == 503
        assert json.loads(text) == {"ready": False, "reasons": site.agent.why}
    assert (await site.ask("GET /livez"))[0] == 200, "nothing to restart it for"
    site.agent.why = []
    status, text = await site.ask(*asks[0])
    assert (status, json.loads(text)) == (200, {"ready": True, "reasons": []})


async def test_it_stays_with_http_1_whatever_is_offered(site: Site) -> None:
    upgrade = ("upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__")
    assert await site.ask("GET /livez", *upgrade) == (200, "ok\n")


async def test_metrics_in_the_form_that_is_asked_for(site: Site) -> None:
    answer = await site.ask_raw("GET /metrics")
    assert "content-type: text/plain" in answer
    assert "cache-control: no-store" in answer
    accept = "accept: application/openmetrics-text; version=1.0.0"
    answer = await site.ask_raw("GET /metrics", accept)
    assert "content-type: application/openmetrics-text" in answer
    assert answer.endswith("# EOF\n")


@pytest.mark.parametrize("version", ["x;q=;;==", "1.x", "1.", "9" * 5000, "\xb2"])
async def test_a_version_that_is_none_gets_plain_text(
    site: Site, capsys: pytest.CaptureFixture[str], version: str
) -> None:
    for kind in ("application/openmetrics-text", "text/plain"):
        accept = f"accept: {kind};version={version}"
        answer = await site.ask_raw("GET /metrics", accept)
        assert answer.startswith("HTTP/1.1 200")
        assert "content-type: text/plain" in answer
        assert "\ntoy 1.0\n" in answer
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/metrics"])
async def test_head_answers_without_a_body(site: Site, path: str) -> None:
    assert await site.ask(f"HEAD {path}") == (200, "")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /nothing", 404),
        ("GET /metrics/", 404),
        ("GET //evil.test/..", 404),
        ("GET /%00%ff", 404),
        ("POST /livez", 405),
        ("DELETE /metrics", 405),
    ],
)
async def test_anything_else_is_refused_in_one_line(
    site: Site, request_line: str, status: int
) -> None:
    found, text = await site.ask(request_line)
    assert (found, text.count("\n")) == (status, 1)
    assert "/ lists what there is" in text


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.9.9.9:1", "[::1]:5"]
)
async def test_it_answers_under_the_names_of_this_host(site: Site, host: str) -> None:
    assert await site.ask("GET /livez", host=host) == (200, "ok\n")


@pytest.mark.parametrize(
    "host",
    ["evil.test", "evil.test:4375", "localhost.evil.test", "127.0.0.1.evil.test", "[::", "x@y"],
)
async def test_it_does_not_answer_under_a_foreign_name(site: Site, host: str) -> None:
    for path in ("/metrics", "/livez", "/nothing"):
        status, text = await site.ask(f"GET {path}", host=host)
        assert (status, text) == (421, f"ask for this agent as {site.address}\n")


async def test_a_name_of_a_public_address_is_not_checked(nursery: trio.Nursery) -> None:
    site = Site(nursery)
    await site.open(as_if="192.0.2.1")
    assert await site.ask("GET /livez", host="cache-1.internal") == (200, "ok\n")


async def test_a_failure_is_an_answer_and_a_line_in_the_log(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.collector.collect = lambda: 1 / 0  # type: ignore[assignment, return-value]
    assert (await site.ask("GET /metrics"))[0] == 500
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert await site.ask("GET /livez") == (200, "ok\n")


@pytest.mark.parametrize(
    "noise",
    [
        b"\x00\xff\x16\x03\x01" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\ntransfer-encoding: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 20_000,
        b"GET /livez HTTP/1.1\r\nhost: localhost\r\nupgrade: h2c\r\nhttp2-settings: !\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"PRI * HTTP/2.0\r\n\r\nxx",
        "GET /\u00e4 HTTP/1.1\r\nhost: localhost\r\n\r\n".encode(),
    ],
    ids=range(11),
)
async def test_noise_harms_nobody(site: Site, noise: bytes) -> None:
    stream = await site.connect()
    async with stream:
        await stream.send_all(noise)
        await stream.send_eof()
        await read_all(stream)
    assert await site.ask("GET /livez") == (200, "ok\n")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("connection", ["close", "keep-alive"])
async def test_a_client_that_sends_no_more_is_still_answered(
    site: Site, version: str, connection: str
) -> None:
    site.collector.help = "x" * LONG
    request = f"GET /metrics HTTP/{version}\r\nhost: localhost\r\nconnection: {connection}\r\n\r\n"
    stream = await site.connect()
    async with stream:
        await stream.send_all(request.encode())
        await stream.send_eof()
        assert (await read_all(stream)).endswith("\ntoy 1.0\n")


async def test_a_fault_in_the_server_ends_one_connection_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(H11Protocol, "handle", AsyncMock(side_effect=ValueError("a fault")))
        assert await site.ask_raw("GET /livez") in {"", "reset"}
        await all_closed(site)
    assert "ValueError: a fault" in capsys.readouterr().out
    assert await site.ask("GET /livez") == (200, "ok\n")


async def test_tracebacks_are_logged_now_and_then(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.collector.collect = lambda: 1 / 0  # type: ignore[assignment, return-value]
    for _ in range(3):
        assert (await site.ask("GET /metrics"))[0] == 500
    with monkeypatch.context() as patch:
        patch.setattr(H11Protocol, "handle", AsyncMock(side_effect=ValueError("a fault")))
        await site.ask_raw("GET /livez")
        await all_closed(site)
    assert capsys.readouterr().out.count("Traceback") == 1
    monkeypatch.setattr(http_server, "FAILURES_PAUSE", 0.0)
    assert (await site.ask("GET /metrics"))[0] == 500
    said = capsys.readouterr().out
    assert "untold" in said
    assert "3" in said.split("untold")[1][:20]


async def test_headers_that_are_too_long_are_refused(site: Site) -> None:
    stream = await site.connect()
    async with stream:
        await stream.send_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 20_000)
        assert (await read_all(stream)).startswith("HTTP/1.1 431 ")


@pytest.mark.parametrize("asks", [0, 1, 2], ids=["idle", "asking", "asking for more"])
async def test_a_client_that_vanishes_is_no_failure(
    site: Site, capsys: pytest.CaptureFixture[str], asks: int
) -> None:
    stream = await (begin_long_answer(site, asks) if asks else site.connect())
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()
    assert await site.ask("GET /livez") == (200, "ok\n")
    with trio.fail_after(5):
        await site.server.stop(5)
    assert capsys.readouterr().out == ""


async def test_a_client_that_vanishes_after_its_answer_is_no_failure(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        gone = AsyncMock(side_effect=trio.BrokenResourceError)
        patch.setattr(trio.SocketStream, "send_eof", gone)
        assert await site.ask("GET /livez") == (200, "ok\n")
        await all_closed(site)
    assert gone.called
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "h2c", "x"])
async def test_an_upgrade_is_not_taken(site: Site, upgrade: str) -> None:
    lines = ["GET /livez HTTP/1.1", "host: localhost", "connection: Upgrade", f"upgrade: {upgrade}"]
    stream = await site.connect()
    async with stream:
        for _ in range(2):
            await stream.send_all("\r\n".join([*lines, "", ""]).encode())
            assert (await receive(stream, b"ok\n")).startswith(b"HTTP/1.1 200 ")


async def receive(stream: trio.SocketStream, end: bytes) -> bytes:
    """Give everything until it ends so."""
    received = b""
    with trio.fail_after(5):
        while not received.endswith(end):
            received += await stream.receive_some() or end
    return received


async def test_what_is_sent_wrongly_while_an_answer_is_under_way_is_no_failure(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.collector.help = "x" * LONG
    head = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    stream = await site.connect()
    async with stream:
        await stream.send_all(head)
        assert await stream.receive_some(100)
        await stream.send_all(b"zz\r\n")
        assert (await read_all(stream)).endswith("\ntoy 1.0\n")
    await all_closed(site)
    for wait in (True, False):
        for _ in range(20):  # wherever the answer is by then
            stream = await site.connect()
            async with stream:
                await stream.send_all(head.replace(b"GET", b"POST"))
                if wait:
                    await trio.lowlevel.checkpoint()
                await stream.send_all(b"zz\r\n")
                await read_all(stream)
    await all_closed(site)
    assert capsys.readouterr().out == ""


async def test_an_address_that_is_taken_is_refused_with_the_remedy(site: Site) -> None:
    with pytest.raises(StartRefused, match=rf"{site.address} .*in use.*`http`.*\"\""):
        await listen(site.address)


async def test_a_name_that_means_several_addresses_gets_one_free_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = await trio.open_tcp_listeners(0, host="127.0.0.1")
    found += await trio.open_tcp_listeners(0, host="127.0.0.1")
    monkeypatch.setattr(trio, "open_tcp_listeners", AsyncMock(return_value=[*found]))
    listeners, address = await listen(Address("localhost", 0))
    assert address == ("localhost", found[0].socket.getsockname()[1])
    assert listeners == found[:1]
    assert found[1].socket.fileno() == -1, "closed"
    await found[0].aclose()


async def test_a_host_that_does_not_exist_is_refused() -> None:
    with pytest.raises(StartRefused, match="`http`"):
        await listen(Address("coherd-test.invalid", 0))
