"""Agents for measuring: real processes, each with an in-process handler that takes times."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import networks
import trio
from coherd_sender import NAMESPACE
from processes import SPAWN, belong, free_port, wait_until

from coherd import daemon, logs
from coherd.config import AgentConfig, load
from coherd.errors import Overloaded
from coherd.handlers import Resumption, Survey
from coherd.identity import Identity, Role
from coherd.model import Batch, Effect, HandlerInfo, Lane, Position
from coherd.net import CORE_SETTINGS
from coherd.pki import authority as pki
from coherd.v1 import admin_service_pb2_grpc as admin_grpc
from coherd.v1 import cache_service_pb2_grpc as cache_grpc
from coherd.v1.admin_service_pb2 import GetStatusRequest, GetStatusResponse

PEER_PORT = 4373
"""The port of an agent that has a host of its own."""


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

    @property
    def info(self) -> HandlerInfo:
        return HandlerInfo("timing", self.namespace, tags=True)

    async def survey(self) -> Survey:
        return Survey("{key}", 0, 0, 0, None, None)

    async def aclose(self) -> None:
        pass

    def take_times(self, prefix: bytes) -> dict[bytes, int]:
        """Give when each key that begins with `prefix` was applied, and forget it all."""
        times = {
            key: at
            for at, batches in self.applied
            for batch in batches
            for selector in batch.selectors
            if (key := selector[1:]).startswith(prefix)
        }
        self.applied.clear()
        self.rows = 0
        return times


def run_agent(config_path: str, space: str, pipe: Connection) -> None:
    """The body of one agent process: serves until it is told to stop, answers questions on `pipe`."""
    belong()
    networks.enter(space)
    logs.configure("error")
    handler = TimingHandler()
    accepted: dict[bytes, int] = {}
    running: list[Any] = []

    def started(agent: Any) -> None:
        running.append(agent)
        _note_times(agent, accepted)

    async def answer() -> None:
        while True:
            question = await trio.to_thread.run_sync(pipe.recv, abandon_on_cancel=True)
            if isinstance(question, list):
                pipe.send(await _accept_alone(running[0], question))
            elif question == "rows":
                pipe.send(handler.rows)
            elif question == "last":
                pipe.send(handler.applied[-1][0] if handler.applied else 0)
            elif isinstance(question, bytes):
                pipe.send((handler.take_times(question), accepted.copy()))
                accepted.clear()
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


def _note_times(agent: Any, accepted: dict[bytes, int]) -> None:
    """Have the agent note when it accepted which key."""
    accept = agent.ingest.accept

    def timed(namespace: str, lane: Any, selectors: Any, *rest: Any) -> Any:
        accepted[selectors[0][1:]] = time.monotonic_ns()
        return accept(namespace, lane, selectors, *rest)

    agent.ingest.accept = timed


async def _accept_alone(agent: Any, keys: list[bytes]) -> int:
    """Accept keys one by one, as if each were asked for alone, without spreading them."""
    for key in keys:
        while True:
            try:
                agent.ingest.accept(NAMESPACE, Lane.NORMAL, [b"k" + key], Effect.DROP, None, "")
                break
            except Overloaded:
                await trio.sleep(0.01)
        await trio.lowlevel.checkpoint()
    return len(keys)


class MeasuredAgent:
    """One agent, and how to talk to it; it can be stopped and started again on its data."""

    def __init__(self, config: Path, local: str, space: str) -> None:
        self.local = local
        self._config = config
        self._space = space
        self._process: Any = None
        self._pipe: Any = None

    def start(self) -> None:
        """Start its process without waiting for it."""
        self._pipe, theirs = SPAWN.Pipe()
        arguments = (str(self._config), self._space, theirs)
        self._process = SPAWN.Process(target=run_agent, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def stop(self) -> None:
        """Stop it as an operator does."""
        self.ask_to_stop()
        self._process.join(10)
        self._process.kill()
        self._process.join(10)

    def ask_to_stop(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGTERM)

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def rss_mb(self) -> float:
        """Give its resident memory (VmRSS)."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        kib = next(line for line in lines if line.startswith("VmRSS")).split()[1]
        return int(kib) * 1024 / 1e6

    def ask(self, question: str | bytes | list[bytes], timeout: float = 120.0) -> Any:
        """Ask for "rows", "last" or "cpu"; or, by a prefix of keys, for their times, which are forgotten.

        With a list it accepts these keys one by one, and tells only the peers that look for what they lack.
        """
        self._pipe.send(question)
        if not self._pipe.poll(timeout):
            raise SystemExit(f"an agent did not answer within {timeout:.0f} s")
        return self._pipe.recv()

    def cache(self) -> cache_grpc.CacheServiceStub:
        return cache_grpc.CacheServiceStub(grpc.insecure_channel(self.local))

    def admin(self) -> admin_grpc.AdminServiceStub:
        return admin_grpc.AdminServiceStub(grpc.insecure_channel(self.local))

    def status(self) -> GetStatusResponse | None:
        """Give how it is, over a connection of its own; None when it does not answer."""
        with grpc.insecure_channel(self.local) as channel:
            stub = admin_grpc.AdminServiceStub(channel)
            try:
                return stub.GetStatus(GetStatusRequest(), timeout=2)
            except grpc.RpcError:
                return None

    def is_ready(self, count: int) -> bool:
        if not self._process.is_alive():
            raise SystemExit("an agent has ended by itself")
        status = self.status()
        return status is not None and bool(status.ready and status.members_alive == count)


def certificates(folder: Path, count: int) -> list[str]:
    """Make a certificate for each agent; give what its settings say of it."""
    pki.create(folder / "pki", "example.org", datetime.now(UTC))
    authority = pki.load(folder / "pki")
    tables = []
    for i in range(count):
        identity = Identity("example.org", "default", Role.AGENT, f"bench-{i}")
        path = authority.directory / f"{i}.pem"
        authority.issue(identity, path, datetime.now(UTC))
        tables.append(
            f'[tls]\nca = "{path.with_name("ca.pem")}"\ncert = "{path}"\nkey = "{path.with_suffix(".key")}"'
        )
    return tables


@contextmanager
def agents(
    count: int,
    durability: str = "os",
    *,
    settings: str = "",
    space: str = "",
    places: Sequence[networks.Host] = (),
    tls: bool = False,
) -> Iterator[list[MeasuredAgent]]:
    """Run agents that know each other: on loopback, of one namespace if it is given, or a host each.

    `settings` is TOML for all of them. With `tls` they know each other by certificates.
    """
    for name, value in CORE_SETTINGS.items():  # here gRPC is imported before the agent's own code
        os.environ.setdefault(name, value)
    with tempfile.TemporaryDirectory(prefix="coherd-bench-") as folder:
        if places:
            addresses = [f"{host.address}:{PEER_PORT}" for host in places]
        else:
            addresses = [f"127.0.0.1:{free_port()}" for _ in range(count)]
        seeds = ", ".join(f'"{address}"' for address in addresses[:3])
        running: list[MeasuredAgent] = []
        known = certificates(Path(folder), count) if tls else [""] * count
        try:
            for i, address in enumerate(addresses):
                path = Path(folder) / f"{i}.toml"
                local = f"unix:{folder}/{i}.sock"
                path.write_text(
                    f'name = "bench-{i}"\nlisten = "{address}"\njoin = [{seeds}]\n'
                    f'data_dir = "{folder}/{i}"\nlocal = ["{local}"]\nhttp = ""\n'
                    f'durability = "{durability}"\ninsecure = {str(bool(places)).lower()}\n{settings}\n'
                    f"{known[i]}\n"
                )
                agent = MeasuredAgent(path, local, places[i].space if places else space)
                agent.start()
                running.append(agent)
            wait_until(lambda: all(agent.is_ready(count) for agent in running), 120, 0.05)
            yield running
        finally:
            for agent in running:
                agent.ask_to_stop()
            for agent in running:
                agent.stop()
