"""What nobody can be called, and where nobody can be."""

from __future__ import annotations

import pytest

from coherd.cluster.admitting import admits

OWN = "10.0.0.1:4373"


@pytest.mark.parametrize(
    "address", ["10.0.0.2:4373", "cache-2.internal:1", "[2001:db8::1]:65535", "192.0.2.1:1"]
)
def test_others_are_anywhere(address: str) -> None:
    assert admits("cache-2", address, OWN)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "cache-2",
        "10.0.0.2",
        "10.0.0.2:0",
        "10.0.0.2:65536",
        "0.0.0.0:4373",
        "[::]:4373",
        "127.0.0.1:4373",
        "localhost:4373",
        "[::1]:4373",
        "[::ffff:127.0.0.1]:4373",
        "224.0.0.1:4373",
        "[ff02::1]:4373",
        "169.254.1.1:4373",
        "[fe80::1%eth0]:4373",
        "unix:/run/coherd.sock",
        "/run/coherd.sock",
        "x" * 300 + ":4373",
        "http://cache-2:4373",
        "10.0.0.2:4373\n",
        "\u202ecache:4373",
    ],
)
def test_nobody_is_there(address: str) -> None:
    assert not admits("cache-2", address, OWN)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "a\n", "x" * 129, "\u00e9"])
def test_nobody_is_called_so(name: str) -> None:
    assert not admits(name, "10.0.0.2:4373", OWN)


def test_where_this_agent_is_on_loopback_others_are_too() -> None:
    assert admits("b", "127.0.0.1:1", "127.0.0.1:2")
    assert admits("b", "localhost:1", "[::1]:2")
    assert admits("b", "10.0.0.2:1", "127.0.0.1:2")
    assert admits("b", "[fe80::2%eth0]:1", "[fe80::1%eth0]:2")
