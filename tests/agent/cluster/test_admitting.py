"""What is believed of nobody: names that none can have, and addresses where no other agent can be."""

from __future__ import annotations

import pytest

from coherd.cluster.admitting import admits
from coherd.limits import ADDRESS_MAX

OWN = "10.0.0.1:4373"


@pytest.mark.parametrize("name", ["a", "cache-1", "A.b_c-9", "x" * 128])
def test_a_name_that_an_agent_can_have_is_admitted(name: str) -> None:
    assert admits(name, "10.0.0.2:4373", OWN)


@pytest.mark.parametrize(
    "name", ["", "-a", ".a", "a b", "a\n", "a\x00", "a/b", "é", "\u202ea", "x" * 129]
)
def test_a_name_that_none_can_have_is_not(name: str) -> None:
    assert not admits(name, "10.0.0.2:4373", OWN)


@pytest.mark.parametrize(
    "address",
    ["10.0.0.2:4373", "cache-2.internal:4373", "[2001:db8::2]:4373", "192.0.2.1:1", OWN],
)
def test_an_address_where_an_agent_can_be_is_admitted(address: str) -> None:
    assert admits("b", address, OWN)


@pytest.mark.parametrize(
    "address",
    [
        *("", "-", "b", "b:", ":4373", "b:x", "b:65536", "b:-1", "b:4373\n", "a b:4373", "::1"),
        *("0.0.0.0:4373", "[::]:4373", "0:4373", "[::ffff:0.0.0.0]:4373"),
        *("b:0", "10.0.0.2:0", "[2001:db8::2]:0"),
        *("224.0.0.1:4373", "239.255.0.1:4373", "[ff02::1]:4373", "[::ffff:224.0.0.1]:4373"),
        *("169.254.169.254:80", "[fe80::1]:4373", "[fe80::1%eth0]:4373"),
        *("127.0.0.1:4373", "127.9.9.9:4373", "[::1]:4373", "localhost:4373"),
        *("[::ffff:127.0.0.1]:4373", "010.0.0.1:4373", "2130706433:4373"),
        *("unix:/run/coherd/coherd.sock", "unix:4373", "DNS:4373", "/run/x:4373", "http://b:4373"),
        *("h" * 300 + ":4373", "h." * (ADDRESS_MAX // 2) + "h:4373"),
    ],
)
def test_an_address_where_none_can_be_is_not(address: str) -> None:
    assert not admits("b", address, OWN)


@pytest.mark.parametrize("own", ["127.0.0.1:4373", "localhost:4373", "[::1]:4373"])
def test_an_agent_that_is_reached_at_loopback_knows_others_there(own: str) -> None:
    for theirs in ("127.0.0.1:4374", "localhost:4374", "[::1]:4374", "10.0.0.2:4373"):
        assert admits("b", theirs, own)
    assert not admits("b", "169.254.1.1:4373", own)
    assert not admits("b", "224.0.0.1:4373", own)


def test_an_agent_that_is_reached_at_a_link_local_address_knows_others_there() -> None:
    own = "[fe80::1%eth0]:4373"
    assert admits("b", "[fe80::2%eth0]:4373", own)
    assert admits("b", "169.254.1.1:4373", own)
    assert not admits("b", "127.0.0.1:4373", own)


def test_where_the_own_address_is_none_nobody_is_admitted() -> None:
    assert not admits("b", "10.0.0.2:4373", "0.0.0.0:4373")
