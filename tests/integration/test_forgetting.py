"""Ten million different keys through a limit of one: memory and disk stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from integration.agents import AgentProcess, cluster, wait_until_whole
from integration.polling import poll

from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import cache_service_pb2_grpc as cache_grpc

MILLION = 1_000_000
BATCH = 1_000
UNDER_WAY = 4


def fill(agent: AgentProcess, first: int, rows: int) -> None:
    """Invalidate so many different keys, and wait until the journal has what it keeps of them."""
    stub = cache_grpc.CacheServiceStub(agent.channel)
    under_way = []
    for start in range(first, first + rows, BATCH):
        keys = [b"user:%011d:profile" % n for n in range(start, start + BATCH)]
        request = cache.InvalidateRequest(namespace="shop", keys=keys)
        under_way.append(stub.Invalidate.future(request, timeout=60))
        if len(under_way) >= UNDER_WAY:
            under_way.pop(0).result()
    for call in under_way:
        call.result()
    poll(lambda: agent.status().journal.queued_bytes == 0, "the journal's queue to be empty")


def rss_mb(agent: AgentProcess) -> float:
    assert agent.process is not None
    lines = Path(f"/proc/{agent.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1000


@pytest.mark.slow
def test_ten_million_keys_leave_memory_and_disk_flat_and_who_was_away_is_reset_once(
    tmp_path: Path,
) -> None:
    with cluster(tmp_path, ["a", "b"]) as (a, b):
        b.kill()
        fill(a, 0, 2 * MILLION)
        memory, disk = rss_mb(a), a.status().journal.size_bytes
        for million in range(2, 10):
            fill(a, million * MILLION, MILLION)
        shop = a.namespace()
        assert shop.remembered <= MILLION
        assert shop.forgotten >= 9 * MILLION
        assert rss_mb(a) < 1.2 * memory + 50
        assert a.status().journal.size_bytes < 1.3 * disk + 50_000_000
        b.start()
        wait_until_whole([a, b], 120)
        resets = dict(b.namespace().resets)
        assert resets in [{"below-floor": 1}, {"too-far-behind": 1}], (
            "both are true: one comes first"
        )
        assert dict(a.namespace().resets) == {}
        b.kill()
        fill(a, 10 * MILLION, MILLION // 2)
        b.start()
        wait_until_whole([a, b], 120)
        assert dict(b.namespace().resets) == {}, "half of what is remembered is repaired by rows"
        assert b.namespace().repaired == MILLION // 2
        a.kill()
        a.start()
        wait_until_whole([a, b], 120)
        assert a.namespace().remembered <= MILLION + BATCH
        assert rss_mb(a) < 1.2 * memory + 50
