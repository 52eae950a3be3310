"""Redis Pub/Sub as people use it for invalidation: one redis-server, redis-py subscribers, each a process."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from agents import SPAWN, free_port, wait_until

CHANNEL = "inv"


def is_installed() -> bool:
    """Tell whether there is a redis-server."""
    return shutil.which("redis-server") is not None


def is_wanted(peers: str) -> bool:
    """Tell whether a comma-separated list of peers names Redis and it is here; name what is left out."""
    names = [name for name in peers.split(",") if name]
    for name in names:
        if name != "redis" or not is_installed():
            print(f"left out: {name} (not installed, or not measured by this script)")
    return "redis" in names and is_installed()


@contextmanager
def server() -> Iterator[int]:
    """Run a redis-server that keeps nothing; give its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="coherd-bench-") as folder:
        command = ["redis-server", "--port", str(port), "--save", "", "--dir", folder]
        process = subprocess.Popen([*command, "--loglevel", "warning"], stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: _answers(port), 10)
            yield port
        finally:
            process.terminate()
            process.wait(10)


def _answers(port: int) -> bool:
    try:
        return bool(redis.Redis(port=port).ping())
    except redis.ConnectionError:
        return False


def subscribe(port: int, pipe: Any) -> None:
    """The body of one subscriber process: notes when each message came."""
    subscription = redis.Redis(port=port).pubsub()
    subscription.subscribe(CHANNEL)
    subscription.get_message(timeout=5)
    pipe.send("ready")
    while True:
        total = pipe.recv()
        times: list[tuple[bytes, int]] = []
        for message in subscription.listen():
            if message["type"] == "message":
                times.append((message["data"], time.monotonic_ns()))
                if len(times) == total:
                    break
        pipe.send(times)


@contextmanager
def subscribers(port: int, count: int) -> Iterator[list[Any]]:
    """Run `count` subscriber processes; give the pipes to them."""
    pipes, processes = [], []
    try:
        for _ in range(count):
            here, there = SPAWN.Pipe()
            process = SPAWN.Process(target=subscribe, args=(port, there), daemon=True)
            process.start()
            pipes.append(here)
            processes.append(process)
        for pipe in pipes:
            pipe.recv()
        yield pipes
    finally:
        for process in processes:
            process.kill()
