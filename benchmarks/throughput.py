"""How many invalidations a second into one agent of three, journaled and applied on all, beside Redis?

Start: the publisher's first call. Stop: the last of three processes has applied the last row in-process
(an agent's handler; a redis-py subscriber's loop). Rows are keys of 24 bytes. The publisher works as its
users would: coherd in requests of 500 keys, four under way; Redis Pub/Sub pipelined, 500 a round trip.
Rounds alternate A B A B; the agents journal every row (`durability = "os"`), Redis keeps nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from statistics import median
from typing import Any

import redis
import redis_peer
from agents import NAMESPACE, SPAWN, agents, wait_until
from report import finish, show

from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import cache_service_pb2_grpc as cache_grpc

BATCH = 500
UNDER_WAY = 4


def publish_coherd(local: str, pipe: Any) -> None:
    """The body of the publisher: for each number received, publishes so many rows."""
    import grpc

    stub = cache_grpc.CacheServiceStub(grpc.insecure_channel(local))
    for keys in _orders(pipe):
        rows = len(keys)
        started = time.monotonic_ns()
        under_way: list[Any] = []
        for start in range(0, rows, BATCH):
            request = cache.InvalidateRequest(namespace=NAMESPACE, keys=keys[start : start + BATCH])
            under_way.append(stub.Invalidate.future(request))
            if len(under_way) >= UNDER_WAY:
                under_way.pop(0).result()
        for call in under_way:
            call.result()
        pipe.send((started, time.monotonic_ns()))


def publish_redis(port: int, pipe: Any) -> None:
    """The body of the publisher."""
    client = redis.Redis(port=port)
    client.ping()
    for keys in _orders(pipe):
        rows = len(keys)
        started = time.monotonic_ns()
        for start in range(0, rows, BATCH):
            with client.pipeline(transaction=False) as pipeline:
                for key in keys[start : start + BATCH]:
                    pipeline.publish(redis_peer.CHANNEL, key)
                pipeline.execute()
        pipe.send((started, time.monotonic_ns()))


def _orders(pipe: Any) -> Iterator[list[bytes]]:
    """Give the keys of one round after another, each when it is to start, until the benchmark ends."""
    with suppress(EOFError):
        for round_ in count(1):
            rows = pipe.recv()
            keys = [b"user:%03d:%07d:profile." % (round_, n) for n in range(rows)]
            pipe.send("ready")
            pipe.recv()
            yield keys


def publisher(body: Any, target: Any) -> Any:
    here, there = SPAWN.Pipe()
    SPAWN.Process(target=body, args=(target, there), daemon=True).start()
    return here


def coherd_round(running: list[Any], pipe: Any, rows: int) -> tuple[float, float, list[float]]:
    """Give rows a second until applied everywhere, until accepted, and CPU µs a row and agent."""
    pipe.send(rows)
    pipe.recv()
    before = [agent.ask("cpu") for agent in running]
    pipe.send("go")
    started, accepted = pipe.recv()
    wait_until(lambda: all(agent.ask("rows") >= rows for agent in running), 120)
    after = [agent.ask("cpu") for agent in running]
    ended = max(agent.ask("last") for agent in running)
    for agent in running:
        agent.ask("times")
    cpu = [(b - a) / rows * 1e6 for a, b in zip(before, after, strict=True)]
    return rows / ((ended - started) / 1e9), rows / ((accepted - started) / 1e9), cpu


def redis_round(pipes: list[Any], pipe: Any, rows: int) -> float:
    """Give messages a second until the last subscriber has the last."""
    pipe.send(rows)
    pipe.recv()
    for subscriber in pipes:
        subscriber.send(rows)
    pipe.send("go")
    started, _ = pipe.recv()
    ended = max(subscriber.recv()[-1][1] for subscriber in pipes)
    return rows / ((ended - started) / 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", default="redis", help="comma-separated; known: redis")
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--durability", choices=["os", "disk"], default="os")
    parser.add_argument("--quick", action="store_true", help="ends within a minute")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.rounds = 50_000, 5
    with_redis = redis_peer.is_wanted(arguments.peers)
    figures = measure(arguments, with_redis)
    rows = [("coherd, applied on all", figures["coherd_per_s"])]
    rows.append(("coherd, accepted", figures["coherd_accepted_per_s"]))
    if with_redis:
        rows.append(("Redis Pub/Sub", figures["redis_per_s"]))
    show(f"rows a second, {arguments.agents} receivers", ("", "rows/s"), rows)
    print(
        f"  CPU µs a row: accepting agent {figures['cpu_us_accepting']}, others {figures['cpu_us_others']}"
    )
    if with_redis:
        print(f"  ratio: {figures['ratio']:.2f}")
    finish(figures)


def measure(arguments: argparse.Namespace, with_redis: bool) -> dict[str, Any]:
    receivers, rows = arguments.agents, arguments.rows
    applied, accepted, peer, cpus = [], [], [], []
    with (
        agents(receivers, arguments.durability) as running,
        redis_peer.server() as port,
        redis_peer.subscribers(port, receivers if with_redis else 0) as pipes,
    ):
        ours = publisher(publish_coherd, running[0].local)
        theirs = publisher(publish_redis, port) if with_redis else None
        coherd_round(running, ours, 20_000)
        for _ in range(arguments.rounds):
            per_s, accepted_per_s, cpu = coherd_round(running, ours, rows)
            applied.append(per_s)
            accepted.append(accepted_per_s)
            cpus.append(cpu)
            if theirs is not None:
                peer.append(redis_round(pipes, theirs, rows))
    figures: dict[str, Any] = {
        "agents": receivers,
        "rounds": arguments.rounds,
        "durability": arguments.durability,
        "coherd_per_s": round(median(applied)),
        "coherd_accepted_per_s": round(median(accepted)),
        "cpu_us_accepting": round(median(cpu[0] for cpu in cpus), 1),
        "cpu_us_others": round(median(c for cpu in cpus for c in cpu[1:]), 1),
    }
    if with_redis:
        figures["redis_per_s"] = round(median(peer))
        figures["ratio"] = round(median(a / p for a, p in zip(applied, peer, strict=True)), 2)
    return figures


if __name__ == "__main__":
    main()
