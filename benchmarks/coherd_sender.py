"""A publisher of coherd: invalidates through the agent of its host, with requests under way as users have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import cache_service_pb2_grpc as cache_grpc
from coherd.v1 import types_pb2 as types

NAMESPACE = "shop"
UNDER_WAY = 4
LANES = {
    "": types.LANE_UNSPECIFIED,
    "urgent": types.LANE_URGENT,
    "normal": types.LANE_NORMAL,
    "bulk": types.LANE_BULK,
}


class Sender:
    """One warm channel to the agent's socket; `target` is that and the lane ("" is the namespace's)."""

    def __init__(self, target: tuple[str, str]) -> None:
        local, lane = target
        channel = grpc.insecure_channel(local)
        grpc.channel_ready_future(channel).result(30)
        self._stub = cache_grpc.CacheServiceStub(channel)
        self._lane = LANES[lane]
        self._under_way: list[Any] = []

    def send(self, keys: Sequence[bytes]) -> None:
        """Invalidate; returns before the answer while few requests are under way."""
        request = cache.InvalidateRequest(namespace=NAMESPACE, keys=keys, lane=self._lane)
        if len(keys) == 1:  # as a request handler of an application does
            self._stub.Invalidate(request)
            return
        self._under_way.append(self._stub.Invalidate.future(request))
        if len(self._under_way) >= UNDER_WAY:
            self._under_way.pop(0).result()

    def drain(self) -> None:
        """Wait for the answers."""
        while self._under_way:
            self._under_way.pop(0).result()
