"""Budgets and bulk windows over the wire: what is refused, what is not, and what a stop does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from integration.agents import AgentProcess, cluster, coherd, lone
from integration.polling import poll

from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import cache_service_pb2_grpc as cache_grpc
from coherd.v1 import types_pb2 as types

KEYS = [b"%d" % n for n in range(1000)]
LIMITED = "[namespaces.shop]\nrate_max = 2"
"""After 1,000 rows at once it takes a row in half a second: none within a test that is not slow."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[AgentProcess]]:
    """Two agents; only the second has a limit, and each test takes a client of its own."""
    with cluster(tmp_path_factory.mktemp("budgets"), "ab", {"b": LIMITED}, http=True) as agents:
        yield agents


def invalidate(
    agent: AgentProcess, client: str, keys: list[bytes], **fields: Any
) -> cache.InvalidateResponse:
    request = cache.InvalidateRequest(namespace="shop", keys=keys, **fields)
    stub = cache_grpc.CacheServiceStub(agent.channel)
    return stub.Invalidate(request, timeout=10, metadata=(("coherd-client", client),))


def refused(
    agent: AgentProcess, client: str, keys: list[bytes], **fields: Any
) -> tuple[str, float]:
    """Give the text, and in how many seconds to try again."""
    before = agent.status()
    with pytest.raises(grpc.RpcError) as caught:
        invalidate(agent, client, keys, **fields)
    error = caught.value
    assert isinstance(error, grpc.Call)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert agent.status().cursor == before.cursor, "nothing was changed"
    trailers = dict(error.trailing_metadata() or ())
    return error.details() or "", int(trailers["grpc-retry-pushback-ms"]) / 1000


def test_a_client_over_its_budget_is_told_when_to_come_again(two: list[AgentProcess]) -> None:
    agent = two[1]
    invalidate(agent, "greedy", KEYS)
    text, after = refused(agent, "greedy", KEYS)
    assert text.startswith(
        "client greedy is over its budget of 2 rows a second for namespace shop, lanes normal and bulk"
    )
    assert text.endswith("or raise rate_max of [namespaces.shop]")
    assert 400 < after <= 500
    refused(agent, "greedy", KEYS, lane=types.LANE_BULK)
    for fields in ({"lane": types.LANE_URGENT}, {"namespace": "web"}):
        agent.invalidate(**{"namespace": "shop", "keys": KEYS, **fields})
    invalidate(agent, "greedy", KEYS, lane=types.LANE_URGENT)
    invalidate(agent, "modest", KEYS)
    _, metrics = agent.get("/metrics")
    assert 'coherd_rows_over_budget_total{lanes="rest",namespace="shop"} 2000.0' in metrics


def test_names_that_are_none_are_refused(two: list[AgentProcess]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        invalidate(two[1], "no name", KEYS)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_what_peers_spread_and_what_repair_fetches_is_in_no_budget(two: list[AgentProcess]) -> None:
    one, other = two
    before = other.namespace()
    for _ in range(5):
        invalidate(one, "busy", KEYS, wait=cache.WAIT_REGION)
    after = other.namespace()
    taken = after.received + after.repaired - before.received - before.repaired
    assert taken == 5 * len(KEYS)


def test_the_command_has_a_budget_of_its_own_and_says_why_it_is_refused(
    two: list[AgentProcess],
) -> None:
    agent = two[1]
    keys = agent.folder / "keys"
    keys.write_bytes(b"\n".join(KEYS))
    assert coherd(agent, "invalidate", "shop", "--keys-from", str(keys))[0] == 0
    code, said, text = coherd(agent, "invalidate", "shop", "--keys-from", str(keys))
    assert (code, said) == (1, "")
    assert "takes no more for now (client coherd is over its budget of 2 rows a second" in text


def test_bulk_rows_that_wait_are_accepted_at_once_when_the_agent_stops(tmp_path: Any) -> None:
    with lone(tmp_path, settings='[namespaces.default]\nbatch_window = "1m"') as agent:
        agent.start()
        poll(lambda: agent.status().ready, "the agent to be ready")
        stub = cache_grpc.CacheServiceStub(agent.channel)
        request = cache.InvalidateRequest(namespace="shop", keys=[b"a"], lane=types.LANE_BULK)
        calls = [stub.Invalidate.future(request, timeout=50) for _ in range(3)]  # type: ignore[attr-defined]
        left = stub.Invalidate.future(request, timeout=50)  # type: ignore[attr-defined]
        agent.invalidate(keys=[b"b"])  # over the same connection: the others have arrived by now
        left.cancel()
        agent.invalidate(keys=[b"b"])
        assert not any(call.done() for call in calls)
        agent.signal(15)
        receipts = [call.result().receipt for call in calls]
        assert {dots.last for receipt in receipts for dots in receipt.dots} == {1}
        assert agent.ended() == 0
        assert "Traceback" not in agent.log
        agent.start()
        poll(lambda: agent.status().ready, "the agent to be ready")
        assert agent.receipt(receipts[0].dots).complete, "it was journaled"
