"""Rows of issuers that are no owners of their namespace are counted, and each of these is told once."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from coherd.cluster.foreign import Foreign
from coherd.model import Batch, Lane, Origin, Stream

STREAM = Stream("shop", Origin("cache-2", 7), Lane.NORMAL)


def rows(issuer: str, count: int = 1) -> Batch:
    return Batch(STREAM, ((1, count),), [b"kx"] * count, issuer=issuer)


@pytest.fixture
def foreign() -> Foreign:
    foreign = Foreign()
    foreign.owners = lambda namespace: ("client/shop-*",) if namespace == "shop" else ()
    return foreign


@pytest.mark.parametrize(
    ("issuer", "is_owner"),
    [
        ("client/shop-1", True),
        ("operator/ann", True),
        ("client/shop", False),
        ("agent/shop-1", False),
        ("operators/ann", False),
        ("", False),
    ],
)
def test_owners_are_named_by_patterns_and_operators_own_everything(
    foreign: Foreign, issuer: str, *, is_owner: bool
) -> None:
    foreign.look("shop", [rows(issuer, 3)])
    assert foreign.rows["shop"] == (0 if is_owner else 3)


def test_without_owners_everybody_is_one() -> None:
    foreign = Foreign()
    foreign.look("shop", [rows("client/anybody")])
    assert not foreign.rows


def test_each_stranger_is_told_once_with_the_agent_that_let_it_through(foreign: Foreign) -> None:
    with capture_logs() as logs:
        foreign.look("shop", [rows("client/web-1"), rows(""), rows("client/web-1")])
    assert foreign.rows["shop"] == 3
    assert [(entry["issuer"], entry["let_through_by"]) for entry in logs] == [
        ("client/web-1", "cache-2"),
        ("nobody known", "cache-2"),
    ]
