"""How much memory does a remembered invalidation take, and does an agent stay as it is beyond the limit?

One agent as its users run it, `entries_max` at its default. A client invalidates keys of 24 bytes, all
different, in requests of 500. Resident memory (VmRSS) before the first and after the rows; then once
more after a restart, and after as many rows again that push the first ones out. The bytes of an entry are
the growth from the empty agent by the rows remembered, so all buffers count as entries.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from coherd_sender import NAMESPACE
from processes import free_port, wait_until
from report import finish, show

from coherd.v1 import admin_service_pb2 as admin
from coherd.v1 import admin_service_pb2_grpc as admin_grpc
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import cache_service_pb2_grpc as cache_grpc

BATCH = 500
UNDER_WAY = 4


class Agent:
    """One agent process and how to ask it."""

    def __init__(self, pid: int, channel: grpc.Channel) -> None:
        self.pid = pid
        self.cache = cache_grpc.CacheServiceStub(channel)
        self._admin = admin_grpc.AdminServiceStub(channel)

    def status(self) -> Any:
        return self._admin.GetStatus(admin.GetStatusRequest(), timeout=5)

    def is_ready(self) -> bool:
        try:
            return bool(self.status().ready)
        except grpc.RpcError:
            return False

    def rss_mb(self) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        kib = next(line for line in lines if line.startswith("VmRSS")).split()[1]
        return int(kib) * 1024 / 1e6

    def fill(self, first: int, rows: int) -> None:
        """Invalidate so many keys, and wait until the journal has them all."""
        under_way: list[Any] = []
        for start in range(first, first + rows, BATCH):
            keys = [b"user:%011d:profile" % n for n in range(start, start + BATCH)]
            request = cache.InvalidateRequest(namespace=NAMESPACE, keys=keys)
            under_way.append(self.cache.Invalidate.future(request))
            if len(under_way) >= UNDER_WAY:
                under_way.pop(0).result()
        for call in under_way:
            call.result()
        wait_until(lambda: self.status().journal.queued_bytes == 0, 60)

    def remembered(self) -> int:
        return int(self.status().namespaces[0].remembered)

    def journal_mb(self) -> float:
        return float(self.status().journal.size_bytes / 1e6)


@contextmanager
def agent(folder: Path) -> Iterator[Agent]:
    """Run an agent on the folder's data."""
    config = folder / "coherd.toml"
    socket = f"unix:{folder}/coherd.sock"
    config.write_text(
        f'name = "memory"\nlisten = "127.0.0.1:{free_port()}"\ndata_dir = "{folder}/data"\n'
        f'local = ["{socket}"]\nhttp = ""\n'
    )
    command = [sys.executable, "-m", "coherd", "agent", "--config", str(config)]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        with grpc.insecure_channel(socket) as channel:
            running = Agent(process.pid, channel)
            wait_until(running.is_ready, 120)
            yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def measure(rows: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="coherd-bench-") as name:
        folder = Path(name)
        with agent(folder) as running:
            empty = running.rss_mb()
            running.fill(0, rows)
            full, journal = running.rss_mb(), running.journal_mb()
            remembered = running.remembered()
        with agent(folder) as running:
            restarted = running.rss_mb()
            for n in range(1, rounds + 1):
                running.fill(n * rows, rows)
            flat, flat_journal = running.rss_mb(), running.journal_mb()
    return {
        "rows": rows,
        "remembered": remembered,
        "bytes_per_entry": round((full - empty) * 1e6 / remembered, 1),
        "agent_rss_mb": round(full, 1),
        "empty_rss_mb": round(empty, 1),
        "restarted_rss_mb": round(restarted, 1),
        "overfilled_rss_mb": round(flat, 1),
        "journal_mb": round(journal, 1),
        "overfilled_journal_mb": round(flat_journal, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="times as many rows again at the end")
    parser.add_argument("--quick", action="store_true", help="ends within a minute")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.rounds = 500_000, 1
    figures = measure(arguments.rows, arguments.rounds)
    show(
        f"one agent, {arguments.rows:,} different keys",
        ("", "resident MB", "journal MB"),
        [
            ("empty", figures["empty_rss_mb"], ""),
            (
                f"{figures['remembered']:,} remembered",
                figures["agent_rss_mb"],
                figures["journal_mb"],
            ),
            ("after a restart", figures["restarted_rss_mb"], ""),
            (
                f"after {arguments.rounds} times as many more",
                figures["overfilled_rss_mb"],
                figures["overfilled_journal_mb"],
            ),
        ],
    )
    print(f"  bytes of an entry: {figures['bytes_per_entry']}")
    finish(figures)


if __name__ == "__main__":
    main()
