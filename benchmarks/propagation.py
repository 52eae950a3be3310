"""How long from a call to `invalidate` until the last of N agents has applied it, beside Redis Pub/Sub?

Start: just before the call on a warm client (sync gRPC over a unix socket; PUBLISH with redis-py).
Stop: when the last of N processes has applied the key in-process (an agent's handler; a subscriber's
loop). One key of 24 bytes at a time, at a low rate: nothing is batched. Rounds alternate A B A B.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any

import redis_peer
from agents import NAMESPACE, agents, wait_until
from report import finish, over_rounds, percentile, show

from coherd.v1 import cache_service_pb2 as cache

WARM_UP = 30


def keys(round_: int, events: int) -> list[bytes]:
    return [b"user:%03d:%06d:profile.." % (round_, n) for n in range(events)]


def coherd_round(
    running: list[Any], stub: Any, round_: int, events: int, rate: float
) -> tuple[list[float], list[float]]:
    """Give the milliseconds from the call, and from the acceptance, to the last agent."""
    called: dict[bytes, int] = {}
    for key in keys(round_, events):
        called[key] = time.monotonic_ns()
        stub.Invalidate(cache.InvalidateRequest(namespace=NAMESPACE, keys=[key]))
        time.sleep(1 / rate)
    wait_until(lambda: all(agent.ask("rows") == events for agent in running), 30)
    answers = [agent.ask("times") for agent in running]
    last = {key: max(times[key] for times, _ in answers) for key in called}
    accepted = answers[0][1]
    return (
        [(last[key] - called[key]) / 1e6 for key in called],
        [(last[key] - accepted[key]) / 1e6 for key in called],
    )


def redis_round(port: int, pipes: list[Any], round_: int, events: int, rate: float) -> list[float]:
    """Give the milliseconds from PUBLISH to the last subscriber."""
    import redis

    client = redis.Redis(port=port)
    client.ping()
    for pipe in pipes:
        pipe.send(events)
    called: dict[bytes, int] = {}
    for key in keys(round_, events):
        called[key] = time.monotonic_ns()
        client.publish(redis_peer.CHANNEL, key)
        time.sleep(1 / rate)
    answers = [dict(pipe.recv()) for pipe in pipes]
    return [(max(times[key] for times in answers) - at) / 1e6 for key, at in called.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--peers", default="redis", help="comma-separated; known: redis")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--events", type=int, default=60)
    parser.add_argument("--rate", type=float, default=20.0, help="events a second")
    parser.add_argument("--quick", action="store_true", help="ends within a minute")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.events = 5, 40
    with_redis = redis_peer.is_wanted(arguments.peers)
    figures = measure(arguments, with_redis)
    rows = [
        ("coherd, from the call", figures["coherd_last_p50_ms"], figures["coherd_last_p99_ms"]),
        (
            "coherd, from acceptance",
            figures["coherd_accepted_last_p50_ms"],
            figures["coherd_accepted_last_p99_ms"],
        ),
    ]
    if with_redis:
        rows.append(("Redis Pub/Sub", figures["redis_last_p50_ms"], figures["redis_last_p99_ms"]))
    show(f"to the last of {arguments.agents}, ms", ("", "p50", "p99"), rows)
    if with_redis:
        print(f"  ratio of the medians: {figures['ratio_call_p50']:.2f} from the call")
    finish(figures)


def measure(arguments: argparse.Namespace, with_redis: bool) -> dict[str, Any]:
    called: list[list[float]] = []
    accepted: list[list[float]] = []
    peer: list[list[float]] = []
    count, events, rate = arguments.agents, arguments.events, arguments.rate
    with (
        agents(count) as running,
        redis_peer.server() as port,
        redis_peer.subscribers(port, count if with_redis else 0) as pipes,
    ):
        stub = running[0].cache()
        coherd_round(running, stub, 999, WARM_UP, rate)
        for round_ in range(arguments.rounds):
            from_call, from_acceptance = coherd_round(running, stub, round_, events, rate)
            called.append(from_call)
            accepted.append(from_acceptance)
            if with_redis:
                peer.append(redis_round(port, pipes, round_, events, rate))
    figures: dict[str, Any] = {
        "agents": count,
        "rounds": arguments.rounds,
        "coherd_last_p50_ms": round(over_rounds(called, 0.5), 3),
        "coherd_last_p99_ms": round(over_rounds(called, 0.99), 3),
        "coherd_accepted_last_p50_ms": round(over_rounds(accepted, 0.5), 3),
        "coherd_accepted_last_p99_ms": round(over_rounds(accepted, 0.99), 3),
    }
    if with_redis:
        figures["redis_last_p50_ms"] = round(over_rounds(peer, 0.5), 3)
        figures["redis_last_p99_ms"] = round(over_rounds(peer, 0.99), 3)
        for name, ours in (("call", called), ("accepted", accepted)):
            ratios = [
                percentile(c, 0.5) / percentile(p, 0.5) for c, p in zip(ours, peer, strict=True)
            ]
            figures[f"ratio_{name}_p50"] = round(median(ratios), 3)
    return figures


if __name__ == "__main__":
    main()
