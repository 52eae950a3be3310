"""A disk that stalls under load: its agent takes no more than it may hold, and everything else goes on."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import grpc
import pytest
from integration.disks import injected, journal_thread
from integration.hosts import KEPT, Host, hosts, settle, start
from integration.polling import poll
from integration.test_http import samples
from servers import free_port

from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import cache_service_pb2_grpc as cache_grpc

STALL = 10
"""Seconds for which one fdatasync takes."""
RATE = 50_000
"""Rows a second, from all clients."""
BATCH = 1000
GROWS_BY_MAX = 150 << 20
"""Bytes of memory."""
REQUESTS = [
    cache.InvalidateRequest(
        namespace="shop", keys=[(b"%d:%d" % (n, i)).ljust(100, b".") for i in range(BATCH)]
    )
    for n in range(20)
]
"""The same keys again and again: what the agent remembers does not grow, so that what waits is seen."""


class Load(threading.Thread):
    """A client that asks at a given rate, whether or not it is answered."""

    def __init__(self, host: Host, rows_per_second: float, is_over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.codes: Counter[grpc.StatusCode] = Counter()
        """How the calls were answered."""
        self._target = f"unix:{host.agent.socket}"
        self._interval = BATCH / rows_per_second
        self._is_over = is_over

    def run(self) -> None:
        calls = []
        with grpc.insecure_channel(self._target) as channel:
            stub = cache_grpc.CacheServiceStub(channel)
            due = time.monotonic()
            for request in cycle(REQUESTS):
                if self._is_over.wait(max(0.0, due - time.monotonic())):
                    break
                due += self._interval
                call = stub.Invalidate.future(request, timeout=60)
                call.add_done_callback(lambda done: self.codes.update([done.code()]))
                calls.append(call)
            for call in calls:
                call.exception()


@contextmanager
def load(given: Sequence[Host]) -> Iterator[list[Load]]:
    over = threading.Event()
    clients = [Load(host, RATE / len(given), over) for host in given]
    for client in clients:
        client.start()
    try:
        yield clients
    finally:
        over.set()
        for client in clients:
            client.join(90)
    assert not any(client.is_alive() for client in clients)


def memory(host: Host) -> int:
    """Tell what the agent's process takes, in bytes."""
    assert host.agent.process is not None
    status = Path(f"/proc/{host.agent.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def late(host: Host) -> tuple[float, float, float]:
    """Tell how often the agent's loop was looked at, was not 0.1 s late, and not 1 s."""
    buckets = samples(host.agent, "coherd_loop_lateness_seconds_bucket")
    return buckets["+Inf",], buckets["0.1",], buckets["1.0",]


@pytest.mark.slow
def test_a_disk_that_stalls_under_load(tmp_path: Path) -> None:
    with hosts(tmp_path, "a", "b") as (one, two):
        two.set(durability='"disk"')
        two.agent.http = f"127.0.0.1:{free_port()}"
        start([one, two])
        for host in (one, two):
            for request in REQUESTS:
                host.fill(request.keys)
        with load([one, two]) as clients:
            poll(lambda: sum(clients[1].codes.values()) > 2 * len(REQUESTS), "some load")
            thread = journal_thread(two.agent)
            before, looked = memory(two), late(two)
            fault = f"fdatasync:delay_enter={STALL}s:when=1"
            with injected(two.agent, fault, threads=[thread]) as calls:
                sizes = []

                def is_over() -> bool:
                    sizes.append(memory(two))
                    return "DELAYED" in calls.read_text()

                poll(is_over, "the disk to go on", 3 * STALL)
            counts = [after - at for after, at in zip(late(two), looked, strict=True)]
            growth = max(sizes) - before
            print(f"memory grew by {growth >> 20} MiB; {counts} looks, in 0.1 s, in 1 s")
            assert growth < GROWS_BY_MAX
            assert counts[0] == counts[2] > 0, "the loop went on"
            taken = clients[1].codes[grpc.StatusCode.OK]
            poll(lambda: clients[1].codes[grpc.StatusCode.OK] > taken, "rows to be taken again")
        print(*(dict(client.codes) for client in clients))
        assert set(clients[0].codes) == {grpc.StatusCode.OK}
        assert set(clients[1].codes) == {
            grpc.StatusCode.OK,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        }
        settle([one, two], [key for request in REQUESTS for key in request.keys])
        received = two.agent.namespace().received
        two.agent.kill()
        two.agent.start()
        settle([one, two], [], 60)
        assert 0 < two.agent.namespace().repaired < received, "what was not stored meanwhile"
        for host in (one, two):
            assert host.resets == {}
            assert host.left([KEPT]) == {KEPT}
