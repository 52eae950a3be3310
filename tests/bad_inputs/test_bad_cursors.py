"""Cursors and dots that mean nothing here: refused, or a reset, never a silent gap and never "applied"."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import pytest
from doors import METHODS, PEER_ME, Doors, failure_of
from google.protobuf.duration_pb2 import Duration

from coherd.cluster import feed
from coherd.model import Position
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import types_pb2 as types


@asynccontextmanager
async def watching(agent: Doors, cursor: str) -> Any:
    async with agent.local.stream(METHODS["Watch"]) as stream:
        opening = cache.WatchOpen(namespaces=["shop"], cursor=cursor, name="reader")
        await stream.send(cache.WatchRequest(open=opening))
        yield stream


async def told(agent: Doors, cursor: str) -> list[bytes]:
    """What a watcher is told before a row that is issued now: keys, and "reset"."""
    said: list[bytes] = []
    async with watching(agent, cursor) as stream:
        responses = await stream.receive()
        await agent.invalidate(keys=[b"now"])
        while b"now" not in said:
            for change in (change for each in responses for change in each.changes):
                said += [b"reset"] if change.cause == "cursor" else change.keys
            responses = await stream.receive() if b"now" not in said else []
    return said[: said.index(b"now")]


@pytest.mark.bad_input(59)
@pytest.mark.parametrize(
    "cursor",
    ["garbage", "a/1", "a/1/1/1", "a/-1/1", "a/1e3/1", "/1/1", "a/1/1\n", "\x1b[31m/1/1", "a/²/1",
     "a/1/9223372036854775808", "a/4102444800001/1", "x" * 100_000, "a/" + "9" * 10_000 + "/1"],
)  # fmt: skip
async def test_what_is_no_cursor(agent: Doors, cursor: str) -> None:
    before = agent.state()
    async with watching(agent, cursor) as stream:
        failure = await failure_of(stream)
    assert failure.code == "INVALID_ARGUMENT"
    assert failure.details.endswith("is no cursor")
    assert agent.state() == before
    assert agent.agent.refused["Watch"] == 1


@pytest.mark.bad_input(59)
async def test_cursors_of_others_of_the_future_and_of_what_is_forgotten(
    agent: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await agent.invalidate(keys=[b"one"])
    two = Position.parse((await agent.invalidate(keys=[b"two"])).cursor)
    assert await told(agent, one.cursor) == [b"two"]
    assert await told(agent, "stranger/1/1") == [b"reset"]
    later = two._replace(n=10**18)
    assert await told(agent, str(later)) == [], "it has seen everything there is"
    later = two._replace(epoch=two.epoch + 1, n=10**18)
    assert await told(agent, str(later)) == [b"one", b"two"], (
        "of before a clock was set back, perhaps"
    )
    monkeypatch.setattr(feed, "TAIL_BYTES_MAX", 0)
    await agent.invalidate(namespace="other", keys=[b"x"])
    agent.agent.ingest.lose("shop", two.n)
    first, *_ = await told(agent, one.cursor)
    assert first == b"reset", "what it lacks is forgotten too soon"


def asked(**fields: Any) -> cache.GetReceiptRequest:
    whole = {"namespace": "shop", "lane": types.LANE_NORMAL, "first": 1, "last": 1, **fields}
    return cache.GetReceiptRequest(dots=[types.Dots(**whole)], timeout=Duration(nanos=50_000_000))


@pytest.mark.bad_input(55)
async def test_rows_that_nobody_has_are_never_applied(agent: Doors) -> None:
    (dots,) = (await agent.invalidate(keys=[b"one"])).dots
    assert (await agent.ask("GetReceipt", asked(origin=dots.origin))).receipt.complete
    before = agent.state()
    unknown = {
        "a number to come": {"origin": dots.origin, "last": 2},
        "all numbers": {"origin": dots.origin, "last": 2**63 - 1},
        "another lane": {"origin": dots.origin, "lane": types.LANE_BULK},
        "another namespace": {"origin": dots.origin, "namespace": "news"},
        "an earlier life": {"origin": types.Origin(name="a", epoch=1)},
        "a later life": {"origin": types.Origin(name="a", epoch=dots.origin.epoch + 1)},
        "a stranger": {"origin": types.Origin(name=PEER_ME.name, epoch=1)},
    }
    for what, fields in unknown.items():
        receipt = (await agent.ask("GetReceipt", asked(**fields))).receipt
        assert not receipt.complete, what
        assert [missing.name for missing in receipt.missing] == ["a"], what
    assert agent.state() == before, "a question makes nothing known"
