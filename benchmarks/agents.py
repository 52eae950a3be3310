"""Agents for measuring: real processes on loopback, each with an in-process handler that takes times."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import trio

from coherd import daemon, logs
from coherd.config import AgentConfig, load
from coherd.handlers import Resumption
from coherd.model import Batch, Position
from coherd.net import CORE_SETTINGS
from coherd.v1 import admin_service_pb2 as admin
from coherd.v1 import admin_service_pb2_grpc as admin_grpc
from coherd.v1 import cache_service_pb2_grpc as cache_grpc

NAMESPACE = "shop"
SPAWN = mp.get_context("spawn")


class TimingHandler:
    """An in-process cache that only notes when it was told to drop which key."""

    label = "timing"
    namespace = NAMESPACE

    def __init__(self) -> None:
        self.applied: list[tuple[int, Sequence[Batch]]] = []
        self.rows = 0

    async def connect(self) -> Resumption:
        return Resumption(None, warm=False)

    async def apply(self, batches: Sequence[Batch], _cursor: Position) -> None:
        if batches:
            self.rows += sum(map(len, batches))
            self.applied.append((time.monotonic_ns(), batches))

    async def aclose(self) -> None:
        pass

    def times(self) -> dict[bytes, int]:
        """Give when each key was applied."""
        return {s[1:]: at for at, batches in self.applied for b in batches for s in b.selectors}


def run_agent(config_path: str, pipe: Connection) -> None:
    """The body of one agent process: serves until it is told to stop, answers questions on `pipe`."""
    logs.configure("error")
    handler = TimingHandler()
    accepted: dict[bytes, int] = {}

    def started(agent: Any) -> None:
        accept = agent.ingest.accept

        def timed(namespace: str, lane: Any, selectors: Any, *rest: Any) -> Any:
            accepted[selectors[0][1:]] = time.monotonic_ns()
            return accept(namespace, lane, selectors, *rest)

        agent.ingest.accept = timed

    async def answer() -> None:
        while True:
            question = await trio.to_thread.run_sync(pipe.recv, abandon_on_cancel=True)
            if question == "rows":
                pipe.send(handler.rows)
            elif question == "last":
                pipe.send(handler.applied[-1][0] if handler.applied else 0)
            elif question == "times":
                pipe.send((handler.times(), accepted.copy()))
                handler.applied.clear()
                accepted.clear()
                handler.rows = 0
            elif question == "cpu":
                pipe.send(time.process_time())

    async def main() -> None:
        config: AgentConfig = load(Path(config_path), {}, {})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            await daemon.run(config, handlers=[handler], started=started)
            nursery.cancel_scope.cancel()

    trio.run(main)
    os._exit(0)  # a thread waits in pipe.recv


@dataclass
class MeasuredAgent:
    """One agent process, and how to talk to it."""

    process: Any
    pipe: Connection
    local: str

    def ask(self, question: str) -> Any:
        self.pipe.send(question)
        return self.pipe.recv()

    @property
    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.local)

    def cache(self) -> cache_grpc.CacheServiceStub:
        return cache_grpc.CacheServiceStub(self.channel)

    def is_ready(self, count: int) -> bool:
        stub = admin_grpc.AdminServiceStub(self.channel)
        try:
            status = stub.GetStatus(admin.GetStatusRequest(), timeout=2)
        except grpc.RpcError:
            return False
        return bool(status.ready and status.members_alive == count)


def free_port() -> int:
    """Give a port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def agents(count: int, durability: str = "os") -> Iterator[list[MeasuredAgent]]:
    """Run `count` agents that know each other."""
    for name, value in CORE_SETTINGS.items():  # here gRPC is imported before the agent's own code
        os.environ.setdefault(name, value)
    with tempfile.TemporaryDirectory(prefix="coherd-bench-") as folder:
        ports = [free_port() for _ in range(count)]
        seeds = ", ".join(f'"127.0.0.1:{port}"' for port in ports[:3])
        running: list[MeasuredAgent] = []
        try:
            for i, port in enumerate(ports):
                path = Path(folder) / f"{i}.toml"
                path.write_text(
                    f'name = "bench-{i}"\nlisten = "127.0.0.1:{port}"\njoin = [{seeds}]\n'
                    f'data_dir = "{folder}/{i}"\nlocal = ["unix:{folder}/{i}.sock"]\nhttp = ""\n'
                    f'durability = "{durability}"\n'
                )
                here, there = SPAWN.Pipe()
                process = SPAWN.Process(target=run_agent, args=(str(path), there))
                process.start()
                running.append(MeasuredAgent(process, here, f"unix:{folder}/{i}.sock"))
            wait_until(lambda: all(agent.is_ready(count) for agent in running), 120)
            yield running
        finally:
            for agent in running:
                os.kill(agent.process.pid, signal.SIGTERM)
            for agent in running:
                agent.process.join(10)
                agent.process.kill()


def wait_until(probe: Any, timeout: float) -> None:
    """Look again and again until `probe` gives something true."""
    deadline = time.monotonic() + timeout
    while not probe():
        if time.monotonic() > deadline:
            raise SystemExit(f"not reached within {timeout:.0f} s")
        time.sleep(0.01)
