"""HTTP over TLS: who is answered, what others are told, and whom it does not wait for."""

from __future__ import annotations

import ssl
import time
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
import trio
from certificates import HOUR, Authority, Files, identity
from cryptography.hazmat.primitives.asymmetric import rsa
from gated import GRANTS, ME
from http_site import Site, cut_off_after, read_all

from coherd.api import http_server
from coherd.api.authorization import Certified
from coherd.api.token import Token
from coherd.net.credentials import Credentials

PATHS = ("/metrics", "/readyz", "/", "/nothing")
SECRET = "0123456789abcdef"


class TlsSite(Site):
    """Asks for certificates of an authority, as an agent with `[tls]` does where others can reach it."""

    def __init__(self, nursery: trio.Nursery, authority: Authority) -> None:
        super().__init__(nursery)
        self.authority = authority
        self.files = authority.issue(ME)
        self.credentials = Credentials(self.files.tls, time.time)
        self.ahead = 0.0
        """Seconds."""

    async def serve(self, token: Token | None = None) -> None:
        await self.open(
            as_if="192.0.2.1",
            credentials=self.credentials,
            certified=Certified(lambda: ME, lambda: GRANTS, lambda: time.time() + self.ahead),
            token=token,
        )

    def client(self, label: str = "", cluster: str = "test") -> ssl.SSLContext:
        """Give the TLS of somebody; of nobody who has a certificate with an empty label."""
        return tls_of(self.files, self.authority.issue(identity(label, cluster)) if label else None)


def tls_of(believed: Files, shown: Files | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(believed.ca))
    context.check_hostname = False
    if shown is not None:
        context.load_cert_chain(shown.cert, shown.key)
    return context


@pytest.fixture
async def site(nursery: trio.Nursery, tmp_path: Path) -> TlsSite:
    site = TlsSite(nursery, Authority(tmp_path / "pki"))
    await site.serve()
    return site


@pytest.mark.parametrize("label", ["client/monitor", "operator/ann"])
async def test_who_may_read_is_answered(site: TlsSite, label: str) -> None:
    tls = site.client(label)
    assert await site.ask("GET /readyz", tls=tls) == (200, "ready\n")
    status, text = await site.ask("GET /metrics", tls=tls)
    assert status == 200
    assert "\ntoy 1.0\n" in text
    assert (await site.ask("GET /nothing", tls=tls))[0] == 404
    assert not site.agent.events


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (
            "client/shop-1",
            "no grant lets client/shop-1 read the agent as a whole: add it to [[grants]]",
        ),
        ("agent/a", "may not do what is for client or operator alone"),
    ],
)
async def test_who_may_not_read_is_told_why(site: TlsSite, label: str, said: str) -> None:
    tls = site.client(label)
    assert await site.ask("GET /livez", tls=tls) == (200, "ok\n")
    for path in PATHS:
        status, text = await site.ask(f"GET {path}", tls=tls)
        assert status == 403
        assert said in text
    assert site.agent.protection.denied == {"http": len(PATHS)}
    assert {(event.who, event.rpc) for event in site.agent.events} == {
        (str(identity(label)), "http")
    }


async def test_who_shows_nothing_or_is_of_another_cluster_learns_that_the_agent_lives(
    site: TlsSite,
) -> None:
    for tls, said in (
        (site.client(), "a certificate of a client or operator of this cluster is due\n"),
        (site.client("client/monitor", "other"), " is of another cluster than this agent, "),
    ):
        assert await site.ask("GET /livez", tls=tls) == (200, "ok\n")
        for path in PATHS:
            status, text = await site.ask(f"GET {path}", "authorization: Bearer x", tls=tls)
            assert status == 401
            assert said in text
    assert all(event.who.startswith("http 127.0.0.1:") for event in site.agent.events)


async def test_the_secret_is_as_good_as_a_certificate(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    site = TlsSite(nursery, Authority(tmp_path / "pki"))
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(SECRET)
    await site.serve(Token(path))
    for label in ("", "client/shop-1"):
        tls = site.client(label)
        assert (await site.ask("GET /readyz", f"authorization: Bearer {SECRET}", tls=tls))[0] == 200
    assert (await site.ask("GET /readyz", tls=site.client("client/monitor")))[0] == 200
    answer = await site.ask_raw("GET /readyz", tls=site.client())
    assert answer.startswith("HTTP/1.1 401")
    assert "www-authenticate: Bearer" in answer
    assert "token_file is due in the header authorization, or a certificate of" in answer


async def test_a_certificate_that_expires_on_an_open_connection_ends_the_answers(
    site: TlsSite,
) -> None:
    stream = trio.SSLStream(
        await site.connect(), site.client("operator/ann"), https_compatible=True
    )
    request = b"HEAD /readyz HTTP/1.1\r\nhost: a\r\n\r\n"
    async with stream:
        await stream.send_all(request)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        site.ahead = 2 * HOUR.total_seconds()
        await stream.send_all(request)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("wrong", ["authority", "expired", "plaintext", "old TLS"])
async def test_what_tls_refuses_gets_no_answer(site: TlsSite, tmp_path: Path, wrong: str) -> None:
    tls: ssl.SSLContext | None = site.client("operator/ann")
    match wrong:
        case "authority":
            other = Authority(tmp_path / "other")
            tls = tls_of(site.files, other.issue(identity("operator/ann")))
        case "expired":
            late = site.authority.issue(identity("operator/ann"), ends=timedelta(seconds=-1))
            tls = tls_of(site.files, late)
        case "plaintext":
            tls = None
        case "old TLS":
            assert tls is not None
            tls.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        said = await site.ask_raw("GET /livez", tls=tls)
    except trio.BrokenResourceError:
        said = ""
    assert "HTTP" not in said
    assert (await site.ask("GET /livez", tls=site.client("operator/ann")))[0] == 200


async def test_files_that_tls_does_not_take_are_not_used(site: TlsSite) -> None:
    site.authority.issue(ME, key=rsa.generate_private_key(65537, 1024))
    await site.credentials.look()
    assert "key too small" in site.credentials.problem
    assert await site.ask("GET /livez", tls=site.client()) == (200, "ok\n")


async def test_a_remark_beside_the_roots_is_no_obstacle(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "pki")
    authority.path.write_text("# Wurzel für alle\n" + authority.path.read_text())
    site = TlsSite(nursery, authority)
    await site.serve()
    assert (await site.ask("GET /readyz", tls=site.client("operator/ann")))[0] == 200


async def test_a_connection_that_cannot_begin_harms_nobody(
    site: TlsSite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trio, "SSLStream", Mock(side_effect=OSError("no more files")))
        assert await read_all(await site.connect()) in {"", "reset"}
    assert "no more files" in capsys.readouterr().out
    assert await site.ask("GET /livez", tls=site.client()) == (200, "ok\n")


async def test_new_files_are_shown_to_whoever_comes_next(site: TlsSite) -> None:
    serials = set()
    for _ in range(2):
        stream = trio.SSLStream(await site.connect(), site.client(), https_compatible=True)
        async with stream:
            await stream.do_handshake()
            serials.add(stream.getpeercert()["serialNumber"])  # type: ignore[call-overload, index]
        site.authority.issue(ME)
        await site.credentials.look()
    assert len(serials) == 2


async def test_a_handshake_that_is_never_finished_is_cut_off(
    site: TlsSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "IDLE_MAX", 0.1)
    await cut_off_after(site, b"", b"\x16\x03\x01\x02\x00")


async def test_it_stops_while_somebody_is_connected(site: TlsSite) -> None:
    stream = trio.SSLStream(await site.connect(), site.client(), https_compatible=True)
    async with stream:
        await stream.send_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
        assert await stream.receive_some(1000)
        with trio.fail_after(5):
            await site.server.stop(60)
