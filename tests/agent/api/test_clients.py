"""Whose budget a call is charged to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from certificates import identity

from coherd.api.checks import client_of
from coherd.errors import InvalidRequest
from coherd.net.certificates import Holder


def call(peer: str, *metadata: tuple[str, str | bytes]) -> SimpleNamespace:
    return SimpleNamespace(peer=peer, metadata=(("user-agent", "x"), *metadata), holder=None)


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("unix:", "local"),
        ("unix:/run/coherd/coherd.sock", "local"),
        ("unix-abstract:x", "local"),
        ("ipv4:127.0.0.1:54321", "127.0.0.1"),
        ("ipv6:%5B::1%5D:54321", "[::1]"),
        ("unknown", "unknown"),
    ],
)
def test_without_a_name_it_is_the_host(peer: str, client: str) -> None:
    assert client_of(call(peer)) == client  # type: ignore[arg-type]


def test_a_name_that_a_client_gives_itself_counts() -> None:
    assert client_of(call("unix:", ("coherd-client", "checkout-7"))) == "checkout-7"  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a b", "-a", "é", "x" * 129, b"app"])
def test_what_is_no_name_is_refused(name: str | bytes) -> None:
    with pytest.raises(InvalidRequest, match="illegal coherd-client: 1 to 128 letters"):
        client_of(call("unix:", ("coherd-client", name)))  # type: ignore[arg-type]


def test_where_everybody_is_asked_the_certificate_counts_and_no_name() -> None:
    asked = call("ipv4:10.0.0.1:1", ("coherd-client", "checkout-7"))
    asked.holder = Holder(identity("client/web-1"), 0.0, 1.0)
    assert client_of(asked) == "client/web-1"  # type: ignore[arg-type]
