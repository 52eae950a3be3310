"""The agents of `coherd demo`: real processes, and what is asked of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import trio
from google.protobuf.duration_pb2 import Duration

from coherd.api.services import ADMIN, CACHE
from coherd.cli.demo.processes import LOOPBACK, POLL_INTERVAL, START_TIMEOUT, Child, DemoFailed
from coherd.errors import RpcFailed
from coherd.net.bridge import methods
from coherd.v1 import admin_service_pb2 as admin
from coherd.v1 import cache_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from coherd.net.bridge import Bridge, Channel
    from coherd.v1 import types_pb2

CLUSTER = "demo"
NAMESPACE = "shop"
CALL_TIMEOUT = 10.0
"""Seconds that an agent is given to answer."""

STATUS = methods(ADMIN)["GetStatus"]
INVALIDATE = methods(CACHE)["Invalidate"]
RECEIPT = methods(CACHE)["GetReceipt"]
WATCH = methods(CACHE)["Watch"]

_CONFIG = """\
name = "{name}"
cluster = "{cluster}"
listen = "{address}"
join = [{seeds}]
data_dir = "{data}"
local = ["unix:{socket}"]
http = ""

[namespaces.{namespace}]
max_ttl = "1h"
"""


class DemoAgent:
    """One agent, which keeps its port, socket and data over restarts."""

    def __init__(self, bridge: Bridge, folder: Path, name: str, port: int) -> None:
        self.name = name
        self.address = f"{LOOPBACK}:{port}"
        self.socket = folder / name
        self._folder = folder / f"{name}.d"
        self._config = self._folder / "coherd.toml"
        command = [sys.executable, "-m", "coherd", "agent", "--config", str(self._config)]
        self.child = Child(name, command, self._folder / "log")
        self._bridge = bridge
        self._channel: Channel | None = None
        self._is_back = trio.Event()

    @property
    def local(self) -> str:
        """Where applications find it."""
        return f"unix:{self.socket}"

    def configure(self, seeds: Sequence[str], handlers: str) -> None:
        """Write its file."""
        self._folder.mkdir()
        config = _CONFIG.format(
            name=self.name,
            cluster=CLUSTER,
            namespace=NAMESPACE,
            address=self.address,
            seeds=", ".join(f'"{seed}"' for seed in seeds),
            data=self._folder / "data",
            socket=self.socket,
        )
        self._config.write_text(config + handlers)

    async def start(self, nursery: trio.Nursery) -> None:
        """Start the process, and wait until it answers. Raises DemoFailed."""
        await self.child.start(nursery)
        with trio.move_on_after(START_TIMEOUT):
            while True:
                try:
                    stream = await trio.open_unix_socket(str(self.socket))
                except OSError:
                    await trio.sleep(POLL_INTERVAL)
                else:
                    await stream.aclose()
                    await self._open()
                    return
        raise DemoFailed(
            f"{self.name} did not answer within {START_TIMEOUT:.0f} s: "
            "is this machine very busy? Try again"
        )

    async def _open(self) -> None:
        self._channel = self._bridge.channel(self.local)
        await self.status()
        self._is_back.set()

    async def kill(self) -> None:
        """End the process as a crash does."""
        self._is_back = trio.Event()
        await self.child.kill()
        if self._channel is not None:
            await self._channel.aclose()

    async def channel(self) -> Channel:
        """Give the way to its present life, once that answers."""
        await self._is_back.wait()
        assert self._channel is not None
        return self._channel

    async def invalidate(
        self, wait: pb.Wait.ValueType, timeout: float = 5.0, **rows: Any
    ) -> pb.Receipt:
        """Invalidate keys, tags or prefixes."""
        request = pb.InvalidateRequest(
            namespace=NAMESPACE, wait=wait, timeout=_duration(timeout), **rows
        )
        answer = await self._ask(INVALIDATE, request, timeout)
        assert isinstance(answer, pb.InvalidateResponse)
        return answer.receipt

    async def receipt(self, dots: Sequence[types_pb2.Dots], timeout: float) -> pb.Receipt:
        """Ask who has applied rows."""
        request = pb.GetReceiptRequest(dots=dots, timeout=_duration(timeout))
        answer = await self._ask(RECEIPT, request, timeout)
        assert isinstance(answer, pb.GetReceiptResponse)
        return answer.receipt

    async def status(self) -> admin.GetStatusResponse:
        """Ask how it is."""
        answer = await self._ask(STATUS, admin.GetStatusRequest(), 0.0)
        assert isinstance(answer, admin.GetStatusResponse)
        return answer

    async def _ask(self, method: Any, request: Any, timeout: float) -> object:
        if self._channel is None:
            raise RpcFailed("UNAVAILABLE", f"{self.name} was not started")
        answer: object = await self._channel.unary(method, request, timeout=timeout + CALL_TIMEOUT)
        return answer


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
