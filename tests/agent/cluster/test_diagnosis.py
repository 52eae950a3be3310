"""What the findings of a diagnosis say: clocks, templates, and why an address cannot be reached."""

from __future__ import annotations

import socket

import pytest
import trio

from coherd.cluster.diagnosis import matches_of, names_of, offset_of
from coherd.cluster.findings import Severity
from coherd.config import Address
from coherd.handlers import Survey
from coherd.net import obstacles
from coherd.net.obstacles import why_unreachable


@pytest.mark.parametrize(
    ("offset", "doubt", "severity", "text"),
    [
        (0.0012, 0.0005, Severity.OK, "0.001 s ahead of this host's, ± 0.001 s"),
        (-4.9, 0.0, Severity.OK, "4.900 s behind this host's, ± 0.000 s"),
        (-5.1, 0.0, Severity.WARNING, "5.100 s behind this host's, ± 0.000 s"),
        (62.0, 0.1, Severity.WARNING, "62.000 s ahead of this host's, ± 0.100 s"),
        (6.0, 1.5, Severity.OK, "6.000 s ahead of this host's, ± 1.500 s"),
    ],
)
def test_clocks_that_are_surely_far_apart_are_a_warning(
    offset: float, doubt: float, severity: Severity, text: str
) -> None:
    found = offset_of("cache-2", offset, doubt)
    assert (found.severity, found.text) == (severity, text)
    assert bool(found.remedy) == (severity is Severity.WARNING)


@pytest.mark.parametrize(
    ("survey", "severity", "text"),
    [
        (Survey("shop:{key}", 0, 0, 0, 0, None), Severity.OK, "empty"),
        (
            Survey("shop:{key}", 1532, 1532, 0, 0, b"prod:shop:17"),
            Severity.WARNING,
            "0 of 1,532 keys match shop:{key}; e.g. `prod:shop:17` does not",
        ),
        (
            Survey("shop:{key}", 1532, 1532, 12, None, b"prod:shop:17"),
            Severity.OK,
            "12 of 1,532 keys match shop:{key}",
        ),
        (
            Survey("shop:{key}", 2_000_000, 10_000, 9, 3, None),
            Severity.OK,
            "9 of the first 10,000 of 2,000,000 keys match shop:{key}, 3 are sets of tags",
        ),
        (
            Survey("shop:{key}", 1, 1, 0, 0, b"\x1b\xff" + b"x" * 100),
            Severity.WARNING,
            "0 of 1 keys match shop:{key}; e.g. `\\x1b\\xff" + "x" * 52 + "…` does not",
        ),
        (
            Survey("shop:{key}", 2, 2, 0, 2, None),
            Severity.WARNING,
            "0 of 2 keys match shop:{key}, 2 are sets of tags",
        ),
    ],
)
def test_a_template_that_matches_nothing_is_a_warning(
    survey: Survey, severity: Severity, text: str
) -> None:
    found = matches_of("redis shop", survey)
    assert (found.severity, found.text) == (severity, text)
    assert ("`key`" in found.remedy) == (severity is Severity.WARNING)


def test_many_names_are_cut_short() -> None:
    assert names_of([f"h{n:02}" for n in range(12, 0, -1)]).endswith("h09, h10 and 2 more")


async def test_why_an_address_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert await why_unreachable(Address(*server.getsockname())) is None
        port = server.getsockname()[1]
    refused = await why_unreachable(Address("127.0.0.1", port))
    assert refused is not None
    assert refused.text == "connection refused"

    async def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", unknown)
    unresolved = await why_unreachable(Address("cache-2", 4373))
    assert unresolved is not None
    assert unresolved.text == "the name cannot be resolved (Name or service not known)"


async def test_an_address_that_swallows_everything_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(obstacles, "PROBE_TIMEOUT", 0.2)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = Address(*full.getsockname())
        waiting = []
        for _ in range(8):  # until the queue of the kernel is full
            other = socket.socket()
            other.setblocking(False)
            other.connect_ex(address)
            waiting.append(other)
        silent = await why_unreachable(address)
        for other in waiting:
            other.close()
    assert silent is not None
    assert "no answer within" in silent.text
    assert f"firewall drops port {address.port}" in silent.remedy
