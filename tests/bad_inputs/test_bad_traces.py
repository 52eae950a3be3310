"""Questions where rows got to, and answers to them, that nobody should believe; and progress of nonsense."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from doors import METHODS, PEER_ME, Doors, failure_of
from test_bad_answers import Liar

from coherd.api.services import PEER
from coherd.limits import (
    AGE_MAX_MS,
    NUMBER_MAX,
    SELECTOR_BYTES_MAX,
    TRACE_ROWS_MAX,
    TRACE_SELECTORS_MAX,
)
from coherd.v1 import admin_service_pb2 as admin
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import peer_service_pb2 as pb
from coherd.v1 import types_pb2 as types

ME = types.Origin(name=PEER_ME.name, epoch=PEER_ME.epoch)


def dots(**fields: Any) -> types.Dots:
    return types.Dots(
        **{"namespace": "shop", "origin": ME, "lane": 2, "first": 1, "last": 1, **fields}
    )


def question(**fields: Any) -> pb.TraceRequest:
    return pb.TraceRequest(**{"sender": ME, "namespace": "shop", "rows": 5, **fields})


QUESTIONS: dict[str, dict[str, Any]] = {
    "namespace": {"namespace": "SHOP"},
    "no sender": {"sender": None},
    "an empty selector": {"selectors": [b""]},
    "an unknown kind": {"selectors": [b"xkey"]},
    "a key without a name": {"selectors": [b"k"]},
    "a long key": {"selectors": [b"k" * (SELECTOR_BYTES_MAX + 2)]},
    "too many selectors": {"selectors": [b"kx"] * (TRACE_SELECTORS_MAX + 1)},
    "too many rows": {"rows": TRACE_ROWS_MAX + 1},
    "too many dots": {"dots": [dots()] * (TRACE_ROWS_MAX + 1)},
    "rows of another namespace": {"dots": [dots(namespace="other")]},
    "many rows as one": {"dots": [dots(last=2)]},
    "a number that no row has": {"dots": [dots(first=0, last=0)]},
    "no lane": {"dots": [dots(lane=0)]},
}


@pytest.mark.bad_input(77)
@pytest.mark.parametrize("fields", QUESTIONS.values(), ids=QUESTIONS)
async def test_what_no_peer_may_ask_about_rows(agent: Doors, fields: dict[str, Any]) -> None:
    await agent.join()
    await agent.refused("Trace", question(**fields))


@pytest.mark.bad_input(77)
async def test_who_has_not_joined_is_told_nothing_of_rows(agent: Doors) -> None:
    await agent.refused("Trace", question(), "FAILED_PRECONDITION", counted=False)


@pytest.mark.bad_input(77)
@pytest.mark.parametrize(
    "fields",
    [
        {"namespace": "SHOP"},
        {"keys": [b""]},
        {"prefixes": [b""]},
        {"tags": [b"t" * (SELECTOR_BYTES_MAX + 1)]},
        {"keys": [b"k"] * 60, "tags": [b"t"] * 41},
        {"timeout": {"seconds": -1}},
    ],
    ids=["namespace", "key", "prefix", "tag", "many", "timeout"],
)
async def test_what_an_operator_may_not_ask(agent: Doors, fields: dict[str, Any]) -> None:
    text = await agent.refused("TraceKey", admin.TraceKeyRequest(**{"namespace": "shop", **fields}))
    assert "say so" not in text


def row(**fields: Any) -> types.TracedRow:
    return types.TracedRow(**{"dots": dots(), "selector": b"kk", "effect": 2, **fields})


ANSWERS = {
    "nothing": row(dots=None, selector=b""),
    "an illegal selector": row(selector=b"x"),
    "no effect": row(effect=0),
    "an unknown effect": row(effect=9),
    "rows of another namespace": row(dots=dots(namespace="other")),
    "an age beyond all ages": row(age_ms=AGE_MAX_MS + 1),
    "later than ever": row(late_ms=AGE_MAX_MS + 1),
    "a version beyond": row(version=NUMBER_MAX + 1),
    "a time beyond": row(received_us=NUMBER_MAX + 1),
    "applied beyond": row(readers=[types.TracedReader(applied_us=NUMBER_MAX + 1)]),
}


class Tracer(Liar):
    """Lies about rows."""

    async def Trace(self, _request: pb.TraceRequest, _call: Any) -> pb.TraceResponse:
        """Say what was made up."""
        return pb.TraceResponse(rows=self.lies["Trace"])


@pytest.mark.bad_input(77)
@pytest.mark.parametrize(
    "rows", [*([row] for row in ANSWERS.values()), [row()] * 101], ids=[*ANSWERS, "many"]
)
async def test_what_a_peer_answers_about_rows_is_checked(
    agent: Doors, rows: list[types.TracedRow]
) -> None:
    liar = Tracer(Trace=rows)
    server = await agent.bridge.serve([(PEER, liar)], ["127.0.0.1:0"])
    liar.me = replace(PEER_ME, address=f"127.0.0.1:{server.ports[0]}")
    await agent.invalidate(keys=[b"k"])
    await agent.join(liar.me)
    await agent.eventually(lambda: PEER_ME.name in agent.agent.linking.peers)
    before = agent.state()
    mine, theirs = (
        await agent.ask("TraceKey", admin.TraceKeyRequest(namespace="shop", keys=[b"k"]))
    ).hosts
    assert (mine.error, len(mine.rows)) == ("", 1)
    assert theirs.error.startswith("the peer's answer is malformed: ")
    assert not theirs.rows
    assert agent.agent.refused["Trace"] == 1
    assert agent.state() == before
    await server.stop(0)


@pytest.mark.bad_input(77)
@pytest.mark.parametrize(
    "request_",
    [
        cache.InvalidateProgressRequest(),
        cache.InvalidateProgressRequest(
            invalidate=cache.InvalidateRequest(namespace="shop", keys=[b""])
        ),
        cache.InvalidateProgressRequest(
            invalidate=cache.InvalidateRequest(namespace="shop", keys=[b"k"], members=1)
        ),
    ],
    ids=["nothing", "key", "members"],
)
async def test_an_illegal_request_has_no_progress(agent: Doors, request_: Any) -> None:
    before = agent.state()
    async with agent.local.stream(METHODS["InvalidateProgress"], request_) as stream:
        assert (await failure_of(stream)).code == "INVALID_ARGUMENT"
    assert agent.state() == before
    assert agent.agent.refused["InvalidateProgress"] == 1
