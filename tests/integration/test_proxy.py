"""The proxy that the tests put before agents: it forwards, swallows, breaks, and knows who is there."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest
from integration.forwarding import Forwarder
from integration.proxy import Proxy
from integration.sockets import asked, inodes, listed

MUCH = 5_000_000
"""Bytes: more than the buffers between two ends hold."""
ME = SimpleNamespace(name="me", process=SimpleNamespace(pid=os.getpid()))


class Ends:
    """Both ends of a connection through a proxy."""

    def __init__(self, proxy: Proxy, listener: socket.socket) -> None:
        self.opener = socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
        self.target, _ = listener.accept()
        self.target.settimeout(10)

    def say(self, data: bytes) -> bytes:
        self.opener.sendall(data)
        return self.target.recv(100)

    def answer(self, data: bytes) -> bytes:
        self.target.sendall(data)
        return self.opener.recv(100)

    def is_silent(self, end: socket.socket) -> bool:
        end.settimeout(0.2)
        try:
            end.recv(100)
        except TimeoutError:
            return True
        return False


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


@pytest.fixture
def proxy(listener: socket.socket) -> Iterator[Proxy]:
    with closing(Proxy(listener.getsockname()[1], [ME])) as proxy:
        yield proxy


def test_both_ways_are_forwarded_and_an_end_is_handed_on(
    proxy: Proxy, listener: socket.socket
) -> None:
    ends = Ends(proxy, listener)
    assert ends.say(b"there") == b"there"
    assert ends.answer(b"back") == b"back"
    ends.opener.close()
    assert ends.target.recv(100) == b""


def test_what_finds_no_room_waits_in_order(proxy: Proxy, listener: socket.socket) -> None:
    ends, other = Ends(proxy, listener), Ends(proxy, listener)
    data = os.urandom(MUCH)
    ends.opener.setblocking(False)
    sent = 0
    try:
        while sent < MUCH:
            sent += ends.opener.send(data[sent : sent + 100_000])
    except BlockingIOError:
        pass
    assert other.say(b"meanwhile") == b"meanwhile"
    ends.opener.close()
    came = b""
    while part := ends.target.recv(1_000_000):
        came += part
    assert came == data[:sent]


def test_each_way_can_be_swallowed(proxy: Proxy, listener: socket.socket) -> None:
    ends = Ends(proxy, listener)
    proxy.cut(["somebody else"])
    assert ends.say(b"there") == b"there"
    proxy.cut(["me"], outward=False)
    ends.opener.sendall(b"lost")
    assert ends.answer(b"back") == b"back"
    assert ends.is_silent(ends.target)
    later = Ends(proxy, listener)
    later.opener.sendall(b"lost")
    assert later.answer(b"back") == b"back"
    assert later.is_silent(later.target)
    proxy.heal(["me"])
    assert ends.opener.recv(100) == b"", "what was open is closed"
    assert Ends(proxy, listener).say(b"there") == b"there"


def test_a_connection_is_reset(proxy: Proxy, listener: socket.socket) -> None:
    ends = Ends(proxy, listener)
    proxy.reset(["me"])
    for end in (ends.opener, ends.target):
        with pytest.raises(ConnectionResetError):
            end.recv(100)
    assert Ends(proxy, listener).say(b"there") == b"there"


def test_a_target_that_is_down_is_a_connection_that_ends(listener: socket.socket) -> None:
    with closing(Proxy(listener.getsockname()[1], [])) as proxy:
        listener.close()
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as opened:
            assert opened.recv(100) == b""


def test_proxies_share_a_thread_and_gather(listener: socket.socket) -> None:
    with closing(Forwarder(pause=0.001)) as forwarder:
        proxies = [Proxy(listener.getsockname()[1], [ME], forwarder) for _ in range(2)]
        ends = [Ends(proxy, listener) for proxy in proxies]
        proxies[0].cut(["me"])
        assert ends[1].say(b"there") == b"there"
        assert ends[1].answer(b"back") == b"back"
        proxies[0].close()
        assert ends[1].say(b"there") == b"there"


def test_an_order_that_fails_fails_for_whoever_gave_it() -> None:
    def fail() -> None:
        raise ValueError("so")

    with closing(Forwarder()) as forwarder:
        with pytest.raises(ValueError, match="so"):
            forwarder.do(fail)
        forwarder.do(lambda: None)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_kernel_says_which_socket_it_is(family: int, listener: socket.socket) -> None:
    target = listener.getsockname()[1]
    address = "127.0.0.1" if family == socket.AF_INET else "::ffff:127.0.0.1"
    with socket.socket(family) as opened:
        opened.connect((address, target))
        port = opened.getsockname()[1]
        wanted = {os.fstat(opened.fileno()).st_ino: port}
        for look in (inodes, asked, listed):
            assert look([port, 1], target) == wanted
