"""The standard health protocol (grpc.health.v1): is this agent serving?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from grpc_health.v1 import health_pb2

from coherd.errors import RpcFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from coherd.net.bridge import Call, StreamCall

DESCRIPTOR = health_pb2.DESCRIPTOR.services_by_name["Health"]
LOOK_INTERVAL = 0.25
"""Seconds between two looks on behalf of a watcher."""


class HealthService:
    """Answers for the agent as a whole ("") and for each service by its full name."""

    def __init__(self, services: list[str], is_ready: Callable[[], bool]) -> None:
        self._services = {"", *services}
        self._is_ready = is_ready

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, _call: Call
    ) -> health_pb2.HealthCheckResponse:
        """Tell once."""
        if request.service not in self._services:
            raise RpcFailed("NOT_FOUND", f"unknown service {request.service[:80]!r}")
        return self._now(request.service)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, call: StreamCall
    ) -> None:
        """Tell now and whenever it changes."""
        said = None
        while True:
            response = self._now(request.service)
            if response.status != said:
                said = response.status
                await call.send(response)
            await trio.sleep(LOOK_INTERVAL)

    def _now(self, service: str) -> health_pb2.HealthCheckResponse:
        if service not in self._services:
            status = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        elif self._is_ready():
            status = health_pb2.HealthCheckResponse.SERVING
        else:
            status = health_pb2.HealthCheckResponse.NOT_SERVING
        return health_pb2.HealthCheckResponse(status=status)
