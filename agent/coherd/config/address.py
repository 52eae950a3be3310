"""Where agents, applications and caches are found (floor 2): addresses, sockets, URLs.

The parsers are like those of `config.values`: the value, or WrongValue with what was expected.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

from coherd.config.values import WrongValue, shown, text_of

PEER_PORT = 4373
"""Where agents meet, unless an address says another port."""

SOCKET_PATH_BYTES_MAX = 107
"""Longest path of a unix socket: what Linux takes, less the closing zero."""

_HOST_NAME = re.compile(r"(?=.{1,253}\Z)(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
_SCHEMES = frozenset(
    {"unix", "unix-abstract", "dns", "ipv4", "ipv6", "vsock", "xds", "google-c2p", "http", "https"}
)
"""What gRPC takes for a kind of address, not for a host, when a port follows it."""
_ESCAPES = "in a password write @ as %40, / as %2F, ? as %3F and # as %23"
_TLS_OPTIONS = frozenset(
    {"ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"}
)


class Address(NamedTuple):
    """A host (name, IPv4, or IPv6 without brackets, perhaps with a zone) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True when only this host can reach it."""
        ip = _ip(self.host)
        return self.host.lower() == "localhost" if ip is None else ip.is_loopback

    @property
    def is_wildcard(self) -> bool:
        """True for "every address of this host", which nobody can dial."""
        ip = _ip(self.host)
        return ip is not None and ip.is_unspecified

    @property
    def is_multicast(self) -> bool:
        """True for an address of many hosts at once."""
        ip = _ip(self.host)
        return ip is not None and ip.is_multicast

    @property
    def is_link_local(self) -> bool:
        """True when only hosts on the same wire can reach it."""
        ip = _ip(self.host)
        return ip is not None and ip.is_link_local


class UnixSocket(NamedTuple):
    """A unix socket by its absolute path."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def address(value: object) -> Address:
    """Read HOST:PORT or [IPV6]:PORT."""
    return _address(value, None)


def optional_address(value: object) -> Address | None:
    """Read HOST:PORT, or nothing at all: off."""
    return None if value == "" else _address(value, None)


def dialled(value: object) -> Address:
    """Read an address that others dial: HOST:PORT, no wildcard, no port 0."""
    return _dialled(_address(value, None))


def seed(value: object) -> Address:
    """Read HOST or HOST:PORT of another agent."""
    return _dialled(_address(value, PEER_PORT))


def _dialled(found: Address) -> Address:
    if found.port == 0:
        raise WrongValue("port 0 cannot be dialled; write the port of the agent")
    if found.is_wildcard:
        raise WrongValue(f"{found.host} means every address and cannot be dialled")
    return found


def _address(value: object, default_port: int | None) -> Address:
    text = text_of(value, 'an address such as "127.0.0.1:4373"')
    if match := re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", text):
        host, port = match[1], match[2]
        if ":" not in host or not _is_ip(host):
            raise WrongValue(f"{shown(text)}: only an IPv6 address is written in brackets")
    elif text.count(":") > 1:
        raise WrongValue(f"{shown(text)}: write an IPv6 address in brackets: [2001:db8::1]:4373")
    else:
        host, _, rest = text.partition(":")
        port = rest if ":" in text else None
        if not _HOST_NAME.fullmatch(host):
            raise WrongValue(f"{shown(text)}: not a host name or an IP address")
        if host.lower() in _SCHEMES:
            raise WrongValue(f"{shown(text)}: no host can be called {host}; write its full name")
        if re.fullmatch(r"(?:.*\.)?[0-9]+\.?", host) and not _is_ip(host):
            raise WrongValue(f"{shown(text)}: not an IPv4 address")
    if port is None:
        if default_port is None:
            raise WrongValue(f'{shown(text)}: the port is missing; write "HOST:PORT"')
        return Address(host, default_port)
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
        raise WrongValue(f"{shown(text)}: a port is a number from 0 to 65535")
    return Address(host, int(port))


def _is_ip(host: str) -> bool:
    return re.fullmatch(r"[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.~-]{1,15})?", host) is not None and (
        _ip(host) is not None
    )


def local(value: object) -> Address | UnixSocket:
    """Read where applications find the agent: unix:/PATH or HOST:PORT."""
    expected = 'an address such as "unix:/run/coherd/coherd.sock" or "127.0.0.1:4376"'
    text = text_of(value, expected)
    if text.startswith("unix:"):
        return UnixSocket(_socket_path(text.removeprefix("unix:")))
    if text.startswith("/"):
        raise WrongValue(f'write "unix:{text}" for a unix socket')
    return _address(text, None)


def _socket_path(path: str) -> str:
    if path.startswith("///"):  # unix:///run/x.sock is the same socket, spelled as a URL
        path = path[2:]
    if not path.startswith("/") or path.startswith("//") or path.endswith("/"):
        raise WrongValue(f"{shown(path)}: the path of a unix socket is absolute and names a file")
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_BYTES_MAX:
        raise WrongValue(
            f"{shown(path)} has {size} bytes; the path of a unix socket has at most "
            f"{SOCKET_PATH_BYTES_MAX}: choose a shorter directory"
        )
    return path


def redis_url(value: object) -> str:
    """Read redis://, rediss:// or unix:// with an optional user, password and database.

    What is wrong is said without repeating any part of it: it may be a part of the password.
    """
    expected = 'a URL such as "redis://127.0.0.1:6379/0", "rediss://…" or "unix:///PATH?db=0"'
    if not isinstance(value, str):
        raise WrongValue(f"expected {expected}, got {shown(value)}")
    if not value.isprintable() or " " in value:
        raise WrongValue("a URL has no spaces and no characters that cannot be printed")
    try:
        url = urlsplit(value)
        _ = url.port
    except ValueError:
        raise WrongValue(f"not a URL; {_ESCAPES}") from None
    if url.scheme not in {"redis", "rediss", "unix"}:
        raise WrongValue(f"expected {expected}")
    if url.fragment:
        raise WrongValue(_ESCAPES)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    databases = [query.pop("db")] if "db" in query else []
    _check_target(url)
    if url.scheme != "unix" and url.path not in {"", "/"}:
        databases.append(url.path[1:])
    if len(databases) > 1 or any(not re.fullmatch(r"[0-9]{1,5}", db) for db in databases):
        raise WrongValue("the database is one number, as in redis://127.0.0.1:6379/0")
    if query.keys() - (_TLS_OPTIONS if url.scheme == "rediss" else set()):
        raise WrongValue(f"unknown option after the ?; {_ESCAPES}")
    return value


def _check_target(url: SplitResult) -> None:
    if url.scheme == "unix":
        if url.hostname or not re.fullmatch(r"/.*[^/]", url.path):
            raise WrongValue('a unix socket is written "unix:///PATH?db=0", its path absolute')
        return
    host = url.hostname
    if not host or url.port == 0:
        raise WrongValue('the host is missing; write "redis://HOST:PORT/DATABASE"')
    if not (_is_ip(host) if ":" in host else _HOST_NAME.fullmatch(host)):
        raise WrongValue(f"the host is neither a name nor an IP address; {_ESCAPES}")


def without_secrets(url: str) -> str:
    """Give a URL that may be shown: the password, or a user without one, as ***."""
    head, at, tail = url.rpartition("@")
    if not at:
        return url
    scheme, slashes, user = head.partition("://")
    user, colon, _ = user.partition(":")
    return f"{scheme}{slashes}{user + ':' if colon else ''}***@{tail}"
