"""Redis Pub/Sub as people use it for invalidation: one redis-server that keeps nothing, redis-py."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import networks
import redis
from processes import free_port, server, wait_until

LABEL = "Redis Pub/Sub"
CHANNEL = "inv"
SHARE = 1.0
"""Rows of a round of throughput, as a share of coherd's."""
IS_BROKER = True
"""Carries a background load, and works in network namespaces."""


def missing() -> str:
    """Tell what is missing; empty when nothing is."""
    return "" if shutil.which("redis-server") else "no redis-server (make bench-servers)"


@contextmanager
def running(_count: int, place: networks.Host | None = None) -> Iterator[tuple[str, int]]:
    """Run a server; give its address."""
    host, space = (place.address, place.space) if place else ("127.0.0.1", "")
    address = (host, free_port())
    with tempfile.TemporaryDirectory(prefix="coherd-bench-") as folder:
        command = ["redis-server", "--bind", host, "--port", str(address[1]), "--save", ""]
        command += ["--dir", folder, "--loglevel", "warning", "--protected-mode", "no"]
        with server([*networks.inside(space), *command], stdout=subprocess.DEVNULL):
            if not space:
                wait_until(lambda: _answers(address), 10)
            yield address


def _answers(address: tuple[str, int]) -> bool:
    try:
        return bool(redis.Redis(*address).ping())
    except redis.ConnectionError:
        return False


def listen(
    address: tuple[str, int], _number: int, note: Callable[[bytes], None], ready: Callable[[], None]
) -> None:
    """The body of one subscriber."""
    wait_until(lambda: _answers(address), 30)
    client: Any = redis.Redis(*address)
    subscription = client.pubsub()
    subscription.subscribe(CHANNEL)
    subscription.get_message(timeout=5)
    ready()
    for message in subscription.listen():
        if message["type"] == "message":
            note(message["data"])


class Sender:
    """A publisher: one message a round trip, several of them pipelined."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._client = redis.Redis(*address)
        self._client.ping()

    def send(self, keys: Sequence[bytes]) -> None:
        if len(keys) == 1:
            self._client.publish(CHANNEL, keys[0])
            return
        with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.publish(CHANNEL, key)
            pipeline.execute()

    def drain(self) -> None:
        """Each send has waited for its answers."""
