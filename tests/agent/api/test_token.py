"""The secret that is asked for at TCP addresses and over HTTP, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry

from coherd.api.auditing import Records
from coherd.api.authorization import LocalGate
from coherd.api.http_app import http_app
from coherd.api.token import Token
from coherd.clock import ManualClock
from coherd.cluster.protection import Protection
from coherd.config import Address
from coherd.errors import RpcFailed, StartRefused
from coherd.local_socket import Owner

SECRET = "0123456789abcdef"


@pytest.fixture
def token(tmp_path: Path) -> Token:
    return Token(written(tmp_path, SECRET + "\n"))


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "token"
    path.touch(mode=mode)
    path.write_text(text)
    return path


class Context:
    """A call, as a gate first sees it."""

    def __init__(self, peer: str, header: str | None) -> None:
        self._peer = peer
        self._metadata = [] if header is None else [("authorization", header)]

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> Any:
        return [("user-agent", "x"), *self._metadata]


@pytest.mark.parametrize(
    ("header", "is_right"),
    [
        (f"Bearer {SECRET}", True),
        (f"bearer {SECRET}", False),
        (SECRET, False),
        (f"Bearer {SECRET}0", False),
        ("Bearer ", False),
        ("Bearer \udc80", False),
        ("", False),
        (None, False),
    ],
)
def test_who_comes_over_tcp_carries_it(token: Token, header: str | None, *, is_right: bool) -> None:
    protection = Protection()
    gate = LocalGate(token, Records(protection, lambda: 0))
    gate.identify(Context("unix:/run/coherd.sock", header))
    over_tcp = Context("ipv4:127.0.0.1:1", header)
    if is_right:
        gate.identify(over_tcp)
    else:
        with pytest.raises(RpcFailed, match="UNAUTHENTICATED: the secret of"):
            gate.identify(over_tcp)
    assert protection.denied[""] == (not is_right)


def test_without_one_nobody_is_asked() -> None:
    gate = LocalGate(None, Records(Protection(), lambda: 0))
    gate.identify(Context("ipv4:127.0.0.1:1", None))


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        (SECRET[:-1], 0o600, "16 to 4096 characters"),
        ("é" * 16, 0o600, "characters of ASCII"),
        ("", 0o600, "is empty: correct token_file"),
        (SECRET, 0o640, "may be read by others (mode 0640)"),
    ],
)
def test_a_secret_that_is_none_ends_the_start(
    tmp_path: Path, text: str, mode: int, said: str
) -> None:
    path = written(tmp_path, text)
    path.chmod(mode)
    with pytest.raises(StartRefused) as caught:
        Token(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_who_owns_a_socket_is_found_by_name_or_number(tmp_path: Path) -> None:
    assert Owner.parse("") == (-1, -1)
    assert Owner.parse("root") == (0, -1)
    assert Owner.parse(":root") == (-1, 0)
    assert Owner.parse("1:2") == (1, 2)
    with pytest.raises(StartRefused, match=r"local_owner: .*nobody-is-called-so"):
        Owner.parse("nobody-is-called-so")
    path = written(tmp_path, "")
    Owner(-1, path.stat().st_gid).take(path)
    with pytest.raises(StartRefused, match="given to local_owner"):
        Owner(1, 1).take(tmp_path / "gone")


def test_what_a_link_leads_to_is_not_given_away(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone")
    Owner(-1, tmp_path.stat().st_gid).take(link)  # if it followed the link, it would find nothing
    if os.geteuid() == 0:
        path = written(tmp_path, "")
        link.unlink()
        link.symlink_to(path)
        Owner(1, 1).take(link)
        assert path.stat().st_uid == 0


class Toy:
    """An agent that is ready."""

    def __init__(self) -> None:
        self.protection = Protection()
        self.clock = ManualClock()

    def reasons(self) -> list[str]:
        return []


async def asked(agent: Any, token: Token, path: str, header: str | None) -> int:
    """Ask over HTTP; give the status."""
    app = http_app(agent, CollectorRegistry, Address("10.0.0.1", 4375), token=token)
    headers = [] if header is None else [(b"authorization", header.encode())]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "query_string": b""}
    said: list[Any] = []

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        said.append(message)

    async def receive() -> Any:
        await trio.lowlevel.checkpoint()
        return {"type": "http.request", "body": b"", "more_body": False}

    await app(scope, receive, send)
    return int(said[0]["status"])


async def test_who_does_not_carry_it_learns_only_that_the_agent_lives(token: Token) -> None:
    agent = Toy()
    assert await asked(agent, token, "/livez", None) == 200
    for path in ("/metrics", "/readyz", "/", "/nothing"):
        for header in (None, "Bearer wrong"):
            assert await asked(agent, token, path, header) == 401
    assert agent.protection.denied == {"http": 8}
    for path in ("/readyz", "/"):
        assert await asked(agent, token, path, f"Bearer {SECRET}") == 200
